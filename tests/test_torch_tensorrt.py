"""The Torch-TensorRT backend asks the package for what its documentation says; no GPU runs here."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from reference import fill, relative_error
from test_loading import edm2_version, var_version
from tiny_programs import SMALL_EDM2
from torch_tensorrt_double import TorchTensorRTDouble

import engines
from engines.backends.base import Backend
from engines.backends.torch_backend import TorchBackend
from engines.backends.torch_tensorrt_backend import TorchTensorRTBackend
from engines.base import ImageRequest
from engines.diffusion import DiffusionEngine
from engines.errors import EngineError
from engines.programs.diffusion_step import DiffusionStep
from engines.settings import EngineSettings
from models import build
from models.spec import DiffusionDefaults

CPU = torch.device("cpu")


def samples(backend: Backend) -> torch.Tensor:
    network = fill(build(SMALL_EDM2))
    engine = DiffusionEngine(
        DiffusionStep(network, network),
        backend,
        None,
        shape=(3, 8, 8),
        defaults=DiffusionDefaults(steps=2),
        num_classes=10,
        max_rows=4,
    )
    requests = [ImageRequest(class_id=3, seed=1), ImageRequest(class_id=5, seed=2, cfg=1.4)]
    rows = [engine.open(engine.resolve(request)) for request in requests]
    for row in rows:
        while row.calls_left:
            engine.step([row])
    return torch.stack([torch.from_numpy(engine.sample(row)) for row in rows])


def test_both_lanes_are_compiled_for_any_batch_and_give_the_samples() -> None:
    double = TorchTensorRTDouble()
    made = samples(TorchTensorRTBackend(CPU, torch.float32, max_rows=4, api=double))
    assert relative_error(made, samples(TorchBackend(CPU, torch.float32))) < 1e-5
    plain, guided = double.compiled
    names = ["state", "sigma", "update", "class_ids"]
    assert [given.name for given in plain] == names
    assert [given.name for given in guided] == [*names, "scale"]
    assert (plain[0].min_shape, plain[0].opt_shape, plain[0].max_shape) == (
        (1, 3, 3, 8, 8),
        (4, 3, 3, 8, 8),
        (4, 3, 3, 8, 8),
    )
    assert [given.dtype for given in plain] == [*[torch.float32] * 3, torch.int64]


def test_a_refusal_is_told() -> None:
    backend = TorchTensorRTBackend(CPU, torch.float32, max_rows=4, api=TorchTensorRTDouble("no such layer"))
    with pytest.raises(EngineError, match="cannot compile plain: no such layer"):
        samples(backend)


def test_a_missing_gpu_is_told(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="an NVIDIA GPU is needed"):
        engines.load(edm2_version(tmp_path), EngineSettings(backend="torch-tensorrt"))


def test_a_missing_package_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setitem(sys.modules, "torch_tensorrt", None)
    with pytest.raises(EngineError, match=r"pip install 'ddo-serve\[tensorrt\]'"):
        TorchTensorRTBackend.of(torch.device("cuda"), torch.bfloat16, max_rows=4)


def test_var_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="for VAR use 'tensorrt' or 'torch-compile'"):
        engines.load(var_version(tmp_path), EngineSettings(backend="torch-tensorrt"))
