"""Images told as they come: events over real HTTP."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import PIL.Image
import pytest
from fake_engine import FakeEngine
from fake_server import serving, wait_until_ready
from httpx_sse import connect_sse

STEP_S = 0.005


@pytest.fixture(scope="module")
def engine() -> FakeEngine:
    return FakeEngine(cost_s=STEP_S)


@pytest.fixture(scope="module")
def client(engine: FakeEngine) -> Iterator[httpx.Client]:
    with serving({"fake": engine, "large": FakeEngine(size=96)}) as url, httpx.Client(base_url=url) as client:
        wait_until_ready(client)
        yield client


def events(client: httpx.Client, body: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    with connect_sse(client, "POST", "/generate", json={"stream": True, **body}) as source:
        assert source.response.status_code == 200
        return [(event.event, json.loads(event.data)) for event in source.iter_sse()]


def named(told: list[tuple[str, dict[str, Any]]], name: str) -> list[dict[str, Any]]:
    return [data for event, data in told if event == name]


def pixels(data: str) -> np.ndarray:
    with PIL.Image.open(io.BytesIO(base64.b64decode(data, validate=True))) as image:
        return np.asarray(image.convert("RGB"))


def test_one(client: httpx.Client) -> None:
    told = events(client, {"class_id": 1, "n": 3, "steps": 20, "seed": 5, "preview": {"interval_ms": 0}})
    print([(n, {k: v for k, v in d.items() if k != "image"}) for n, d in told])
