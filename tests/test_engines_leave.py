"""An engine that nobody holds any more is gone at once, and told before how much memory that is."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_loading import FLOAT32, edm2_version, var_version

from engines import load
from models.version import ModelVersion


@pytest.mark.parametrize("make", [edm2_version, var_version])
def test_an_engine_tells_its_memory_and_leaves_it(
    tmp_path: Path, make: Callable[[Path], ModelVersion]
) -> None:
    version = make(tmp_path)
    engine: Any = load(version, FLOAT32)
    weights = sum(version.spec.files[network.weights].size for network in version.spec.networks.values())
    assert 0.8 * weights < engine.nbytes < 100 * weights
    inner = [
        weakref.ref(getattr(engine, name)) for name in ("_transformer", "_step") if hasattr(engine, name)
    ]
    outer = weakref.ref(engine)
    gc.disable()
    try:
        del engine
        assert outer() is None
        assert [part() for part in inner] == [None]
    finally:
        gc.enable()
