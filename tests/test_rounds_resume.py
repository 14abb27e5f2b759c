"""A run of rounds that is killed goes on to the same bits and decisions, and publishes nothing twice."""

from __future__ import annotations

import json
import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from round_toys import run, start, write_config

from models.registry import Registry
from models.version import record


def outcome(place: Path) -> dict[str, Any]:
    """Return all that a run decided and made, but for the times in its log."""
    folder = place / "out"
    decided = [*folder.glob("*.json"), *folder.rglob("result.json"), *folder.rglob("evaluations.jsonl")]
    shards = {p: record(p).sha256 for p in folder.rglob("pool/*.npz")}
    texts = {p: p.read_text().replace(str(place.parent), "") for p in decided if p.name != "run.json"}
    states = {p: torch.load(p, weights_only=True) for p in folder.rglob("state.pt")}
    weights = {
        path: {name: tensor.numpy().tobytes() for name, tensor in state["network"].items()}
        for path, state in states.items()
    }
    registry = Registry(place / "registry")
    versions = {number: registry.verify("tiny", number).spec for number in registry.versions("tiny")}
    made = {path.relative_to(place): value for path, value in {**shards, **texts, **weights}.items()}
    return {"files": made, "versions": versions, "current": registry.current("tiny")}


def command(config: Path, place: Path) -> list[object]:
    return ["ddo", config, "--out", place / "out", "--registry", place / "registry"]


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("toys")


@pytest.fixture(scope="module")
def config(toys: Path) -> Path:
    averages = '[{ kind = "half-life", images = 8 }, { kind = "power", std = 0.2 }]'
    return write_config(toys, averages=averages)


@pytest.fixture(scope="module")
def whole(toys: Path, config: Path) -> tuple[dict[str, Any], float]:
    """What comes of a run that nobody disturbs, and how many seconds it takes."""
    started = time.monotonic()
    assert run(*command(config, toys / "whole")) == 0
    return outcome(toys / "whole"), time.monotonic() - started


def test_an_undisturbed_run_publishes_both_rounds(whole: tuple[dict[str, Any], float]) -> None:
    found, _ = whole
    assert list(found["versions"]) == [1, 2, 3]
    assert found["current"] == 3
    lineages = [spec.lineage for spec in found["versions"].values()]
    assert [lineage.parent for lineage in lineages] == [None, "tiny/0001", "tiny/0002"]
    assert [lineage.round for lineage in lineages] == [0, 1, 2]
    distances = [lineage.metrics["frechet_distance_means"] for lineage in lineages[1:]]
    assert distances[1] < distances[0]


def test_killed_inside_every_kind_of_write(
    toys: Path, config: Path, whole: tuple[dict[str, Any], float]
) -> None:
    place = toys / "writes"
    moments = [
        (r"/registry/tiny/versions$", 1),  # the parent is in the registry, but nowhere written down
        (r"/\.base\.json\.", 1),
        (r"/round-01/pool/\.00001\.npz\.", 1),
        (r"/round-01/.*/\.?state\.pt", 2),
        (r"/round-01/.*/\.evaluations\.jsonl\.", 1),
        (r"/round-01/.*/\.?state\.pt", 3),
        (r"/registry/tiny/versions$", 1),  # the best is in the registry, but its round has not ended
        (r"/round-02/pool/\.00002\.npz\.", 1),
        (r"/round-02/.*/\.evaluations\.jsonl\.", 2),
        (r"/round-02/\.result\.json\.", 1),
    ]
    for moment in moments:
        assert run(*command(config, place), kill=moment) == -signal.SIGKILL, moment
    assert run(*command(config, place)) == 0
    assert outcome(place) == whole[0]
    leftover = [path for path in (place / "out").rglob(".*") if path.name != ".lock"]
    assert leftover == []


def test_killed_at_random_moments(toys: Path, config: Path, whole: tuple[dict[str, Any], float]) -> None:
    place = toys / "random"
    moments = random.Random(0)
    for _ in range(5):
        process = start(*command(config, place))
        process.join(moments.uniform(0.2, 0.6) * whole[1])
        process.kill()
        process.join()
    assert run(*command(config, place)) == 0
    assert outcome(place) == whole[0]


def test_a_run_that_has_ended_does_nothing_but_may_be_given_more_rounds(
    toys: Path, config: Path, whole: tuple[dict[str, Any], float]
) -> None:
    place = toys / "longer"
    shutil.copytree(toys / "whole", place)
    before = {path: path.stat().st_mtime_ns for path in (place / "out").glob("round-*/**/*")}
    assert run(*command(config, place)) == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before
    longer = toys / "longer.toml"
    longer.write_text(config.read_text().replace("rounds = 2", "rounds = 3"))
    assert run(*command(longer, place)) == 0
    assert json.loads((place / "out" / "round-03" / "result.json").read_text())["parent"] == "tiny/0003"
