"""Maximum-likelihood losses of EDM, EDM2 and VAR against the equations, written out in float64."""

from __future__ import annotations

import math

import pytest
import torch
import toys
from torch import Tensor
from toys import SIGMA_DATA, ImagePairs

from models.networks.scales import Scales
from trainer.objectives.denoising import denoising_loss, weighted_errors
from trainer.objectives.likelihood import means_by_scale, token_losses
from trainer.objectives.uncertainty import uncertainty_loss


class Uncertain:
    """A denoiser that errs by 0.1 sigma everywhere, and says what it is told to."""

    def __init__(self, logvar: Tensor) -> None:
        self.said = logvar

    def __call__(self, x: Tensor, sigma: Tensor, labels: Tensor) -> Tensor:
        return IMAGES.real + 0.1 * sigma[:, None, None, None]

    def logvar(self, sigma: Tensor) -> Tensor:
        return self.said.expand(len(sigma))[:, None, None, None]


IMAGES = ImagePairs.draw(6, (3, 4, 4))
DRAW = {"sigma": IMAGES.sigma, "noise": IMAGES.noise, "sigma_data": SIGMA_DATA}
ERRORS = (1 / IMAGES.sigma.double() ** 2 + 1 / SIGMA_DATA**2) * (0.1 * IMAGES.sigma.double()) ** 2
"""The weighted error of each image, equal in all its channels and pixels."""


def test_the_weighted_error_keeps_every_channel_and_pixel() -> None:
    network = Uncertain(torch.zeros(()))
    errors = weighted_errors(network, IMAGES.real, IMAGES.real_labels, **DRAW)
    assert errors.shape == IMAGES.real.shape
    torch.testing.assert_close(errors.mean((1, 2, 3)).double(), ERRORS, rtol=1e-4, atol=1e-6)
    loss = denoising_loss(network, IMAGES.real, IMAGES.real_labels, **DRAW)
    assert loss.item() == pytest.approx(ERRORS.mean().item(), rel=1e-4)


@pytest.mark.parametrize("logvar", [-1.0, 0.0, 2.0])
def test_the_uncertain_loss_is_the_error_over_its_variance_and_the_logarithm(logvar: float) -> None:
    network = Uncertain(torch.tensor(logvar))
    loss = uncertainty_loss(network, IMAGES.real, IMAGES.real_labels, **DRAW)
    expected = (ERRORS / math.exp(logvar)).mean().item() + logvar
    assert loss.item() == pytest.approx(expected, rel=1e-4)


def test_the_best_uncertainty_is_the_expected_error() -> None:
    logvar = ERRORS.log().float().requires_grad_()
    loss = uncertainty_loss(Uncertain(logvar), IMAGES.real, IMAGES.real_labels, **DRAW)
    (slope,) = torch.autograd.grad(loss, logvar)
    assert slope.abs().max() < 1e-4
    assert loss.item() == pytest.approx(1 + ERRORS.log().mean().item(), rel=1e-4)


def test_token_losses_are_the_cross_entropies_of_each_token() -> None:
    network, batch = toys.tiny_var(), toys.draw_tokens(6, seed=3)
    losses = token_losses(network, *batch)
    logits = network(batch.class_ids, batch.var_input).double()
    for row, ids in enumerate(batch.ids):
        for place, token in enumerate(ids):
            expected = logits[row, place].logsumexp(0) - logits[row, place, token]
            assert losses[row, place].item() == pytest.approx(expected.item(), abs=1e-5)


def test_each_scale_has_a_mean_of_its_own() -> None:
    losses = torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0], [3.0, 2.0, 3.0, 4.0, 5.0]])
    assert means_by_scale(losses, Scales((1, 2))).tolist() == [2.0, 3.5]
