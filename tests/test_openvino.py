"""OpenVINO computes what the networks compute, keeps what it compiled, and is chosen on a CPU."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import openvino  # type: ignore[import-untyped]
import pytest
import torch
from reference import DATA, at_noise_level, fill, load_arrays, noise, relative_error
from test_loading import unconditional_version

from engines import EngineSettings, load
from engines.backends import openvino_backend
from engines.backends.artifact_cache import ArtifactCache
from engines.backends.base import Backend
from engines.backends.openvino_backend import OpenVinoBackend
from engines.backends.openvino_channels_last import keep_channels_last
from engines.backends.torch_backend import TorchBackend
from engines.base import ImageRequest
from engines.diffusion import DiffusionEngine
from engines.errors import EngineError
from engines.programs.decoders import vqvae_program
from engines.programs.diffusion_step import DiffusionStep
from models import build
from models.registry import Registry
from models.spec import DiffusionDefaults
from models.version import ModelVersion
from server.settings import BUNDLED

needs_bfloat16 = pytest.mark.skipif(
    not torch.cpu._is_avx512_bf16_supported(), reason="the CPU emulates bfloat16"
)
TINY = ("edm-song-vp-tiny-cond", "edm-adm-tiny-cond", "edm-song-ve-tiny-cond", "edm2-tiny")


def network(name: str) -> torch.nn.Module:
    return fill(build(json.loads((DATA / f"{name}.json").read_text())["init"]))


def backend(dtype: torch.dtype, cache: Path | None = None, identity: str = "filled") -> OpenVinoBackend:
    return OpenVinoBackend(
        dtype,
        identity=identity,
        cache=ArtifactCache(cache) if cache else None,
        threads=torch.get_num_threads(),
        max_rows=4,
    )


class Evaluation:
    """One evaluation of a network at low, middle and high noise, and what torch makes of it in float32."""

    def __init__(self, original: torch.nn.Module) -> None:
        side, channels = original.img_resolution, original.img_channels
        self.network = original
        self.sigma = torch.tensor([0.01, 0.3, 2.0, 60.0])
        self.x = at_noise_level(noise("openvino/x", (4, channels, side, side)), self.sigma)
        self.class_ids = torch.arange(4)
        labels = torch.nn.functional.one_hot(self.class_ids, original.label_dim).float()
        with torch.inference_mode():
            self.exact = original(self.x, self.sigma, labels)

    def errors(self, by: Backend) -> list[float]:
        """Return the relative error of each row."""
        run = by.compile(DiffusionStep(copy.deepcopy(self.network), None))
        update = torch.tensor([[[0.0, 1.0]]]).expand(4, -1, -1)
        actual = run(self.x[:, None], self.sigma, self.class_ids, update, None)[:, 0]
        return [relative_error(own, expected) for own, expected in zip(actual, self.exact, strict=True)]


@pytest.mark.parametrize("name", TINY)
def test_an_evaluation_in_float32_is_the_networks(name: str) -> None:
    assert max(Evaluation(network(name)).errors(backend(torch.float32))) < 1e-5


@pytest.mark.parametrize("name", TINY)
@needs_bfloat16
def test_bfloat16_is_as_close_as_in_torch_at_every_noise_level(name: str) -> None:
    evaluation = Evaluation(network(name))
    errors = evaluation.errors(backend(torch.bfloat16))
    assert 1e-6 < max(errors) < 1.2e-2
    assert max(errors) < max(evaluation.errors(TorchBackend(torch.device("cpu"), torch.bfloat16)))


def test_beside_openvino_torch_keeps_to_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    original, threads = network("edm-song-vp-tiny-cond"), []
    embed = original.embed

    def watched(*inputs: torch.Tensor) -> torch.Tensor:
        threads.append(torch.get_num_threads())
        return embed(*inputs)  # type: ignore[no-any-return]

    monkeypatch.setattr(original, "embed", watched)
    run = backend(torch.float32).compile(DiffusionStep(original, None))
    side, before = original.img_resolution, torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        ones = torch.ones(1, 1, original.img_channels, side, side)
        run(ones, torch.ones(1), torch.zeros(1, dtype=torch.long), torch.ones(1, 1, 2), None)
        assert (threads, torch.get_num_threads()) == ([1], 2)
    finally:
        torch.set_num_threads(before)


@needs_bfloat16
def test_bfloat16_is_close_with_trained_weights() -> None:
    trained = Registry(BUNDLED).open("emoji-edm", 1).network("main")
    assert 1e-6 < max(Evaluation(trained).errors(backend(torch.bfloat16))) < 1e-2


class Conditioned(torch.nn.Module):
    """Convolutions with a condition and a normalisation before each, as a U-Net's blocks have them."""

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = torch.nn.ModuleList(torch.nn.Conv2d(48, 48, 3, padding=1) for _ in range(7))
        self.norms = torch.nn.ModuleList(torch.nn.GroupNorm(12, 48) for _ in range(7))
        self.affine = torch.nn.Linear(8, 48)

    def forward(self, x: torch.Tensor, emb: torch.Tensor) -> torch.Tensor:
        for norm, convolution in zip(self.norms, self.convolutions, strict=True):
            x = convolution(torch.nn.functional.silu(norm(x + self.affine(emb)[:, :, None, None])))
        return x


def images_of(compiled: openvino.CompiledModel) -> list[openvino.Node]:
    """Return the steps whose result is as large as an image."""
    steps = [step for step in compiled.get_runtime_model().get_ops() if step.outputs()]
    return [step for step in steps if str(step.get_output_partial_shape(0)).endswith(",16,16]")]


@pytest.mark.filterwarnings("ignore")  # of the tracer
def test_pixels_keep_their_channels_together_from_one_convolution_to_the_next() -> None:
    module, core = Conditioned().eval(), openvino.Core()
    inputs = noise("openvino/pixels", (3, 48, 16, 16)) * 2 + 1, noise("openvino/condition", (3, 8))
    results, copies = [], []
    for rewrite in (False, True):
        model = openvino.convert_model(torch.jit.trace(module, inputs))  # type: ignore[no-untyped-call]
        model.reshape({0: openvino.PartialShape([-1, 48, 16, 16]), 1: openvino.PartialShape([-1, 8])})
        if rewrite:
            keep_channels_last(model)
        compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        results.append(torch.from_numpy(compiled([value.numpy() for value in inputs])[0].copy()))
        kinds = [step.get_rt_info()["layerType"].astype(str) for step in images_of(compiled)]
        copies.append(kinds.count("Reorder"))
    assert relative_error(results[1], results[0]) < 1e-5
    assert copies[1] <= copies[0] - 4, copies


def test_what_the_backend_compiles_was_rewritten(monkeypatch: pytest.MonkeyPatch) -> None:
    evaluation = Evaluation(network("edm-song-vp-tiny-cond"))
    rewritten = evaluation.errors(backend(torch.float32))
    monkeypatch.setattr(openvino_backend, "keep_channels_last", lambda model: None)
    assert rewritten != evaluation.errors(backend(torch.float32))


@pytest.mark.parametrize("steps", [6, 18])
def test_samples_of_edm_are_the_original_samplers(steps: int) -> None:
    name = "edm-song-vp-tiny-cond"
    arrays = load_arrays(name)
    engine = DiffusionEngine(
        DiffusionStep(network(name), None),
        backend(torch.float32),
        None,
        shape=(3, 16, 16),
        defaults=DiffusionDefaults(steps=steps),
        num_classes=10,
        max_rows=2,
    )
    rows = []
    for label, own in zip(arrays["labels"], noise(f"{name}/latents", (2, 3, 16, 16)), strict=False):
        row = engine.open(engine.resolve(ImageRequest(class_id=int(label.argmax()), seed=0)))
        row.state[0] = own * row.table.start
        rows.append(row)
    while rows[0].calls_left:
        engine.step(rows)
    samples = torch.from_numpy(np.stack([engine.sample(row) for row in rows]))
    assert relative_error(samples, arrays[f"heun{steps}"]) < 1e-4


@pytest.mark.parametrize("rows", [1, 3])
def test_a_pixel_decoder_is_the_tokenizers(rows: int) -> None:
    vqvae = network("var-tiny.vqvae")
    features = noise("openvino/features", (rows, 32, 4, 4))
    run = backend(torch.float32).compile_program(vqvae_program(vqvae, max_rows=4))
    with torch.inference_mode():
        assert relative_error(run(features), vqvae.decode_features(features)) < 1e-5


def make_image(version: ModelVersion, cache: Path) -> np.ndarray:
    engine = load(version, EngineSettings(backend="openvino", max_rows=2, cache=cache))
    row = engine.open(engine.resolve(ImageRequest(class_id=None, seed=1)))  # type: ignore[union-attr]
    while row.calls_left:
        engine.step([row])  # type: ignore[list-item]
    return engine.image(row)  # type: ignore[arg-type]


def test_what_was_compiled_is_found_again_and_damage_changes_no_image(tmp_path: Path) -> None:
    (tmp_path / "version").mkdir()
    version, cache = unconditional_version(tmp_path / "version"), tmp_path / "cache"
    first = make_image(version, cache)
    assert len(list(cache.glob("*.bin"))) == 2  # the trunk and the batch sizes
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.jit, "trace", lambda *_, **__: pytest.fail("compiled again"))
        np.testing.assert_array_equal(first, make_image(version, cache))
        for path in cache.glob("*.bin"):
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(BaseException, match="compiled again"):
            make_image(version, cache)
    np.testing.assert_array_equal(first, make_image(version, cache))


def test_other_weights_are_compiled_anew(tmp_path: Path) -> None:
    x, sigma = torch.randn(1, 1, 3, 16, 16), torch.ones(1)
    results = []
    for identity, salt in (("one", ""), ("two", "other/"), ("one", "")):
        step = DiffusionStep(fill(network("edm-song-vp-tiny-cond"), salt), None)
        run = backend(torch.float32, tmp_path, identity).compile(step)
        results.append(run(x, sigma, torch.tensor([3]), torch.tensor([[[0.0, 1.0]]]), None))
    assert torch.equal(results[0], results[2])
    assert not torch.equal(results[0], results[1])


def without_openvino(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.delitem(sys.modules, "engines.backends.openvino_backend")


def test_auto_falls_back_to_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[str] = []
    original = TorchBackend.compile
    monkeypatch.setattr(
        TorchBackend, "compile", lambda self, step: compiled.append("torch") or original(self, step)
    )
    version = unconditional_version(tmp_path)
    auto = EngineSettings(max_rows=1, precision="float32", cache=tmp_path.parent / "cache")
    load(version, auto)
    assert not compiled
    without_openvino(monkeypatch)
    load(version, auto)
    assert compiled == ["torch"]
    with pytest.raises(EngineError, match="pip install openvino"):
        load(version, auto.model_copy(update={"backend": "openvino"}))


def test_openvino_runs_on_the_cpu_alone(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="runs on the CPU, not on meta"):
        load(unconditional_version(tmp_path), EngineSettings(backend="openvino", device="meta"))


def test_nobody_is_told_that_it_is_used() -> None:
    code = "import engines.backends.openvino_backend, sys; print(sys.modules.get('openvino_telemetry'))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout == "None\n"
