"""3x3 convolutions in float32 by Winograd's F(4x4, 3x3) (Lavin & Gray 2016, arXiv 1509.09308), on the CPU.

The mathematics is in `winograd_matrices.h`. Results are off by about 1e-6, relative, by rounding; a direct
convolution's by 2e-7.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import math
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import structlog
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils.cpp_extension import load

from engines.backends.artifact_cache import default_folder

TILE = 4
MIN_CHANNELS = 64  # on both sides; with fewer the transforms cost what the products save
MIN_TILES = 64  # in a batch; with fewer the weights' transform does
SOURCES = ("winograd.cpp", "winograd_matrices.h")
# Vectors of AVX-512 for every CPU that has it, so that machines may share a folder. OpenMP is told to the
# compiler but not to the linker: the threads are those of PyTorch's own library, which is loaded already.
FLAGS = ("-O3", "-march=x86-64-v4", "-fno-math-errno", "-fopenmp")


class WinogradConvolutions(TorchFunctionMode):
    """While it is entered `torch.nn.functional.conv2d` takes Winograd's algorithm where that pays.

    Its kernels must be loaded (`load_kernels`).
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call `func`, or ours in its place."""
        kwargs = kwargs or {}
        if func is F.conv2d and pays(*args, **kwargs):
            return _convolve(*args, **kwargs)
        return func(*args, **kwargs)


def pays(input: Tensor, weight: Tensor, bias: Tensor | None = None, *geometry: Any, **named: Any) -> bool:
    """Tell whether Winograd's algorithm computes this convolution, and faster; arguments are `conv2d`'s."""
    return (
        input.ndim == 4
        and input.dtype == weight.dtype == torch.float32
        and input.device.type == "cpu"
        and fits(weight)
        and _keeps_size(*geometry, **named)
        and not any(side % TILE for side in input.shape[2:])
        and input.shape[0] * math.prod(input.shape[2:]) >= MIN_TILES * TILE**2
    )


def fits(weight: Tensor) -> bool:
    """Tell whether these are the weights (out, in, 3, 3) of a wide 3x3 convolution."""
    return weight.ndim == 4 and weight.shape[2:] == (3, 3) and min(weight.shape[:2]) >= MIN_CHANNELS


def fast_convolutions(network: nn.Module, device: torch.device) -> AbstractContextManager[object]:
    """Return what to enter around forward and backward passes of `network`, again and again.

    It does nothing where there is no gain to be had: another device, no AVX-512, no wide 3x3 convolutions, or
    no way to build the kernels, which the log then says.
    """
    if device.type != "cpu" or torch.backends.cpu.get_cpu_capability() != "AVX512":
        return nullcontext()
    if not any(fits(weight) for weight in network.parameters()):
        return nullcontext()
    return WinogradConvolutions() if load_kernels() else nullcontext()


@functools.cache
def load_kernels() -> bool:
    """Make `torch.ops.winograd` known, with its gradients; build it first if this machine has not yet.

    Building takes about half a minute, a C++ compiler and ninja; the user's cache folder keeps the library.

    Returns:
        Whether it is; the log says why not.
    """
    try:
        _load(default_folder() / f"winograd-{_key()}.so")
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        reason = str(error).partition("\n")[0]
        structlog.get_logger(__name__).warning("convolutions are not accelerated", reason=reason)
        return False
    torch.library.register_fake("winograd::convolve", _shape_of_output)
    torch.library.register_fake("winograd::input_gradient", _shape_of_input)
    torch.library.register_fake("winograd::weight_gradient", _shape_of_weight)
    torch.library.register_autograd("winograd::convolve", _backward, setup_context=_remember)
    return True


def _load(library: Path) -> None:
    with contextlib.suppress(OSError):  # it is not there, or damaged
        torch.ops.load_library(library)  # type: ignore[no-untyped-call]
        return
    library.parent.mkdir(parents=True, exist_ok=True)
    # Built aside and renamed: a lock file, PyTorch's way, would block all that come after a killed build.
    with tempfile.TemporaryDirectory(dir=library.parent, prefix=".new-") as directory:
        source = str(Path(__file__).with_name(SOURCES[0]))
        load(library.stem, [source], extra_cflags=[*FLAGS], build_directory=directory, is_python_module=False)
        (Path(directory) / library.name).rename(library)


def _key() -> str:
    content = [Path(__file__).with_name(name).read_bytes() for name in SOURCES]
    parts = (*content, *map(str.encode, (torch.__version__, *FLAGS)))
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def _keeps_size(stride: object = 1, padding: object = 0, dilation: object = 1, groups: int = 1) -> bool:
    return groups == 1 and all(value in (1, (1, 1), [1, 1]) for value in (stride, padding, dilation))


def _convolve(input: Tensor, weight: Tensor, bias: Tensor | None = None, *_: object, **__: object) -> Tensor:
    output: Tensor = torch.ops.winograd.convolve(input, weight, bias)
    return output


def _shape_of_output(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[0], *x.shape[2:])


def _shape_of_input(gradient: Tensor, weight: Tensor) -> Tensor:
    return gradient.new_empty(gradient.shape[0], weight.shape[1], *gradient.shape[2:])


def _shape_of_weight(x: Tensor, gradient: Tensor) -> Tensor:
    return x.new_empty(gradient.shape[1], x.shape[1], 3, 3)


def _remember(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor | None], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:2])


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    x, weight = ctx.saved_tensors
    of_input, of_weight, of_bias = ctx.needs_input_grad
    return (
        torch.ops.winograd.input_gradient(gradient, weight) if of_input else None,
        torch.ops.winograd.weight_gradient(x, gradient) if of_weight else None,
        gradient.sum((0, 2, 3)) if of_bias else None,
    )
