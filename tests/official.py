"""Writes checkpoints in the published layouts: their opcodes and class paths, none of the original source."""

from __future__ import annotations

import pickle
import sys
import types
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

EDM_INIT = {
    "class_name": "EDMPrecond",
    "img_resolution": 8,
    "img_channels": 3,
    "label_dim": 3,
    "model_type": "SongUNet",
    "embedding_type": "positional",
    "encoder_type": "standard",
    "decoder_type": "standard",
    "channel_mult_noise": 1,
    "resample_filter": [1, 1],
    "model_channels": 8,
    "channel_mult": [1, 2],
    "augment_dim": 9,
    "dropout": 0.13,
    "num_blocks": 1,
    "attn_resolutions": [4],
}
EDM2_INIT = {
    "class_name": "Precond",
    "img_resolution": 8,
    "img_channels": 3,
    "label_dim": 3,
    "model_channels": 64,
    "channel_mult": [1],
    "num_blocks": 1,
    "attn_resolutions": [],
}
VAR_INIT = {
    "class_name": "VAR",
    "patch_nums": [1, 2, 3],
    "num_classes": 5,
    "depth": 2,
    "embed_dim": 64,
    "num_heads": 2,
    "attn_l2_norm": True,
    "shared_aln": False,
    "vocab_size": 16,
    "z_channels": 8,
}
VQVAE_INIT = {
    "class_name": "VQVAE",
    "patch_nums": [1, 2, 3],
    "vocab_size": 16,
    "z_channels": 8,
    "ch": 32,
    "share_quant_resi": 4,
}

_MODULES = ("torch_utils", "torch_utils.persistence", "dnnlib", "dnnlib.util")


class Persistent:
    """Pickles as the persistent objects of the published files do: one call with one dictionary."""

    def __init__(self, class_name: str, state: Mapping[str, Any], source: str = "") -> None:
        self.meta = {
            "type": "class",
            "version": 6,
            "module_src": source,
            "class_name": class_name,
            "state": dict(state),
        }

    def __reduce__(self) -> tuple[Any, ...]:
        return sys.modules["torch_utils.persistence"]._reconstruct_persistent_obj, (self.meta,)


@contextmanager
def published_modules() -> Iterator[type[dict[str, Any]]]:
    """Let the names of the published files' modules exist while a file is written; lends `EasyDict`."""
    modules = {name: types.ModuleType(name) for name in _MODULES}

    def _reconstruct_persistent_obj(meta: Any) -> Any:
        raise AssertionError("the reconstruct call was run")

    function: Any = _reconstruct_persistent_obj
    function.__module__, function.__qualname__ = "torch_utils.persistence", "_reconstruct_persistent_obj"
    easy_dict = type("EasyDict", (dict,), {"__module__": "dnnlib.util"})
    modules["torch_utils.persistence"]._reconstruct_persistent_obj = function  # type: ignore[attr-defined]
    modules["dnnlib.util"].EasyDict = easy_dict  # type: ignore[attr-defined]
    sys.modules.update(modules)
    try:
        yield easy_dict
    finally:
        for name in modules:
            del sys.modules[name]


def persistent(module: nn.Module, init: Mapping[str, Any] | None = None, source: str = "") -> Any:
    """Turn a network into what is pickled for it: torch.nn layers stay, the rest becomes persistent."""
    children = {name: persistent(child) for name, child in module._modules.items() if child is not None}
    if type(module).__module__.startswith("torch.nn.modules."):
        copy = type(module).__new__(type(module))
        copy.__dict__.update(module.__dict__, _modules=children)
        return copy
    arguments = {key: value for key, value in (init or {}).items() if key != "class_name"}
    return bare(
        type(module).__name__,
        source,
        _parameters=module._parameters,
        _buffers=module._buffers,
        _non_persistent_buffers_set=module._non_persistent_buffers_set,
        _modules=children,
        _init_kwargs={**arguments, "use_fp16": True},
    )


def bare(class_name: str, source: str = "", **state: Any) -> Persistent:
    """Make a persistent network without anything in it but `state`."""
    nothing = {"_parameters": {}, "_buffers": {}, "_modules": {}, "_init_args": (), "_init_kwargs": {}}
    return Persistent(class_name, {"training": False, **nothing, **state}, source)


def write_pickle(path: Path, ema: Any, **others: Any) -> Path:
    """Write a plain pickle of protocol 4, a dictionary with `ema`, as EDM's are."""
    with published_modules():
        path.write_bytes(pickle.dumps({"ema": ema, "dataset_kwargs": {}, **others}, protocol=4))
    return path


def write_archive(path: Path, state: Mapping[str, Any]) -> Path:
    """Write what `torch.save` writes, as VAR's files are."""
    torch.save(dict(state), path)
    return path


def tensors_equal(left: Mapping[str, Tensor], right: Mapping[str, Tensor]) -> bool:
    """Tell whether two state dicts are the same, bit for bit."""
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)
