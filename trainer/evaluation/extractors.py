"""Feature extractors by name."""

from __future__ import annotations

import importlib
from pathlib import Path

import torch

from trainer.errors import TrainerError
from trainer.evaluation.efficientnet import EfficientNetLite0
from trainer.evaluation.features import FeatureExtractor
from trainer.evaluation.inception import INCEPTION_NAME, InceptionV3


def open_extractor(name: str, device: torch.device, weights: Path | None = None) -> FeatureExtractor:
    """Return the extractor called `name`.

    Args:
        name: `efficientnet-lite0`, `inception-v3`, or `package.module:Class` for any other: a class
            whose instances are `FeatureExtractor`s and which is called with the device.
        device: where it runs.
        weights: file of the weights, `inception-v3` only.

    Raises:
        TrainerError: there is no such extractor, or it cannot be made.
    """
    if weights is not None and name != INCEPTION_NAME:
        raise TrainerError(f"only {INCEPTION_NAME} takes a file of weights, {name} does not")
    if name == EfficientNetLite0.name:
        return EfficientNetLite0(device)
    if name == INCEPTION_NAME:
        return InceptionV3(device, weights)
    module, colon, attribute = name.partition(":")
    if not colon:
        known = f"{EfficientNetLite0.name}, {INCEPTION_NAME} or package.module:Class"
        raise TrainerError(f"unknown feature extractor {name!r}; known: {known}")
    try:
        extractor: FeatureExtractor = getattr(importlib.import_module(module), attribute)(device)
    except (ImportError, AttributeError, ValueError) as error:
        raise TrainerError(f"cannot make the feature extractor {name}: {error}") from error
    return extractor


def distance_name(extractor: str) -> str:
    """Return what the Frechet distance on an extractor's features is called."""
    return "FID" if extractor == INCEPTION_NAME else f"Frechet distance ({extractor})"
