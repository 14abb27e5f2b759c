"""DDO on two-dimensional data whose density is known: the model comes nearer, by its exact density."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
import toys
from torch import Tensor, nn
from toys import SIGMA_DATA, draw_sigma

from engines.solvers import integrate, plan
from models.spec import DiffusionDefaults
from trainer.objectives.ddo import ddo_loss
from trainer.objectives.denoising import denoising_loss
from trainer.objectives.log_ratio import denoising_log_ratio

MEANS = torch.tensor([[-0.6, -0.4], [0.6, -0.4], [0.0, 0.6]])
SHARES = torch.tensor([0.5, 0.2, 0.3])
DEVIATION = 0.12
LEVELS = DiffusionDefaults(sigma_min=0.01, sigma_max=20)
NO_LABELS = torch.empty(0)
ROWS = 512
EDGE = 1.3


def real(count: int, generator: torch.Generator) -> Tensor:
    """Draw points of the mixture as images of two channels and one pixel, (count, 2, 1, 1)."""
    which = torch.multinomial(SHARES, count, replacement=True, generator=generator)
    return (MEANS[which] + DEVIATION * torch.randn(count, 2, generator=generator))[..., None, None]


def log_data(points: Tensor) -> Tensor:
    """Return the log-density at (N, 2) of the mixture with noise of the lowest level, (N,)."""
    variance = DEVIATION**2 + LEVELS.sigma_min**2
    distances = (points[:, None] - MEANS).square().sum(2) / (2 * variance)
    return (SHARES.log() - distances).logsumexp(1) - math.log(2 * math.pi * variance)


def log_model(network: nn.Module, points: Tensor, steps: int = 64) -> Tensor:
    """Return the model's log-density at (N, 2): change of variables along its ODE, exact divergence."""

    def flow(x: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
        x = x.detach().requires_grad_()
        denoised = network(x[..., None, None], torch.full((len(x),), sigma))[..., 0, 0]
        slope = (x - denoised) / sigma
        columns = (torch.autograd.grad(slope[:, i].sum(), x, retain_graph=True)[0][:, i] for i in range(2))
        return slope.detach(), torch.stack(list(columns)).sum(0)

    sigmas = [call.sigma for call in plan("euler", steps, LEVELS).calls][::-1]
    change = torch.zeros(len(points))
    for low, high in pairwise(sigmas):
        slope, divergence = flow(points, low)
        ahead, further = flow(points + (high - low) * slope, high)
        points = points + (high - low) / 2 * (slope + ahead)
        change = change + (high - low) / 2 * (divergence + further)
    variance = LEVELS.sigma_max**2
    return change - points.square().sum(1) / (2 * variance) - math.log(2 * math.pi * variance)


def divergence_and_mass(network: nn.Module) -> tuple[float, float]:
    """Return KL(data, model) and the model's integral, both summed over a grid."""
    axis = torch.linspace(-EDGE, EDGE, 64)
    points, cell = torch.cartesian_prod(axis, axis), (2 * EDGE / 63) ** 2
    data, model = log_data(points), log_model(network, points)
    return (data.exp() * (data - model)).sum().item() * cell, model.exp().sum().item() * cell


@torch.no_grad()
def fakes_of(network: nn.Module, count: int, generator: torch.Generator) -> Tensor:
    def denoiser(x: Tensor, sigma: float) -> Tensor:
        denoised: Tensor = network(x, torch.full((count,), sigma))
        return denoised

    latents = torch.randn(count, 2, 1, 1, generator=generator)
    return integrate(plan("heun", 20, LEVELS), denoiser, latents)


def train(network: nn.Module, loss: Callable[[], Tensor], steps: int, rate: float) -> None:
    optimizer = torch.optim.Adam(network.parameters(), lr=rate)
    for _ in range(steps):
        optimizer.zero_grad()
        torch.autograd.backward(loss())
        optimizer.step()


def pretrained(generator: torch.Generator) -> nn.Module:
    network = toys.toy_denoiser(channels=2, width=16)

    def loss() -> Tensor:
        images, noise = real(ROWS, generator), torch.randn(ROWS, 2, 1, 1, generator=generator)
        sigma = draw_sigma(ROWS, -0.8, 1.2, generator)
        return denoising_loss(network, images, NO_LABELS, sigma=sigma, noise=noise, sigma_data=SIGMA_DATA)

    train(network, loss, steps=200, rate=3e-3)
    return network


def fine_tuned(reference: nn.Module, *, exchanged: bool) -> nn.Module:
    """Return what DDO makes of the reference; `exchanged`: fakes pass for real and the other way round."""
    generator = torch.Generator().manual_seed(1)
    network = toys.moved(reference, 0)
    fakes = fakes_of(reference, 16384, generator)

    def loss() -> Tensor:
        fake = fakes[torch.randint(len(fakes), (ROWS,), generator=generator)]
        images, noise = real(ROWS, generator), torch.randn(ROWS, 2, 1, 1, generator=generator)
        sigma = draw_sigma(ROWS, -0.8, 1.2, generator)
        ratio = denoising_log_ratio(
            network,
            reference,
            torch.cat([fake, images] if exchanged else [images, fake]),
            NO_LABELS,
            sigma=sigma.repeat(2),
            noise=noise.repeat(2, 1, 1, 1),
            sigma_data=SIGMA_DATA,
        )
        return ddo_loss(*ratio.chunk(2), alpha=0.5, beta=0.5)

    train(network, loss, steps=400, rate=3e-3)
    return network


@pytest.fixture(scope="module")
def reference() -> nn.Module:
    return pretrained(torch.Generator().manual_seed(0))


def test_the_model_comes_nearer_to_the_data(reference: nn.Module) -> None:
    before, mass_before = divergence_and_mass(reference)
    after, mass_after = divergence_and_mass(fine_tuned(reference, exchanged=False))
    assert (mass_before, mass_after) == pytest.approx((1, 1), abs=0.02)
    assert after < 0.5 * before


def test_with_real_and_fake_exchanged_it_goes_away(reference: nn.Module) -> None:
    before, after = (
        divergence_and_mass(network)[0] for network in (reference, fine_tuned(reference, exchanged=True))
    )
    assert after > before
