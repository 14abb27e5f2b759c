"""Servers around fake engines: in a thread of the test, or as a process of their own."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
import uvicorn
from fake_engine import FakeEngine
from fastapi import FastAPI

from engines.settings import EngineSettings
from models.spec import DiffusionDefaults, GoldenImage, Lineage, ModelSpec, PixelCodec
from models.version import ModelVersion
from server import logs
from server.app import create_app
from server.run import run, server_config
from server.settings import Settings

NAMES = ("dog face", "cat face", "red heart", "ghost")


def version(
    name: str = "fake",
    number: int = 3,
    *,
    classes: tuple[str, ...] = NAMES,
    golden: GoldenImage | None = None,
) -> ModelVersion:
    spec = ModelSpec(
        name=name,
        family="edm",
        networks={},
        codec=PixelCodec(),
        class_names=classes,
        defaults=DiffusionDefaults(),
        licence="Apache-2.0",
        lineage=Lineage(source="a test"),
        golden=golden,
    )
    return ModelVersion(Path("nowhere"), spec, number)


@contextmanager
def serving(
    engines: Mapping[str, FakeEngine | Callable[[], FakeEngine]],
    settings: Settings | None = None,
    **versions: ModelVersion,
) -> Iterator[str]:
    """Serve engines by name, or what a function loads, on a free port of this process; give the URL."""

    def load(opened: ModelVersion, _: EngineSettings) -> FakeEngine:
        engine = engines[opened.spec.name]
        return engine if isinstance(engine, FakeEngine) else engine()

    opened = [versions.get(name) or version(name) for name in engines]
    settings = settings or Settings()
    with serving_app(create_app(settings, opened, load), settings) as url:
        yield url


@contextmanager
def serving_app(app: FastAPI, settings: Settings | None = None) -> Iterator[str]:
    """Serve an app on a free port of this machine's own address; give the URL."""
    settings = (settings or Settings()).model_copy(update={"host": "127.0.0.1", "port": 0})
    server = uvicorn.Server(server_config(app, settings))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.005)
        scheme = "https" if settings.connection.certfile else "http"
        yield f"{scheme}://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


def wait_until_ready(client: httpx.Client, timeout_s: float = 20) -> None:
    end = time.monotonic() + timeout_s
    while True:
        try:
            answer = client.get("/readyz")
            if answer.status_code == 200:
                return
            reasons = answer.json()
        except httpx.TransportError as error:
            reasons = error
        assert time.monotonic() < end, reasons
        time.sleep(0.02)


if __name__ == "__main__":
    logs.configure("info", sys.stderr)
    process_settings = Settings(port=int(sys.argv[1]))
    cost_s = json.loads(sys.argv[2])
    answered = run(
        create_app(process_settings, [version()], lambda *_: FakeEngine(cost_s=cost_s)), process_settings
    )
    sys.exit(0 if answered else 1)
