"""Weights swapped under load: nobody's request fails, no image is of two versions, and nobody waits long."""

from __future__ import annotations

import dataclasses
import threading
import time
from statistics import median

from benchmarks.serving.client import Plan, send
from benchmarks.serving.ours import stub_server
from benchmarks.serving.outcome import OK
from benchmarks.serving.processes import ServerError, post
from benchmarks.serving.stub import NAME
from benchmarks.serving.summary import summarize
from benchmarks.serving.targets.bench import STEPS, Bench
from benchmarks.serving.targets.reading import Reading
from benchmarks.serving.traffic import poisson

PROMISE = "swaps"
SWAPS = 20
LOAD = 0.8
RANGE = (5, 30)


def measure(bench: Bench) -> list[Reading]:
    """Send 80 % of what the engine can do, without swaps and with 20 of them, in turns."""
    ratios, failed, different, versions = [], 0, 0, set()
    rate = LOAD * bench.alone().images_per_s * STEPS / (sum(RANGE) / 2)
    for turn in range(bench.turns):
        with stub_server(versions=2) as server:
            mix = bench.mix(server.url, RANGE)
            arrivals = poisson(mix, rate=rate, seconds=bench.seconds, draw=bench.draw(turn))
            plan = Plan(server.url, arrivals)
            still = send(plan)
            swapper = Swapper(server.url, bench.seconds / SWAPS)
            swapper.start()
            swapped = send(plan)
            swapper.finish()
            with stub_server(registry=str(server.folder / "registry"), models=[f"{NAME}/all"]) as judge:
                different += bench.compare(dataclasses.replace(plan, url=judge.url), swapped, bench.checks)
        failed += sum(outcome.kind != OK for outcome in swapped)
        versions |= {outcome.version for outcome in swapped}
        p99 = [summarize(outcomes, objective_ms=1000).latency_ms["p99"] for outcomes in (still, swapped)]
        ratios.append(p99[1] / p99[0])
    return [
        Reading(PROMISE, f"requests that failed during {bench.turns * SWAPS} swaps", failed, 0),
        Reading(PROMISE, "versions among the answers", len(versions), 2, at_least=True),
        Reading(PROMISE, "images that are not their version's own", different, 0),
        Reading(PROMISE, "latency p99 against that without swaps", median(ratios), 2, unit="x"),
    ]


class Swapper(threading.Thread):
    """Switches between versions 1 and 2 at an even pace."""

    def __init__(self, url: str, pause_s: float, swaps: int = SWAPS) -> None:
        """Begin with version 2."""
        super().__init__()
        self._url = url
        self._pause_s = pause_s
        self._swaps = swaps
        self._error: Exception | None = None

    def run(self) -> None:
        """Switch until all is done or one is refused."""
        try:
            for number in range(self._swaps):
                started = time.monotonic()
                switch(self._url, 2 - number % 2)
                time.sleep(max(0.0, self._pause_s - (time.monotonic() - started)))
        except Exception as error:
            self._error = error

    def finish(self) -> None:
        """Wait for the last switch.

        Raises:
            ServerError: one was refused.
        """
        self.join()
        if self._error is not None:
            raise self._error


def switch(url: str, version: int) -> None:
    """Make a version of the toy model the one that requests get.

    Raises:
        ServerError: the server refused.
    """
    status, answer = post(url, f"/admin/models/{NAME}/switch", {"version": version})
    if status != 200:
        raise ServerError(f"switching to version {version} answered {status}: {answer}")
