"""The networks that are compared: versions with fixed random weights, and the arithmetic that they need."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.engines.inputs import DenoiserInputs
from models.networks import build
from models.networks.var import VAR
from models.networks.vqvae import VQVAE
from models.spec import (
    DiffusionDefaults,
    Lineage,
    ModelSpec,
    NetworkSpec,
    PixelCodec,
    VarDefaults,
    VqvaeCodec,
)
from models.version import seal

Init = Mapping[str, Any]


def write_denoiser(directory: Path, init: Init) -> None:
    """Write a version with a filled EDM or EDM2 network."""
    classes = init.get("label_dim", 0)
    family = "edm2" if init["class_name"] == "Precond" else "edm"
    _write(directory, family, {"main": init}, classes, codec=PixelCodec(), defaults=DiffusionDefaults())


def write_var(directory: Path, init: Init, tokenizer: Init) -> None:
    """Write a version with a filled VAR and its tokenizer."""
    networks = {"main": init, "vqvae": tokenizer}
    _write(directory, "var", networks, init["num_classes"], codec=VqvaeCodec(), defaults=VarDefaults())


def denoiser_flops(init: Init) -> float:
    """Return the floating-point operations of one evaluation of one image."""
    with torch.device("meta"):
        network = build(init)
        shape = init["img_channels"], init["img_resolution"], init["img_resolution"]
        labels = torch.empty(1, init["label_dim"]) if init.get("label_dim") else None
        inputs = DenoiserInputs(torch.empty(1, *shape), torch.empty(1), labels)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network(*inputs)
    return float(counter.get_total_flops())


@dataclass
class _Growing:
    """Keys and values of one sequence, without a cache's memory."""

    kept: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        if layer in self.kept:
            old_keys, old_values = self.kept[layer]
            keys, values = torch.cat((old_keys, keys), dim=2), torch.cat((old_values, values), dim=2)
        self.kept[layer] = keys, values
        return keys, values


def var_flops(init: Init, tokenizer: Init, *, guided: bool) -> float:
    """Return the floating-point operations that one image needs; with guidance the transformer runs twice.

    Counted are the transformer over cached keys and values and the pixel decoder. What a class does to the
    layers is left out: it can be kept from image to image.
    """
    with torch.device("meta"):
        var, vqvae = cast(VAR, build(init, tokenizer)), cast(VQVAE, build(tokenizer))
        ids = torch.empty(1, dtype=torch.int64)
        side = vqvae.scales.sides[-1]
        with torch.no_grad():
            modulation, cache = var.modulation(ids), _Growing()
            with FlopCounterMode(display=False) as transformer:
                var.logits(var.embed_classes(ids), modulation, cache=cache)
                for tokens, span in zip(var.scales.tokens[1:], var.scales.spans[1:], strict=True):
                    inputs = torch.empty(1, tokens, var.z_channels)
                    var.logits(var.embed_inputs(inputs, span), modulation, cache=cache)
            with FlopCounterMode(display=False) as decoder:
                vqvae.decode_features(torch.empty(1, var.z_channels, side, side))
    return float((1 + guided) * transformer.get_total_flops() + decoder.get_total_flops())


def _write(directory: Path, family: str, networks: Mapping[str, Init], classes: int, **spec: Any) -> None:
    directory.mkdir()
    files = {
        name: NetworkSpec(init=dict(init), weights=f"{name}.safetensors") for name, init in networks.items()
    }
    for file in files.values():
        network = _filled(build(file.init, networks.get("vqvae")))
        save_file(network.state_dict(), directory / file.weights)
    names = tuple(f"class {i}" for i in range(classes))
    lineage = Lineage(source="random weights for a comparison of speeds")
    seal(
        directory,
        ModelSpec(
            name=f"{family}-filled",
            family=cast(Any, family),
            networks=files,
            class_names=names,
            licence="CC0-1.0",
            lineage=lineage,
            **spec,
        ),
    )


@torch.no_grad()
def _filled(network: nn.Module) -> nn.Module:
    """Give every parameter fixed random values: fresh networks have layers of zeros, which hide errors."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in network.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.ndim > 1:
            noise /= parameter[0].numel() ** 0.5
        else:
            noise = noise / 10 + name.endswith(".weight")
        parameter.copy_(noise)
    return network
