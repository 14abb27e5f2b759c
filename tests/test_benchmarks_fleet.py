"""Simulated fleets, by the commands that size them."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from fake_engine import FakeEngine
from typer.testing import CliRunner

from benchmarks.cli import cli
from benchmarks.fleet.profile import DeviceProfile
from benchmarks.fleet.simulation import Loss, Simulation, Workload
from benchmarks.serving.outcome import OK
from benchmarks.serving.report import Report
from benchmarks.serving.summary import summarize
from engines.base import ImageRequest, Leg
from server.settings import Settings

CALL_S, CALLS = 0.01, 4
PROFILE: dict[str, Any] = {
    "model": "toy",
    "device": "a clock",
    "capacity": 16,
    "max_rows": 8,
    "costs": {"step": {rows: CALL_S for rows in (1, 2, 4, 8)}},
    "path": [{"lane": "step", "calls": CALLS}],
}
BEST = 8 / (CALLS * CALL_S)
"""Images a second of a device with full calls."""


def simulate(devices: int, loss: Loss | None = None, **workload: Any) -> Any:
    simulation = Simulation(DeviceProfile(**PROFILE), devices, Settings(), random.Random(0))
    return simulation.run(Workload(**{"seconds": 20.0, "deadline_s": 0.2} | workload), loss)


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(cli, ["simulate", *map(str, arguments)], terminal_width=200)
    return result.exit_code, result.output


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    (path := tmp_path / "profile.json").write_text(json.dumps(PROFILE))
    return path


def test_an_idle_fleet_answers_in_the_time_of_the_calls() -> None:
    run = simulate(4, rate=0.5)
    assert {outcome.kind for outcome in run.outcomes} == {OK}
    assert [outcome.latency_s for outcome in run.outcomes] == pytest.approx(
        [CALLS * CALL_S] * len(run.outcomes)
    )
    assert run.utilisation == pytest.approx(0.5 * CALLS * CALL_S / 4, rel=0.5)


@pytest.mark.parametrize("devices", [1, 4])
def test_an_overloaded_fleet_makes_what_its_devices_can(devices: int) -> None:
    run = simulate(devices, rate=1.5 * BEST * devices, seconds=3.0)
    made = sum(outcome.images for outcome in run.outcomes)
    assert made / 3 == pytest.approx(BEST * devices, rel=0.1)
    assert {outcome.kind for outcome in run.outcomes} == {OK, "too-late"}
    assert run.utilisation > 0.95


def test_what_a_dying_device_had_is_made_elsewhere() -> None:
    run = simulate(4, Loss(2, after_s=1.0), rate=BEST, seconds=3.0)
    assert run.retried > 0
    assert {outcome.kind for outcome in run.outcomes} == {OK}
    slowest = max(run.outcomes, key=lambda outcome: outcome.latency_s)
    assert slowest.due_s < 1.0 + CALLS * CALL_S


def test_a_fleet_that_is_gone_refuses() -> None:
    run = simulate(1, Loss(1, after_s=5.0), rate=10)
    kinds = [outcome.kind for outcome in run.outcomes if outcome.due_s > 5.0]
    assert set(kinds) == {"no-replica"}


def test_the_same_seed_gives_the_same_fleets(profile: Path, tmp_path: Path) -> None:
    goal = ("--images", 600, "--images", 60_000, "--within-ms", 120, "--domain", 1, "--cell", 4)
    for name in ("one.json", "two.json"):
        code, output = run(profile, *goal, "--price", 2, "--json", tmp_path / name)
        assert code == 0, output
    one, two = (json.loads((tmp_path / name).read_text()) for name in ("one.json", "two.json"))
    assert one == two
    small, large = one["plans"]
    assert (small["cells"], small["devices"]) == (1, 2), "one device would do, were it not to die"
    assert large["devices"] == 4 * large["cells"]
    assert 1000 / BEST < large["devices"] < 2 * 1000 / BEST
    assert min(small["answered"], large["answered"]) >= 0.99


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--within-ms", 30), "an image takes 40 ms with a device to itself"),
        (("--domain", 4, "--cell", 4), "a cell of 4 devices is gone when 4 die together"),
        (("--devices", 2), "--against REPORT and --devices NUMBER go together"),
    ],
)
def test_a_goal_out_of_reach_is_told(options: tuple[object, ...], message: str, profile: Path) -> None:
    code, output = run(profile, *options)
    assert code == 2
    assert message in " ".join(output.replace("│", " ").split())


def test_lanes_that_an_engine_did_not_measure_are_timed() -> None:
    engine = FakeEngine(cost_s=0.002, lanes=1, max_rows=3)
    profile = DeviceProfile.measure(engine, ImageRequest(class_id=0, seed=0), model="fake", device="cpu")
    assert profile.costs["lane0"].keys() == {1, 2}
    assert all(0.002 <= seconds < 0.2 for seconds in profile.costs["lane0"].values())
    assert profile.path == (Leg("lane0", 4),)
    assert not engine.rows, "every place was given back"


def test_a_profile_without_costs_is_refused(profile: Path) -> None:
    profile.write_text(json.dumps(PROFILE | {"costs": {}}))
    code, output = run(profile)
    assert code == 2
    assert "lane 'step' needs costs" in " ".join(output.replace("│", " ").split())


def test_a_measurement_is_held_against_the_simulation(profile: Path, tmp_path: Path) -> None:
    asked = {"pace": "poisson", "rate": BEST, "seconds": 3.0, "n": "1", "deadline_ms": 200}
    outcomes = simulate(2, rate=BEST, seconds=3.0).outcomes
    Report({}, asked, summarize(outcomes, 1000.0)).save(tmp_path / "load.json")
    code, output = run(profile, "--devices", 2, "--against", tmp_path / "load.json")
    assert code == 0, output
    [row] = [line for line in output.splitlines() if "images a second" in line]
    assert row.split("│")[-2].strip() == "1.000"
