"""The published checkpoints load by name, with no tensor missing or left over."""

from __future__ import annotations

import json

import pytest
import torch
from reference import DATA

from models import build

TOKENIZERS = {"var-tiny": "var-tiny.vqvae"}


NAMES = [
    "edm-song-vp-tiny-cond",
    "edm-song-vp-tiny-uncond",
    "edm-cifar10-cond-vp",
    "edm-cifar10-uncond-vp",
    "edm-imagenet-64x64-cond-adm",
    "edm2-tiny",
    "edm2-tiny-uncond",
    "edm2-img64-s",
    "edm2-img512-xs",
    "edm2-img512-l",
    "var-tiny",
    "var-tiny.vqvae",
    "var_d16",
    "var_d30",
    "vae_ch160v4096z32",
]


@pytest.mark.parametrize("name", NAMES)
def test_tensors_are_the_originals(name: str) -> None:
    schema = json.loads((DATA / f"{name}.json").read_text())
    tokenizer = json.loads((DATA / f"{TOKENIZERS[name]}.json").read_text()) if name in TOKENIZERS else None
    with torch.device("meta"):
        network = build(schema["init"], tokenizer and tokenizer["init"])
    parameters = dict(network.named_parameters())
    assert {
        key: {
            "shape": list(tensor.shape),
            "dtype": str(tensor.dtype).removeprefix("torch."),
            "kind": "parameter" if key in parameters else "buffer",
        }
        for key, tensor in network.state_dict().items()
    } == schema["tensors"]
    assert sum(parameter.numel() for parameter in parameters.values()) == schema["parameters"]
