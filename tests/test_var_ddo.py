"""DDO's loss for VAR: shared label drop, no fakes without label, the total over max(alpha, 1)."""

from __future__ import annotations

import math
from typing import get_args

import pytest
import torch
import toys
from torch import Tensor, nn
from toys import NO_CLASS

from trainer.objectives.label_drop import drop_labels
from trainer.objectives.likelihood import TokenBatch
from trainer.objectives.var_ddo import UnconditionalLoss, token_log_ratios, var_ddo_loss

DROPPED = torch.tensor([False, True, False, False, True])
KEPT = ~DROPPED
REAL, FAKE = toys.draw_tokens(5, seed=1), toys.draw_tokens(5, seed=2)
EITHER = pytest.mark.parametrize("unconditional", get_args(UnconditionalLoss))


def ratios(network: nn.Module, reference: nn.Module) -> tuple[Tensor, Tensor]:
    return token_log_ratios(network, reference, REAL, FAKE, dropped=DROPPED, no_class=NO_CLASS)


def log_probability(network: nn.Module, batch: TokenBatch) -> Tensor:
    """Return log p image by image and token by token in float64, unlabelled where `DROPPED`."""
    totals = []
    for row, (class_id, ids, inputs) in enumerate(zip(*batch, strict=True)):
        label = torch.tensor([NO_CLASS]) if DROPPED[row] else class_id[None]
        logits = network(label, inputs[None])[0].double()
        totals.append(sum(logits[i, token] - logits[i].logsumexp(0) for i, token in enumerate(ids)))
    return torch.stack(totals)


def test_the_ratios_are_those_of_four_evaluations_with_the_same_drop() -> None:
    reference = toys.tiny_var()
    network = toys.moved(reference, 0.3)
    for found, batch in zip(ratios(network, reference), (REAL, FAKE), strict=True):
        expected = log_probability(network, batch) - log_probability(reference, batch)
        torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-5)
        assert expected.abs().min() > 1e-3


def test_each_network_runs_once() -> None:
    rows: dict[str, list[int]] = {"network": [], "reference": []}
    networks = {name: toys.tiny_var() for name in rows}
    for name, network in networks.items():
        network.register_forward_pre_hook(lambda _, inputs, name=name: rows[name].append(len(inputs[0])))
    ratios(**networks)
    assert rows == {"network": [10], "reference": [10]}


@EITHER
@pytest.mark.parametrize("alpha", [0.5, 10.0])
def test_the_start_is_known(alpha: float, unconditional: UnconditionalLoss) -> None:
    network = toys.tiny_var()
    real, fake = ratios(network, toys.frozen(network))
    loss = var_ddo_loss(real, fake, dropped=DROPPED, alpha=alpha, beta=0.02, unconditional=unconditional)
    share = KEPT.double().mean().item()
    assert loss.item() == pytest.approx((1 + share * alpha) * math.log(2) / max(alpha, 1), rel=1e-5)


@pytest.mark.parametrize("alpha", [0.5, 10.0])
def test_without_a_drop_it_is_equation_13_over_the_greater_of_alpha_and_1(alpha: float) -> None:
    real, fake = torch.tensor([0.5, -3.0, 9.0]), torch.tensor([1.0, 0.0, -4.0])
    expected = (-(0.3 * real).sigmoid().log() - alpha * (-0.3 * fake).sigmoid().log()).mean() / max(alpha, 1)
    loss = var_ddo_loss(real, fake, dropped=torch.zeros(3, dtype=torch.bool), alpha=alpha, beta=0.3)
    torch.testing.assert_close(loss, expected)


@EITHER
@pytest.mark.parametrize(("alpha", "beta"), [(0.5, 0.02), (10.0, 0.1)])
def test_the_first_gradient_is_known(alpha: float, beta: float, unconditional: UnconditionalLoss) -> None:
    """(beta / 2) (grad L_real - alpha grad L_fake) / max(alpha, 1), no fakes where the label was dropped."""
    network = toys.tiny_var()
    real, fake = ratios(network, toys.frozen(network))
    loss = var_ddo_loss(real, fake, dropped=DROPPED, alpha=alpha, beta=beta, unconditional=unconditional)
    found = toys.gradient(loss, network)
    pull = -log_probability(network, REAL).sum() + alpha * log_probability(network, FAKE)[KEPT].sum()
    expected = toys.gradient(beta / 2 * pull / len(DROPPED) / max(alpha, 1), network)
    assert (found - expected).norm() < 1e-4 * expected.norm()


def slope(unconditional: UnconditionalLoss, ratio: float) -> tuple[float, float]:
    """Return the loss's derivatives by one unlabelled pair's real and fake ratio."""
    real, fake = (torch.tensor([ratio], requires_grad=True) for _ in range(2))
    dropped = torch.tensor([True])
    loss = var_ddo_loss(real, fake, dropped=dropped, alpha=1.0, beta=0.1, unconditional=unconditional)
    torch.autograd.backward(loss)
    assert real.grad is not None and fake.grad is not None
    return real.grad.item(), fake.grad.item()


def test_the_likelihoods_pull_on_unlabelled_images_never_fades() -> None:
    for ratio in (-50.0, 0.0, 50.0):
        assert slope("likelihood", ratio) == pytest.approx((-0.05, 0.0))


def test_the_log_sigmoids_pull_on_unlabelled_images_fades() -> None:
    assert slope("log-sigmoid", 0.0) == pytest.approx((-0.05, 0.0))
    assert slope("log-sigmoid", 50.0) == pytest.approx((-0.1 / (1 + math.exp(5)), 0.0))


def test_a_dropped_label_gives_way_to_no_class() -> None:
    assert drop_labels(torch.arange(5), DROPPED, no_class=9).tolist() == [0, 9, 2, 3, 9]
