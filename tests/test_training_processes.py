"""Two processes under torchrun train what one does."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import training_processes
from tiny_runs import config, images, losses, tensors_of, tiny_loop, training, write_toml
from training_processes import HALF, RUNS, SETTINGS, SHARDINGS

from trainer.training.checkpoint import STATE_FILE, load_state
from trainer.training.record import LOG_FILE

CURVE = 2e-6
"""Most that a loss, about 1, may be off: a few units of float32, for sums in another order."""

pytestmark = pytest.mark.slow


def torchrun(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a script or module in two processes; standalone takes a free port."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*command, *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@dataclass(frozen=True)
class Both:
    """What one process and what two have done."""

    alone: Mapping[str, list[float]]
    folder: Path
    seen: tuple[Mapping[str, Any], Mapping[str, Any]]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Both:
    folder = tmp_path_factory.mktemp("processes")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    alone: dict[str, list[float]] = {}
    for name, run in RUNS.items():
        (own := folder / "alone" / name).mkdir(parents=True)
        loop = tiny_loop(own, **run, **SETTINGS)
        alone[name] = losses(loop, until=HALF)
        if name == "edm2":
            for sharding in SHARDINGS:
                shutil.copytree(own, folder / "one" / sharding)
        alone[name] += losses(loop)
    torch.set_num_threads(threads)
    (folder / "two").mkdir()
    result = torchrun(training_processes.__file__, folder / "one", folder / "two")
    assert result.returncode == 0, result.stderr
    seen = [json.loads((folder / "two" / f"{rank}.json").read_text()) for rank in range(2)]
    return Both(alone, folder, (seen[0], seen[1]))


@pytest.mark.parametrize("sharding", SHARDINGS)
@pytest.mark.parametrize("name", RUNS)
def test_two_processes_have_the_loss_curve_of_one(both: Both, sharding: str, name: str) -> None:
    for seen in both.seen:
        assert seen[f"{sharding}/{name}"] == pytest.approx(both.alone[name], rel=0, abs=CURVE)
    assert len(set(both.alone[name])) == 6
    assert_equal_states(both.folder / "two" / "0" / sharding / name, both.folder / "alone" / name)


@pytest.mark.parametrize("sharding", SHARDINGS)
def test_a_state_of_one_process_goes_on_in_two(both: Both, sharding: str) -> None:
    expected = both.alone["edm2"][HALF // 8 :]
    assert both.seen[0][f"{sharding}/resumed"] == pytest.approx(expected, rel=0, abs=CURVE)
    assert_equal_states(both.folder / "one" / sharding, both.folder / "alone" / "edm2")


@pytest.mark.parametrize("sharding", SHARDINGS)
def test_a_state_of_two_processes_goes_on_in_one(both: Both, sharding: str, tmp_path: Path) -> None:
    longer: dict[str, Any] = {**SETTINGS, "images": 64}
    shutil.copytree(both.folder / "two" / "0" / sharding / "edm2", tmp_path / "two")
    shutil.copytree(both.folder / "alone" / "edm2", tmp_path / "alone")
    two, alone = (losses(tiny_loop(tmp_path / name, "edm2", **longer)) for name in ("two", "alone"))
    assert len(two) == 2
    assert two == pytest.approx(alone, rel=0, abs=2 * CURVE)


@pytest.mark.parametrize("sharding", SHARDINGS)
def test_gradients_are_exchanged_once_a_step(both: Both, sharding: str) -> None:
    """However many microbatches a process has: 1 of 4 rows, or 4 of 1."""
    seen = both.seen[0]
    assert seen[f"{sharding}/exchanges/4"] == seen[f"{sharding}/exchanges/1"] > 0


@pytest.mark.parametrize("sharding", SHARDINGS)
def test_every_process_gets_the_whole_weights(both: Both, sharding: str) -> None:
    for name in RUNS:
        key = f"{sharding}/{name}/weights"
        assert both.seen[0][key] == both.seen[1][key]


def test_process_0_alone_writes_files(both: Both) -> None:
    written = {path.relative_to(both.folder / "two") for path in (both.folder / "two").rglob(STATE_FILE)}
    assert len(written) == len(SHARDINGS) * (len(RUNS) + 2)
    assert {path.parts[0] for path in written} == {"0"}


def test_a_batch_that_cannot_be_shared_is_an_error_in_both(both: Both) -> None:
    for seen in both.seen:
        assert "a batch of 12 in microbatches of 4 cannot be shared evenly by 2 processes" in seen["uneven"]


def test_processes_that_find_different_states_are_stopped(both: Both) -> None:
    for seen in both.seen:
        assert "holds another state for each process; it must be one folder for all" in seen["apart"]


def test_the_command_line_under_torchrun(tmp_path: Path) -> None:
    """One log, one set of weights; a grid is drawn although the weights are spread."""
    images().save(tmp_path / "data.npz")
    settings = training(sharding="shard", microbatch=4, images=32, report_steps=2)
    path = write_toml(
        tmp_path / "run.toml", config("edm", tmp_path / "data.npz", training=settings, grid_images=16)
    )
    result = torchrun("-m", "trainer", "pretrain", path, "--out", tmp_path / "run")
    assert result.returncode == 0, result.stderr
    log = [json.loads(line)["images"] for line in (tmp_path / "run" / LOG_FILE).read_text().splitlines()]
    assert log == [16, 32]
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        "grids",
        LOG_FILE,
        STATE_FILE,
        "tensorboard",
        "weights.safetensors",
    ]
    assert sorted(path.name for path in (tmp_path / "run" / "grids").iterdir()) == [
        "000000016.png",
        "000000032.png",
    ]


def assert_equal_states(directory: Path, expected: Path) -> None:
    """Weights agree less than losses: Adam makes a whole step of a gradient that is zero but for rounding."""
    states = [load_state(each) for each in (directory, expected)]
    assert states[0] is not None
    assert states[1] is not None
    found, wanted = (tensors_of(state) for state in states)
    assert found.keys() == wanted.keys()
    for place, value in wanted.items():
        torch.testing.assert_close(found[place], value, rtol=1e-3, atol=1e-4, msg=place)
