"""Two Ray nodes under load: versions swapped, a node killed, replicas that come and go."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from models.registry import Registry

pytest.importorskip("ray", reason="Ray is an optional extra")

import ray_cluster
from ray import serve
from ray_cluster import BUNDLED, TOY, Served

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nodes import what this process does."""
    here = Path(__file__).parent
    monkeypatch.setenv("PYTHONPATH", f"{here.parent}{os.pathsep}{here}")


async def make(client: httpx.AsyncClient, seed: int, steps: int) -> tuple[int, Any]:
    body = {"class_id": 1, "seed": seed, "steps": steps}
    answer = await client.post("/generate", json=body)
    return answer.status_code, answer.json()


async def load(url: str, seeds: range, clients: int, steps: int = TOY.steps) -> list[tuple[int, Any]]:
    """Make an image of each seed, from so many clients that wait for their answers."""
    pending = iter(seeds)
    found: dict[int, tuple[int, Any]] = {}

    async def work(client: httpx.AsyncClient) -> None:
        for seed in pending:
            found[seed] = await make(client, seed, steps)

    async with httpx.AsyncClient(
        base_url=url, timeout=60, limits=httpx.Limits(max_connections=None)
    ) as client:
        await asyncio.gather(*(work(client) for _ in range(clients)))
    return [found[seed] for seed in seeds]


async def stream(url: str, seed: int, steps: int) -> list[str]:
    body = {"class_id": 1, "seed": seed, "steps": steps, "n": 2, "stream": True}
    async with (
        httpx.AsyncClient(base_url=url, timeout=60) as client,
        client.stream("POST", "/generate", json=body) as answer,
    ):
        return [line async for line in answer.aiter_lines()]


async def leave(url: str, seed: int, streams: bool) -> None:
    """Ask for what takes 10 s, and go after half a second."""
    body = {"class_id": 1, "seed": seed, "steps": 500, "stream": streams}
    async with httpx.AsyncClient(base_url=url) as client:
        asking = asyncio.create_task(client.post("/generate", json=body))
        await asyncio.sleep(0.5)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)


def replicas() -> int:
    status = serve.status().applications["ddo-serve"].deployments["replica"]
    return sum(count for state, count in status.replica_states.items() if state == "RUNNING")


@pytest.mark.parametrize("served", [TOY, BUNDLED], ids=lambda served: served.name)
def test_versions_are_swapped_and_a_node_is_killed_under_load(tmp_path: Path, served: Served) -> None:
    images = served.images
    seeds = range(images)
    make_all = partial(load, seeds=seeds, steps=served.steps)
    with ray_cluster.serving(tmp_path, served, min_replicas=2, max_replicas=2) as (url, nodes, second):
        started = time.monotonic()
        answers = asyncio.run(make_all(url, clients=32))
        print(f"two nodes: {images / (time.monotonic() - started):.1f} images a second")
        assert Counter(status for status, _ in answers) == {200: images}

        async def swap() -> list[tuple[int, Any]]:
            running = asyncio.create_task(make_all(url, clients=16))
            await asyncio.sleep(0.5)
            Registry(tmp_path / "registry").point(served.name, 2)
            return await running

        swapped = asyncio.run(swap())
        assert Counter(status for status, _ in swapped) == {200: images}
        assert {answer["version"] for _, answer in swapped} <= {1, 2}
        end = time.monotonic() + 60  # the engines of both replicas are loaded aside
        while {answer["version"] for _, answer in asyncio.run(load(url, range(8), clients=8))} != {2}:
            assert time.monotonic() < end

        async def kill() -> tuple[list[tuple[int, Any]], list[list[str]]]:
            streams = [
                asyncio.create_task(stream(url, 1000 * each, served.stream_steps)) for each in range(4)
            ]
            running = asyncio.create_task(make_all(url, clients=32))
            await asyncio.sleep(1.0)
            await asyncio.to_thread(nodes.remove_node, second, False)
            return await running, await asyncio.gather(*streams)

        started = time.monotonic()
        kept, streamed = asyncio.run(kill())
        print(f"one of them killed: {images / (time.monotonic() - started):.1f} images a second")
        assert Counter(status for status, _ in kept) == {200: images}
        for lines in streamed:
            events = [line for line in lines if line.startswith("event")]
            assert Counter(events)["event: image"] == 2
            assert (events[0], events[-1]) == ("event: queued", "event: done")
        alone = asyncio.run(make_all(url, clients=8))
        assert [answer["images"] for _, answer in kept] == [answer["images"] for _, answer in alone]


def test_who_leaves_costs_nothing_more(tmp_path: Path) -> None:
    with ray_cluster.serving(tmp_path, min_replicas=1, max_replicas=1) as (url, _, _):

        async def go() -> None:
            await asyncio.gather(*(leave(url, seed, streams=seed % 2 == 0) for seed in range(8)))

        asyncio.run(go())
        end = time.monotonic() + 5
        while (load := httpx.get(f"{url}/load").json())["active_images"] > 0 and time.monotonic() < end:
            time.sleep(0.1)
        assert load["active_images"] == 0
        assert load["engine_seconds"] > 0, "something was begun"


@pytest.mark.parametrize("served", [TOY, BUNDLED], ids=lambda served: served.name)
def test_replicas_follow_the_load(tmp_path: Path, served: Served) -> None:
    scaling = {"min_replicas": 1, "max_replicas": 2, "pending_s": 0.2, "idle_s": 5.0}
    images = served.images
    with ray_cluster.serving(tmp_path, served, **scaling) as (url, _, _):
        assert replicas() == 1

        async def grow() -> int:
            most = 1
            end = time.monotonic() + 40
            while most == 1 and time.monotonic() < end:
                answers = await load(url, range(images), clients=60, steps=served.steps)
                assert Counter(status for status, _ in answers) == {200: images}
                most = replicas()
            return most

        assert asyncio.run(grow()) == 2
        end = time.monotonic() + 60
        while replicas() > 1 and time.monotonic() < end:
            time.sleep(0.5)
        assert replicas() == 1
        assert asyncio.run(load(url, range(1), clients=1))[0][0] == 200
