"""The demo model, served as a user serves it: a process of its own, real HTTP, real weights."""

from __future__ import annotations

import asyncio
import base64
import io
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import numpy as np
import pytest
from fake_server import wait_until_ready
from PIL import Image

from models.version import open_version
from server.settings import BUNDLED_MODEL


@contextmanager
def served() -> Iterator[tuple[subprocess.Popen[bytes], httpx.Client]]:
    """Run `python -m server` on a free port until it is ready."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "server", "--port", str(port)],
        cwd=BUNDLED_MODEL.parent.parent,
        env={**os.environ, "DDO_LOG_LEVEL": "error"},
    )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120) as client:
            wait_until_ready(client, 60)
            yield server, client
    finally:
        server.kill()
        server.wait()


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with served() as (_, client):
        yield client


def mixed(count: int) -> list[dict[str, Any]]:
    """Requests that differ in class, seed, steps, solver and guidance."""
    solvers = ("heun", "dpm-solver-v3", "euler", "heun-stochastic")
    return [
        {
            "class_id": 37 * number % 256,
            "seed": number,
            "steps": 1 + number % 4,
            "solver": solvers[number // 4 % 4],
            "cfg": 1.0 if number % 5 else 1.5,
        }
        for number in range(count)
    ]


async def post_all(url: httpx.URL, bodies: list[dict[str, Any]]) -> list[httpx.Response]:
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, limits=limits, timeout=120) as client:
        return await asyncio.gather(*(client.post("/generate", json=body) for body in bodies))


def test_the_version_is_whole() -> None:
    version = open_version(BUNDLED_MODEL)
    version.verify()
    assert len(version.spec.class_names) == len(set(version.spec.class_names)) == 256
    assert version.spec.class_names[207] == "dog face"
    assert sum(record.size for record in version.spec.files.values()) < 20_000_000


def test_a_bare_image_is_the_one_in_the_json_answer(client: httpx.Client) -> None:
    body = {"class_name": "dog face", "cfg": 1.0, "seed": 5}
    bare = client.post("/generate", json=body, headers={"Accept": "image/png"})
    assert (bare.status_code, bare.headers["content-type"]) == (200, "image/png")
    answer = client.post("/generate", json=body).json()
    assert base64.b64decode(answer["images"][0]["image"]) == bare.content
    assert answer["parameters"]["class_id"] == 207
    assert Image.open(io.BytesIO(bare.content)).size == (32, 32)


def test_lossless_formats_agree(client: httpx.Client) -> None:
    body = {"class_id": 207, "seed": 1, "steps": 4}
    images = []
    for format_name in ("png", "webp"):
        answer = client.post("/generate", json={**body, "format": format_name}).json()
        encoded = base64.b64decode(answer["images"][0]["image"])
        images.append(np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB")))
    np.testing.assert_array_equal(*images)


def test_each_of_200_concurrent_requests_gets_what_it_gets_alone(client: httpx.Client) -> None:
    bodies = mixed(200)
    together = asyncio.run(post_all(client.base_url, bodies))
    assert [answer.status_code for answer in together] == [200] * 200
    for body, answer in zip(bodies, together, strict=True):
        assert client.post("/generate", json=body).json()["images"] == answer.json()["images"], body
    assert len({answer.json()["images"][0]["image"] for answer in together}) == 200


def test_sigterm_under_load_answers_every_accepted_request() -> None:
    with served() as (server, client):

        async def scenario() -> list[httpx.Response]:
            load = asyncio.ensure_future(post_all(client.base_url, mixed(200)))
            while (await asyncio.to_thread(waiting, client)) < 100:
                assert not load.done()
                await asyncio.sleep(0.01)
            server.send_signal(signal.SIGTERM)
            return await load

        answers = asyncio.run(scenario())
        assert {answer.status_code for answer in answers} <= {200, 503}
        accepted = [answer for answer in answers if answer.status_code == 200]
        assert len(accepted) >= 100
        assert all(len(answer.json()["images"]) == 1 for answer in accepted)
        refused = [answer for answer in answers if answer.status_code == 503]
        assert all(answer.json()["type"] == "urn:ddo-serve:draining" for answer in refused)
        assert server.wait(30) == 0


def waiting(client: httpx.Client) -> float:
    lines = client.get("/metrics").text.splitlines()
    names = ("ddo_active_rows{", "ddo_queue_rows{")
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(names))
