"""The VAR engine decodes what the original decodes, and the same whatever shares its calls."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from reference import Reference, load
from var_tiny import NUM_CLASSES, TOKENIZER, make, tiny_engine, tiny_var, tiny_vqvae

from engines.base import ImageRequest
from engines.errors import EngineError, InvalidRequestError
from engines.var import VarEngine
from models import build
from models.networks.autoencoder import Upsample
from models.spec import VarDefaults

SCALES = 4
REQUESTS = [
    ImageRequest(class_id=3, seed=1),
    ImageRequest(class_id=7, seed=2, cfg=1.5),
    ImageRequest(class_id=3, seed=3, top_k=20, temperature=0.8),
    ImageRequest(class_id=0, seed=4, var_raw_cfg=2.0, top_p=0.9),
    ImageRequest(class_id=9, seed=2**63 - 1),
    ImageRequest(class_id=7, seed=6, cfg=4.0, top_k=5, top_p=0.5),
    ImageRequest(class_id=1, seed=7, temperature=1.5),
    ImageRequest(class_id=3, seed=1, cfg=1.2),
]


@pytest.fixture(scope="module")
def reference() -> Reference:
    return load("var-tiny")


@pytest.fixture(scope="module", params=[torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def engine(request: pytest.FixtureRequest) -> VarEngine:
    return tiny_engine(request.param)


@pytest.fixture(scope="module")
def alone(engine: VarEngine) -> list[np.ndarray]:
    return [engine.image(*make(engine, [request])) for request in REQUESTS]


@pytest.fixture(scope="module")
def greedy() -> VarEngine:
    return tiny_engine(max_rows=2, capacity=2, greedy=True)


def test_no_image_is_doubled_before_it_is_convolved() -> None:
    vqvae = tiny_vqvae()
    tiny_engine(vqvae=vqvae)
    assert not any(isinstance(module, Upsample) for module in vqvae.modules())


@pytest.mark.parametrize("weight", [0.0, 1.5])
def test_greedy_decoding_is_the_originals(greedy: VarEngine, reference: Reference, weight: float) -> None:
    requests = [
        ImageRequest(class_id=int(label), seed=0, var_raw_cfg=weight) for label in reference["labels"]
    ]
    for row, tokens, expected in zip(
        make(greedy, requests),
        reference[f"greedy_tokens_varcfg{weight}"],
        reference[f"greedy_image_varcfg{weight}"],
        strict=True,
    ):
        assert torch.equal(row.tokens, tokens)
        image = greedy.image(row)
        assert (image.shape, image.dtype) == ((64, 64, 3), np.uint8)
        # Half a level by rounding, and the decoder's own tolerance.
        assert np.abs(image - 255 * expected.permute(1, 2, 0).numpy()).max() < 0.51


@pytest.mark.parametrize("weight", [0.0, 1.5])
def test_cfg_is_one_above_the_raw_value(greedy: VarEngine, reference: Reference, weight: float) -> None:
    (row,) = make(greedy, [ImageRequest(class_id=3, seed=0, cfg=1 + weight)])
    assert torch.equal(row.tokens, reference[f"greedy_tokens_varcfg{weight}"][0])


def test_with_one_candidate_left_sampling_is_greedy(reference: Reference) -> None:
    (row,) = make(tiny_engine(max_rows=1), [ImageRequest(class_id=3, seed=5, top_k=1)])
    assert torch.equal(row.tokens, reference["greedy_tokens_varcfg0.0"][0])


@pytest.mark.parametrize("rows", [2, 3, 5, 8])
def test_same_bits_in_any_batch(engine: VarEngine, alone: list[np.ndarray], rows: int) -> None:
    for row, expected in zip(make(engine, REQUESTS[:rows]), alone, strict=False):
        assert np.array_equal(engine.image(row), expected)


def test_same_bits_at_any_place(engine: VarEngine, alone: list[np.ndarray]) -> None:
    for row, expected in zip(make(engine, REQUESTS[::-1]), alone[::-1], strict=True):
        assert np.array_equal(engine.image(row), expected)


def test_same_bits_where_rows_come_and_go(engine: VarEngine, alone: list[np.ndarray]) -> None:
    rows = [engine.open(engine.resolve(request)) for request in REQUESTS]
    engine.step(rows[:3])
    engine.step(rows[3:])
    engine.close(rows[5])
    rows[5] = engine.open(engine.resolve(REQUESTS[5]))
    engine.step(rows[5:6])
    while rows[0].calls_left:
        engine.step(rows)
    for row, expected in zip(rows, alone, strict=True):
        assert np.array_equal(engine.image(row), expected)
        engine.close(row)


def test_images_differ_by_seed_class_and_guidance(engine: VarEngine) -> None:
    request = ImageRequest(class_id=3, seed=1)
    others = [request, replace(request, seed=2), replace(request, class_id=4), replace(request, cfg=3.0)]
    images = {engine.image(row).tobytes() for row in make(engine, others)}
    assert len(images) == len(others)


def test_bfloat16_is_close(engine: VarEngine) -> None:
    (row,) = make(engine, [REQUESTS[0]])
    expected = (tiny_vqvae().decode(row.tokens[None])[0].permute(1, 2, 0).numpy() + 1) * (255 / 2)
    assert np.abs(engine.image(row) - expected).mean() < 2


def test_a_row_goes_from_lane_to_lane(greedy: VarEngine) -> None:
    row = greedy.open(greedy.resolve(ImageRequest(class_id=1, seed=0)))
    lanes = []
    while row.calls_left:
        lanes.append((row.lane, row.calls_left))
        greedy.step([row])
    assert lanes == [*((f"scale{k}", 5 - k) for k in range(SCALES)), ("pixels", 1)]
    assert [lane for lane, _ in lanes] == [leg.lane for leg in greedy.path(row.request)]
    guided = greedy.path(greedy.resolve(ImageRequest(class_id=1, seed=0, cfg=2.0)))
    assert [leg.width for leg in guided] == [2] * SCALES + [1]
    assert row.tokens.shape == (30,)
    greedy.close(row)


@pytest.mark.parametrize(("cfg", "sequences"), [(1.0, 8), (2.0, 16)])
def test_guidance_costs_only_those_who_ask(cfg: float, sequences: int) -> None:
    var = tiny_var()
    engine = tiny_engine(var=var)
    computed: list[int] = []
    var.head_nm.register_forward_hook(lambda _, inputs, __: computed.append(inputs[0][..., 0].numel()))
    make(engine, [ImageRequest(class_id=0, seed=0, cfg=cfg)] * 8)
    assert sum(computed) == sequences * var.scales.length


def test_a_class_is_projected_once() -> None:
    var = tiny_var()
    engine = tiny_engine(var=var)
    projected: list[int] = []
    var.head_nm.ada_lin.register_forward_hook(lambda _, inputs, __: projected.append(len(inputs[0])))
    requests = [ImageRequest(class_id=class_id, seed=0, cfg=2.0) for class_id in (1, 2, 1)]
    make(engine, requests)
    make(engine, requests)
    assert projected == [1, 1]


def test_capacity(greedy: VarEngine) -> None:
    request = greedy.resolve(ImageRequest(class_id=0, seed=0, cfg=2.0))
    rows = [greedy.open(request) for _ in range(greedy.capacity)]
    with pytest.raises(EngineError, match="2 rows are open"):
        greedy.open(request)
    greedy.close(rows[0])
    rows[0] = greedy.open(request)
    for row in rows:
        greedy.close(row)
    with pytest.raises(EngineError, match="not open"):
        greedy.close(rows[0])


def test_misuse_is_refused(engine: VarEngine) -> None:
    request = engine.resolve(ImageRequest(class_id=0, seed=0))
    rows = [engine.open(request) for _ in range(9)]
    engine.step(rows[:1])
    with pytest.raises(EngineError, match="at most 8"):
        engine.step(rows)
    with pytest.raises(EngineError, match="share a lane"):
        engine.step(rows[:2])
    with pytest.raises(EngineError, match="4 calls are left"):
        engine.image(rows[0])
    while rows[0].calls_left:
        engine.step(rows[:1])
    with pytest.raises(EngineError, match="not finished"):
        engine.step(rows[:1])
    for row in rows:
        engine.close(row)
    with pytest.raises(EngineError, match="are open"):
        engine.step(rows[1:2])


def test_networks_must_fit() -> None:
    tokenizer = build({**TOKENIZER, "patch_nums": [1, 2, 4]})
    with pytest.raises(EngineError, match="scales"):
        tiny_engine(vqvae=tokenizer)


def test_defaults_are_filled_in() -> None:
    defaults = VarDefaults(temperature=0.9, top_k=7, top_p=0.4)
    engine = tiny_engine(defaults=defaults, max_rows=1)
    resolved = engine.resolve(ImageRequest(class_id=0, seed=0))
    assert (resolved.temperature, resolved.top_k, resolved.top_p) == (0.9, 7, 0.4)
    asked = replace(resolved, temperature=1.1, top_k=0, top_p=0.0)
    assert engine.resolve(asked) == asked


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("class_id", {"class_id": None}),
        ("class_id", {"class_id": -1}),
        ("class_id", {"class_id": NUM_CLASSES}),
        ("seed", {"seed": -1}),
        ("seed", {"seed": 2**63}),
        ("steps", {"steps": 18}),
        ("solver", {"solver": "heun"}),
        ("cfg", {"cfg": -0.5}),
        ("cfg", {"cfg": float("nan")}),
        ("cfg", {"cfg": float("inf")}),
        ("var_raw_cfg", {"cfg": 1.5, "var_raw_cfg": 0.5}),
        ("var_raw_cfg", {"var_raw_cfg": -1.0}),
        ("var_raw_cfg", {"var_raw_cfg": float("nan")}),
        ("temperature", {"temperature": 0.0}),
        ("temperature", {"temperature": float("inf")}),
        ("temperature", {"temperature": float("nan")}),
        ("top_k", {"top_k": -1}),
        ("top_k", {"top_k": 129}),
        ("top_p", {"top_p": -0.1}),
        ("top_p", {"top_p": 1.1}),
        ("top_p", {"top_p": float("nan")}),
    ],
)
def test_invalid_requests_name_their_field(greedy: VarEngine, field: str, change: dict[str, object]) -> None:
    request = replace(ImageRequest(class_id=3, seed=0), **change)
    with pytest.raises(InvalidRequestError, match=field) as refused:
        greedy.resolve(request)
    assert refused.value.field == field


def test_an_unknown_class_is_told_the_range(greedy: VarEngine) -> None:
    with pytest.raises(InvalidRequestError, match="0 to 9, got 10; the model's class list"):
        greedy.resolve(ImageRequest(class_id=10, seed=0))
