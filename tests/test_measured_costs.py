"""What calls cost is measured once, kept, told to the scheduler, and changes no bit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from fake_engine import FakeEngine
from test_loading import edm2_version, unconditional_version, var_version

from engines import EngineSettings, load
from engines.backends.artifact_cache import ArtifactCache
from engines.backends.bucket_cache import BucketCache, torch_sources
from engines.base import Engine
from engines.buckets import Buckets
from models.version import ModelVersion
from server.hosting.version_key import VersionKey
from server.hosting.warmup import golden_request
from server.metrics import Metrics
from server.scheduling.worker import Worker

FAKE = VersionKey("fake", 1)


def clock_of(seconds: Callable[[int], float]) -> tuple[Callable[[int], None], Callable[[], float]]:
    """Return a call and the clock that says it takes `seconds` at a size."""
    now = [0.0]

    def run(size: int) -> None:
        now[0] += seconds(size)

    return run, lambda: now[0]


def test_the_least_of_the_times_counts() -> None:
    times: Iterator[float] = iter([9.0, 1.0, 3.0, 8.0])
    run, clock = clock_of(lambda _: next(times))
    timed = Buckets((1, 2), 0.5).timed(run, clock)
    assert timed.seconds_by_size == {1: 1.0, 2: 3.0}
    assert Buckets((1, 2), 0.5).seconds_by_size == {}


@pytest.mark.parametrize(
    ("seconds", "sizes"),
    [(lambda size: 0.1 + size, [4, 1]), (lambda size: 5.0 + size, [8]), (lambda size: size**2, [1] * 5)],
)
def test_five_rows_are_divided_as_was_measured(seconds: Callable[[int], float], sizes: list[int]) -> None:
    timed = Buckets((1, 2, 4, 8), 0.5).timed(*clock_of(seconds))
    assert timed.sizes == (1, 2, 4, 8)
    assert sorted((len(given) for _, given in timed.calls(5)), reverse=True) == sizes


def test_no_call_is_padded_because_a_smaller_one_was_disturbed() -> None:
    times = iter([1.0, 1.0, 9.0, 9.0, 2.0, 2.0])
    run, clock = clock_of(lambda _: next(times))
    timed = Buckets((4, 8, 16), 0.5).timed(run, clock)
    assert timed.seconds_by_size == {4: 1.0, 8: 2.0, 16: 2.0}
    assert [len(given) for _, given in timed.calls(8)] == [8]


def test_what_was_found_is_found_again_for_the_same_sources_alone(tmp_path: Path) -> None:
    found = [Buckets((2, 4), 0.5, (0.25, 0.125)), Buckets((1,), 0.1)]
    searched: list[str] = []
    for cpu, most in (("a", 4), ("a", 4), ("b", 4), ("b", 4), ("a", 8), ("a", 8), ("a", 4)):
        name = f"{cpu}{most}"

        def search(name: str = name) -> list[Buckets]:
            searched.append(name)
            return found

        assert BucketCache(ArtifactCache(tmp_path), {"cpu": cpu}).get("scales", most, search) == tuple(found)
    assert searched == ["a4", "b4", "a8"]


def test_sources_name_what_decides_the_order_of_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch_sources(torch.float32)
    assert before == torch_sources(torch.float32) != torch_sources(torch.bfloat16)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert torch_sources(torch.float32) != before


def image_of(engine: Engine, version: ModelVersion) -> np.ndarray:  # type: ignore[type-arg]
    row = engine.open(engine.resolve(golden_request(version)))
    while row.calls_left:
        engine.step([row])
    return engine.image(row)


def test_a_var_does_not_search_again(tmp_path: Path) -> None:
    (tmp_path / "version").mkdir()
    version = var_version(tmp_path / "version")
    settings = EngineSettings(precision="float32", max_rows=2, cache=tmp_path / "cache")
    first = load(version, settings)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Buckets, "find", lambda *_: pytest.fail("searched again"))
        again = load(version, settings)
        with pytest.raises(BaseException, match="searched again"):
            load(version, settings.model_copy(update={"max_rows": 4}))
    np.testing.assert_array_equal(image_of(first, version), image_of(again, version))
    assert first.costs == again.costs
    assert list(first.costs) == [*(f"scale{number}" for number in range(len(first.costs) - 1)), "pixels"]
    assert all(seconds > 0 for calls in first.costs.values() for seconds in calls.values())


@pytest.mark.parametrize("backend", ["torch", "openvino"])
def test_a_diffusion_model_tells_its_calls_costs(tmp_path: Path, backend: str) -> None:
    (tmp_path / "version").mkdir()
    version = edm2_version(tmp_path / "version")
    settings = EngineSettings(backend=backend, precision="float32", max_rows=2, cache=tmp_path / "cache")  # type: ignore[arg-type]
    costs = load(version, settings).costs
    assert list(costs) == ["plain", "guided"]
    assert all(set(calls) <= {1, 2} and min(calls.values()) > 0 for calls in costs.values())


def test_a_worker_passes_on_what_its_engine_measured() -> None:
    metrics = Metrics("test")
    worker = Worker(max_waiting=9, metrics=metrics, clock=lambda: 0.0)
    worker.attach(FAKE, FakeEngine(costs={"plain": {1: 0.5, 8: 2.0}}))
    text = metrics.render().decode()
    assert 'ddo_call_cost_seconds{kind="plain",model="fake",rows="8",version="1"} 2.0' in text
    assert float(text.split("\nprocess_resident_memory_bytes ")[1].split("\n")[0]) > 1e7


def test_a_model_without_a_golden_image_is_tried_by_its_cheapest(tmp_path: Path) -> None:
    (tmp_path / "var").mkdir()
    assert golden_request(unconditional_version(tmp_path)).steps == 1
    assert golden_request(var_version(tmp_path / "var")).steps is None
