"""The learning rate at the corners of its schedules."""

from __future__ import annotations

import math
from typing import Any

import pytest

from trainer.training.config import InverseSquareRootSchedule, LinearSchedule, OptimizerConfig
from trainer.training.schedule import learning_rate


def rates(places: list[int], **settings: Any) -> list[float]:
    config = OptimizerConfig(learning_rate=2.0, **settings)
    return [learning_rate(seen, 1000, config) for seen in places]


def test_the_linear_schedule_warms_up_stays_and_falls() -> None:
    schedule = LinearSchedule(decay_images=200, final=0.1)
    found = rates([0, 50, 100, 800, 900, 1000, 1064], warmup_images=100, schedule=schedule)
    assert found == pytest.approx([0, 1, 2, 2, 1.1, 0.2, 0.2])


def test_the_default_schedule_is_constant() -> None:
    assert rates([0, 1, 999, 1000], warmup_images=0) == [2.0] * 4


@pytest.mark.parametrize("seen", [0, 99, 100, 101, 400, 1000])
def test_the_inverse_square_root_is_edm2s_equation(seen: int) -> None:
    """Karras et al. 2024, Eq. 67: alpha_ref / sqrt(max(t / t_ref, 1))."""
    schedule = InverseSquareRootSchedule(constant_images=100)
    (found,) = rates([seen], warmup_images=0, schedule=schedule)
    assert found == pytest.approx(2.0 / math.sqrt(max(seen / 100, 1)))


def test_the_inverse_square_root_warms_up_and_ends_at_its_final_share() -> None:
    schedule = InverseSquareRootSchedule(constant_images=100, final=0.4)
    found = rates([25, 50, 400, 625, 1000], warmup_images=50, schedule=schedule)
    assert found == pytest.approx([1, 2, 1, 0.8, 0.8])
