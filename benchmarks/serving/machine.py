"""The machine that figures come from."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

import psutil

PACKAGES = ("ddo-serve", "torch", "openvino", "numpy", "fastapi", "uvicorn", "uvloop", "pydantic", "pillow")


def describe_machine() -> dict[str, Any]:
    """Return processor, cores, memory, system, versions, and how busy it was beforehand."""
    return {
        "cpu": _processor(),
        "cores": psutil.cpu_count(logical=False),
        "threads": len(os.sched_getaffinity(0)),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
        "load_before": round(os.getloadavg()[0], 2),
    }


def one_line(machine: dict[str, Any]) -> str:
    """Return the machine's description in a line."""
    return (
        f"{machine['cpu']}, {machine['cores']} cores, {machine['threads']} threads, "
        f"{machine['memory_gib']} GiB, {machine['system']}, Python {machine['python']}; "
        f"load before the run {machine['load_before']}"
    )


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("model name", "Model"):
            return value.strip()
    return platform.machine()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
