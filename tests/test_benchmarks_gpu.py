"""The checks that wait for a GPU run on a CPU too, notice what is wrong, and end plainly without one."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from graph_double import GraphDouble
from test_loading import edm2_version
from typer.testing import CliRunner

from benchmarks.cli import cli
from benchmarks.gpu import checks
from benchmarks.gpu.command import Effort, in_a_process, machine, try_all
from benchmarks.gpu.images import requests_of, results
from benchmarks.gpu.outcome import CheckError, attempt
from benchmarks.gpu.report import Report, Tried
from benchmarks.gpu.trial import Trial, run
from benchmarks.gpu.way import WAYS, Way
from engines import EngineSettings, load
from engines.errors import EngineError
from models.version import ModelVersion

TORCH = Way(backend="torch", precision="float32")


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> ModelVersion:
    directory = tmp_path_factory.mktemp("registry") / "edm2-tiny" / "versions" / "0001"
    directory.mkdir(parents=True)
    return edm2_version(directory)


@pytest.fixture(scope="module")
def engine(version: ModelVersion) -> Any:
    return load(version, EngineSettings(backend="torch", precision="float32", max_rows=2))


def trial(version: ModelVersion, way: Way, folder: Path) -> Trial:
    return Trial(version=version.directory, way=way, device="cpu", batches=(1, 2), turns=1, folder=folder)


@pytest.mark.slow
def test_all_checks_of_a_model_pass_on_a_cpu(version: ModelVersion, tmp_path: Path) -> None:
    """Each way in a process of its own, as on a GPU."""
    effort = Effort("cpu", (TORCH, Way(backend="tensorrt", precision="float16")), (1, 2), 1)
    report = try_all([("tiny", version.directory)], effort, tmp_path)
    reference, *tried, skipped = [each.outcome for each in report.tried]
    assert (reference.status, skipped.detail) == ("pass", "it needs an NVIDIA GPU, not cpu")
    outcomes = {outcome.check: outcome for outcome in tried}
    assert {name: outcome.status for name, outcome in outcomes.items()} == {
        "load": "pass",
        "agrees with the CPU": "pass",
        "same bits in any batch": "pass",
        "same bits again": "pass",
        "golden image": "skipped",
        "times": "pass",
        "CUDA graphs replay the same bits": "skipped",
    }
    assert report.counts == {"pass": 6, "fail": 0, "skipped": 3}
    assert outcomes["agrees with the CPU"].figures["relative error"] == 0
    assert outcomes["times"].figures.keys() == {
        f"batch {batch}, cfg {cfg}, ms a call" for batch in (1, 2) for cfg in ("1", "1.5")
    }


def test_other_samples_are_noticed(version: ModelVersion, engine: Any, tmp_path: Path) -> None:
    exact = results(engine, requests_of(version, 2))
    np.save(tmp_path / "exact.npy", 1.01 * exact)
    with pytest.raises(CheckError, match=r"more than 0.005 off") as caught:
        checks.agrees(engine, version, "float32", tmp_path / "exact.npy")
    assert caught.value.figures["relative error"] == pytest.approx(1 - 1 / 1.01)


class Unsteady:
    """An engine whose samples differ in a batch, or from time to time."""

    def __init__(self, engine: Any, *, alone: bool) -> None:
        self._engine = engine
        self._alone = alone
        self._calls = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def step(self, rows: Any) -> None:
        self._engine.step(rows)
        self._calls += 1
        if self._alone or len(rows) > 1:
            for row in rows:
                row.state = row.state + self._calls * 2**-10


def test_a_batch_that_changes_images_is_noticed(version: ModelVersion, engine: Any) -> None:
    with pytest.raises(CheckError, match="images change in a batch of 2"):
        checks.same_in_any_batch(Unsteady(engine, alone=False), version, (1, 2))
    with pytest.raises(CheckError, match="other bits the second time"):
        checks.repeats(Unsteady(engine, alone=True), version)


def test_graphs_are_compared_with_what_they_hold(version: ModelVersion) -> None:
    figures = checks.graphs_replay(version, torch.float32, GraphDouble(), batches=(1, 2), turns=1)
    assert figures.keys() == {f"batch {n}, {name}, ms" for n in (1, 2) for name in ("eager", "graph")}

    class Forgetful(GraphDouble):
        def capture(self, work: Any) -> Any:
            super().capture(work)
            return lambda: None

    with pytest.raises(CheckError, match="the graph gives other bits"):
        checks.graphs_replay(version, torch.float32, Forgetful(), batches=(1,), turns=1)


def test_what_cannot_be_loaded_is_a_failure_with_its_reason(version: ModelVersion, tmp_path: Path) -> None:
    (outcome,) = run(trial(version, Way(backend="torch-tensorrt", precision="bfloat16"), tmp_path))
    assert (outcome.check, outcome.status) == ("load", "fail")
    assert "an NVIDIA GPU is needed" in outcome.detail


def test_a_process_that_dies_is_a_failure(
    version: ModelVersion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    (outcome,) = in_a_process(trial(version, TORCH, tmp_path))
    assert (outcome.status, outcome.detail) == ("fail", "the process ended with 1: it says nothing")


def _raise() -> dict[str, float]:
    raise EngineError("no engine")


def test_a_report_tells_all(tmp_path: Path) -> None:
    tried = tuple(Tried(model="m", way=way.name, outcome=attempt("load", _raise)) for way in WAYS)
    report = Report(machine=machine("cpu"), tried=tried)
    page = report.markdown()
    assert f"0 pass, {len(WAYS)} fail, 0 skipped." in page
    assert "| tensorrt, float16 | load | fail: no engine |  |" in page
    assert Report.model_validate_json(json.dumps(report.model_dump())) == report


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_one_line_says_so(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, ["gpu", "--out", str(tmp_path / "report")])
    assert result.exit_code == 2
    assert result.output.startswith("There is no GPU") and result.output.count("\n") == 1
    assert not (tmp_path / "report").exists()


def test_an_unknown_backend_is_refused() -> None:
    result = CliRunner().invoke(cli, ["gpu", "--backend", "abacus"])
    assert result.exit_code == 2
    assert "no backend abacus" in result.output
