"""Reference vectors: what the original implementations give for weights filled by a fixed rule."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

DATA = Path(__file__).parent / "data"

Module = TypeVar("Module", bound=nn.Module)


@dataclass(frozen=True, kw_only=True)
class Reference:
    """One file of vectors: `spec` is its `.json`, `arrays` its `.npz` as tensors."""

    spec: dict[str, Any]
    arrays: dict[str, torch.Tensor]

    def __getitem__(self, name: str) -> torch.Tensor:
        return self.arrays[name]

    @property
    def init(self) -> dict[str, Any]:
        return dict(self.spec["init"])

    def input(self, name: str, number: int | None = None) -> torch.Tensor:
        """Draw the input called `name`; `number` tells apart those that are drawn step by step."""
        drawn = self.spec["inputs"][name]
        return noise(drawn["tag"] if number is None else drawn["tag"] % number, drawn["shape"])

    def noisy(self) -> torch.Tensor:
        """Return the input `x` at the standard deviation that data with noise `sigma` has."""
        return at_noise_level(self.input("x"), self["sigma"])


def load(name: str) -> Reference:
    spec = json.loads((DATA / f"{name}.json").read_text())
    return Reference(spec=spec, arrays=load_arrays(name))


def load_arrays(name: str) -> dict[str, torch.Tensor]:
    with np.load(DATA / f"{name}.npz") as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays.files}


def at_noise_level(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """Scale unit noise `x` (B, C, H, W) to the deviation of data (0.5) with noise of `sigma` (B,)."""
    return x * (sigma.reshape(-1, 1, 1, 1) ** 2 + 0.25).sqrt()


def noise(tag: str, shape: Sequence[int]) -> torch.Tensor:
    """Draw the standard normal float32 input called `tag`."""
    return torch.from_numpy(_generator(tag).standard_normal(tuple(shape)).astype(np.float32))


def tensor_values(name: str, shape: Sequence[int], salt: str = "") -> npt.NDArray[np.float32]:
    """Draw the weights of the tensor called `name`.

    Deviation 1 / sqrt(fan-in) for two or more dimensions and 0.1 otherwise; gains and scalars lie around 1.
    """
    rng = _generator(salt + name)
    if name.endswith(".phases"):
        return (2 * np.pi * rng.random(tuple(shape))).astype(np.float32)
    unit = rng.standard_normal(tuple(shape))
    if name.endswith(".freqs"):
        values = 2 * np.pi * unit
    elif len(shape) >= 2:
        values = unit / np.sqrt(np.prod(shape[1:]))
    elif len(shape) == 1 and not name.endswith(".weight"):
        values = 0.1 * unit
    else:
        values = 1 + 0.1 * unit
    return np.asarray(values, dtype=np.float32)


@torch.no_grad()
def fill(module: Module, salt: str = "") -> Module:
    """Fill `module`'s parameters and Fourier buffers in place by the rule; return it in evaluation mode."""
    fourier = [item for item in module.named_buffers() if item[0].endswith((".freqs", ".phases"))]
    for name, tensor in [*module.named_parameters(), *fourier]:
        tensor.copy_(torch.from_numpy(tensor_values(name, tensor.shape, salt)))
    return module.eval().requires_grad_(False)


def schema_of(module: nn.Module) -> dict[str, dict[str, Any]]:
    """Return what a `.json` says under `tensors`."""
    parameters = dict(module.named_parameters())
    return {
        name: {
            "shape": list(tensor.shape),
            "dtype": str(tensor.dtype).removeprefix("torch."),
            "kind": "parameter" if name in parameters else "buffer",
        }
        for name, tensor in module.state_dict().items()
    }


def relative_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """Return the L2 norm of the difference over that of `expected`; both must have one shape."""
    assert actual.shape == expected.shape, f"{tuple(actual.shape)} is not {tuple(expected.shape)}"
    return float((actual.double() - expected.double()).norm() / expected.double().norm())


def _generator(key: str) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=zlib.crc32(key.encode())))
