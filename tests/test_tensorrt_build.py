"""Engines are built without a GPU, in both precisions, and whatever TensorRT passes over is an error."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tiny_programs import SMALL_EDM, SMALL_EDM2, diffusion, prepared, var
from typer.testing import CliRunner

from engines import EngineSettings, load
from engines.cli import app
from engines.errors import EngineError
from engines.export.onnx import OnnxCache
from engines.programs.diffusion_step import DiffusionStep
from engines.programs.program import Program
from engines.tensorrt.api import tensorrt
from engines.tensorrt.build import Workshop
from engines.tensorrt.builder import Builder, Target, ahead_of_time_capabilities
from engines.tensorrt.log import check_log
from engines.tensorrt.record import DTYPES, Precision
from engines.tensorrt.store import EngineStore, StoredEngine
from models import build
from models.spec import DiffusionDefaults, Lineage, ModelSpec, NetworkSpec, PixelCodec
from models.version import ModelVersion, seal

api = pytest.importorskip("tensorrt_rtx")
ONE = Target(("sm89",))
VAR_LAYERS = {
    "scale": {"MATRIX_MULTIPLY", "SOFTMAX", "CONCATENATION"},
    "cached-scale": {"KV_CACHE_UPDATE", "ATTENTION_INPUT", "ATTENTION_OUTPUT"},
    "tokens": {"TOPK"},
    "pixels": {"CONVOLUTION", "NORMALIZATION", "RESIZE"},
}


def version_of(directory: Path, init: dict[str, object]) -> ModelVersion:
    directory.mkdir()
    save_file(dict(build(init).state_dict()), directory / "main.safetensors")
    spec = ModelSpec(
        name="small",
        family="edm2" if init["class_name"] == "Precond" else "edm",
        networks={"main": NetworkSpec(init=init, weights="main.safetensors")},
        codec=PixelCodec(),
        class_names=tuple("abcdefghij"),
        defaults=DiffusionDefaults(),
        guidance="label-dropout",
        licence="Apache-2.0",
        lineage=Lineage(source="a test"),
    )
    return seal(directory, spec)


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> ModelVersion:
    return version_of(tmp_path_factory.mktemp("versions") / "edm", SMALL_EDM)


@pytest.fixture(scope="module")
def shop(exports: OnnxCache, tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tensorrt(), exports, EngineStore(tmp_path_factory.mktemp("engines")), checked=True)


@pytest.fixture(scope="module", params=["fp16", "bf16"])
def precision(request: pytest.FixtureRequest) -> Precision:
    chosen: Precision = request.param
    return chosen


@pytest.fixture(scope="module")
def edm(precision: Precision) -> Program:
    return diffusion(DiffusionStep(prepared(SMALL_EDM, DTYPES[precision]), None))["plain"]


@pytest.fixture(scope="module")
def engine(shop: Workshop, version: ModelVersion, edm: Program, precision: Precision) -> StoredEngine:
    return shop.make(version, edm, precision=precision, target=ONE)


def test_an_edm_engine_says_what_it_is(engine: StoredEngine, version: ModelVersion, edm: Program) -> None:
    made = engine.record
    assert json.loads(engine.path.with_suffix(".json").read_text()) == made.model_dump(mode="json")
    assert (made.model, made.program, made.capabilities) == ("small", "plain", ("sm89",))
    assert made.weights == {"main": version.spec.files["main.safetensors"].sha256}
    assert [tensor.name for tensor in made.inputs] == [port.name for port in edm.inputs]
    assert made.profiles[0].ranges == {"batch": (1, 4, 4)}
    assert (made.package, made.package_version) == ("tensorrt_rtx", api.__version__)
    assert engine.path.stat().st_size == made.size > 10_000
    assert made.peak_bytes > 0


def test_group_norms_stay_native(engine: StoredEngine, edm: Program) -> None:
    norms = sum(isinstance(module, torch.nn.GroupNorm) for module in edm.module.modules())
    assert engine.record.layers["NORMALIZATION"] == norms
    assert engine.record.layers["SOFTMAX"] > 0


def test_an_engine_is_built_once(
    shop: Workshop, version: ModelVersion, edm: Program, precision: Precision, engine: StoredEngine
) -> None:
    built = engine.path.stat().st_mtime_ns
    assert shop.make(version, edm, precision=precision, target=ONE) == engine
    assert engine.path.stat().st_mtime_ns == built
    found = shop.store.find(version, "plain", package="tensorrt_rtx", package_version=api.__version__)
    assert found == engine


def test_a_damaged_engine_is_built_again(
    shop: Workshop, version: ModelVersion, edm: Program, precision: Precision, engine: StoredEngine
) -> None:
    engine.path.write_bytes(engine.path.read_bytes()[:-1])
    again = shop.make(version, edm, precision=precision, target=ONE)
    assert again.path == engine.path and again.intact()


@pytest.mark.parametrize("name", VAR_LAYERS)
def test_var_engines_have_all_profiles_and_their_layers(
    exports: OnnxCache, precision: Precision, name: str
) -> None:
    program = var(DTYPES[precision])[name]
    built = Builder(tensorrt()).build(program, exports.get(program).path, ONE)
    assert len(program.profiles) == (1 if name == "pixels" else 4)
    assert VAR_LAYERS[name] <= built.layers.keys()
    assert built.plan.nbytes > 10_000


def test_the_command_builds_edm2(tmp_path: Path) -> None:
    """A network that guides itself: two programs, one set of weights each."""
    directory = version_of(tmp_path / "edm2", SMALL_EDM2).directory
    out = tmp_path / "engines"
    arguments = ["build", str(directory), "--precision", "bf16", "--capability", "sm89", "--out", str(out)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    records = [json.loads(path.read_text()) for path in sorted((out / "small").glob("*.json"))]
    assert [made["program"] for made in records] == ["guided", "plain"]
    assert all(name in result.output for name in ("guided", "plain", "sm89", "bf16"))
    sizes = {made["program"]: made["size"] for made in records}
    assert sizes["guided"] < 1.3 * sizes["plain"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "has no model 'nowhere'"),
        (["nowhere", "--capability", "sm90"], "does not build for sm90; it builds for sm80"),
    ],
)
def test_the_command_says_what_is_wrong(tmp_path: Path, arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(app, ["build", *arguments, "--registry", str(tmp_path)])
    assert result.exit_code == 1
    assert message in result.output


def test_an_engine_that_is_not_there_is_named(shop: Workshop, version: ModelVersion) -> None:
    with pytest.raises(EngineError, match=r"no engine of small's 'pixels' .* python -m engines build"):
        shop.store.find(version, "pixels", package="tensorrt_rtx", package_version="1")


def test_every_gpu_is_built_for_by_default() -> None:
    assert Target.of(tensorrt(), ()).capabilities == ahead_of_time_capabilities(tensorrt())
    assert {"sm80", "sm86", "sm89", "sm120"} <= set(ahead_of_time_capabilities(tensorrt()))


@pytest.mark.parametrize(
    "text", ["Unused Input: nonpad_kv_seqlen", "something that nobody has seen", "Error Code 1: Myelin"]
)
def test_complaints_are_errors(text: str) -> None:
    with pytest.raises(EngineError, match=f"did not take plain as it is: {text}"):
        check_log([(None, text)], "plain")


def test_what_is_known_to_be_harmless_is_passed_over() -> None:
    check_log([(None, "ModelImporter.cpp:1071: Make sure input class_ids has Int64 binding.")], "plain")


def test_without_tensorrt_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    with pytest.raises(EngineError, match=r"pip install 'ddo-serve\[tensorrt-rtx\]'"):
        tensorrt()


def test_an_input_that_the_graph_lost_is_an_error(exports: OnnxCache, edm: Program) -> None:
    """The export of a network without labels, given to the builder as one with them."""
    init = {**SMALL_EDM, "label_dim": 0}
    other = diffusion(DiffusionStep(prepared(init, torch.float16), None))["plain"]
    with pytest.raises(EngineError, match="plain has the inputs"):
        Builder(tensorrt()).build(edm, exports.get(other).path, ONE)


def test_serving_without_a_gpu_says_what_is_missing(version: ModelVersion) -> None:
    with pytest.raises(EngineError, match="an NVIDIA GPU is needed"):
        load(version, EngineSettings(backend="tensorrt"))
