"""A run that was stopped, in whatever way, ends in the bits of one that was not."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import training_process
from tiny_runs import assert_same_bits, losses, parameters_of, tiny_loop

from trainer.training.checkpoint import STATE_FILE, load_state

SCRIPT = Path(training_process.__file__)
MOMENTS = [("writing", 2), ("syncing", 3), ("renaming", 2), None, None]
"""Inside the second write of the state, and so on; None: whenever the signal comes."""


def start(directory: Path, *arguments: object) -> subprocess.Popen[bytes]:
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(sys.path),
        "OMP_NUM_THREADS": str(torch.get_num_threads()),  # The order of sums depends on it.
    }
    command = [sys.executable, str(SCRIPT), str(directory), *map(str, arguments)]
    return subprocess.Popen(command, env=environment)


def kill_at_random(process: subprocess.Popen[bytes], directory: Path) -> None:
    """Kill it some time after it has saved a state."""
    state = directory / STATE_FILE
    before = state.stat().st_mtime_ns
    while state.stat().st_mtime_ns == before:
        assert process.poll() is None
        time.sleep(0.005)
    time.sleep(random.uniform(0, 0.3))
    process.kill()


@pytest.mark.slow
def test_a_run_killed_five_times_ends_in_the_same_bits(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir()
    losses(tiny_loop(whole, "edm2", **training_process.SETTINGS))
    expected = load_state(whole)
    assert expected is not None

    killed.mkdir()
    for moment in MOMENTS:
        process = start(killed, *(moment or ()))
        if moment is None:
            kill_at_random(process, killed)
        assert process.wait(120) == -signal.SIGKILL
        state = load_state(killed)  # whole, whenever it was
        assert state is not None
        assert 0 < state["seen"] < training_process.SETTINGS["images"]
    assert start(killed).wait(120) == 0
    assert [path.name for path in killed.iterdir()] == [STATE_FILE]
    state = load_state(killed)
    assert state is not None
    assert_same_bits(state, expected)


@pytest.mark.parametrize("kind", ["edm", "edm2"])
def test_a_run_goes_on_where_its_state_ends(kind: str, tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    whole = tiny_loop(tmp_path / "whole", kind, averages=training_process.SETTINGS["averages"])
    expected = losses(whole)
    (tmp_path / "pieces").mkdir()
    found = []
    for stop in (16, 24, 48):
        piece = tiny_loop(tmp_path / "pieces", kind, averages=training_process.SETTINGS["averages"])
        found += losses(piece, until=stop)
    assert found == expected
    assert torch.equal(parameters_of(piece.network), parameters_of(whole.network))
    states = [load_state(tmp_path / name) for name in ("pieces", "whole")]
    assert states[0] is not None
    assert states[1] is not None
    assert_same_bits(states[0], states[1])


def test_a_state_saved_before_the_first_step_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    expected = losses(tiny_loop(tmp_path / "plain"))
    (tmp_path / "saved").mkdir()
    loop = tiny_loop(tmp_path / "saved")
    loop.save()
    assert losses(loop, until=24) == expected[:3]
    assert losses(tiny_loop(tmp_path / "saved")) == expected[3:]


def test_a_finished_run_makes_no_more_steps(tmp_path: Path) -> None:
    losses(tiny_loop(tmp_path))
    again = tiny_loop(tmp_path)
    assert again.seen == 48
    assert losses(again) == []
