"""Tokens are drawn with the probabilities that the logits say."""

from __future__ import annotations

import pytest
import torch

from engines.token_sampling import TokenSampler, guide, truncate
from models.spec import VarDefaults

DRAWS = 40_000
LOGITS = torch.tensor([2.0, 1.0, 0.5, 0.0, -1.0, -3.0])


def _sampler(seed: int | None, **settings: float) -> TokenSampler:
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    return TokenSampler(VarDefaults.model_validate(settings), generator)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"temperature": 0.5},
        {"temperature": 2.0},
        {"top_k": 3},
        {"top_p": 0.8},
        {"top_k": 4, "top_p": 0.7},
    ],
)
def test_frequencies_are_the_probabilities(settings: dict[str, float]) -> None:
    sampler = _sampler(1, **settings)
    ids = sampler.draw(LOGITS.expand(DRAWS, -1))
    measured = torch.bincount(ids, minlength=len(LOGITS)) / DRAWS
    scaled = LOGITS / sampler.settings.temperature
    expected = truncate(scaled, sampler.settings.top_k, sampler.settings.top_p).softmax(dim=0)
    deviation = (expected * (1 - expected) / DRAWS).sqrt()
    assert ((measured - expected).abs() <= 4 * deviation).all()


def test_a_seed_means_one_draw() -> None:
    logits = LOGITS.expand(200, -1)
    first, same, other = (_sampler(seed).draw(logits) for seed in (7, 7, 8))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_without_noise_the_likeliest_token() -> None:
    logits = torch.stack((LOGITS, LOGITS.flip(0)))
    assert _sampler(None, temperature=3.0).draw(logits).tolist() == [0, 5]


def test_truncation_keeps_the_likeliest_even_at_a_tiny_nucleus() -> None:
    assert truncate(LOGITS, 0, 1e-6).isfinite().tolist() == [True, *[False] * 5]


def test_truncation_off() -> None:
    assert torch.equal(truncate(LOGITS, 0, 0.0), LOGITS)
    assert torch.equal(truncate(LOGITS, len(LOGITS), 1.0), LOGITS)


def test_guidance_moves_away_from_the_unconditional() -> None:
    conditional, unconditional = torch.tensor([1.0, 2.0]), torch.tensor([0.0, 4.0])
    assert torch.equal(guide(conditional, unconditional, 0.0), conditional)
    assert torch.equal(guide(conditional, unconditional, 1.5), torch.tensor([2.5, -1.0]))
