"""VAR's transformer as a TensorRT engine, over the same cache as in torch."""

from __future__ import annotations

from torch import Tensor

from engines.kv_cache import CacheView
from engines.scale_decoder import ScaleDecoder
from engines.tensorrt.runtime import Engine
from models.networks.var import VAR, Modulation


class TensorRTScaleDecoder(ScaleDecoder):
    """A `ScaleDecoder` whose layers and head are the engine of the program `scale`.

    Embeddings and what a class does to the layers stay in torch; keys and values stay on the device.

    Args:
        var: the network, where the engine runs and in the engine's precision.
        slots: branches open at once.
        max_branches: branches in one call.
        engine: built from `var`.
    """

    _probed_layers = None  # an engine runs them all

    def __init__(self, var: VAR, *, slots: int, max_branches: int, engine: Engine) -> None:
        self._engine = engine
        super().__init__(var, slots=slots, max_branches=max_branches)

    def _logits(self, x: Tensor, modulation: Modulation, cache: CacheView) -> Tensor:
        logits, new = self._engine(x, modulation.blocks, modulation.head, cache.past())
        cache.write(new)
        return logits
