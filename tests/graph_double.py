"""A stand-in for CUDA graphs on a CPU: it replays operations on the memory that they had at the capture."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from engines.cuda import Work


class GraphDouble:
    """The device that goes with it. As with a GPU, a replay runs no Python and reads fixed addresses.

    Attributes:
        captures: how many graphs there are.
        replays: how many were launched.
    """

    def __init__(self) -> None:
        self.device = torch.device("cpu")
        self.captures = self.replays = 0

    def run(self, work: Work) -> None:
        work(0)

    def capture(self, work: Work) -> Callable[[], None]:
        work(0)
        with _Recording() as recording:
            work(0)
        self.captures += 1

        def replay() -> None:
            self.replays += 1
            with torch.inference_mode():
                recording.replay()

        return replay


class _Recording(TorchDispatchMode):
    """Keeps every operation with its arguments and what it wrote."""

    def __init__(self) -> None:
        super().__init__()
        self._operations: list[tuple[Any, Sequence[Any], Mapping[str, Any], Any]] = []

    def __torch_dispatch__(
        self, function: Any, types: Any, arguments: Sequence[Any] = (), named: Any = None
    ) -> Any:
        result = function(*arguments, **(named or {}))
        self._operations.append((function, arguments, named or {}, result))
        return result

    def replay(self) -> None:
        for function, arguments, named, written in self._operations:
            for place, value in zip(
                tree_leaves(written), tree_leaves(function(*arguments, **named)), strict=True
            ):
                # Views and what was written in place lie in the same memory already.
                if isinstance(place, torch.Tensor) and place.data_ptr() != value.data_ptr():
                    place.copy_(value)
