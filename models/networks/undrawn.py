"""Networks whose weights are about to be replaced."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch.overrides import TorchFunctionMode


class Undrawn(TorchFunctionMode):
    """Within a `with` block, `torch.nn.init` leaves new weights as they are: memory that was never written.

    To draw weights takes longer than to read them. The meta device would spare that too, but PyTorch imports
    its compiler, for 1.5 s, at the first arithmetic there.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Return the tensor that `func` would fill, or what `func` returns if it fills none."""
        given = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            return given["tensor"]
        return func(*args, **given)
