"""The network that a round trains, and the frozen reference beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from models.networks import force_unit_weights
from models.networks.edm2 import Precond
from models.version import ModelVersion

_NO_DROPOUT: Mapping[str, Mapping[str, float]] = {
    "EDMPrecond": {"dropout": 0.0, "label_dropout": 0.0},
    "Precond": {"dropout": 0.0},
}


def trained_network(
    version: ModelVersion, device: torch.device, *, dropout: bool, uncertainty: bool
) -> nn.Module:
    """Build the network `main` of a version in `train` mode.

    Dropout is not switched off by `eval` mode, in which linear layers work row by row and are slow to
    differentiate, but by building the network without any. EDM2's forced weight normalisation is the loop's,
    and goes on in every kind of training.

    Args:
        version: whose weights.
        device: of training.
        dropout: train with the dropout of activations and labels that the version was trained with.
        uncertainty: EDM2's learned uncertainty trains too; it has no part in other losses than its own.
    """
    network = (version if dropout else _without_dropout(version)).network().train().to(device)
    if isinstance(network, Precond) and not uncertainty:
        network.logvar_linear.requires_grad_(False)
    return network


def reference_network(version: ModelVersion, device: torch.device) -> nn.Module:
    """Build the network `main` of a version, frozen; it computes to the bit what a trained one starts with.

    So it is in `train` mode too, and EDM2's weights are forced to unit norm as the loop forces the trained
    ones. They are then normalised once and for all, not in every call.
    """
    network = _without_dropout(version).network().train().requires_grad_(False).to(device)
    if isinstance(network, Precond):
        force_unit_weights(network)
        network.prepare_inference(torch.float32)
    return network


def _without_dropout(version: ModelVersion) -> ModelVersion:
    main = version.spec.networks["main"]
    init: dict[str, Any] = {**main.init, **_NO_DROPOUT.get(main.init.get("class_name", ""), {})}
    networks = version.spec.networks | {"main": main.model_copy(update={"init": init})}
    return replace(version, spec=version.spec.model_copy(update={"networks": networks}))
