"""TensorRT's Python interface, from whichever of its two packages is installed."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from engines.errors import EngineError

PACKAGES = ("tensorrt", "tensorrt_rtx")
"""`tensorrt` builds on the GPU that it will run on; `tensorrt_rtx` also builds ahead of time without one."""


def tensorrt() -> Any:
    """Return the module: both packages have one interface, but for what `hasattr` can tell.

    Raises:
        EngineError: neither is installed.
    """
    for package in PACKAGES:
        try:
            return import_module(package)
        except ImportError:
            continue
    raise EngineError(
        "TensorRT is not installed: pip install 'ddo-serve[tensorrt-rtx]', or on a data-centre GPU "
        "'ddo-serve[tensorrt]'"
    )
