"""Batch sizes that were found on this machine before."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from pydantic import TypeAdapter

from engines.backends.artifact_cache import ArtifactCache
from engines.buckets import Buckets

_FOUND = TypeAdapter(tuple[Buckets, ...])
_VARIABLES = ("ATEN_", "DNNL_", "MKL_", "ONEDNN_")


class BucketCache:
    """Keeps what searches for batch sizes found, so that a restart need not search again.

    Args:
        cache: where.
        sources: everything that decides the bits of a call: weights, code, packages, processor, precision.
    """

    def __init__(self, cache: ArtifactCache, sources: Mapping[str, str | int]) -> None:
        self._cache = cache
        self._sources = dict(sources)

    def get(self, kind: str, most: int, search: Callable[[], Sequence[Buckets]]) -> tuple[Buckets, ...]:
        """Return what `search` found for this kind of call with at most `most` rows, searching if need be."""
        return self._cache.get(
            {**self._sources, "buckets": kind, "most": most},
            read=_FOUND.validate_json,
            make=lambda: tuple(search()),
            write=_FOUND.dump_json,
        )


def torch_sources(dtype: torch.dtype) -> dict[str, str | int]:
    """Return what decides how PyTorch sums on this CPU: its build, the processor, threads and precision."""
    variables = {name: value for name, value in os.environ.items() if name.startswith(_VARIABLES)}
    return {
        "torch": torch.__version__,
        "cpu": _processor(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "dtype": str(dtype),
        "variables": json.dumps(variables, sort_keys=True),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    return " ".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))
