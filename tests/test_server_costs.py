"""What is known of calls' costs, before and after they are made."""

from __future__ import annotations

import subprocess
import sys

import pytest

from engines.base import Leg
from server.scheduling.cost import CostModel
from server.scheduling.lane_costs import FORGOTTEN_AFTER, LaneCosts


def test_costs_between_measured_sizes_are_those_of_the_engines_division() -> None:
    costs = LaneCosts({1: 1.0, 4: 2.5})
    assert [costs.seconds(width) for width in (1, 2, 3, 4, 5, 8)] == [1.0, 2.0, 2.5, 2.5, 3.5, 5.0]
    assert [costs.slots(width) for width in (1, 2, 3, 4, 5)] == [1, 2, 4, 4, 5]


def test_calls_correct_what_was_measured_and_what_was_not_tried_follows() -> None:
    costs = LaneCosts({1: 1.0, 4: 2.0})
    for _ in range(100):
        costs.observe(4, 4.0)
    assert costs.seconds(4) == pytest.approx(4.0, rel=0.01)
    assert costs.seconds(1) == pytest.approx(2.0, rel=0.01)
    assert costs.least == 1.0


def test_without_measurements_wider_calls_are_tried() -> None:
    cost = CostModel()
    leg = Leg("x", 10)
    assert cost.row_seconds("model", [leg], 10, 1) == 0.0
    cost.lane("model", "x").observe(1, 2.0)
    assert cost.best_rows("model", leg, 8) == 8
    cost.lane("model", "x").observe(8, 32.0)
    assert cost.best_rows("model", leg, 8) < 8


def test_one_call_that_was_held_up_does_not_make_calls_smaller() -> None:
    cost, leg = CostModel(), Leg("x", 10)
    cost.expect("model", {"x": dict.fromkeys(range(1, 9), 0.002)})
    cost.lane("model", "x").observe(8, 0.2)
    for _ in range(20):
        cost.lane("model", "x").observe(7, 0.002)
    assert cost.best_rows("model", leg, 8) == 8


def test_what_was_forgotten_does_not_come_back() -> None:
    costs = LaneCosts({1: 1.0, 8: 1.0})
    for _ in range(100):
        costs.observe(8, 100.0)
    for _ in range(FORGOTTEN_AFTER + 8):
        costs.observe(1, 1.0)
    costs.observe(8, 1.0)
    assert costs.seconds(8) == pytest.approx(1.0, rel=0.01)


def test_an_old_measurement_of_a_width_is_forgotten() -> None:
    costs = LaneCosts({1: 1.0, 8: 1.0})
    for _ in range(100):
        costs.observe(8, 100.0)
    assert costs.seconds(8) == pytest.approx(100.0, rel=0.01)
    for _ in range(FORGOTTEN_AFTER + 8):
        costs.observe(1, 1.0)
    assert costs.seconds(8) == pytest.approx(1.0, rel=0.01)


def test_a_row_is_predicted_lane_by_lane_and_wide_rows_count_as_they_are() -> None:
    cost = CostModel()
    cost.expect("var", {"scale0": {1: 1.0, 2: 1.5}, "pixels": {1: 4.0}})
    path = [Leg("scale0", 1, width=2), Leg("pixels", 1)]
    assert cost.row_seconds("var", path, 2, 1) == 5.5
    assert cost.row_seconds("var", path, 1, 1) == 4.0
    cost.forget("var")
    assert cost.row_seconds("var", path, 2, 1) == 0.0


def test_the_scheduler_needs_no_torch() -> None:
    code = "import sys, server.scheduling.worker, server.app; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
