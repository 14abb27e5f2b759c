"""The published checkpoints load by name, with no tensor missing or left over."""

from __future__ import annotations

import json

import pytest
import torch
from reference import DATA, schema_of

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
    assert schema_of(network) == schema["tensors"]
    assert sum(parameter.numel() for parameter in network.parameters()) == schema["parameters"]
