"""Published versions without a network: what is wrong with one shows when it is loaded."""

from __future__ import annotations

import io
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from weakref import WeakSet

import numpy as np
import PIL.Image
from fake_engine import FakeEngine
from fake_server import serving_app, version

from engines.base import ImageRequest
from engines.settings import EngineSettings
from models.references import parse_reference
from models.registry import Registry
from models.spec import GoldenImage, ModelSpec
from models.version import ModelVersion
from server import logs
from server.app import create_app
from server.encoding import encode
from server.image_format import ImageFormat
from server.run import run
from server.settings import Settings

GOLDEN = GoldenImage(class_id=0, seed=0, steps=2, file="golden.png")


def pixels(number: int, *, seed: int, steps: int, class_id: int = 0) -> np.ndarray:
    """Return the image that a version makes."""
    engine = FakeEngine(salt=number)
    row = engine.open(engine.resolve(ImageRequest(class_id=class_id, seed=seed, steps=steps)))
    while row.calls_left:
        engine.step([row])
    return engine.image(row)


def picture(number: int, *, seed: int, steps: int, class_id: int = 0) -> bytes:
    """Return the PNG that a version makes."""
    return encode(pixels(number, seed=seed, steps=steps, class_id=class_id), ImageFormat.PNG)


def publish(registry: Registry, *, golden_of: int | None = None) -> int:
    """Publish the next version; its golden image is its own or that of version `golden_of`."""
    number = max(registry.versions("fake"), default=0) + 1

    def build(directory: Path) -> ModelSpec:
        (directory / "weights.txt").write_text(f"weights {number}")
        buffer = io.BytesIO()
        PIL.Image.fromarray(pixels(golden_of or number, seed=0, steps=2)).save(buffer, "png")
        (directory / GOLDEN.file).write_bytes(buffer.getvalue())
        return version("fake", golden=GOLDEN).spec

    return registry.publish(build).number or 0


@dataclass
class FakeLoader:
    """Loads fake engines of published versions. Each version makes images of its own."""

    cost_s: float = 0.0
    before: Callable[[int], None] = lambda _: None
    loads: Counter[int] = field(default_factory=Counter)
    alive: WeakSet[FakeEngine] = field(default_factory=WeakSet)

    def __call__(self, opened: ModelVersion, _: EngineSettings) -> FakeEngine:
        number = opened.number or int(opened.directory.name)
        self.loads[number] += 1
        opened.verify()
        self.before(number)
        engine = FakeEngine(salt=number, cost_s=self.cost_s)
        self.alive.add(engine)
        return engine


@contextmanager
def serving_registry(
    registry: Registry, load: FakeLoader, *names: str, settings: Settings | None = None
) -> Iterator[str]:
    """Serve what references name in a registry, looking at its pointers often; give the URL."""
    settings = settings or Settings(registry_poll_s=0.01)
    references = [parse_reference(name, registry.root) for name in names]
    versions = [opened for reference in references for opened in reference.open()]
    with serving_app(create_app(settings, versions, load, references)) as url:
        yield url


if __name__ == "__main__":
    logs.configure("info", sys.stderr)
    port, root, seconds = int(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])
    served = parse_reference("fake", root)
    process_settings = Settings(port=port, registry_poll_s=0.01)
    loader = FakeLoader(before=lambda number: time.sleep(seconds if number > 1 else 0))
    run(create_app(process_settings, served.open(), loader, [served]), process_settings)
