"""A published VAR's golden image is one that other arithmetic gives too."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
from rich.progress import Progress
from safetensors.torch import load_file
from test_loading import edm2_version, var_version

from engines import EngineSettings, load
from engines.base import ImageRequest
from engines.sampling import generate
from models.registry import Registry
from models.spec import GoldenImage, Lineage
from models.version import ModelVersion, seal
from trainer.rounds.publication import publish_best
from trainer.versions import DRAWS, write_version

QUIET = Progress(disable=True)
GOLDEN = GoldenImage(class_id=3, seed=12, file="golden.png")


def publish(directory: Path, make: Callable[[Path], ModelVersion]) -> ModelVersion:
    source = directory / "source"
    source.mkdir()
    version, published = make(source), directory / "published"
    networks = version.spec.networks.items()
    complete = write_version(
        published,
        spec=version.spec.model_copy(update={"golden": GOLDEN}),
        weights={name: load_file(version.path(network.weights)) for name, network in networks},
        progress=QUIET,
    )
    sealed = seal(published, complete)
    sealed.verify()
    return sealed


def images(version: ModelVersion, precision: str, seeds: range) -> np.ndarray:
    engine = load(version, EngineSettings.model_validate({"precision": precision, "max_rows": 8}))
    requests = [ImageRequest(class_id=GOLDEN.class_id, seed=seed) for seed in seeds]
    return np.stack(list(generate(engine, requests, QUIET))).astype(int)


def golden_image(version: ModelVersion) -> np.ndarray:
    with PIL.Image.open(version.path(GOLDEN.file)) as image:
        return np.asarray(image).astype(int)


def test_of_several_seeds_a_steady_one_is_taken(tmp_path: Path) -> None:
    version = publish(tmp_path, var_version)
    assert version.spec.golden is not None
    seeds = range(GOLDEN.seed, GOLDEN.seed + DRAWS)
    exact, rounded = (images(version, precision, seeds) for precision in ("float32", "bfloat16"))
    place = seeds.index(version.spec.golden.seed)
    assert np.array_equal(golden_image(version), exact[place])
    changes = np.abs(rounded - exact).mean(axis=(1, 2, 3))
    assert changes[place] < 2 * changes.min(), "here the first seed changes ten times as much"


def test_a_rounds_version_is_recorded_with_the_seed_of_its_image(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    best = var_version(tmp_path / "source")
    reference = replace(best, spec=best.spec.model_copy(update={"golden": GOLDEN}))
    version = publish_best(Registry(tmp_path / "registry"), best, reference, Lineage(source="a test"), QUIET)
    assert version.spec.golden is not None
    seed = version.spec.golden.seed
    assert np.array_equal(golden_image(version), images(version, "float32", range(seed, seed + 1))[0])


def test_others_keep_the_seed_that_was_asked_for(tmp_path: Path) -> None:
    version = publish(tmp_path, edm2_version)
    assert version.spec.golden == GOLDEN
    assert np.array_equal(
        golden_image(version), images(version, "float32", range(GOLDEN.seed, GOLDEN.seed + 1))[0]
    )
