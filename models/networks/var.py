"""VAR: the transformer that predicts an image's token maps from coarse to fine."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import partial
from typing import NamedTuple, Protocol, cast

import torch
from torch import Tensor, nn

from models.networks.rowwise import float32_linear
from models.networks.scales import Scales
from models.networks.var_block import MODULATIONS, Block, adaptive_projection


class KeyValueStore(Protocol):
    """Keys and values of earlier scales, kept by whoever decodes scale by scale."""

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Keep one layer's new keys and values, (B, heads, tokens, head_dim); return all up to them."""
        ...


class Modulation(NamedTuple):
    """All that a class does to the layers, computed once and good for every scale.

    Attributes:
        blocks: gamma1, gamma2, 1 + scale1, 1 + scale2, shift1, shift2 of each layer, (B, depth, 6, C),
            float32.
        head: scale and shift before the head, (B, 2, C).
    """

    blocks: Tensor
    head: Tensor


class AdaptiveNorm(nn.Module):
    """Normalisation before the head, scaled and shifted by the class."""

    def __init__(self, embed_dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(embed_dim, eps=1e-6, elementwise_affine=False)
        self.ada_lin = adaptive_projection(embed_dim, 2)

    def modulation(self, condition: Tensor) -> Tensor:
        """Return scale and shift as (B, 2, C) for a class embedding (B, C)."""
        out: Tensor = self.ada_lin(condition)
        return out.view(len(out), 2, -1)

    def forward(self, x: Tensor, modulation: Tensor) -> Tensor:
        """Map (B, L, C) to (B, L, C)."""
        scale, shift = modulation.unsqueeze(2).unbind(1)
        out: Tensor = self.norm(x) * (1 + scale) + shift
        return out


class VAR(nn.Module):
    """Visual autoregressive transformer (Tian et al. 2024, arXiv 2404.02905, Sections 3.2 and 3.3).

    The first scale is predicted from the class embedding; scale k from the tokenizer's image of all scales
    before it, averaged down to the size of scale k. A token sees its own scale and all coarser ones.

    Tensor names and shapes are those of the published checkpoints. The label `num_classes` means "no class".
    The blocks may be cast to a lower precision; embeddings and head work in their own dtype.

    Args:
        patch_nums: side of each scale's token map.
        num_classes: classes, the "no class" label not counted.
        depth: transformer layers.
        embed_dim: width C.
        num_heads: attention heads.
        attn_l2_norm: normalise queries and keys.
        shared_aln: one projection of the class for all layers (the 512x512 model) in place of one each.
        vocab_size: codebook size V of the tokenizer.
        z_channels: channels of the tokenizer's codes.
    """

    lvl_1L: Tensor
    attn_bias_for_masking: Tensor

    def __init__(
        self,
        *,
        patch_nums: Sequence[int],
        num_classes: int,
        depth: int,
        embed_dim: int,
        num_heads: int,
        attn_l2_norm: bool = True,
        shared_aln: bool = False,
        vocab_size: int = 4096,
        z_channels: int = 32,
    ) -> None:
        super().__init__()
        self.scales = Scales.of(patch_nums)
        self.num_classes = num_classes
        self.num_heads = num_heads
        self.embed_dim = embed_dim
        self.vocab_size = vocab_size
        self.z_channels = z_channels
        self.shared_aln = shared_aln

        self.word_embed = nn.Linear(z_channels, embed_dim)
        self.class_emb = nn.Embedding(num_classes + 1, embed_dim)
        self.pos_start = nn.Parameter(torch.empty(1, self.scales.tokens[0], embed_dim))
        self.pos_1LC = nn.Parameter(torch.empty(1, self.scales.length, embed_dim))
        self.lvl_embed = nn.Embedding(len(self.scales), embed_dim)
        for table in (self.class_emb.weight, self.pos_start, self.pos_1LC, self.lvl_embed.weight):
            nn.init.trunc_normal_(table, std=math.sqrt(1 / (3 * embed_dim)))
        levels = torch.cat([torch.full((tokens,), k) for k, tokens in enumerate(self.scales.tokens)])
        self.register_buffer("lvl_1L", levels[None])
        visible = levels[:, None] >= levels[None, :]
        self.register_buffer("attn_bias_for_masking", torch.where(visible, 0.0, -math.inf)[None, None])

        if shared_aln:
            self.shared_ada_lin = adaptive_projection(embed_dim, MODULATIONS)
        self.blocks = nn.ModuleList(
            Block(embed_dim, num_heads, attn_l2_norm, shared_aln) for _ in range(depth)
        )
        self.head_nm = AdaptiveNorm(embed_dim)
        self.head = nn.Linear(embed_dim, vocab_size)

    @property
    def dtype(self) -> torch.dtype:
        """What the blocks compute in."""
        return next(self.blocks.parameters()).dtype

    def pack(self) -> None:
        """Lay out the weights of the blocks, which must be bfloat16 on a CPU, for inference alone."""
        for block in cast("Iterable[Block]", self.blocks):
            block.attn.pack()
            block.ffn.pack()

    def modulation(self, class_ids: Tensor) -> Modulation:
        """Return what the classes (B,) do to every layer."""
        condition: Tensor = self.class_emb(class_ids)
        shared = condition
        if self.shared_aln:
            shared = self.shared_ada_lin(condition).view(len(condition), MODULATIONS, -1)
        blocks = torch.stack(
            [block.modulation(shared) for block in cast("Iterable[Block]", self.blocks)], dim=1
        )
        return Modulation(blocks, self.head_nm.modulation(condition))

    def embed_classes(self, class_ids: Tensor) -> Tensor:
        """Return the transformer's input at the first scale, (B, tokens of it, C), for classes (B,)."""
        start: Tensor = self.class_emb(class_ids)[:, None] + self.pos_start
        return start + self._place(self.scales.spans[0])

    def embed_inputs(self, inputs: Tensor, span: slice) -> Tensor:
        """Return the transformer's input (B, L, C) at later scales.

        Args:
            inputs: the tokenizer's features for those places, (B, L, z_channels).
            span: the places in the sequence of all tokens.
        """
        words = float32_linear(inputs, self.word_embed.weight, self.word_embed.bias)
        return words + self._place(span)

    def _place(self, span: slice) -> Tensor:
        # Looked up, not called: what engines watch to compare batch sizes is what modules give for every row.
        levels: Tensor = self.lvl_embed.weight[self.lvl_1L[:, span]]
        return levels + self.pos_1LC[:, span]

    def logits(
        self,
        x: Tensor,
        modulation: Modulation,
        mask: Tensor | None = None,
        cache: KeyValueStore | None = None,
    ) -> Tensor:
        """Run the layers that `modulation` has vectors for, and the head.

        Args:
            x: embedded inputs, (B, L, C).
            modulation: see `modulation`; with fewer layers than the model, only those run.
            mask: added to the attention's logits, (1, 1, L, L).
            cache: keys and values of the scales before `x`; without it `x` holds all there is.

        Returns:
            (B, L, V) in the head's dtype.
        """
        for layer, vectors in enumerate(modulation.blocks.unbind(1)):
            update = None if cache is None else partial(cache.extend, layer)
            x = self.blocks[layer](x, vectors, mask, update)
        x = self.head_nm(x.to(self.head.weight.dtype), modulation.head)
        return float32_linear(x, self.head.weight, self.head.bias)

    def forward(self, class_ids: Tensor, var_input: Tensor) -> Tensor:
        """Predict all scales at once from the true tokens of the scales before (teacher forcing).

        Args:
            class_ids: labels (B,), int64; `num_classes` means "no class".
            var_input: the tokenizer's `var_input` of the true tokens, (B, L - tokens of scale 0, z_channels).

        Returns:
            Logits (B, L, V).
        """
        first = self.scales.tokens[0]
        inputs = self.embed_inputs(var_input, slice(first, self.scales.length))
        x = torch.cat((self.embed_classes(class_ids), inputs), dim=1)
        return self.logits(x, self.modulation(class_ids), mask=self.attn_bias_for_masking)
