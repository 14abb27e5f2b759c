"""The reference implementations, from the user's own checkouts, as they are."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import Any

import torch
from safetensors.torch import load_file

from benchmarks.engines.answering import Prepare, answer
from benchmarks.engines.inputs import DenoiserInputs


def load_edm(settings: Mapping[str, Any]) -> Prepare:
    """Build EDM's denoiser from https://github.com/NVlabs/edm and return one evaluation of it.

    Args:
        settings: `checkout`, `init` and `weights` (a safetensors file).
    """
    init = {key: value for key, value in settings["init"].items() if key != "class_name"}
    network = importlib.import_module("training.networks").EDMPrecond(**init)
    network.load_state_dict(load_file(settings["weights"]["main"]))
    network.eval().requires_grad_(False)

    @lru_cache
    def prepare(batch: int) -> Callable[[], Any]:
        shape = init["img_channels"], init["img_resolution"], init.get("label_dim", 0)
        inputs = DenoiserInputs.draw(batch, *shape)
        return lambda: network(*inputs)

    return lambda case: prepare(case["batch"])


def load_var(settings: Mapping[str, Any]) -> Prepare:
    """Build VAR from https://github.com/FoundationVision/VAR and return its decoding of images.

    Args:
        settings: `checkout`, `init`, `tokenizer` and `weights` (safetensors files).
    """
    init, tokenizer = settings["init"], settings["tokenizer"]
    vqvae, var = importlib.import_module("models").build_vae_var(
        device="cpu",
        patch_nums=tuple(init["patch_nums"]),
        V=tokenizer["vocab_size"],
        Cvae=tokenizer["z_channels"],
        ch=tokenizer["ch"],
        share_quant_resi=tokenizer["share_quant_resi"],
        num_classes=init["num_classes"],
        depth=init["depth"],
        shared_aln=init["shared_aln"],
        attn_l2_norm=init["attn_l2_norm"],
    )
    for network, weights in ((vqvae, "vqvae"), (var, "main")):
        network.load_state_dict(load_file(settings["weights"][weights]))
        network.eval().requires_grad_(False)

    def prepare(case: Mapping[str, Any]) -> Callable[[], Any]:
        labels = torch.arange(case["batch"]) % init["num_classes"]
        # Its `cfg` is the weight t of (1 + t) c - t u: one less than the guidance scale.
        return partial(
            var.autoregressive_infer_cfg, B=case["batch"], label_B=labels, g_seed=0, cfg=case["cfg"] - 1
        )

    return prepare


def main() -> None:
    """Load what the settings name and answer its cases."""
    settings = json.loads(sys.argv[1])
    sys.path.insert(0, settings["checkout"])  # VAR's package is called `models`, as ours is
    torch.set_num_threads(settings["threads"])
    load = {"edm": load_edm, "var": load_var}[settings["family"]]
    with torch.inference_mode():
        answer(lambda: load(settings))


if __name__ == "__main__":
    main()
