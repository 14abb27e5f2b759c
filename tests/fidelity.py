"""torch-fidelity, imported even where its torchvision was built for another torch."""

from __future__ import annotations

import importlib
from types import ModuleType

import torch

OPERATORS = ("nms", "qnms")
"""What torchvision registers shapes for on import, and its binary defines if it loads."""


def torch_fidelity(name: str) -> ModuleType:
    """Import `torch_fidelity.NAME`; torchvision's operators are declared where its binary does not load."""
    try:
        return importlib.import_module(f"torch_fidelity.{name}")
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
    for operator in OPERATORS:
        torch.library.define(
            f"torchvision::{operator}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        )
    return importlib.import_module(f"torch_fidelity.{name}")
