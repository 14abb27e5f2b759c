"""The ways to run a model that are tried."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from engines.settings import EngineSettings
from models.frozen import FrozenModel

WayPrecision = Literal["float32", "bfloat16", "float16"]


class Way(FrozenModel):
    """A backend in a precision.

    Attributes:
        backend: see `EngineSettings`.
        precision: of its networks; float16 is TensorRT's alone.
    """

    backend: Literal["torch", "torch-compile", "torch-tensorrt", "tensorrt"]
    precision: WayPrecision

    @property
    def name(self) -> str:
        """What a report calls it."""
        return f"{self.backend}, {self.precision}"

    def settings(self, device: str, max_rows: int, folder: Path) -> EngineSettings:
        """Return the engine's settings; compiled engines are in `folder`, each precision's in its own."""
        return EngineSettings(
            backend=self.backend,
            device=device,
            precision="float32" if self.precision == "float32" else "bfloat16",
            max_rows=max_rows,
            cache=folder / "cache",
            compiled=folder / f"compiled-{self.precision}",
        )

    def missing(self, family: str, device: str) -> str | None:
        """Return why it cannot be tried on a model of this family here, or None."""
        if self.backend == "torch-tensorrt" and family == "var":
            return "it compiles diffusion networks alone"
        if self.backend in {"torch-tensorrt", "tensorrt"} and not device.startswith("cuda"):
            return f"it needs an NVIDIA GPU, not {device}"
        packages = {"torch-tensorrt": ("torch_tensorrt",), "tensorrt": ("tensorrt", "tensorrt_rtx")}
        wanted = packages.get(self.backend, ("torch",))
        if all(find_spec(package) is None for package in wanted):
            return f"the package {' or '.join(wanted)} is not installed"
        return None


WAYS = (
    Way(backend="torch", precision="float32"),
    Way(backend="torch", precision="bfloat16"),
    Way(backend="torch-compile", precision="float32"),
    Way(backend="torch-compile", precision="bfloat16"),
    Way(backend="torch-tensorrt", precision="bfloat16"),
    Way(backend="tensorrt", precision="bfloat16"),
    Way(backend="tensorrt", precision="float16"),
)
