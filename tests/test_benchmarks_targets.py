from __future__ import annotations

import base64
import io
import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from benchmarks.cli import cli
from benchmarks.serving.alone import exercise
from benchmarks.serving.client import Plan, send
from benchmarks.serving.ours import StubServer, stub_server
from benchmarks.serving.outcome import Outcome
from benchmarks.serving.peers.model import RequestModel
from benchmarks.serving.peers.plain import create_app
from benchmarks.serving.processes import ServerError, post
from benchmarks.serving.stub import StubEngine
from benchmarks.serving.targets.bench import Bench
from benchmarks.serving.targets.command import PROMISES
from benchmarks.serving.targets.reading import Reading
from benchmarks.serving.targets.saturation import middle_rate
from benchmarks.serving.targets.swaps import switch
from benchmarks.serving.toy import Tally, Toy
from benchmarks.serving.traffic import Arrival
from engines.base import ImageRequest


@pytest.fixture
def tally(tmp_path: Path) -> Tally:
    return Tally(tmp_path / "tally")


@pytest.fixture(scope="module")
def server() -> Iterator[StubServer]:
    with stub_server(versions=2, call_s=0.0005) as server:
        yield server


def test_clients_that_leave_cost_nothing_more(server: StubServer) -> None:
    long = {"class_id": 1, "seed": 1, "steps": 1000}
    arrivals = [Arrival(0.0, long, leave_s=0.02), Arrival(0.0, {"class_id": 2, "seed": 2})]
    before = server.tally.read()
    outcomes = send(Plan(server.url, arrivals))
    assert [outcome.kind for outcome in outcomes] == ["left", "ok"]
    assert outcomes[1].images == 1 and outcomes[1].latency_s < 10
    time.sleep(0.1)
    counts = server.tally.read()
    assert counts.images == before.images + 1
    assert 18 <= counts.calls - before.calls < 500
    assert counts.busy_ns > before.busy_ns


def test_versions_of_the_toy_model_give_other_images(server: StubServer) -> None:
    bodies = [{"class_id": 3, "seed": seed, "steps": 4} for seed in range(5)]
    digests = []
    for version in (1, 2, 1):
        switch(server.url, version)
        outcomes = send(Plan(server.url, [Arrival(0.0, body) for body in bodies], concurrency=2))
        assert {outcome.version for outcome in outcomes} == {version}
        digests.append([outcome.digest for outcome in outcomes])
    assert digests[0] == digests[2]
    assert not set(digests[0]) & set(digests[1])
    with pytest.raises(ServerError, match="switching to version 7"):
        switch(server.url, 7)


def test_a_killed_server_comes_back(server: StubServer) -> None:
    assert server.process.cpu_seconds() > 0
    assert server.process.usage().resident > 10e6
    assert not any("libtorch" in name for name in server.process.libraries())
    server.process.kill()
    with pytest.raises(OSError, match="refused"):
        post(server.url, "/generate", {"class_id": 0})
    server.process.start()
    assert post(server.url, "/generate", {"class_id": 0, "steps": 1})[0] == 200


def test_a_server_that_cannot_start_says_why() -> None:
    with pytest.raises(ServerError, match="max_images"), stub_server(max_images=9, queue_rows=1):
        pass


def test_peers_make_the_same_images_as_our_engine(tally: Tally) -> None:
    toy = Toy(0.0, tally)
    engine = StubEngine(toy)
    rows = [engine.open(engine.resolve(ImageRequest(class_id=2, seed=seed, steps=3))) for seed in (5, 6)]
    while rows[0].calls_left:
        engine.step(rows)
    assert tally.read()[:3] == (3, 6, 0)
    bodies = [{"class_id": 2, "seed": seed, "steps": 3 + 4 * (seed == 6)} for seed in (5, 6)]
    model = RequestModel(toy)
    states = [engine.image(row).tobytes() for row in rows]
    answers = model.generate([{**body, "steps": 3} for body in bodies])
    assert [decode(answer) for answer in answers] == states
    before = tally.read()
    model.generate(bodies)
    # The short one's place stays empty while the long one is computed.
    assert (tally.read().calls - before.calls, tally.read().rows - before.rows) == (7, 10)


def test_the_plain_batcher_batches(tally: Tally) -> None:
    with TestClient(create_app(RequestModel(Toy(0.0, tally)))) as client:
        answer = client.post("/generate", json={"class_id": 1, "seed": 2, "steps": 5})
        assert decode(answer.json())
        assert client.post("/generate", json={"class_id": 1}).status_code == 422
    assert tally.read()[:3] == (5, 5, 1)


def decode(answer: dict[str, object]) -> bytes:
    [image] = answer["images"]  # type: ignore[misc]
    with PIL.Image.open(io.BytesIO(base64.b64decode(image["image"]))) as picture:
        return np.asarray(picture).tobytes()


def test_the_engine_alone_is_measured_full_and_lone(tally: Tally) -> None:
    alone = exercise(StubEngine(Toy(0.001, tally)), steps=3, seconds=0.1)
    assert 0 < alone.images_per_s <= 8 / 0.003
    assert alone.lone_ms >= 3


def test_the_middle_of_a_run_counts() -> None:
    ends = [0.0, *(10 + at / 5 for at in range(20)), 99.0]
    outcomes = [Outcome(at, 0.0, 0.0, end, "ok") for at, end in enumerate(ends)]
    assert middle_rate(outcomes) == pytest.approx(5)


@pytest.mark.parametrize(
    ("value", "target", "at_least", "met"),
    [
        (3, 3, False, True),
        (3.1, 3, False, False),
        (97, 97, True, True),
        (96, 97, True, False),
        (None, 3, False, False),
        (None, 3, True, False),
        (5, None, False, True),
    ],
)
def test_a_reading_knows_whether_it_is_good_enough(
    value: float | None, target: float | None, at_least: bool, met: bool
) -> None:
    assert Reading("a", "b", value, target, at_least).met is met


def test_one_promise_that_cannot_be_measured_loses_none_of_the_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(_: Bench) -> list[Reading]:
        raise ServerError("it fell over")

    monkeypatch.setitem(PROMISES, "idle", fail)
    monkeypatch.setitem(PROMISES, "soak", lambda bench: [Reading("soak", "minutes", bench.minutes, 1)])
    report = tmp_path / "report.json"
    result = CliRunner().invoke(cli, ["targets", "idle", "soak", "--minutes", "0.5", "--json", str(report)])
    assert result.exit_code == 1
    figures = json.loads(report.read_text())["figures"]
    assert [(one["value"], one["met"]) for one in figures[:2]] == [(None, False), (0.5, True)]
    assert "it fell over" in figures[0]["what"]


def test_only_known_promises_are_measured(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, ["targets", "wonders"])
    assert result.exit_code == 2 and "wonders" in result.output
    result = CliRunner().invoke(cli, ["targets", "crash", "--version", str(tmp_path)])
    assert result.exit_code == 2 and "saturation, idle" in result.output
