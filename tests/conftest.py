"""Fixtures of more than one file."""

from __future__ import annotations

import logging
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from hostile import MEBIBYTE
from tiny_programs import diffusion, network

from engines.export.onnx import OnnxCache
from engines.programs.diffusion_step import DiffusionStep
from engines.programs.program import Program


@pytest.fixture(scope="session", autouse=True)
def user_cache(request: pytest.FixtureRequest) -> Iterator[None]:
    """Keep what tests compile out of the user's cache, for the next run of the tests."""
    assert request.config.cache is not None
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(request.config.cache.mkdir("compiled")))
        yield


@pytest.fixture(scope="module", autouse=True)
def user_state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the jobs of tests out of the user's state folder, and of each other's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(autouse=True)
def logs_as_they_were() -> Iterator[None]:
    """Undo what a test configures: the next one may read what is logged where it looks for it."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    return tmp_path / "canary"


@pytest.fixture
def bounded() -> Iterator[None]:
    tracemalloc.start()
    yield
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 * MEBIBYTE


@pytest.fixture(scope="session")
def exports(tmp_path_factory: pytest.TempPathFactory) -> OnnxCache:
    """Return one cache of exports for all tests: to export takes seconds."""
    return OnnxCache(tmp_path_factory.mktemp("onnx"))


@pytest.fixture(scope="session")
def edm2() -> dict[str, Program]:
    step = DiffusionStep(network("edm2-tiny"), network("edm2-tiny-uncond", salt="guide/"))
    return diffusion(step)
