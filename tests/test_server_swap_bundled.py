"""The bundled EDM, published again, pointed to and switched to while the server runs."""

from __future__ import annotations

import shutil
from pathlib import Path

import httpx
from fake_server import serving_app, wait_until_ready
from test_server_swaps import images, states, wait_for

import engines
from engines.settings import EngineSettings
from models.references import parse_reference
from models.registry import Registry
from models.spec import ModelSpec
from models.version import open_version
from server.app import create_app
from server.settings import BUNDLED, Settings


def publish(registry: Registry, source: Path) -> None:
    def copy(directory: Path) -> ModelSpec:
        shutil.copytree(source, directory, dirs_exist_ok=True)
        return open_version(directory).spec

    registry.publish(copy)


def test_the_bundled_model_is_swapped_while_it_serves(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    for number in (1, 2):
        publish(registry, BUNDLED / "emoji-edm" / "versions" / f"{number:04d}")
    registry.point("emoji-edm", 1)
    reference = parse_reference("emoji-edm", registry.root)
    settings = Settings(registry_poll_s=0.01, engine=EngineSettings(threads=1, max_rows=2))
    body = {"class_id": 207, "seed": 3, "steps": 2}
    app = create_app(settings, reference.open(), engines.load, [reference])
    with serving_app(app) as url, httpx.Client(base_url=url, timeout=60) as client:
        wait_until_ready(client, 120)
        first = client.post("/generate", json=body)
        registry.point("emoji-edm", 2)
        wait_for(lambda: client.get("/models/emoji-edm").json()["version"] == 2)
        second = client.post("/generate", json=body)
        assert [answer.json()["version"] for answer in (first, second)] == [1, 2]
        assert images(first) != images(second)
        wait_for(lambda: states(client) == {1: "unloaded", 2: "ready"})
        again = client.post("/generate", json={**body, "version": 1})
        assert images(again) == images(first)
