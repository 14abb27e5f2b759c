"""The registry's pointer moves while requests come: none fails, none mixes versions, none gets a bad one."""

from __future__ import annotations

import asyncio
import base64
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog
from fake_registry import FakeLoader, picture, publish, serving_registry
from fake_server import wait_until_ready

from models.registry import Registry

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """Versions 1, 2 and 3 of one model, the first one current."""
    registry = Registry(tmp_path)
    for _ in range(3):
        publish(registry)
    registry.point("fake", 1)
    return registry


@pytest.fixture(autouse=True)
def plain_tracebacks() -> Iterator[None]:
    """Log errors as the server does; the usual way of tests draws a page of local variables for each."""
    plain = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(processors=[structlog.processors.add_log_level, plain])
    yield
    structlog.reset_defaults()


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def default(client: httpx.Client) -> int:
    return client.get("/models/fake").json()["version"]


def states(client: httpx.Client) -> dict[int, str]:
    (model,) = client.get("/admin/models").json()["models"]
    return {version["version"]: version["state"] for version in model["versions"]}


def sample(client: httpx.Client, name: str, **labels: str) -> float:
    for line in client.get("/metrics").text.splitlines():
        if line.startswith(f"{name}{{") and all(f'{key}="{value}"' in line for key, value in labels.items()):
            return float(line.rsplit(" ", 1)[1])
    return 0.0


def images(answer: httpx.Response) -> list[bytes]:
    return [base64.b64decode(image["image"]) for image in answer.json()["images"]]


@pytest.mark.parametrize("name", ["fake", "fake/all"])
def test_twenty_swaps_under_load_fail_and_mix_nothing(registry: Registry, name: str) -> None:
    targets = [2 + number % 2 if number < 19 else 1 for number in range(20)]
    load = FakeLoader(cost_s=0.0005)
    answers: list[tuple[dict[str, Any], httpx.Response]] = []
    swapped = threading.Event()

    async def keep_asking(url: str, worker: int) -> None:
        async with httpx.AsyncClient(base_url=url, timeout=30) as client:
            for seed in range(1000 * worker, 1000 * worker + 1000):
                body = {"class_id": seed % 4, "seed": seed, "steps": 1 + seed % 9, "n": 1 + seed % 3}
                answers.append((body, await client.post("/generate", json=body)))
                if swapped.is_set():
                    return

    async def ask_together(url: str) -> None:
        await asyncio.gather(*(keep_asking(url, worker) for worker in range(8)))

    with (
        serving_registry(registry, load, name) as url,
        httpx.Client(base_url=url) as client,
        ThreadPoolExecutor(1) as pool,
    ):
        wait_until_ready(client)
        asking = pool.submit(asyncio.run, ask_together(url))
        try:
            for target in targets:
                registry.point("fake", target)
                wait_for(lambda wanted=target: default(client) == wanted)
                came = len(answers)
                wait_for(lambda since=came: len(answers) >= since + 8)
        finally:
            swapped.set()
        asking.result(20)
        assert {answer.json()["version"] for _, answer in answers} == {1, 2, 3}
        for body, answer in answers:
            assert answer.status_code == 200
            made_by, seeds = answer.json()["version"], range(body["seed"], body["seed"] + body["n"])
            like = {"steps": body["steps"], "class_id": body["class_id"]}
            assert images(answer) == [picture(made_by, seed=seed, **like) for seed in seeds]
        assert sample(client, "ddo_swap_seconds_count", outcome="ok") == len(targets)
        kept = 3 if name == "fake/all" else 1
        wait_for(lambda: len(load.alive) == kept)
        assert list(states(client).values()).count("ready") == kept
        assert load.loads.total() == (3 if name == "fake/all" else 1 + len(targets))


def test_a_request_ends_on_the_version_that_it_began_on(registry: Registry) -> None:
    load = FakeLoader(cost_s=0.005)
    with (
        serving_registry(registry, load, "fake") as url,
        httpx.Client(base_url=url, timeout=30) as client,
        ThreadPoolExecutor(1) as pool,
    ):
        wait_until_ready(client)
        long = {"class_id": 0, "seed": 7, "steps": 300, "n": 2}
        begun = pool.submit(lambda: httpx.post(f"{url}/generate", json=long, timeout=30))
        wait_for(lambda: sample(client, "ddo_active_rows", version="1") == 2)
        registry.point("fake", 2)
        wait_for(lambda: default(client) == 2)
        assert states(client) == {1: "leaving", 2: "ready"}
        assert not begun.done()
        for number in (2, 1):
            short = client.post("/generate", json={"class_id": 0, "seed": 7, "steps": 1, "version": number})
            assert (short.json()["version"], images(short)) == (number, [picture(number, seed=7, steps=1)])
        answer = begun.result()
        assert answer.json()["version"] == 1
        assert images(answer) == [picture(1, seed=seed, steps=300) for seed in (7, 8)]


def spoil(registry: Registry) -> int:
    """Publish a version and damage its weights."""
    number = publish(registry)
    (registry.root / "fake" / "versions" / f"{number:04d}" / "weights.txt").write_text("damaged")
    return number


def forget_spec(registry: Registry) -> int:
    """Publish a version and damage its `model.json`."""
    number = publish(registry)
    (registry.root / "fake" / "versions" / f"{number:04d}" / "model.json").write_text("{}")
    return number


def point(registry: Registry, text: str) -> None:
    """Write the pointer in one step as the registry does, which would not write this."""
    (registry.root / "pointer").write_text(text)
    (registry.root / "pointer").rename(registry.root / "fake" / "current")


def run_out_of_memory(number: int) -> None:
    if number > 3:
        raise MemoryError


@pytest.mark.parametrize(
    ("make", "before", "says"),
    [
        (spoil, lambda _: None, "SHA-256 differs"),
        (forget_spec, lambda _: None, "model.json is not valid"),
        (lambda registry: publish(registry, golden_of=1), lambda _: None, "off its golden image"),
        (publish, run_out_of_memory, "MemoryError"),
    ],
    ids=["corrupt", "spec", "golden", "memory"],
)
def test_a_bad_version_is_refused_once_and_the_old_one_stays(
    registry: Registry, make: Callable[[Registry], int], before: Callable[[int], None], says: str
) -> None:
    load = FakeLoader(before=before)
    with (
        serving_registry(registry, load, "fake") as url,
        httpx.Client(base_url=url) as client,
    ):
        wait_until_ready(client)

        def attempts() -> float:
            return sample(client, "ddo_swap_seconds_count", outcome="refused")

        bad = make(registry)
        for tried in (1, 2):
            point(registry, f"{bad:04d}\n")
            wait_for(lambda wanted=tried: attempts() == wanted)
            ready = client.get("/readyz")
            assert ready.status_code == 200
            assert any(
                says in reason and reason.endswith("fake/1 stays") for reason in ready.json()["reasons"]
            )
            answer = client.post("/generate", json={"class_id": 0, "seed": 1, "steps": 2})
            assert (answer.json()["version"], images(answer)) == (1, [picture(1, seed=1, steps=2)])
            time.sleep(0.1)  # ten looks at the pointer
            assert attempts() == tried
            assert load.loads[bad] in (0, tried)
        if make is not forget_spec:
            assert states(client)[bad] == "failed"
            labels = {"version": str(bad), "ddo_model_state": "failed"}
            assert sample(client, "ddo_model_state", **labels) == 1
            refusal = client.post("/generate", json={"class_id": 0, "version": bad})
            assert (refusal.status_code, refusal.json()["type"]) == (503, "urn:ddo-serve:not-ready")
            assert says in refusal.json()["detail"]
            assert load.loads[bad] == 2
        registry.point("fake", 2)
        wait_for(lambda: default(client) == 2)
        assert not any("stays" in reason for reason in client.get("/readyz").json()["reasons"])


def test_a_damaged_pointer_changes_nothing(registry: Registry) -> None:
    with (
        serving_registry(registry, FakeLoader(), "fake") as url,
        httpx.Client(base_url=url) as client,
    ):
        wait_until_ready(client)
        point(registry, "latest")
        time.sleep(0.1)
        assert client.post("/generate", json={"class_id": 0}).json()["version"] == 1
        registry.point("fake", 3)
        wait_for(lambda: default(client) == 3)


@pytest.mark.parametrize("name", ["fake/1", "{root}/fake/versions/0001"])
def test_a_version_that_the_settings_name_is_not_followed_away(registry: Registry, name: str) -> None:
    with (
        serving_registry(registry, FakeLoader(), name.format(root=registry.root)) as url,
        httpx.Client(base_url=url) as client,
    ):
        wait_until_ready(client)
        before = default(client)
        registry.point("fake", 2)
        time.sleep(0.1)
        assert default(client) == before


@contextmanager
def process(registry: Registry, load_s: float) -> Iterator[tuple[subprocess.Popen[bytes], httpx.Client]]:
    """A server process that takes `load_s` seconds to load any version but the first."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, str(ROOT / "tests" / "fake_registry.py"), str(port), str(registry.root)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    server = subprocess.Popen([*command, str(load_s)], env=environment, stderr=subprocess.DEVNULL)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
            wait_until_ready(client, 60)
            yield server, client
    finally:
        server.kill()
        server.wait()


def test_a_server_killed_between_pointer_and_load_starts_with_the_new_version(registry: Registry) -> None:
    with process(registry, load_s=600) as (_, client):
        registry.point("fake", 2)
        wait_for(lambda: states(client).get(2) == "loading")
        assert client.post("/generate", json={"class_id": 0}).json()["version"] == 1
    with process(registry, load_s=0) as (_, client):
        answer = client.post("/generate", json={"class_id": 0, "seed": 5, "steps": 3})
        assert (answer.json()["version"], images(answer)) == (2, [picture(2, seed=5, steps=3)])
