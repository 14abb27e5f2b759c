"""Servers with jobs, and what their results have to be."""

from __future__ import annotations

import io
import time
import zipfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import PIL.Image
from fake_engine import FakeEngine
from fake_server import NAMES, serving, wait_until_ready

from engines.base import ImageRequest
from server.jobs.settings import JobSettings
from server.settings import Settings


def settings(directory: Path, **bounds: int) -> Settings:
    return Settings(jobs=JobSettings(directory=directory / "jobs", **bounds))


class JobServers:
    """Servers one after another on the jobs of one directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.stack = ExitStack()

    def start(self, engine: FakeEngine | None = None, name: str = "fake", **bounds: int) -> httpx.Client:
        """End the server before, if any; return a client of the next one."""
        self.stop()
        url = self.stack.enter_context(
            serving({name: engine or FakeEngine()}, settings(self.directory, **bounds))
        )
        client = self.stack.enter_context(httpx.Client(base_url=url))
        wait_until_ready(client)
        return client

    def stop(self) -> None:
        self.stack.close()

    def chunks(self, job: str) -> Path:
        return self.directory / "jobs" / "jobs" / job / "chunks"


def create(client: httpx.Client, **body: Any) -> dict[str, Any]:
    answer = client.post("/jobs", json=body)
    assert answer.status_code == 201, answer.text
    assert answer.headers["Location"] == f"/jobs/{answer.json()['id']}"
    return answer.json()  # type: ignore[no-any-return]


def wait_for(client: httpx.Client, job: str, done: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    end = time.monotonic() + 30
    while not done(shown := client.get(f"/jobs/{job}").json()):
        assert time.monotonic() < end, shown
        time.sleep(0.01)
    return shown  # type: ignore[no-any-return]


def finished(client: httpx.Client, job: str) -> bytes:
    shown = wait_for(client, job, lambda job: job["state"] not in ("queued", "running"))
    assert shown["state"] == "finished", shown
    assert shown["done"] == shown["total"]
    answer = client.get(shown["result"])
    assert int(answer.headers["Content-Length"]) == shown["result_bytes"] == len(answer.content)
    return answer.content


def expected(seed: int, class_id: int | None, steps: int = 4) -> np.ndarray:
    engine = FakeEngine()
    row = engine.open(engine.resolve(ImageRequest(class_id=class_id, seed=seed, steps=steps)))
    row.calls_left = 0
    return engine.image(row)


def check_npz(content: bytes, n: int, seed: int, classes: Sequence[int | None]) -> None:
    with np.load(io.BytesIO(content)) as arrays:
        assert sorted(arrays) == ["arr_0", "labels", "seeds"]
        assert (arrays["arr_0"].dtype, arrays["arr_0"].shape) == (np.uint8, (n, 32, 32, 3))
        assert arrays["seeds"].tolist() == list(range(seed, seed + n))
        turns = [classes[index % len(classes)] for index in range(n)]
        assert arrays["labels"].tolist() == [-1 if turn is None else turn for turn in turns]
        for index, image in enumerate(arrays["arr_0"]):
            np.testing.assert_array_equal(image, expected(seed + index, turns[index]))


def check_zip(content: bytes, n: int, seed: int, client: httpx.Client) -> None:
    """Hold every image against the model's, and some against `POST /generate`, byte for byte."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.testzip() is None
        *names, index = archive.namelist()
        assert len(names) == len(set(names)) == n
        assert index == "dataset.json"
        for place, name in enumerate(names):
            class_id = place % len(NAMES)
            assert name == f"00000/{place:08d}_class{class_id:04d}_seed{seed + place}.png"
            with PIL.Image.open(io.BytesIO(archive.read(name))) as image:
                np.testing.assert_array_equal(np.asarray(image), expected(seed + place, class_id))
            if place % 50 == 0:
                body = {"class_id": class_id, "seed": seed + place}
                alone = client.post("/generate", json=body, headers={"Accept": "image/png"})
                assert alone.content == archive.read(name)
