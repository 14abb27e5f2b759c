"""What the objectives draw for a row, and what they make of it."""

from __future__ import annotations

import math
from typing import cast

import pytest
import torch
from reference import fill
from tiny_runs import NETWORKS, images
from torch.nn import functional as F

from models import build
from models.networks.vqvae import VQVAE
from trainer.data.tokens import TokenizedImages
from trainer.objectives.config import DdoStrength, NoiseLevels
from trainer.objectives.diffusion_ddo import DiffusionDdo
from trainer.objectives.tokenizer import COMMITMENT, REVIVAL, quantize
from trainer.objectives.tokens import VarDdo

CPU = torch.device("cpu")


@pytest.fixture
def vqvae() -> VQVAE:
    return cast(VQVAE, fill(build(NETWORKS["vqvae"])))


def features() -> torch.Tensor:
    return torch.randn(3, 4, 4, 4, generator=torch.Generator().manual_seed(1)).requires_grad_()


def test_quantize_gives_what_the_tokens_stand_for(vqvae: VQVAE) -> None:
    found, _ = quantize(vqvae.quantize, features())
    torch.testing.assert_close(found, vqvae.quantize.accumulate(vqvae.quantize(features()))[-1])


def test_the_decoders_gradient_passes_straight_through(vqvae: VQVAE) -> None:
    x, weights = features(), torch.randn(3, 4, 4, 4)
    found, _ = quantize(vqvae.quantize, x)
    (gradient,) = torch.autograd.grad((found * weights).sum(), x)
    torch.testing.assert_close(gradient, weights)


def test_the_codebooks_loss(vqvae: VQVAE) -> None:
    """Every partial sum against the whole map, and each code against the vector nearest to it."""
    quantizer, x = vqvae.quantize, features()
    ids = quantizer(x)
    partial = quantizer.accumulate(ids)
    distances = [F.mse_loss(total, x) for total in partial]
    rests = [x, *(x - total for total in partial[:-1])]
    vectors = torch.cat([quantizer.input_of(k, rest).flatten(0, 1) for k, rest in enumerate(rests)])
    codes = quantizer.embedding.weight
    nearest = torch.stack([vectors[(vectors - code).norm(dim=1).argmin()] for code in codes])
    expected = (1 + COMMITMENT) * torch.stack(distances).mean() + REVIVAL * F.mse_loss(codes, nearest)
    _, loss = quantize(quantizer, x)
    torch.testing.assert_close(loss, expected)


def test_a_code_that_nothing_is_near_to_is_drawn_to_the_data(vqvae: VQVAE) -> None:
    quantizer = vqvae.quantize
    quantizer.embedding.weight[5] = 40.0
    quantizer.requires_grad_()
    x = features().detach()
    assert 5 not in quantizer(x)
    quantize(quantizer, x)[1].backward()
    gradient = quantizer.embedding.weight.grad
    assert gradient is not None
    assert (gradient[5] > 0).all()


def test_real_and_fake_share_noise_and_keep_their_labels() -> None:
    reference = fill(build(NETWORKS["edm"]))
    ddo = DiffusionDdo(
        images(),
        images(),
        reference,
        NoiseLevels(p_mean=0.5, p_std=0.0001),
        DdoStrength(alpha=3.0, beta=0.1),
        seed=4,
        device=CPU,
    )
    batch = ddo.batch(range(8, 14))
    assert batch.images.shape == (12, 12, 4, 4)
    assert batch.noise.shape == (6, 12, 4, 4)
    torch.testing.assert_close(batch.sigma, torch.full((6,), math.exp(0.5)), rtol=1e-3, atol=0)
    bright = batch.images.mean(dim=(1, 2, 3)) > 0
    assert torch.equal(batch.labels.argmax(1), bright.long())
    assert not torch.equal(batch.images[:6], batch.images[6:])  # each source has its own order


def test_ddo_starts_at_its_closed_form() -> None:
    network = fill(build(NETWORKS["edm"]))
    strength = DdoStrength(alpha=3.0, beta=0.1)
    ddo = DiffusionDdo(images(), images(), network, NoiseLevels(), strength, seed=4, device=CPU)
    values = ddo.loss(network, ddo.batch(range(6)))
    assert values["loss"].item() == pytest.approx(4 * math.log(2), rel=1e-6)
    assert values["real"].item() == values["fake"].item() == 0
    assert values["accuracy"].item() == 0.5


@pytest.mark.parametrize("label_drop", [0.0, 1.0])
def test_vars_ddo_starts_at_its_closed_form(vqvae: VQVAE, label_drop: float) -> None:
    """Without labels no fakes count: what is left is the real term, over max(alpha, 1)."""
    network = fill(build(NETWORKS["var"]))
    ids = torch.arange(16 * 21).view(16, 21) % 16
    tokens = TokenizedImages(ids, torch.arange(16) % 2, 2, vqvae)
    ddo = VarDdo(
        tokens,
        tokens,
        network,
        DdoStrength(alpha=3.0, beta=0.1),
        label_drop=label_drop,
        unconditional="likelihood",
        seed=4,
        device=CPU,
    )
    batch = ddo.batch(range(6))
    assert batch.real.var_input.shape == (6, 20, 4)
    assert batch.dropped.all() == (label_drop == 1)
    values = ddo.loss(network, batch)
    terms = 1.0 if label_drop else 4.0
    assert values["loss"].item() == pytest.approx(terms * math.log(2) / 3, rel=1e-5)
    assert values["real"].item() == pytest.approx(0, abs=1e-4)
