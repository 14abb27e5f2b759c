"""From constructor arguments, as checkpoints hold them, to a network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from models.errors import ModelError
from models.networks.edm import EDMPrecond
from models.networks.edm2 import Precond
from models.networks.var import VAR
from models.networks.vqvae import VQVAE

NETWORKS: Mapping[str, Callable[..., nn.Module]] = {
    "EDMPrecond": EDMPrecond,
    "Precond": Precond,
    "VAR": VAR,
    "VQVAE": VQVAE,
}


def class_name_of(init: Mapping[str, Any]) -> str:
    """Return `init`'s class name; VAR's and the VQVAE's own arguments tell which they are without one."""
    if "class_name" in init:
        return str(init["class_name"])
    if "depth" in init:
        return "VAR"
    if "z_channels" in init:
        return "VQVAE"
    raise ModelError(f"the constructor arguments name no class; add class_name, one of {', '.join(NETWORKS)}")


def build(init: Mapping[str, Any], tokenizer: Mapping[str, Any] | None = None) -> nn.Module:
    """Build a network in evaluation mode with freshly initialised weights.

    Args:
        init: constructor arguments as the published checkpoints hold them. `class_name` is `EDMPrecond`,
            `Precond` (EDM2), `VAR` or `VQVAE`; without one, `depth` means VAR and `z_channels` the VQVAE.
        tokenizer: VAR only: the constructor arguments of its VQVAE, which give VAR its `vocab_size` and
            `z_channels`. Without it the published tokenizer's 4096 and 32 are meant.

    Raises:
        ModelError: an unknown class, or arguments that it does not take.
    """
    name = class_name_of(init)
    arguments = {key: value for key, value in init.items() if key != "class_name"}
    if name == "VAR" and tokenizer is not None:
        arguments |= {key: tokenizer[key] for key in ("vocab_size", "z_channels")}
    try:
        network = NETWORKS[name]
    except KeyError:
        raise ModelError(f"unknown network class {name!r}; known: {', '.join(NETWORKS)}") from None
    try:
        return network(**arguments).eval()
    except (TypeError, ValueError) as error:
        raise ModelError(f"{name} does not take these constructor arguments: {error}") from error
