"""The small VAR of the reference vectors, and an engine around it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import torch
from reference import DATA, fill, load

from engines.base import ImageRequest
from engines.var import VarEngine
from engines.var_row import VarRow
from models.networks.var import VAR
from models.networks.vqvae import VQVAE
from models.spec import VarDefaults

NUM_CLASSES = 10
TOKENIZER = json.loads((DATA / "var-tiny.vqvae.json").read_text())["init"]


def tiny_var() -> VAR:
    return fill(VAR(**load("var-tiny").init, vocab_size=TOKENIZER["vocab_size"]))


def tiny_vqvae() -> VQVAE:
    return fill(VQVAE(**TOKENIZER))


def tiny_engine(dtype: torch.dtype = torch.float32, **arguments: Any) -> VarEngine:
    """Return an engine on the CPU; `arguments` replace or add to its constructor's."""
    return VarEngine(
        **{
            "var": tiny_var(),
            "vqvae": tiny_vqvae(),
            "defaults": VarDefaults(),
            "num_classes": NUM_CLASSES,
            "device": torch.device("cpu"),
            "dtype": dtype,
            **arguments,
        }
    )


def make(engine: VarEngine, requests: Sequence[ImageRequest]) -> list[VarRow]:
    """Make all images side by side; the rows come back closed."""
    rows = [engine.open(engine.resolve(request)) for request in requests]
    while rows[0].calls_left:
        engine.step(rows)
    for row in rows:
        engine.close(row)
    return rows
