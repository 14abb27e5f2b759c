"""One network in one file: safetensors whose metadata says how to build it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from models.checkpoints.loading import load_into, load_safetensors
from models.networks import build
from trainer.errors import TrainerError

WEIGHTS_FILE = "weights.safetensors"


def save_weights(path: Path, weights: Mapping[str, Tensor], init: Mapping[str, Any]) -> None:
    """Write the state dict of a network that `models.build(init)` makes; it appears whole or not at all.

    Raises:
        TrainerError: it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.writing")
    try:
        contiguous = {name: tensor.contiguous() for name, tensor in weights.items()}
        save_file(contiguous, temporary, metadata={"init": json.dumps(init)})
        temporary.replace(path)
    except (OSError, SafetensorError) as error:
        temporary.unlink(missing_ok=True)
        raise TrainerError(f"cannot write {path}: {error}") from error


def load_weights(path: Path) -> tuple[nn.Module, dict[str, Any]]:
    """Build the network of a file of `save_weights`; return it with its constructor arguments.

    Raises:
        TrainerError: the file is missing, damaged, or says not how to build the network.
        ModelError: its tensors are not the network's.
    """
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
        init: dict[str, Any] = json.loads(metadata["init"])
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise TrainerError(f"{path} holds no network of a finished run: {error}") from error
    network = build(init)
    load_into(network, load_safetensors(path))
    return network, init
