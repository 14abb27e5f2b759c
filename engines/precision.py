"""Which precision a device computes fastest in without losing the image."""

from __future__ import annotations

import torch

from engines.settings import Precision


def choose_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """Return the networks' dtype; `auto` is bfloat16 where the processor multiplies it natively.

    The instruction set is asked, not a clock: the same machine must choose the same again, or the same
    request would give another image after a restart.
    """
    match precision:
        case "float32":
            return torch.float32
        case "bfloat16":
            return torch.bfloat16
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if native else torch.float32
