"""A Ray cluster of two nodes on this machine, serving the toy model of the benchmarks or the bundled one.

`PYTHONPATH=.:tests python tests/ray_cluster.py FOLDER` serves the toy until Ctrl-C and leaves a profile.json
in FOLDER, which `python -m benchmarks simulate` reads.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from fastapi import FastAPI
from ray import serve
from ray.cluster_utils import Cluster

from benchmarks.fleet.profile import DeviceProfile
from benchmarks.serving.processes import free_port
from benchmarks.serving.stub import NAME, StubEngine, publish_versions
from benchmarks.serving.toy import Tally, Toy
from engines.base import ImageRequest
from engines.settings import EngineSettings
from models.references import parse_reference
from models.registry import Registry
from models.version import ModelVersion
from server.app import create_app
from server.ray.application import build, open_app
from server.ray.settings import RaySettings
from server.settings import Settings

CALL_S = 0.02
ASSETS = Path(__file__).resolve().parent.parent / "assets"


def toy_app(settings: Settings) -> FastAPI:
    """The app of one replica; its tally lies beside the registry."""
    references = [parse_reference(name, settings.registry) for name in settings.models]
    versions = [version for reference in references for version in reference.open()]

    def load(version: ModelVersion, _: EngineSettings) -> StubEngine:
        tally = Tally(settings.registry / f"tally-{id(version)}")
        return StubEngine(Toy(CALL_S, tally, salt=version.number or 0))

    return create_app(settings, versions, load, references)


def publish_toy(registry: Path) -> None:
    publish_versions(registry, 2)


def publish_bundled(registry: Path) -> None:
    shutil.copytree(ASSETS / "emoji-edm", registry / "emoji-edm")
    Registry(registry).point("emoji-edm", 1)


@dataclass(frozen=True)
class Served:
    """A model of two versions, the first one current, and how much of it makes a load of seconds."""

    name: str
    publish: Callable[[Path], None]
    make_app: Callable[[Settings], FastAPI]
    images: int
    steps: int
    stream_steps: int


TOY = Served(NAME, publish_toy, toy_app, images=400, steps=10, stream_steps=150)
BUNDLED = Served("emoji-edm", publish_bundled, open_app, images=100, steps=5, stream_steps=30)


@contextmanager
def serving(folder: Path, served: Served = TOY, **cluster: Any) -> Iterator[tuple[str, Cluster, Any]]:
    """Give the URL, the cluster and its second node; the first one has the proxy and the router."""
    served.publish(folder / "registry")
    settings = Settings(
        models=(served.name,),
        registry=folder / "registry",
        port=free_port(),
        jobs={"directory": folder / "jobs"},
        engine={"threads": 1},
        log_level="warning",
        queue_rows=64,
    )
    nodes = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 1, "include_dashboard": False, "object_store_memory": 80_000_000},
    )
    try:
        second = nodes.add_node(num_cpus=1, object_store_memory=80_000_000)
        ray.init(address=nodes.address, log_to_driver=False)
        serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": settings.port})
        serve.run(
            build(settings, RaySettings(replica_cpus=0.8, **cluster), served.make_app), name="ddo-serve"
        )
        yield f"http://127.0.0.1:{settings.port}", nodes, second
    finally:
        serve.shutdown()
        ray.shutdown()
        nodes.shutdown()


if __name__ == "__main__":
    place = Path(sys.argv[1])
    place.mkdir(parents=True, exist_ok=True)
    toy = StubEngine(Toy(CALL_S, Tally(place / "tally")))
    request = ImageRequest(class_id=0, seed=0)
    profile = DeviceProfile.measure(toy, request, model=NAME, device=f"{1000 * CALL_S:g} ms a call")
    (place / "profile.json").write_text(profile.model_dump_json())
    with serving(place, min_replicas=2, max_replicas=2) as (url, _, _):
        print(url, flush=True)
        time.sleep(1e6)
