"""What lies beside an engine file: everything that it takes to find, check and drive it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias

import torch

from engines.programs.program import Port, Program, Range
from models.frozen import FrozenModel

Precision: TypeAlias = Literal["fp16", "bf16"]
DTYPES: Mapping[Precision, torch.dtype] = {"fp16": torch.float16, "bf16": torch.bfloat16}


class TensorRecord(FrozenModel):
    """An input or output: sizes, or names of dynamic ones; dtype as torch calls it, without `torch.`."""

    name: str
    shape: tuple[int | str, ...]
    dtype: str

    @classmethod
    def of(cls, port: Port) -> TensorRecord:
        """Describe a program's port."""
        return cls(name=port.name, shape=port.shape, dtype=str(port.dtype).removeprefix("torch."))

    def shape_at(self, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """Return the shape at these sizes of the dynamic dimensions."""
        return tuple(sizes[size] if isinstance(size, str) else size for size in self.shape)

    @property
    def torch_dtype(self) -> torch.dtype:
        """The dtype itself."""
        dtype: torch.dtype = getattr(torch, self.dtype)
        return dtype


class ProfileRecord(FrozenModel):
    """The sizes of every dynamic dimension that one profile covers: (least, usual, most).

    Attributes:
        ranges: by the dimension's name.
        scale: the scale of VAR that the profile is for; None where a program has but one.
    """

    ranges: dict[str, tuple[int, int, int]]
    scale: int | None = None

    @property
    def most(self) -> dict[str, int]:
        """The largest sizes."""
        return {name: high for name, (_, _, high) in self.ranges.items()}

    def covers(self, sizes: dict[str, int]) -> bool:
        """Whether these sizes lie in the profile."""
        return all(low <= sizes[name] <= high for name, (low, _, high) in self.ranges.items())


class EngineRecord(FrozenModel):
    """The JSON sidecar of an engine.

    Attributes:
        model, version: what it was built from; the number is None for a directory outside a registry.
        weights: SHA-256 of each weights file of the version.
        program: which of the model's programs.
        precision: of convolutions and transformer layers.
        digest: SHA-256 of the exported program: ports, code, weights, exporter.
        key: SHA-256 of all that the engine was made from; the file's own bytes differ with every build.
        inputs, outputs: the tensors, in the order of the program.
        profiles: in the order of the engine.
        package, package_version: what built it; an engine runs with the very same alone.
        capabilities: GPUs that it was built for, e.g. `sm89`; empty: the one that it was built on.
        refittable: whether it takes new weights.
        layers: layers of each kind in the network as parsed.
        seconds: that the build took.
        peak_bytes: most memory that the building process had until then.
        file, size, sha256: the engine file.
    """

    format: Literal[1] = 1
    model: str
    version: int | None
    weights: dict[str, str]
    program: str
    precision: Precision
    digest: str
    key: str
    inputs: tuple[TensorRecord, ...]
    outputs: tuple[TensorRecord, ...]
    profiles: tuple[ProfileRecord, ...]
    package: str
    package_version: str
    capabilities: tuple[str, ...]
    refittable: bool
    layers: dict[str, int]
    seconds: float
    peak_bytes: int
    file: str
    size: int
    sha256: str


def profiles_of(program: Program) -> tuple[ProfileRecord, ...]:
    """Describe a program's profiles; where there are several each is for one scale."""
    several = len(program.profiles) > 1
    return tuple(
        ProfileRecord(
            ranges={name: _triple(span) for name, span in profile.items()},
            scale=index if several else None,
        )
        for index, profile in enumerate(program.profiles)
    )


def _triple(span: Range) -> tuple[int, int, int]:
    return span.least, span.usual, span.most
