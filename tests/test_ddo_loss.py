"""DDO's loss: its value, its first gradient, and what it does not depend on."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import toys
from torch import Tensor, nn
from toys import SIGMA_DATA, ImagePairs

from trainer.objectives.ddo import ddo_loss, discriminator_accuracy
from trainer.objectives.log_ratio import denoising_log_ratio

REAL = torch.tensor([0.3, -2.0, 40.0, 0.0, 7.0])
FAKE = torch.tensor([-1.0, 5.0, -60.0, 0.2, 0.0])
EACH = torch.tensor([0.0, 1.0, 4.0, 0.5, 0.0])


def loss_of(network: nn.Module, reference: nn.Module, pairs: ImagePairs, alpha: float, beta: float) -> Tensor:
    ratio = denoising_log_ratio(network, reference, *pairs.stacked, **pairs.draws, sigma_data=SIGMA_DATA)
    return ddo_loss(*ratio.chunk(2), alpha, beta)


@pytest.mark.parametrize("alpha", [0.5, 4.0, EACH], ids=["half", "four", "each its own"])
@pytest.mark.parametrize("beta", [0.05, 1.0])
def test_it_is_equation_13(alpha: float | Tensor, beta: float) -> None:
    weights = alpha.tolist() if isinstance(alpha, Tensor) else [alpha] * len(FAKE)
    real = [math.log1p(math.exp(-beta * r)) for r in REAL.tolist()]
    fake = [a * math.log1p(math.exp(beta * r)) for a, r in zip(weights, FAKE.tolist(), strict=True)]
    expected = sum(real) / len(real) + sum(fake) / len(fake)
    assert ddo_loss(REAL, FAKE, alpha, beta).item() == pytest.approx(expected, rel=1e-6)


def test_an_extreme_ratio_keeps_a_finite_loss_and_its_gradient() -> None:
    real, fake = (torch.tensor([value], requires_grad=True) for value in (-1e4, 1e4))
    loss = ddo_loss(real, fake, alpha=2.0, beta=1.0)
    assert loss.item() == pytest.approx(3e4)
    torch.autograd.backward(loss)
    assert real.grad is not None and fake.grad is not None
    assert (real.grad.item(), fake.grad.item()) == (-1.0, 2.0)


@pytest.mark.parametrize(
    ("real", "fake", "share"),
    [([1, 2], [-1, -2], 1.0), ([1, -2], [-1, -2], 0.75), ([-1], [1], 0.0), ([0, 0], [0, 0], 0.5)],
)
def test_the_accuracy_is_the_share_of_right_signs(real: list[int], fake: list[int], share: float) -> None:
    accuracy = discriminator_accuracy(torch.tensor(real).float(), torch.tensor(fake).float())
    assert accuracy.item() == share


@pytest.mark.parametrize("alpha", [0.5, 1.0, 6.0])
def test_the_start_is_known(alpha: float) -> None:
    network, pairs = toys.tiny_edm(), ImagePairs.draw(4, (3, 4, 4))
    loss = loss_of(network, toys.frozen(network), pairs, alpha, beta=0.05)
    assert loss.item() == pytest.approx((1 + alpha) * math.log(2), rel=1e-6)


@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 0.05), (4.0, 0.02)])
def test_the_first_gradient_is_known(alpha: float, beta: float) -> None:
    """(beta / 2) (grad L_real - alpha grad L_fake), L the summed weighted denoising loss."""
    network, pairs = toys.tiny_edm(), ImagePairs.draw(4, (3, 4, 4))

    def denoising_gradient(images: Tensor, labels: Tensor) -> Tensor:
        level = pairs.sigma[:, None, None, None]
        error = network(images + level * pairs.noise, pairs.sigma, labels) - images
        total = ((level**-2 + SIGMA_DATA**-2) * error.double() ** 2).sum() / len(images)
        return toys.gradient(total, network)

    real = denoising_gradient(pairs.real, pairs.real_labels)
    fake = denoising_gradient(pairs.fake, pairs.fake_labels)
    expected = beta / 2 * (real - alpha * fake)
    found = toys.gradient(loss_of(network, toys.frozen(network), pairs, alpha, beta), network)
    assert (found - expected).norm() < 1e-5 * expected.norm()
    assert (real - fake).norm() > 0.1 * real.norm()


def test_which_fake_meets_which_real_image_is_of_no_account_in_expectation() -> None:
    """Fakes of equal labels change places; every pair sees each of four draws once."""
    labels = torch.eye(toys.CLASSES)[[0, 0, 2, 2]]
    drawn = ImagePairs.draw(4, (3, 4, 4))
    pairs = replace(drawn, real_labels=labels, fake_labels=labels)
    swapped = replace(pairs, fake=pairs.fake[[1, 0, 3, 2]])
    reference = toys.tiny_edm()
    network = toys.moved(reference, 0.3)

    def losses(pairs: ImagePairs) -> Tensor:
        turns = [replace(pairs, sigma=pairs.sigma.roll(k, 0), noise=pairs.noise.roll(k, 0)) for k in range(4)]
        return torch.stack([loss_of(network, reference, turn, 4.0, 0.05) for turn in turns])

    before, after = losses(pairs), losses(swapped)
    assert (before - after).abs().max() > 1e-3
    assert before.mean().item() == pytest.approx(after.mean().item(), abs=1e-5)
