"""Neon's extrapolation: the weights' own line, and nothing but what trained."""

from __future__ import annotations

import pytest
import torch
import toys

from trainer.objectives.neon import extrapolate


@pytest.mark.parametrize("w", [-0.5, 0.0, 1.5])
def test_it_is_the_published_combination(w: float) -> None:
    reference = toys.tiny_edm()
    before, after = reference.state_dict(), toys.moved(reference, 0.1).state_dict()
    found = extrapolate(before, after, w)
    assert found.keys() == before.keys()
    for name, tensor in found.items():
        expected = (1 + w) * before[name].double() - w * after[name].double()
        torch.testing.assert_close(tensor, expected.float(), rtol=1e-5, atol=1e-6)


def test_half_precision_is_extrapolated_in_float32() -> None:
    before, after = torch.tensor([1.0, 2.0]).half(), torch.tensor([1.001, 1.999]).half()
    (found,) = extrapolate({"a": before}, {"a": after}, 0.3).values()
    assert found.dtype is torch.float32
    assert torch.equal(found, before.float() + 0.3 * (before.float() - after.float()))
    assert not torch.equal(found, found.half().float())


def test_what_did_not_train_is_the_references_own() -> None:
    """VAR's mask holds infinities, its levels are integers."""
    var = toys.tiny_var()
    before, after = var.state_dict(), toys.moved(var, 0.1).state_dict()
    after["lvl_1L"] = after["lvl_1L"] + 1
    found = extrapolate(before, after, 2.0)
    assert found["lvl_1L"] is before["lvl_1L"]
    assert found["attn_bias_for_masking"] is before["attn_bias_for_masking"]
    assert not any(tensor.isnan().any() for tensor in found.values())
    var.load_state_dict(found)


def test_the_step_away_from_self_training_undoes_a_loss() -> None:
    """Trained towards a wrong target, the extrapolated model lies on the other side."""
    base, pulled = {"mean": torch.tensor(0.8)}, {"mean": torch.tensor(0.7)}
    assert extrapolate(base, pulled, 2.0)["mean"].item() == pytest.approx(1.0)


@pytest.mark.parametrize(
    "other", [{"a": torch.ones(3)}, {"b": torch.ones(2)}, {}], ids=["shape", "name", "missing"]
)
def test_states_of_two_networks_are_refused_by_name(other: dict[str, torch.Tensor]) -> None:
    with pytest.raises(ValueError, match=r"not of one network: a\b"):
        extrapolate({"a": torch.ones(2)}, other, 1.0)
