"""What a server's /metrics shows once it has done a little of everything."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from fake_engine import FakeEngine
from fake_registry import FakeLoader, publish, serving_registry
from fake_server import wait_until_ready
from prometheus_client.parser import text_string_to_metric_families

from engines.settings import EngineSettings
from models.registry import Registry
from models.version import ModelVersion
from server.jobs.settings import JobSettings
from server.settings import Settings

OF_A_SCRAPE = frozenset({"job", "instance", "namespace", "pod"})  # labels that Prometheus adds


@dataclass
class MeasuredLoader(FakeLoader):
    """Its engines tell what calls cost."""

    def __call__(self, opened: ModelVersion, settings: EngineSettings) -> FakeEngine:
        engine = super().__call__(opened, settings)
        engine.costs = {"lane0": {1: 0.001, 8: 0.002}}
        return engine


@dataclass(frozen=True)
class Exposition:
    """The metrics of one scrape: `types` by the name that TYPE lines have, `labels` by that of samples."""

    types: dict[str, str]
    labels: dict[str, frozenset[str]]

    @classmethod
    def parse(cls, text: str) -> Exposition:
        types = {name: kind for name, kind in re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE)}
        labels: dict[str, frozenset[str]] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                labels[sample.name] = labels.get(sample.name, frozenset()) | sample.labels.keys()
        return cls({name: kind for name, kind in types.items() if not name.endswith("_created")}, labels)


@contextmanager
def busy_server(directory: Path) -> Iterator[httpx.Client]:
    """Serve a fake model that made images, a preview and a job, refused, was left, and swapped."""
    registry = Registry(directory / "registry")
    publish(registry)
    publish(registry)
    registry.point("fake", 1)
    settings = Settings(registry_poll_s=0.01, jobs=JobSettings(directory=directory / "jobs"))
    with (
        serving_registry(registry, MeasuredLoader(cost_s=0.001), "fake/all", settings=settings) as url,
        httpx.Client(base_url=url, timeout=30) as client,
    ):
        wait_until_ready(client)
        client.post("/generate", json={"class_id": 0, "n": 3}).raise_for_status()
        assert client.post("/generate", json={"class_id": 99}).status_code == 422
        previews = {"class_id": 0, "steps": 100, "stream": True, "preview": {"interval_ms": 1}}
        assert "event: preview" in client.post("/generate", json=previews).text
        with client.stream("POST", "/generate", json={"class_id": 0, "steps": 900, "stream": True}) as left:
            next(left.iter_lines())
        client.post("/jobs", json={"n": 2, "steps": 2}).raise_for_status()
        client.post("/admin/models/fake/switch", json={"version": 2}).raise_for_status()
        end = time.monotonic() + 20
        while not {"ddo_cancelled_rows_total", "ddo_job_images_total"} <= scrape(client).labels.keys():
            assert time.monotonic() < end, client.get("/metrics").text
            time.sleep(0.02)
        yield client


def scrape(client: httpx.Client) -> Exposition:
    return Exposition.parse(client.get("/metrics").raise_for_status().text)
