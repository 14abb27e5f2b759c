"""The runtime drives TensorRT as it wants to be driven: whole samplers pass through a double that refuses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from reference import load, load_arrays, noise, relative_error
from tensorrt_double import STREAM, CpuDevice, Strategy, TensorRTDouble, store
from tiny_programs import MAX_ROWS, diffusion, network, var
from var_tiny import make, tiny_engine

from engines.backends.tensorrt_backend import TensorRTBackend
from engines.backends.torch_backend import TorchBackend
from engines.base import ImageRequest
from engines.cuda import CudaDevice
from engines.diffusion import DiffusionEngine
from engines.errors import EngineError
from engines.export.onnx import OnnxCache
from engines.pixels import PixelDecoder
from engines.programs.diffusion_step import DiffusionStep
from engines.programs.program import Program
from engines.solvers import SolverTable, integrate, plan
from engines.tensorrt.log import logger_of
from engines.tensorrt.runtime import Engine
from engines.tensorrt.scale_decoder import TensorRTScaleDecoder
from models.spec import DiffusionDefaults, PixelCodec

WHOLE_SAMPLER = 1e-4
CPU = torch.device("cpu")
Load = Callable[..., Engine]


@pytest.fixture
def api() -> TensorRTDouble:
    return TensorRTDouble()


@pytest.fixture
def load_engine(api: TensorRTDouble, exports: OnnxCache, tmp_path: Path) -> Load:
    def load_one(program: Program, **options: object) -> Engine:
        stored = store(tmp_path, program, exports.get(program).path, **options)  # type: ignore[arg-type]
        return Engine(stored, CpuDevice(api), api)

    return load_one


@pytest.fixture(scope="module")
def tokens() -> Program:
    return var(torch.float32)["tokens"]


@pytest.mark.parametrize(
    ("vector", "table", "cfg"),
    [
        ("heun6", plan("heun", 6, DiffusionDefaults()), 1.0),
        ("heun6_guidance1_4", plan("heun", 6, DiffusionDefaults()), 1.4),
        ("dpmv3_5", plan("dpm-solver-v3", 5, DiffusionDefaults()), 1.0),
    ],
    ids=["heun", "guided", "dpm-solver-v3"],
)
def test_samplers_give_the_vectors(
    load_engine: Load, edm2: dict[str, Program], vector: str, table: SolverTable, cfg: float
) -> None:
    backend = TensorRTBackend({lane: load_engine(program) for lane, program in edm2.items()}, CPU)
    step = edm2["guided"].module.step
    run, arrays = backend.compile(step), load_arrays("edm2-tiny")
    classes = arrays["labels"][:2].argmax(dim=1)

    def denoise(x: torch.Tensor, sigma: float) -> torch.Tensor:
        state = x[:, None].repeat(1, 3, 1, 1, 1)
        update = torch.eye(4)[[3, 0, 0]].repeat(2, 1, 1)
        scale = None if cfg == 1.0 else torch.full((2,), cfg)
        return run(state, torch.full((2,), sigma), classes, update, scale)[:, 0]

    sample = integrate(table, denoise, noise("edm2-tiny/latents", (2, 3, 16, 16)))
    assert relative_error(sample, arrays[vector]) < WHOLE_SAMPLER


def test_the_diffusion_engine_makes_the_images_that_torch_makes(
    load_engine: Load, edm2: dict[str, Program]
) -> None:
    lanes = {lane: load_engine(program) for lane, program in edm2.items()}
    samples = []
    for backend in (TensorRTBackend(lanes, CPU), TorchBackend(CPU, torch.float32)):
        engine = DiffusionEngine(
            DiffusionStep(network("edm2-tiny"), network("edm2-tiny-uncond", salt="guide/")),
            backend,
            PixelDecoder(PixelCodec()),
            shape=(3, 16, 16),
            defaults=DiffusionDefaults(steps=3),
            num_classes=10,
            max_rows=MAX_ROWS,
        )
        requests = [ImageRequest(class_id=3, seed=1), ImageRequest(class_id=5, seed=2, cfg=1.4)]
        rows = [engine.open(engine.resolve(request)) for request in requests]
        for row in rows:
            while row.calls_left:
                engine.step([row])
        samples.append(torch.stack([torch.from_numpy(engine.sample(row)) for row in rows]))
    assert relative_error(*samples) < WHOLE_SAMPLER


@pytest.mark.parametrize("weight", [0.0, 1.5])
def test_var_decodes_the_vectors(load_engine: Load, weight: float) -> None:
    """All scales, keys and values kept between calls; then the pixels."""
    programs, reference = var(torch.float32), load("var-tiny")
    engine = tiny_engine(
        max_rows=2,
        capacity=2,
        greedy=True,
        transformer=partial(TensorRTScaleDecoder, engine=load_engine(programs["scale"])),
    )
    requests = [
        ImageRequest(class_id=int(label), seed=0, var_raw_cfg=weight) for label in reference["labels"]
    ]
    rows = make(engine, requests)
    for row, expected in zip(rows, reference[f"greedy_tokens_varcfg{weight}"], strict=True):
        assert torch.equal(row.tokens, expected)
    (images,) = load_engine(programs["pixels"])(torch.cat([row.features for row in rows]))
    expected = reference[f"greedy_image_varcfg{weight}"]
    assert relative_error((images + 1) / 2, expected) < WHOLE_SAMPLER


def test_tokens_are_drawn_as_torch_draws_them(load_engine: Load, tokens: Program) -> None:
    inputs = tokens.example({"batch": 3, "tokens": 9})
    (ids,) = load_engine(tokens)(*inputs)
    assert torch.equal(ids, tokens.module(*inputs))


def test_a_size_is_captured_once_and_then_replayed(
    api: TensorRTDouble, load_engine: Load, tokens: Program
) -> None:
    engine = load_engine(tokens)
    engine.warm_up({"batch": 2, "tokens": 4})
    assert api.executions == 1  # what sets TensorRT up; the capture itself computes nothing
    first, second = (tokens.example({"batch": 2, "tokens": 4}, seed) for seed in (1, 2))
    results = [engine(*first)[0], engine(*second)[0]]
    assert api.executions == 3
    assert torch.equal(results[0], tokens.module(*first)) and torch.equal(results[1], tokens.module(*second))


def test_sizes_share_memory_but_not_results(load_engine: Load, tokens: Program) -> None:
    engine = load_engine(tokens)
    inputs = [tokens.example({"batch": 2, "tokens": count}) for count in (16, 1, 4, 16)]
    results = [engine(*given)[0] for given in inputs]
    for given, result in zip(inputs, results, strict=True):
        assert torch.equal(result, tokens.module(*given))


def test_sizes_outside_every_profile_are_refused(load_engine: Load, tokens: Program) -> None:
    engine = load_engine(tokens)
    with pytest.raises(EngineError, match=r"no profile of tokens covers .*'tokens': 5"):
        engine(*tokens.example({"batch": 1, "tokens": 5}))
    with pytest.raises(EngineError, match=r"no profile of tokens covers .*'batch': 5"):
        engine(*tokens.example({"batch": MAX_ROWS + 1, "tokens": 4}))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda inputs: [inputs[0].double(), *inputs[1:]],
        lambda inputs: [inputs[0][:, :, :-1], *inputs[1:]],
        lambda inputs: [inputs[0][:1], *inputs[1:]],
        lambda inputs: [inputs[0][0], *inputs[1:]],
    ],
    ids=["dtype", "width", "batch", "dimensions"],
)
def test_inputs_that_do_not_fit_are_refused(
    load_engine: Load, tokens: Program, spoil: Callable[..., list[torch.Tensor]]
) -> None:
    with pytest.raises(EngineError, match="of tokens must be float32"):
        load_engine(tokens)(*spoil(tokens.example({"batch": 2, "tokens": 4})))


def test_an_engine_of_other_tensors_is_refused(load_engine: Load, tokens: Program) -> None:
    with pytest.raises(EngineError, match="its record has"):
        load_engine(tokens, dtypes=["float16"])


def test_a_damaged_engine_is_refused(
    api: TensorRTDouble, exports: OnnxCache, tokens: Program, tmp_path: Path
) -> None:
    stored = store(tmp_path, tokens, exports.get(tokens).path)
    stored.path.write_bytes(stored.path.read_bytes()[:-1])
    with pytest.raises(EngineError, match="is not the engine that was built"):
        Engine(stored, CpuDevice(api), api)


def test_an_engine_of_another_package_is_refused(
    api: TensorRTDouble, exports: OnnxCache, tokens: Program, tmp_path: Path
) -> None:
    stored = store(tmp_path, tokens, exports.get(tokens).path)
    other = replace(stored, record=stored.record.model_copy(update={"package_version": "9.9"}))
    with pytest.raises(EngineError, match=r"built by tensorrt_double 9\.9"):
        Engine(other, CpuDevice(api), api)


def test_a_lane_without_an_engine_is_named() -> None:
    step = DiffusionStep(network("edm2-tiny"), network("edm2-tiny-uncond"))
    with pytest.raises(EngineError, match="no engine for the lane plain and guided"):
        TensorRTBackend({}, CPU).compile(step)


@pytest.mark.parametrize("lossy", [False, True])
def test_a_refit_is_checked(
    exports: OnnxCache, tmp_path: Path, edm2: dict[str, Program], lossy: bool
) -> None:
    """New weights take effect, or the golden check says that they did not."""
    api = TensorRTDouble(loses_weights=lossy)
    stored = store(tmp_path, edm2["plain"], exports.get(edm2["plain"]).path, refittable=True)
    engine = Engine(stored, CpuDevice(api), api)
    other = diffusion(DiffusionStep(network("edm2-tiny", salt="other/"), None))["plain"]
    inputs = other.example({"batch": 1})
    engine(*inputs)
    with torch.inference_mode():
        expected = other.module(*inputs)

    def golden(refitted: Engine) -> None:
        if relative_error(refitted(*inputs)[0], expected) > WHOLE_SAMPLER:
            raise EngineError("the refitted engine computes something else")

    if lossy:
        with pytest.raises(EngineError, match="computes something else"):
            engine.refit(exports.get(other).path, golden)
    else:
        engine.refit(exports.get(other).path, golden)


def test_an_engine_that_takes_no_weights_says_so(load_engine: Load, tokens: Program, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="takes no new weights"):
        load_engine(tokens).refit(tmp_path, lambda engine: None)


def test_without_a_gpu_loading_says_what_is_missing() -> None:
    with pytest.raises(EngineError, match=r"an NVIDIA GPU is needed: cpu cannot be used.*engines are built"):
        CudaDevice(CPU)


def test_the_double_refuses_what_tensorrt_refuses(
    api: TensorRTDouble, exports: OnnxCache, tokens: Program, tmp_path: Path
) -> None:
    """Every rule by itself: what the runtime does right is seen only because doing it wrong is refused."""
    plan_file = store(tmp_path, tokens, exports.get(tokens).path).path
    log = logger_of(api)
    engine = api.Runtime(log).deserialize_cuda_engine(plan_file.read_bytes())
    assert engine is not None
    context = engine.create_execution_context(Strategy.USER_MANAGED)
    memory = torch.zeros(engine.device_memory_size_v2, dtype=torch.uint8)
    inputs = tokens.example({"batch": 2, "tokens": 4})
    ids = torch.zeros(2, 4, dtype=torch.int64)
    names = [port.name for port in tokens.inputs]

    def said() -> str:
        return str(log.messages[-1][1])

    def set_up() -> None:
        assert context.set_optimization_profile_async(1, STREAM)
        context.set_device_memory(memory.data_ptr(), memory.numel())
        for name, tensor in zip(names, inputs, strict=True):
            assert context.set_input_shape(name, tuple(tensor.shape))
            assert context.set_tensor_address(name, tensor.data_ptr())

    assert not context.execute_async_v3(STREAM) and said() == "no profile was chosen"
    assert not context.set_input_shape("noise", (2, 4, 128)) and "before a profile" in said()
    assert not context.set_optimization_profile_async(9, STREAM)
    set_up()
    assert not context.set_input_shape("noise", (2, 9, 128)) and "outside profile 1" in said()
    assert not context.set_tensor_address("noise", 0)
    assert not context.execute_async_v3(STREAM) and said() == "a tensor has no address"
    context.set_tensor_address("ids", inputs[0].data_ptr())
    assert not context.execute_async_v3(STREAM) and "ids lies in the memory of conditional" in said()
    context.set_tensor_address("ids", ids.data_ptr())
    assert not context.execute_async_v3(STREAM + 1) and said() == "there is no such stream"
    context.set_device_memory(memory.data_ptr(), 1)
    assert not context.execute_async_v3(STREAM) and "working memory" in said()
    set_up()
    assert context.execute_async_v3(STREAM) and torch.equal(ids, tokens.module(*inputs))
    del engine
    assert not context.execute_async_v3(STREAM) and said() == "the engine was released"
