"""Runs the VAR transformer one scale at a time over cached keys and values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

import torch
from torch import Tensor, nn

from engines.backends.bucket_cache import BucketCache
from engines.buckets import Buckets, powers_of_two
from engines.digests import RowDigests
from engines.kv_cache import CacheView, KeyValueCache
from models.networks.packed_linear import PackedLinear
from models.networks.var import VAR, Modulation

MODULATIONS_KEPT = 128
"""Classes whose modulation is kept; with 16 layers of width 1024 one takes 0.4 MB in float32."""

PROBES = 4
"""Sequences that the search for batch sizes tries: one alone may hide a difference by rounding."""

WEIGHT_TOKENS = 64
"""Reading the weights for one call costs about as much as computing this many tokens."""

CPU_CALL_TOKENS = 256
"""Tokens of all branches in one call on a CPU: more gain nothing, and make the search at the start longer."""


@dataclass(frozen=True, eq=False)
class Branch:
    """One sequence that the transformer decodes.

    Attributes:
        label: class id, or the number of classes for "no class", (1,), int64.
        modulation: what the class does to the layers, batch size 1.
        slot: where its keys and values are.
    """

    label: Tensor
    modulation: Modulation
    slot: int


class ScaleDecoder:
    """The transformer with a key and value cache, run at batch sizes that agree bit for bit.

    Args:
        var: the network, already where and in the precision that it computes in; it is taken over.
        slots: branches open at once.
        max_branches: branches in one call.
        bucket_cache: what keeps the batch sizes that were found; None: they are searched for.
    """

    _probed_layers: int | None = 1  # one tells about all, which have the same shapes

    def __init__(
        self, var: VAR, *, slots: int, max_branches: int, bucket_cache: BucketCache | None = None
    ) -> None:
        self._var = var
        if PackedLinear.works_for(var.dtype, var.head.weight.device):
            var.pack()
        self._cache = KeyValueCache(
            depth=len(var.blocks),
            slots=slots,
            heads=var.num_heads,
            length=var.scales.length,
            head_dim=var.embed_dim // var.num_heads,
            dtype=var.dtype,
            device=var.head.weight.device,
        )
        # Of a function, not of a method, which would hold the cache in a circle after its last use.
        self._modulation = lru_cache(maxsize=MODULATIONS_KEPT)(partial(_modulation, var))

        def search() -> list[Buckets]:
            return self._find_buckets(max_branches)

        self._buckets = search() if bucket_cache is None else bucket_cache.get("scales", max_branches, search)

    def open(self, class_id: int) -> Branch:
        """Start a sequence of a class; the number of classes means "no class".

        Raises:
            EngineError: no slot is free.
        """
        return Branch(_label(self._var, class_id), self._modulation(class_id), self._cache.acquire())

    def close(self, branch: Branch) -> None:
        """Give the branch's slot back."""
        self._cache.release(branch.slot)

    @property
    def _watched(self) -> nn.Module:
        """What the search for batch sizes sees the inside of."""
        return self._var

    @property
    def costs(self) -> list[dict[int, float]]:
        """Seconds of a call by its branches, for each scale, as they were once measured."""
        return [buckets.seconds_by_size for buckets in self._buckets]

    @property
    def cache_nbytes(self) -> int:
        """Bytes of the key and value cache."""
        return self._cache.nbytes

    def predict(self, scale: int, branches: Sequence[Branch], inputs: Sequence[Tensor]) -> list[Tensor]:
        """Predict the tokens of `scale` for branches whose earlier scales are in the cache.

        Args:
            scale: index of the scale.
            branches: at most as many as the engine may batch.
            inputs: each branch's features at the places of the scale, (1, tokens, z_channels); the first
                scale has none and its inputs are not looked at.

        Returns:
            For each branch the logits, (tokens, V), float32.
        """
        logits: list[Tensor] = []
        for count, rows in self._buckets[scale].calls(len(branches)):
            batch = self._run(scale, [branches[row] for row in rows], [inputs[row] for row in rows])
            logits.extend(batch[:count])
        return logits

    def _run(
        self, scale: int, branches: Sequence[Branch], inputs: Sequence[Tensor], depth: int | None = None
    ) -> Tensor:
        """Return the logits (B, tokens, V) of one call; `depth` limits it to the first layers."""
        span = self._var.scales.spans[scale]
        if scale == 0:
            x = self._var.embed_classes(torch.cat([branch.label for branch in branches]))
        else:
            x = self._var.embed_inputs(torch.cat(list(inputs)), span)
        modulation = Modulation(
            torch.cat([branch.modulation.blocks[:, :depth] for branch in branches]),
            torch.cat([branch.modulation.head for branch in branches]),
        )
        cache = self._cache.at([branch.slot for branch in branches], span)
        return self._logits(x, modulation, cache)

    def _logits(self, x: Tensor, modulation: Modulation, cache: CacheView) -> Tensor:
        """Run the layers that `modulation` has vectors for, and the head; return (B, tokens, V), float32."""
        return self._var.logits(x, modulation, cache=cache).float()

    def _find_buckets(self, max_branches: int) -> list[Buckets]:
        """Try the batch sizes of every scale on `_probed_layers`."""
        labels = range(max(0, self._var.num_classes + 1 - PROBES), self._var.num_classes + 1)
        branches = [self.open(label) for label in labels]
        noise = torch.Generator().manual_seed(0)

        def run(scale: int, inputs: Sequence[Tensor], size: int) -> Tensor:
            digests = []
            for branch, own in zip(branches, inputs, strict=True):
                with RowDigests(self._watched, size) as watched:
                    logits = self._run(scale, [branch] * size, [own] * size, depth=self._probed_layers)
                digests.append(watched.with_result(logits))
            return torch.cat(digests, dim=1)

        buckets = []
        for scale, tokens in enumerate(self._var.scales.tokens):
            shape = (1, tokens, self._var.z_channels)
            inputs = [torch.randn(shape, generator=noise).to(branch.label.device) for branch in branches]
            call = partial(run, scale, inputs)
            most = max_branches
            if self._var.head.weight.device.type == "cpu":
                most = max(1, min(most, CPU_CALL_TOKENS // tokens))
            found = Buckets.find(call, powers_of_two(most), WEIGHT_TOKENS / tokens)
            buckets.append(found.timed(partial(self._repeat, scale, branches[0], inputs[0])))
        for branch in branches:
            self.close(branch)
        return buckets

    def _repeat(self, scale: int, branch: Branch, own: Tensor, size: int) -> float:
        return self._run(scale, [branch] * size, [own] * size)[0, 0, 0].item()  # waits for the device


def _label(var: VAR, class_id: int) -> Tensor:
    return torch.tensor([class_id], device=var.head.weight.device)


def _modulation(var: VAR, class_id: int) -> Modulation:
    return var.modulation(_label(var, class_id))
