"""What torch.compile makes is what the networks compute, for every batch size and lane."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from graph_double import GraphDouble
from reference import fill, relative_error
from test_loading import unconditional_version, var_version
from torch import nn

from engines import EngineSettings, load
from engines.backends.base import Backend
from engines.backends.torch_backend import TorchBackend
from engines.backends.torch_compile_backend import TorchCompileBackend
from engines.base import ImageRequest
from engines.compiled import compile_function
from engines.diffusion import DiffusionEngine
from engines.errors import EngineError
from engines.programs.diffusion_step import DiffusionStep
from models.spec import DiffusionDefaults
from models.version import ModelVersion

CPU = torch.device("cpu")


class Denoiser(nn.Module):
    """As little as a backend takes: compiling a network of the tests takes half a minute."""

    label_dim = 10

    def __init__(self) -> None:
        super().__init__()
        self.labels = nn.Linear(10, 8)
        self.before, self.after = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 3, 3, padding=1)

    def prepare_inference(self, dtype: torch.dtype) -> None:
        assert dtype == torch.float32

    def forward(self, x: torch.Tensor, sigma: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        scaled = x / (1 + sigma.reshape(-1, 1, 1, 1) ** 2).sqrt()
        hidden = self.before(scaled) + self.labels(labels)[:, :, None, None]
        return self.after(nn.functional.silu(nn.functional.group_norm(hidden, 2)))


def engine_of(backend: Backend) -> DiffusionEngine:
    return DiffusionEngine(
        DiffusionStep(fill(Denoiser()), None),
        backend,
        None,
        shape=(3, 8, 8),
        defaults=DiffusionDefaults(steps=2),
        num_classes=10,
        max_rows=2,
    )


def samples_of(engine: DiffusionEngine, seeds: list[int]) -> torch.Tensor:
    rows = [engine.open(engine.resolve(ImageRequest(class_id=3, seed=seed))) for seed in seeds]
    while rows[0].calls_left:
        engine.step(rows)
    for row in rows:
        engine.close(row)
    return torch.stack([torch.from_numpy(engine.sample(row)) for row in rows])


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU")
def test_compiled_samples_are_the_networks() -> None:
    compiled = engine_of(TorchCompileBackend(CPU, torch.float32, None))
    samples = samples_of(compiled, [1, 2])
    assert relative_error(samples, samples_of(engine_of(TorchBackend(CPU, torch.float32)), [1, 2])) < 1e-4
    alone = torch.cat([samples_of(compiled, [seed]) for seed in (1, 2)])
    assert torch.equal(samples, alone)


def test_graphs_are_captured_at_the_start_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The backend's own work, with the compiler left out and a double in place of the GPU."""
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    device = GraphDouble()
    engine = engine_of(TorchCompileBackend(CPU, torch.float32, device))
    assert device.captures == 2  # batch sizes 1 and 2
    samples = samples_of(engine, [1, 2])
    assert relative_error(samples, samples_of(engine_of(TorchBackend(CPU, torch.float32)), [1, 2])) < 1e-4
    assert device.captures == 2


@pytest.mark.parametrize("make_version", [unconditional_version, var_version])
def test_settings_choose_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_version: Callable[[Path], ModelVersion]
) -> None:
    compiled: list[object] = []
    monkeypatch.setattr(torch, "compile", lambda function, **_: compiled.append(function) or function)
    version = make_version(tmp_path)
    images = []
    for backend in ("torch", "torch-compile"):
        settings = EngineSettings(backend=backend, precision="float32", max_rows=1, cache=tmp_path / "cache")
        engine: Any = load(version, settings)
        request = ImageRequest(class_id=3 if version.spec.class_names else None, seed=1)
        row = engine.open(engine.resolve(request))
        while row.calls_left:
            engine.step([row])
        images.append(engine.image(row))
    assert np.array_equal(*images)
    assert len(compiled) == (version.spec.family != "var")  # which is not compiled


def test_a_compiler_that_fails_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(function: object, inputs: object, **_: object) -> None:
        raise RuntimeError("no Triton here")

    monkeypatch.setattr("torch._inductor.compile_fx.compile_fx", fails)
    with pytest.raises(EngineError, match=r"no Triton here.*backend 'torch' needs neither"):
        compile_function(lambda x: x + 1)(torch.ones(2))
