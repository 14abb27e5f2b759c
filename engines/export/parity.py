"""Whether an ONNX file computes what its program does, on a CPU by ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

import torch
from torch import Tensor

from engines.errors import EngineError
from engines.programs.program import Program

TOLERANCES = {torch.float32: 1e-5, torch.float16: 1e-2}
"""Relative L2 error allowed by the precision that a program computes in. ONNX Runtime on a CPU has no
convolutions in bfloat16, so that these cannot be checked."""


def run_onnx(path: Path, program: Program, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Return what the file makes of `inputs`, tensors on the CPU.

    Raises:
        EngineError: ONNX Runtime is missing.
    """
    try:
        runtime = import_module("onnxruntime")
    except ImportError as error:
        raise EngineError(
            f"checking an export needs ONNX Runtime: pip install 'ddo-serve[tensorrt-rtx]' ({error})"
        ) from error
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    feed = {port.name: tensor.numpy() for port, tensor in zip(program.inputs, inputs, strict=True)}
    names = [port.name for port in program.outputs]
    return tuple(torch.from_numpy(array) for array in session.run(names, feed))


def errors(
    path: Path, program: Program, sizes: Mapping[str, int], inputs: tuple[Tensor, ...] | None = None
) -> dict[str, float]:
    """Compare the file with the module.

    Args:
        path: the ONNX file.
        program: the module.
        sizes: of the dynamic dimensions.
        inputs: what the file is given, by default the same that the module is.

    Returns:
        By output the L2 norm of the difference over that of the module's; of integers the share that differs.
    """
    drawn = program.example(sizes)
    with torch.inference_mode():
        expected = program.module(*drawn)
    if isinstance(expected, Tensor):
        expected = (expected,)
    actual = run_onnx(path, program, drawn if inputs is None else inputs)
    names = (port.name for port in program.outputs)
    return {name: _error(own, other) for name, own, other in zip(names, actual, expected, strict=True)}


def check(path: Path, program: Program, tolerance: float) -> float:
    """Compare file and module at the smallest and the largest profile and return the largest error.

    Raises:
        EngineError: it is above `tolerance`; or ONNX Runtime is missing.
    """
    worst = 0.0
    for profile in {id(each): each for each in (program.profiles[0], program.profiles[-1])}.values():
        found = errors(path, program, {name: span.least for name, span in profile.items()})
        for output, error in found.items():
            if not error <= tolerance:  # NaN is an error, too
                raise EngineError(
                    f"the export of {program.name} does not compute what the network does: {output} is off "
                    f"by {error:.2g}, {tolerance:.2g} is allowed"
                )
            worst = max(worst, error)
    return worst


def _error(actual: Tensor, expected: Tensor) -> float:
    if not expected.is_floating_point():
        return float((actual != expected).double().mean())
    difference = (actual.double() - expected.double()).norm()
    return float(difference / expected.double().norm())
