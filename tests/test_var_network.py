"""VAR computes what the original computes, all scales at once and one by one."""

from __future__ import annotations

import pytest
import torch
from reference import Reference, load, relative_error
from torch import Tensor
from var_tiny import NUM_CLASSES, tiny_var

from engines.kv_cache import KeyValueCache
from models.errors import ModelError
from models.networks.scales import Scales
from models.networks.var import VAR

TOLERANCE = 1e-5
BROKEN = 1e-2
NO_CLASS = torch.full((2,), NUM_CLASSES)


@pytest.fixture(scope="module")
def reference() -> Reference:
    return load("var-tiny")


@pytest.fixture
def var() -> VAR:
    return tiny_var()


def test_logits(var: VAR, reference: Reference) -> None:
    logits = var(reference["labels"], reference["var_input"])
    assert relative_error(logits, reference["logits"]) < TOLERANCE


def test_logits_without_a_class(var: VAR, reference: Reference) -> None:
    assert relative_error(var(NO_CLASS, reference["var_input"]), reference["logits_uncond"]) < TOLERANCE


def _swap_images(var: VAR, labels: Tensor, inputs: Tensor) -> Tensor:
    out: Tensor = var(labels, inputs.flip(0))
    return out


def _swap_places(var: VAR, labels: Tensor, inputs: Tensor) -> Tensor:
    out: Tensor = var(labels, torch.cat((inputs[:, 1:2], inputs[:, :1], inputs[:, 2:]), dim=1))
    return out


def _open_mask(var: VAR, labels: Tensor, inputs: Tensor) -> Tensor:
    var.attn_bias_for_masking.zero_()
    out: Tensor = var(labels, inputs)
    return out


def _swap_labels(var: VAR, labels: Tensor, inputs: Tensor) -> Tensor:
    out: Tensor = var(labels.flip(0), inputs)
    return out


@pytest.mark.parametrize("mistake", [_swap_images, _swap_places, _open_mask, _swap_labels])
def test_a_mistake_breaks_parity(var: VAR, reference: Reference, mistake: type) -> None:
    logits = mistake(var, reference["labels"], reference["var_input"])
    assert relative_error(logits, reference["logits"]) > BROKEN


def test_a_token_sees_its_own_scale_and_coarser_ones(var: VAR, reference: Reference) -> None:
    changed = reference["var_input"].clone()
    third = var.scales.spans[2]
    changed[:, third.start - 1] += 1
    logits, others = (var(reference["labels"], inputs) for inputs in (reference["var_input"], changed))
    assert torch.equal(logits[:, : third.start], others[:, : third.start])
    assert (logits[:, third.start :] != others[:, third.start :]).any(dim=-1).all()


def test_scales_one_by_one_over_a_cache(var: VAR, reference: Reference) -> None:
    cache = KeyValueCache(
        depth=len(var.blocks),
        slots=3,
        heads=var.num_heads,
        length=var.scales.length,
        head_dim=var.embed_dim // var.num_heads,
        dtype=torch.float32,
        device=torch.device("cpu"),
    )
    cache.acquire()
    slots = [cache.acquire(), cache.acquire()][::-1]
    labels, inputs = reference["labels"], reference["var_input"]
    modulation = var.modulation(labels)
    for scale, span in enumerate(var.scales.spans):
        if scale == 0:
            x = var.embed_classes(labels)
        else:
            x = var.embed_inputs(inputs[:, span.start - 1 : span.stop - 1], span)
        logits = var.logits(x, modulation, cache=cache.at(slots, span))
        assert relative_error(logits, reference["logits"][:, span]) < TOLERANCE


def test_bfloat16_blocks(var: VAR, reference: Reference) -> None:
    var.blocks.bfloat16()
    logits = var(reference["labels"], reference["var_input"])
    assert logits.dtype == torch.float32
    assert 1e-4 < relative_error(logits, reference["logits"]) < 0.03


def test_queries_are_never_scaled_beyond_100(var: VAR, reference: Reference) -> None:
    expected = []
    for scale in (4.6052, 50.0):  # ln 100 is 4.60517
        for block in var.blocks:
            torch.nn.init.constant_(block.attn.scale_mul_1H11, scale)
        expected.append(var(reference["labels"], reference["var_input"]))
    assert torch.equal(*expected)


def test_learns(var: VAR, reference: Reference) -> None:
    var.requires_grad_(True)
    logits = var(reference["labels"], reference["var_input"])
    torch.nn.functional.cross_entropy(logits.flatten(0, 1), reference["tokens"].flatten()).backward()
    assert all(
        parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in var.parameters()
    )


@pytest.mark.parametrize("patch_nums", [[], [0, 2], [1, -2]])
def test_scales_need_a_side(patch_nums: list[int]) -> None:
    with pytest.raises(ModelError, match="patch_nums"):
        Scales.of(patch_nums)


def test_places_of_scales() -> None:
    scales = Scales.of([1, 2, 4])
    assert scales.spans == (slice(0, 1), slice(1, 5), slice(5, 21))
    assert [scales.ratio(scale) for scale in range(3)] == [0.0, 0.5, 1.0]
    assert Scales.of([4]).ratio(0) == 0.0
