from __future__ import annotations

import json
import random
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
from fake_engine import FakeEngine
from fake_server import serving, version, wait_until_ready
from typer.testing import CliRunner

from benchmarks.cli import cli
from benchmarks.serving.outcome import Outcome
from benchmarks.serving.summary import summarize
from benchmarks.serving.traffic import MAX_ARRIVALS, Mix, TrafficError, at_once, poisson, read_trace
from server.settings import Settings


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    engines = {"fake": FakeEngine(), "free": FakeEngine(), "moody": MoodyEngine()}
    with serving(engines, free=version("free", classes=())) as url:
        with httpx.Client(base_url=url) as client:
            wait_until_ready(client)
        yield url


class MoodyEngine(FakeEngine):
    """It never makes the same image twice."""

    def image(self, row):  # type: ignore[no-untyped-def]
        return super().image(row) // 2 + self.closed % 100


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli, arguments, terminal_width=200)
    return result.exit_code, " ".join(result.output.replace("│", " ").split())


@pytest.mark.parametrize("model", ["fake", "free"])
def test_overhead_prints_percentiles(url: str, model: str) -> None:
    code, output = run("overhead", url, "--requests", "5", "--model", model)
    assert code == 0, output
    assert f"5 requests of {model}" in output
    assert all(word in output for word in ("overhead", "queue", "encode", "compute", "p50", "p99"))


@pytest.mark.parametrize("model", ["fake", "free"])
def test_load_reports_and_compares(url: str, model: str, tmp_path: Path) -> None:
    report, plot = tmp_path / "a.json", tmp_path / "a.png"
    options = [
        "--rate",
        "100",
        "--seconds",
        "0.3",
        "--steps",
        "1-6",
        "--n",
        "1-3",
        "--cfg",
        "1",
        "--cfg",
        "2",
        "--objective-ms",
        "60000",
    ]
    code, output = run("load", url, "--model", model, *options, "--json", str(report), "--plot", str(plot))
    assert code == 0, output
    assert plot.read_bytes().startswith(b"\x89PNG")
    written = json.loads(report.read_text())
    summary = written["summary"]
    assert summary["kinds"] == {"ok": summary["requests"]} and summary["requests"] > 10
    assert summary["images_per_s"] > summary["answers_per_s"] == summary["goodput_per_s"] > 0
    assert 0 < summary["latency_ms"]["p50"] <= summary["latency_ms"]["p99"] <= summary["latency_ms"]["max"]
    assert written["checked"] == written["equal"] > 10
    assert written["machine"]["cpu"] and written["workload"]["steps"] == "1-6"
    code, output = run("compare", str(report), str(report))
    assert code == 0 and "1.000" in output and "differ" not in output


def test_closed_loop_keeps_to_its_clients() -> None:
    options = ["--pace", "closed", "--concurrency", "4", "--requests", "60", "--check", "3"]
    engine = FakeEngine(capacity=1, cost_s=0.002)
    with serving({"fake": engine}, Settings(queue_rows=16)) as url:
        with httpx.Client(base_url=url) as client:
            wait_until_ready(client)
        # Of 60 requests at once some would be refused; of four clients' in turns none is.
        code, output = run("load", url, *options)
    assert code == 0, output
    assert "ok: 60" in output and "3 of 3" in output


def test_a_trace_is_sent_as_recorded(url: str, tmp_path: Path) -> None:
    trace = tmp_path / "trace.jsonl"
    bodies = [{"class_id": 1, "seed": 5}, {"class_id": 99}, {"class_id": 2, "n": 16, "steps": 2}]
    lines = [json.dumps({"offset": 0.1 * (2 - at), "body": body}) for at, body in enumerate(bodies)]
    trace.write_text("\n".join(lines) + "\n")
    code, output = run("load", url, "--pace", "trace", "--trace", str(trace))
    assert code == 0, output
    assert "ok: 2, invalid-input: 1" in output
    assert "1 of 1" in output  # the others have no seed of their own


def test_load_fails_when_an_image_differs(url: str) -> None:
    code, output = run("load", url, "--rate", "50", "--seconds", "0.2", "--model", "moody")
    assert code == 1
    assert "equal to the same request alone" in output


@pytest.mark.parametrize(
    "address",
    ["http://example.com", "http://10.0.0.1:8000", "http://127.0.0.1.example.com", "https://localhost"],
)
@pytest.mark.parametrize("command", ["overhead", "load"])
def test_only_this_machine_is_measured(command: str, address: str) -> None:
    code, output = run(command, address)
    assert code == 2
    assert "only http://" in output


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--model", "nobody"], "no model is called"),
        (["--steps", "9-3"], "want a number or a range"),
        (["--pace", "trace"], "go together"),
        (["--rate", "9999", "--seconds", "7200"], f"more than {MAX_ARRIVALS}"),
    ],
)
def test_what_cannot_be_sent_is_said(url: str, options: list[str], words: str) -> None:
    code, output = run("load", url, *options)
    assert code == 2
    assert words in output


def test_arrivals_are_poisson_and_come_again_with_their_seed() -> None:
    mix = Mix(classes=7, steps=(5, 30), n=(1, 4), cfg=(1.0, 2.0), deadline_ms=500)
    arrivals = poisson(mix, rate=200, seconds=50, draw=random.Random(3))
    assert arrivals == poisson(mix, rate=200, seconds=50, draw=random.Random(3))
    assert arrivals != poisson(mix, rate=200, seconds=50, draw=random.Random(4))
    gaps = [after.offset_s - before.offset_s for before, after in pairwise(arrivals)]
    mean = sum(gaps) / len(gaps)
    assert mean == pytest.approx(1 / 200, rel=0.05)
    # Of an exponential distribution the deviation is the mean, and 1/e of all are longer than it.
    assert sum((gap - mean) ** 2 for gap in gaps) / len(gaps) == pytest.approx(mean**2, rel=0.1)
    assert sum(gap > mean for gap in gaps) / len(gaps) == pytest.approx(0.368, abs=0.02)
    bodies = [arrival.body for arrival in arrivals]
    assert {body["steps"] for body in bodies} == set(range(5, 31))
    assert {body["n"] for body in bodies} == {1, 2, 3, 4} and {body["cfg"] for body in bodies} == {1.0, 2.0}
    seeds = [body["seed"] + image for body in bodies for image in range(body["n"])]
    assert len(set(seeds)) == len(seeds)


def test_what_a_model_does_not_have_is_left_out() -> None:
    [arrival] = at_once(Mix(), requests=1, draw=random.Random(0))
    assert arrival.body.keys() == {"seed", "n", "cfg"}


@pytest.mark.parametrize(
    "line",
    ["[]", "{}", '{"offset": -1, "body": {}}', '{"offset": "x", "body": {}}', '{"offset": 0, "body": 1}', ""],
)
def test_bad_traces_are_refused(line: str, tmp_path: Path) -> None:
    trace = tmp_path / "trace.jsonl"
    trace.write_text(line)
    with pytest.raises(TrafficError, match=r"trace\.jsonl"):
        read_trace(trace)


def outcome(due: float, latency: float, **fields: Any) -> Outcome:
    return Outcome(0, due, due, due + latency, **{"kind": "ok", "images": 1, **fields})


def test_goodput_counts_answers_within_the_objective() -> None:
    summary = summarize(
        [
            outcome(1.0, 0.1, images=3),
            outcome(1.5, 0.2, preview_s=1.55),
            outcome(2.0, 0.201),
            outcome(2.0, 0.001, kind="queue-full", images=0),
            outcome(2.0, 0.01, kind="left", images=0),
            outcome(2.0, 3.0),
        ],
        objective_ms=200,
    )
    assert summary.seconds == pytest.approx(4.0)
    assert summary.goodput_per_s == pytest.approx(2 / 4)
    assert summary.goodput_share == pytest.approx(2 / 5)  # who leaves did not want an answer
    assert (summary.answers_per_s, summary.images_per_s) == pytest.approx((4 / 4, 6 / 4))
    assert summary.kinds == {"ok": 4, "queue-full": 1, "left": 1}
    assert summary.preview_ms["max"] == pytest.approx(50)
    assert summary.refusal_ms["max"] == pytest.approx(1)
    assert summary.latency_ms["max"] == pytest.approx(3000)


def test_compare_says_what_differs(tmp_path: Path) -> None:
    figures = {name: 1.0 for name in ("mean", "p50", "p90", "p95", "p99", "p99.9", "max")}
    empty: dict[str, float] = {}
    summary = {
        "requests": 10,
        "seconds": 1.0,
        **{name: 4.0 for name in ("images_per_s", "answers_per_s", "goodput_per_s")},
        "goodput_share": 1.0,
        "objective_ms": 1,
        "kinds": {"ok": 8},
        "latency_ms": figures,
        **{name: empty for name in ("queue_ms", "preview_ms", "refusal_ms", "lag_ms")},
    }
    slow = {name: 3.0 for name in figures}
    first, second = tmp_path / "1.json", tmp_path / "2.json"
    first.write_text(json.dumps({"machine": {"cpu": "A"}, "workload": {}, "summary": summary}))
    other = {"machine": {"cpu": "B"}, "workload": {}, "summary": {**summary, "latency_ms": slow}}
    second.write_text(json.dumps(other))
    code, output = run("compare", str(first), str(second))
    assert code == 0 and "3.000" in output and "the machines differ: cpu: A and B" in output
    second.write_text("{}")
    code, output = run("compare", str(first), str(second))
    assert code == 2 and "holds no run" in output
