"""torch-fidelity, imported even without the torchvision that it asks for: only its data sets use that."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import ModuleType
from unittest.mock import MagicMock

_TORCHVISION = (
    "torchvision",
    "torchvision.datasets",
    "torchvision.transforms",
    "torchvision.transforms.functional",
)


def torch_fidelity(name: str) -> ModuleType:
    """Import `torch_fidelity.NAME`."""
    if "torchvision" not in sys.modules and importlib.util.find_spec("torchvision") is None:
        sys.modules.update({module: MagicMock() for module in _TORCHVISION})
    return importlib.import_module(f"torch_fidelity.{name}")
