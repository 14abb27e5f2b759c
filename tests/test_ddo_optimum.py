"""What DDO's loss is least for, on a distribution small enough for exact expectations."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from trainer.objectives.ddo import ddo_loss

DATA = torch.tensor([25, 10, 4, 16, 7, 6, 14, 18])
REFERENCE = torch.tensor([21, 10, 3, 19, 5, 10, 11, 21])
"""Of 100 images each, how many fall on each of eight outcomes."""

LogModel = Callable[[Tensor], Tensor]


def log_probability(counts: Tensor) -> Tensor:
    return (counts.double() / counts.sum()).log()


def expected_loss(ratio: Tensor, data: Tensor, reference: Tensor, alpha: float, beta: float) -> Tensor:
    """Return the loss of a batch that holds every outcome as often as it occurs."""
    return ddo_loss(ratio.repeat_interleave(data), ratio.repeat_interleave(reference), alpha, beta)


def fit(
    log_model: LogModel, alpha: float, beta: float, data: Tensor = DATA, reference: Tensor = REFERENCE
) -> Tensor:
    """Return the logits at the minimum, (8,), starting from the reference."""
    base = log_probability(reference)
    logits = base.clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [logits], max_iter=500, tolerance_grad=1e-12, tolerance_change=1e-15, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = expected_loss(log_model(logits) - base, data, reference, alpha, beta) / beta**2
        torch.autograd.backward(loss)
        return loss

    optimizer.step(closure)
    return logits.detach()


def normalised(logits: Tensor) -> Tensor:
    return torch.log_softmax(logits, dim=0)


def unnormalised(logits: Tensor) -> Tensor:
    return logits


def power_law(beta: float) -> Tensor:
    """Return log(p_ref^(1 - 1/beta) p_data^(1/beta)), not normalised."""
    return (1 - 1 / beta) * log_probability(REFERENCE) + log_probability(DATA) / beta


@pytest.mark.parametrize("beta", [0.7, 0.8, 1.0, 2.0, 4.0])
def test_a_distribution_trained_to_convergence_follows_the_power_law(beta: float) -> None:
    found = fit(normalised, 1.0, beta).softmax(0)
    torch.testing.assert_close(found, power_law(beta).softmax(0), atol=1e-3, rtol=0)
    assert (found - log_probability(REFERENCE).exp()).abs().max() > 0.01


@pytest.mark.parametrize("alpha", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("beta", [0.2, 0.5, 1.0, 2.0])
def test_alpha_is_a_constant_to_a_model_that_need_not_be_normalised(alpha: float, beta: float) -> None:
    logits = fit(unnormalised, alpha, beta)
    expected = power_law(beta) - torch.tensor(alpha).log() / beta
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("alpha", "beta"), [(0.25, 0.1), (0.5, 0.05), (0.5, 2.0), (1.0, 0.5), (2.0, 1.5)])
def test_alpha_changes_the_exponent_of_a_normalised_model(alpha: float, beta: float) -> None:
    """Near the reference the optimum has the exponent 1 / (beta (1 + alpha) / 2 + 1 - alpha)."""
    reference = torch.full((8,), 1000)
    data = reference + torch.tensor([30, -30, 20, -20, 10, -10, 5, -5])
    direction = log_probability(data) - log_probability(reference)
    ratio = normalised(fit(normalised, alpha, beta, data, reference)) - log_probability(reference)
    exponent = (ratio @ direction) / (direction @ direction)
    assert exponent.item() == pytest.approx(1 / (beta * (1 + alpha) / 2 + 1 - alpha), rel=0.05)


def test_the_best_model_lies_inside_a_round_with_many_fakes() -> None:
    """With alpha 2 gradient descent first comes close to the data and then leaves it for one outcome."""
    base, target = log_probability(REFERENCE), log_probability(DATA)
    logits = base.clone().requires_grad_()
    divergences = []
    for _ in range(1500):
        model = normalised(logits)
        divergences.append((target.exp() * (target - model.detach())).sum().item())
        loss = expected_loss(model - base, DATA, REFERENCE, alpha=2.0, beta=1.0)
        (gradient,) = torch.autograd.grad(loss, logits)
        logits = (logits - 0.7 * gradient).detach().requires_grad_()
    start, best, end = divergences[0], min(divergences), divergences[-1]
    assert best < 0.2 * start and start < 0.2 * end
