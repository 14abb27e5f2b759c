"""The bundled models, served as a user serves them: a process of its own, real HTTP, real weights."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from fake_server import wait_until_ready
from httpx_sse import connect_sse
from PIL import Image
from safetensors.torch import load_file, save_file

from engines import EngineSettings, load
from engines.base import ImageRequest
from models.registry import Registry
from models.spec import MODEL_FILE, ModelSpec
from server.settings import BUNDLED

ASSETS = Registry(BUNDLED)
VERSIONS = [(name, number) for name in ASSETS.names() for number in ASSETS.versions(name)]
DOG = 207
READY_S = 240  # Idle it takes seconds; the bound is for every version on a machine that others load.


@contextmanager
def served(*options: str, ready: bool = True) -> Iterator[tuple[subprocess.Popen[bytes], httpx.Client]]:
    """Run `python -m server` on a free port, with as many threads as an engine has here."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "server", "--port", str(port), *options],
        cwd=BUNDLED.parent,
        env={**os.environ, "DDO_LOG_LEVEL": "error", "DDO_ENGINE__THREADS": str(torch.get_num_threads())},
    )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120) as client:
            if ready:
                wait_until_ready(client, READY_S)
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


@pytest.mark.parametrize(("name", "number"), VERSIONS)
def test_a_version_is_whole(name: str, number: int) -> None:
    version = ASSETS.verify(name, number)
    assert len(version.spec.class_names) == len(set(version.spec.class_names)) == 256
    assert version.spec.class_names[DOG] == "dog face"
    assert sum(record.size for record in version.spec.files.values()) < 20_000_000


def check_versions(client: httpx.Client, registry: Registry) -> None:
    """Ask every served version for one class and seed: each image is its own engine's, no two are equal."""
    models = client.get("/models").json()["models"]
    images = []
    for name, number in [(model["name"], model["version"]) for model in models]:
        body = {"model": name, "version": number, "class_id": DOG, "seed": 3}
        answer = client.post("/generate", json=body).json()
        assert (answer["model"], answer["version"]) == (name, number)
        image = np.asarray(Image.open(io.BytesIO(base64.b64decode(answer["images"][0]["image"]))))
        np.testing.assert_array_equal(image, own_image(registry, name, number))
        images.append(image.tobytes())
    assert len(set(images)) == len(images)


def own_image(registry: Registry, name: str, number: int) -> np.ndarray:
    """What a version's engine makes of the request, alone and without a server."""
    engine: Any = load(registry.open(name, number), EngineSettings())
    row = engine.open(engine.resolve(ImageRequest(class_id=DOG, seed=3)))
    while row.calls_left:
        engine.step([row])
    return engine.image(row)


def test_every_bundled_version_is_served_with_its_own_images(client: httpx.Client) -> None:
    models = client.get("/models").json()["models"]
    assert sorted((model["name"], model["version"]) for model in models) == VERSIONS
    for model in models:
        assert model["default_version"] == (model["version"] == ASSETS.current(model["name"]))
    check_versions(client, ASSETS)


def test_two_versions_of_a_model_give_different_images_for_one_seed(tmp_path: Path) -> None:
    original, registry = ASSETS.open("emoji-edm", 1), Registry(tmp_path)

    def copy(directory: Path) -> ModelSpec:
        shutil.copytree(
            original.directory, directory, ignore=shutil.ignore_patterns(MODEL_FILE), dirs_exist_ok=True
        )
        return original.spec

    def changed(directory: Path) -> ModelSpec:
        spec = copy(directory)
        weights = directory / spec.networks["main"].weights
        save_file({key: 1.02 * tensor for key, tensor in load_file(weights).items()}, weights)
        return spec.model_copy(update={"golden": None})

    registry.publish(copy)
    registry.publish(changed, point=True)
    with served("--model", str(tmp_path / "emoji-edm" / "all")) as (_, client):
        models = client.get("/models").json()["models"]
        assert [(model["version"], model["default_version"]) for model in models] == [(2, True), (1, False)]
        assert client.post("/generate", json={"class_id": DOG, "steps": 1}).json()["version"] == 2
        check_versions(client, registry)


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
    with served("--model", "assets/emoji-edm") as (server, client):

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


def test_sigterm_while_a_model_loads_ends_at_once() -> None:
    with served("--model", "assets/emoji-edm", ready=False) as (server, client):
        while True:
            try:
                assert client.get("/readyz").status_code == 503
                break
            except httpx.TransportError:
                assert server.poll() is None
                time.sleep(0.05)
        time.sleep(2)  # into the loading of the engine, behind that of torch
        server.send_signal(signal.SIGTERM)
        assert server.wait(30) == 0


def waiting(client: httpx.Client) -> float:
    lines = client.get("/metrics").text.splitlines()
    names = ("ddo_active_rows{", "ddo_queue_rows{")
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(names))


@pytest.mark.parametrize("model", ["emoji-edm", "emoji-var"])
def test_previews_converge_to_the_image(client: httpx.Client, model: str) -> None:
    body = {"class_id": DOG, "seed": 4, "model": model}
    preview = {"interval_ms": 0, "format": "png"}
    with connect_sse(
        client, "POST", "/generate", json={**body, "stream": True, "preview": preview}
    ) as source:
        told = [(event.event, json.loads(event.data)) for event in source.iter_sse()]
    (image,) = (data for name, data in told if name == "image")
    assert image["image"] == client.post("/generate", json=body).json()["images"][0]["image"]
    final = pixels_of(image["image"])
    errors = [np.abs(pixels_of(data["image"]) - final).mean() for name, data in told if name == "preview"]
    assert len(errors) >= 3
    assert errors[-1] < errors[len(errors) // 2] < errors[0]
    assert errors[-1] < errors[0] / 2


def pixels_of(file: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(file))).convert("RGB"), dtype=float)
