"""The diffusion engine: right samples, rows that do not notice each other, requests checked."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from reference import DATA, fill, load_arrays, noise, relative_error

from engines.backends.base import Backend
from engines.backends.openvino_backend import OpenVinoBackend
from engines.backends.torch_backend import TorchBackend
from engines.base import ImageRequest
from engines.diffusion import DiffusionEngine
from engines.diffusion_row import DiffusionRow
from engines.errors import EngineError, InvalidRequestError
from engines.pixels import PixelDecoder
from engines.programs.diffusion_step import DiffusionStep
from models import build
from models.spec import DiffusionDefaults, PixelCodec

CPU = torch.device("cpu")
BACKENDS = ["torch", "openvino"]
NATIVE_BF16 = pytest.mark.skipif(
    not torch.cpu._is_avx512_bf16_supported(), reason="the CPU emulates bfloat16"
)


def network(name: str, salt: str = "") -> torch.nn.Module:
    return fill(build(json.loads((DATA / f"{name}.json").read_text())["init"]), salt)


def make_backend(name: str, dtype: torch.dtype) -> Backend:
    if name == "torch":
        return TorchBackend(CPU, dtype)
    return OpenVinoBackend(dtype, identity="filled", threads=torch.get_num_threads(), max_rows=8)


def make_engine(
    dtype: torch.dtype = torch.float32, guidance: str = "guide", capacity: int = 16, backend: str = "torch"
) -> DiffusionEngine:
    main = network("edm2-tiny")
    guide = {"guide": network("edm2-tiny-uncond", "guide/"), "label-dropout": main, "none": None}[guidance]
    return DiffusionEngine(
        DiffusionStep(main, guide),
        make_backend(backend, dtype),
        PixelDecoder(PixelCodec()),
        shape=(3, 16, 16),
        defaults=DiffusionDefaults(steps=4),
        num_classes=10,
        capacity=capacity,
    )


@pytest.fixture(scope="module")
def engine() -> DiffusionEngine:
    return make_engine()


@pytest.fixture(scope="module", params=BACKENDS)
def either_engine(request: pytest.FixtureRequest) -> DiffusionEngine:
    return make_engine(backend=request.param)


def request(**fields: object) -> ImageRequest:
    return ImageRequest(**{"class_id": 3, "seed": 7, **fields})  # type: ignore[arg-type]


def finish(engine: DiffusionEngine, rows: Sequence[DiffusionRow]) -> list[np.ndarray]:
    """Run rows to their end, always in the largest call that the oldest unfinished row allows."""
    while pending := [row for row in rows if row.calls_left]:
        engine.step([row for row in pending if row.lane == pending[0].lane][: engine.max_rows])
    images = [engine.image(row) for row in rows]
    for row in rows:
        engine.close(row)
    return images


def make(engine: DiffusionEngine, *requests: ImageRequest) -> list[np.ndarray]:
    return finish(engine, [engine.open(engine.resolve(item)) for item in requests])


@pytest.mark.parametrize(
    ("vector", "solver", "steps", "cfg"),
    [
        ("heun6", "heun", 6, 1.0),
        ("heun6_guidance1_4", "heun", 6, 1.4),
        ("dpmv3_5", "dpm-solver-v3", 5, 1.0),
        ("dpmv3_8", "dpm-solver-v3", 8, 1.0),
    ],
)
def test_samples_are_the_original_samplers(
    either_engine: DiffusionEngine, vector: str, solver: str, steps: int, cfg: float
) -> None:
    engine = either_engine
    arrays = load_arrays("edm2-tiny")
    latents = noise("edm2-tiny/latents", (2, 3, 16, 16))
    classes = arrays["labels"][:2].argmax(dim=1).tolist()
    rows = []
    for class_id, own in zip(classes, latents, strict=True):
        row = engine.open(engine.resolve(request(class_id=class_id, solver=solver, steps=steps, cfg=cfg)))
        row.state[0] = own * row.table.start
        rows.append(row)
    finish(engine, rows)
    samples = torch.stack([row.state[0] for row in rows])
    assert relative_error(samples, arrays[vector]) < 1e-4


MIX = [
    request(seed=seed, class_id=seed % 10, solver=solver, steps=steps, cfg=cfg)
    for seed, (solver, steps, cfg) in enumerate(
        [
            ("heun", 4, 1.0),
            ("dpm-solver-v3", 5, 1.0),
            ("heun-stochastic", 3, 1.0),
            ("euler", 6, 1.5),
            ("heun", 2, 1.5),
            ("heun", 4, 0.0),
            ("euler", 3, 1.0),
            ("dpm-solver-v3", 4, 2.0),
        ]
    )
]


@pytest.mark.parametrize(
    ("backend", "guidance", "dtype"),
    [
        ("torch", "guide", torch.float32),
        ("torch", "label-dropout", torch.float32),
        pytest.param("torch", "guide", torch.bfloat16, marks=NATIVE_BF16),
        pytest.param("torch", "label-dropout", torch.bfloat16, marks=NATIVE_BF16),
        ("openvino", "guide", torch.float32),
        pytest.param("openvino", "label-dropout", torch.bfloat16, marks=NATIVE_BF16),
    ],
)
def test_an_image_does_not_depend_on_its_batch_mates(dtype: torch.dtype, guidance: str, backend: str) -> None:
    engine = make_engine(dtype, guidance, backend=backend)
    alone = [make(engine, item)[0] for item in MIX]
    for size in (2, 3, 5, 8):
        for start in range(0, len(MIX), size):
            together = make(engine, *MIX[start : start + size])
            for one, other in zip(alone[start : start + size], together, strict=True):
                np.testing.assert_array_equal(one, other)
    assert len({image.tobytes() for image in alone}) == len(MIX)


def test_rows_join_and_leave_at_any_call(engine: DiffusionEngine) -> None:
    first = engine.open(engine.resolve(MIX[0]))
    engine.step([first])
    second = engine.open(engine.resolve(MIX[1]))
    engine.step([first, second])
    abandoned = engine.open(engine.resolve(MIX[6]))
    engine.step([abandoned, first, second])
    engine.close(abandoned)
    for image, item in zip(finish(engine, [first, second]), MIX[:2], strict=True):
        np.testing.assert_array_equal(image, make(engine, item)[0])


def test_unguided_rows_do_not_run_the_guide() -> None:
    main, guide = network("edm2-tiny"), network("edm2-tiny-uncond", "guide/")
    calls: list[int] = []
    engine = DiffusionEngine(
        DiffusionStep(main, guide),
        TorchBackend(CPU, torch.float32),
        PixelDecoder(PixelCodec()),
        shape=(3, 16, 16),
        defaults=DiffusionDefaults(),
        num_classes=10,
    )
    guide.register_forward_hook(lambda module, args, result: calls.append(len(args[0])))
    make(engine, request(steps=3))
    assert not calls
    make(engine, request(steps=3, cfg=1.2))
    assert len(calls) == 5


def test_guidance_scale_zero_is_the_guide_alone(engine: DiffusionEngine) -> None:
    by_class = [make(engine, request(class_id=class_id, cfg=0.0))[0] for class_id in (1, 2)]
    np.testing.assert_array_equal(*by_class)


def test_solver_and_steps_default_to_the_models(engine: DiffusionEngine) -> None:
    resolved = engine.resolve(request())
    assert (resolved.solver, resolved.steps) == ("heun", 4)
    np.testing.assert_array_equal(
        *[make(engine, item)[0] for item in (request(), request(solver="heun", steps=4))]
    )


@pytest.mark.parametrize(
    ("fields", "field", "message"),
    [
        ({"class_id": 10}, "class_id", "0 to 9, got 10"),
        ({"class_id": -1}, "class_id", "0 to 9"),
        ({"class_id": None}, "class_id", "0 to 9"),
        ({"seed": -1}, "seed", "0 to 2"),
        ({"seed": 2**63}, "seed", "0 to 2"),
        ({"cfg": -0.5}, "cfg", "0 or more"),
        ({"cfg": float("nan")}, "cfg", "0 or more"),
        ({"steps": 0}, "steps", "1 to 1000"),
        ({"steps": 1001}, "steps", "1 to 1000"),
        ({"steps": 200, "solver": "dpm-solver-v3"}, "steps", "too many"),
        ({"solver": "rk4"}, "solver", "one of heun"),
        ({"temperature": 1.0}, "temperature", "for VAR models"),
        ({"var_raw_cfg": 1.0}, "var_raw_cfg", "for VAR models"),
    ],
)
def test_requests_out_of_range_are_refused(
    engine: DiffusionEngine, fields: dict[str, object], field: str, message: str
) -> None:
    with pytest.raises(InvalidRequestError, match=message) as caught:
        engine.resolve(request(**fields))
    assert caught.value.field == field


def test_a_model_without_guide_refuses_guidance() -> None:
    with pytest.raises(InvalidRequestError, match="no guide"):
        make_engine(guidance="none").resolve(request(cfg=1.5))


def test_misuse_is_an_error(engine: DiffusionEngine) -> None:
    plain, guided = (engine.open(engine.resolve(request(cfg=cfg))) for cfg in (1.0, 1.5))
    with pytest.raises(EngineError, match="share a lane"):
        engine.step([plain, guided])
    with pytest.raises(EngineError, match="not finished"):
        engine.image(plain)
    engine.close(plain)
    engine.close(guided)
    with pytest.raises(EngineError, match="not open"):
        engine.close(plain)
    with pytest.raises(EngineError, match="open and not finished"):
        engine.step([plain])


def test_capacity_bounds_open_rows() -> None:
    engine = make_engine(capacity=2)
    rows = [engine.open(engine.resolve(request())) for _ in range(2)]
    with pytest.raises(EngineError, match="2 rows are open"):
        engine.open(engine.resolve(request()))
    engine.close(rows[0])
    engine.open(engine.resolve(request()))


def test_bfloat16_stays_close_to_float32() -> None:
    """One evaluation in bfloat16 is within 2 % of float32's for filled weights."""
    step = DiffusionStep(network("edm2-tiny"), None)
    inputs = {
        "state": torch.randn(4, 3, 3, 16, 16, generator=torch.Generator().manual_seed(0)),
        "sigma": torch.tensor([0.1, 0.5, 2.0, 10.0]),
        "class_ids": torch.arange(4),
        "update": torch.eye(3, 4).flip(1).expand(4, -1, -1).contiguous(),
        "scale": None,
    }
    exact = TorchBackend(CPU, torch.float32).compile(step)(**inputs).clone()
    rounded = TorchBackend(CPU, torch.bfloat16).compile(step)(**inputs)
    assert 1e-5 < relative_error(rounded, exact) < 2e-2


def test_folded_pixels_are_unfolded(engine: DiffusionEngine) -> None:
    images = torch.arange(2 * 3 * 4 * 4).reshape(2, 3, 4, 4).float()
    folded = torch.nn.functional.pixel_unshuffle(images, 2)
    assert folded.shape == (2, 12, 2, 2)
    torch.testing.assert_close(PixelDecoder(PixelCodec(fold=2)).decode(folded), images)


def test_seed_decides_the_noise(engine: DiffusionEngine) -> None:
    images: Callable[[int], np.ndarray] = lambda seed: make(engine, request(seed=seed))[0]  # noqa: E731
    np.testing.assert_array_equal(images(1), images(1))
    assert (images(1) != images(2)).any()


@pytest.mark.parametrize("cfg", [1.0, 2.0])
def test_a_path_tells_the_calls_that_a_row_makes(cfg: float) -> None:
    engine = make_engine()
    row = engine.open(engine.resolve(request(cfg=cfg, steps=3)))
    path = engine.path(row.request)
    lanes = []
    while row.calls_left:
        lanes.append(row.lane)
        engine.step([row])
    assert lanes == [leg.lane for leg in path for _ in range(leg.calls)]
    assert len(set(lanes)) == 2
