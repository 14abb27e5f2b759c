from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from fake_engine import FakeEngine
from fake_server import NAMES, serving, wait_until_ready

ROOT = Path(__file__).resolve().parent.parent
FOREVER = 1000


def wait_for(condition: Any, timeout_s: float = 20) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def gauge(client: httpx.Client, name: str) -> float:
    lines = client.get("/metrics").text.splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(f"{name}{{"))


def mixed(count: int, steps: int) -> list[dict[str, Any]]:
    return [
        {"class_id": index % len(NAMES), "seed": index, "steps": 1 + index % steps, "n": 1 + index % 2}
        for index in range(count)
    ]


async def post_all(url: str, bodies: list[dict[str, Any]]) -> list[httpx.Response | Exception]:
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, limits=limits, timeout=60) as client:
        posts = (client.post("/generate", json=body) for body in bodies)
        return await asyncio.gather(*posts, return_exceptions=True)  # type: ignore[return-value]


def test_each_of_200_concurrent_requests_gets_what_it_gets_alone() -> None:
    engine = FakeEngine(cost_s=0.001)
    bodies = mixed(200, steps=10)
    with serving({"fake": engine}) as url, httpx.Client(base_url=url) as client:
        wait_until_ready(client)
        together = asyncio.run(post_all(url, bodies))
        assert max(len(batch) for batch in engine.batches) == engine.max_rows
        engine.batches.clear()
        for body, answer in zip(bodies, together, strict=True):
            assert isinstance(answer, httpx.Response)
            alone = client.post("/generate", json=body).json()
            assert answer.json()["images"] == alone["images"]
        assert max(len(batch) for batch in engine.batches) <= 2


@pytest.mark.parametrize("waiting", [False, True])
@pytest.mark.parametrize("behind", ["our connections", "another ASGI server"])
def test_a_client_that_leaves_stops_costing_compute(
    waiting: bool, behind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if behind == "another ASGI server":
        plain = partial(uvicorn.Config, host="127.0.0.1", port=0, log_config=None)
        monkeypatch.setattr("fake_server.server_config", lambda app, _: plain(app))
    engine = FakeEngine(capacity=1, cost_s=0.005)
    body = b'{"class_id": 1, "steps": %d}' % FOREVER
    head = b"POST /generate HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body)
    request = head + body
    with serving({"fake": engine}) as url, httpx.Client(base_url=url) as client:
        wait_until_ready(client)
        engine.batches.clear()  # the golden image's
        address = (client.base_url.host, client.base_url.port)
        connections = [socket.create_connection(address) for _ in range(1 + waiting)]
        for number, connection in enumerate(connections, start=1):
            connection.sendall(request)
            wait_for(lambda n=number: gauge(client, "ddo_active_rows") + gauge(client, "ddo_queue_rows") == n)
        wait_for(lambda: bool(engine.batches))  # an active row may not have begun
        for connection in reversed(connections):
            connection.close()
        wait_for(lambda: not engine.rows and gauge(client, "ddo_queue_rows") == 0)
        assert len(engine.batches) < FOREVER / 2
        metrics = client.get("/metrics").text
        gone = float(len(connections))
        for stage, count in (("compute", 1.0), ("queue", gone - 1)):
            labels = f'model="fake",reason="cancelled",stage="{stage}",version="3"'
            assert count == 0 or f"ddo_cancelled_rows_total{{{labels}}} {count}" in metrics
        assert f'ddo_request_seconds_count{{outcome="client-disconnected"}} {gone}' in metrics
        assert client.post("/generate", json={"class_id": 1}).status_code == 200


def test_a_row_past_its_deadline_stops_costing_compute() -> None:
    engine = FakeEngine()
    with serving({"fake": engine}) as url, httpx.Client(base_url=url) as client:
        wait_until_ready(client)
        assert client.post("/generate", json={"class_id": 1, "steps": 100, "n": 8}).status_code == 200
        engine.cost_s = 0.005  # slower than it was when it was accepted
        late = {"class_id": 1, "steps": FOREVER, "deadline_ms": 100, "n": 2}
        assert client.post("/generate", json=late).status_code == 504
        wait_for(lambda: not engine.rows)
        assert len(engine.batches) < FOREVER / 2
        assert 'reason="expired",stage="compute",version="3"} 2.0' in client.get("/metrics").text


def test_an_answer_past_its_deadline_does_not_wait_for_the_call_in_progress() -> None:
    engine = FakeEngine()
    with serving({"fake": engine}) as url, httpx.Client(base_url=url) as client:
        wait_until_ready(client)
        engine.cost_s = 1.0
        started = time.monotonic()
        assert client.post("/generate", json={"class_id": 1, "deadline_ms": 50}).status_code == 504
        assert time.monotonic() - started < 0.8  # a call takes 1 s


@contextmanager
def process(cost_s: float) -> Iterator[tuple[subprocess.Popen[bytes], httpx.Client]]:
    """A server process around a fake engine whose calls take `cost_s` seconds."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, str(ROOT / "tests" / "fake_server.py"), str(port), str(cost_s)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    server = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
            wait_until_ready(client, 60)
            yield server, client
    finally:
        server.kill()
        server.wait()


def test_sigterm_under_load_answers_every_accepted_request() -> None:
    with process(cost_s=0.01) as (server, client):
        bodies = mixed(200, steps=20)
        rows = sum(body["n"] for body in bodies)
        refused: list[httpx.Response] = []

        def stop_when_all_are_accepted() -> None:
            def accepted() -> bool:
                done = gauge(client, "ddo_images_total")
                return done + gauge(client, "ddo_active_rows") + gauge(client, "ddo_queue_rows") >= rows

            wait_for(accepted)
            server.send_signal(signal.SIGTERM)
            wait_for(lambda: client.get("/readyz").status_code == 503)
            refused.append(client.post("/generate", json={"class_id": 1}))
            refused.append(client.get("/readyz"))
            refused.append(client.get("/livez"))

        async def scenario() -> list[httpx.Response | Exception]:
            answers, _ = await asyncio.gather(
                post_all(str(client.base_url), bodies), asyncio.to_thread(stop_when_all_are_accepted)
            )
            return answers

        answers = asyncio.run(scenario())
        assert [getattr(answer, "status_code", answer) for answer in answers] == [200] * len(bodies)
        assert server.wait(20) == 0
        generate, ready, live = refused
        assert (generate.status_code, generate.json()["type"]) == (503, "urn:ddo-serve:draining")
        assert int(generate.headers["Retry-After"]) >= 1
        assert (ready.status_code, ready.json()["reasons"]) == (503, ["draining"])
        assert live.status_code == 200


def test_an_idle_server_ends_at_once() -> None:
    with process(cost_s=0) as (server, _):
        server.send_signal(signal.SIGTERM)
        assert server.wait(5) == 0


def test_a_second_signal_forces_the_end() -> None:
    with process(cost_s=0.01) as (server, client):
        body = b'{"class_id": 1, "steps": %d, "n": 16}' % FOREVER
        with socket.create_connection((client.base_url.host, client.base_url.port)) as connection:
            connection.sendall(
                b"POST /generate HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body) + body
            )
            wait_for(lambda: gauge(client, "ddo_active_rows") > 0)
            server.send_signal(signal.SIGTERM)
            with pytest.raises(subprocess.TimeoutExpired):
                server.wait(0.5)
            server.send_signal(signal.SIGTERM)
            assert server.wait(5) == 1
