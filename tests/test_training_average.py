"""Moving averages against their definitions, in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from trainer.training.average import WeightAverage, decay, power_exponent
from trainer.training.config import HalfLifeAverage, PowerAverage, TrainingConfig

BATCH = 8
WIDTHS = [0.05, 0.1, 0.25]


@pytest.mark.parametrize("std", WIDTHS)
def test_the_power_function_has_the_width_that_is_asked_for(std: float) -> None:
    """The deviation of the density tau^gamma on [0, 1] (Karras et al. 2024, Section 3.1)."""
    tau = (np.arange(400_000) + 0.5) / 400_000
    density = tau ** power_exponent(std)
    density /= density.sum()
    mean = (density * tau).sum()
    assert math.sqrt((density * (tau - mean) ** 2).sum()) == pytest.approx(std, rel=1e-6)


@pytest.mark.parametrize("std", WIDTHS)
def test_the_power_average_is_the_integral_over_the_weights_history(std: float) -> None:
    """The integral of tau^gamma theta(tau) over that of tau^gamma, theta constant within a step."""
    history = np.random.default_rng(0).standard_normal((40, 6)).astype(np.float32)
    found = follow(history, PowerAverage(std=std))
    ends = np.arange(len(history) + 1, dtype=np.float64) ** (power_exponent(std) + 1)
    expected = (np.diff(ends)[:, None] * history).sum(axis=0) / ends[-1]
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)


def test_the_half_life_halves() -> None:
    config = HalfLifeAverage(images=10 * BATCH)
    assert decay(config, 10**6, BATCH) ** 10 == pytest.approx(0.5)
    history = np.zeros((1000, 6), np.float32)
    history[-10:] = 1
    np.testing.assert_allclose(follow(history, config), 0.5, atol=1e-6)


def test_the_half_life_ramps_up() -> None:
    """EDM's ramp: never longer than `ramp_up` of the images seen."""
    config = HalfLifeAverage(images=1000, ramp_up=0.05)
    assert decay(config, 160, BATCH) == pytest.approx(0.5)  # a half-life of 8 images
    assert decay(config, 20_000, BATCH) == decay(config, 10**6, BATCH) == pytest.approx(0.5 ** (BATCH / 1000))
    assert decay(config, BATCH, BATCH) < 1e-5


def test_averages_of_one_name_are_refused() -> None:
    with pytest.raises(ValidationError, match="two averages have one name: half-life-9, half-life-9"):
        TrainingConfig(images=1, averages=(HalfLifeAverage(images=9), HalfLifeAverage(images=9, ramp_up=1)))


def follow(history: np.ndarray, config: HalfLifeAverage | PowerAverage) -> np.ndarray:
    """Average a network whose weights after step i are `history[i]`."""
    network = nn.Linear(6, 1, bias=False)
    average = WeightAverage(network, config)
    for step, weights in enumerate(history, start=1):
        with torch.no_grad():
            network.weight.copy_(torch.from_numpy(weights))
        average.update(step * BATCH, BATCH)
    return average.values["weight"][0].numpy()
