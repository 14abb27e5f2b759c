"""One layer of the VAR transformer: self-attention and MLP, both modulated by the class."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.networks.packed_linear import PackedLinear

MODULATIONS = 6
MAX_LOG_SCALE = math.log(100)
SHORTEST = 1e-12
"""Vectors shorter than this are not brought to unit length, which spares a division by zero."""

KeyValueUpdate = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Takes the new tokens' keys and values, returns those to attend to; all (B, heads, tokens, head_dim)."""


def adaptive_projection(embed_dim: int, outputs: int) -> nn.Sequential:
    """Return the map from a class embedding to `outputs` modulation vectors, all in one (B, outputs * C)."""
    return nn.Sequential(nn.SiLU(), nn.Linear(embed_dim, outputs * embed_dim))


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """Return softmax(scale q k^T + mask) v for queries, keys and values (B, heads, tokens, head_dim).

    On a CPU in low precision by three operations: PyTorch's one is made for longer sequences and takes twice
    as long, and four times with its gradient. A compiler gets the one, to choose for itself.
    """
    if q.device.type != "cpu" or q.dtype == torch.float32 or torch.compiler.is_compiling():
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)
    logits = q @ k.transpose(-1, -2)
    if scale != 1:
        logits = logits * scale
    if mask is not None:
        logits = logits + mask
    return logits.softmax(dim=-1) @ v


class SelfAttention(nn.Module):
    """Multi-head self-attention, by default over unit-length queries and keys.

    With `attn_l2_norm` queries and keys are L2-normalised in float32 and each head's queries multiplied by
    exp(min(scale_mul, ln 100)), so that attention is a cosine with a learned temperature (Tian et al. 2024,
    arXiv 2404.02905, Section 3.3; Henry et al. 2020, arXiv 2010.04245). Without it the scale is
    0.25 / sqrt(head_dim). Queries and values have a bias, keys none.
    """

    zero_k_bias: Tensor

    def __init__(self, embed_dim: int, num_heads: int, attn_l2_norm: bool) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.attn_l2_norm = attn_l2_norm
        self.scale = 1.0 if attn_l2_norm else 0.25 / math.sqrt(embed_dim // num_heads)
        if attn_l2_norm:
            self.scale_mul_1H11 = nn.Parameter(torch.full((1, num_heads, 1, 1), math.log(4)))
        self.mat_qkv = nn.Linear(embed_dim, 3 * embed_dim, bias=False)
        self.packed_qkv: PackedLinear | None = None
        self.packed_lengths: Tensor | None = None
        self.q_bias = nn.Parameter(torch.zeros(embed_dim))
        self.v_bias = nn.Parameter(torch.zeros(embed_dim))
        self.register_buffer("zero_k_bias", torch.zeros(embed_dim))
        self.proj: nn.Module = nn.Linear(embed_dim, embed_dim)

    def forward(self, x: Tensor, mask: Tensor | None = None, update: KeyValueUpdate | None = None) -> Tensor:
        """Attend within `x` (B, L, C), or to all that `update` returns; `mask` (1, 1, L, L) is added."""
        batch, length, width = x.shape
        qkv = F.linear(x, self.mat_qkv.weight, self._bias) if self.packed_qkv is None else self.packed_qkv(x)
        parts = qkv.view(batch, length, 3, self.num_heads, -1)
        pairs, v = parts[:, :, :2], parts[:, :, 2].transpose(1, 2)
        q, k = (self._normalized(pairs) if self.attn_l2_norm else pairs).permute(2, 0, 3, 1, 4)
        if update is not None:
            k, v = update(k, v)
        out = attend(q, k, v, None if mask is None else mask.to(q.dtype), self.scale)
        projected: Tensor = self.proj(out.transpose(1, 2).reshape(batch, length, width))
        return projected

    def _normalized(self, pairs: Tensor) -> Tensor:
        """Give queries and keys (B, L, 2, heads, head_dim) their lengths, in one pass over both."""
        exact = pairs.float()
        norm: Tensor = torch.linalg.vector_norm(exact, dim=-1, keepdim=True).clamp_min(SHORTEST)
        lengths = self._lengths if self.packed_lengths is None else self.packed_lengths
        return (exact * (lengths / norm)).to(pairs.dtype)

    @property
    def _lengths(self) -> Tensor:
        """Lengths of queries and of keys, (2, heads, 1), float32."""
        temperature = self.scale_mul_1H11[0].float().clamp_max(MAX_LOG_SCALE).exp()
        return torch.cat((temperature, torch.ones_like(temperature)), dim=-1).permute(2, 0, 1)

    def pack(self) -> None:
        """See `VAR.pack`."""
        self.packed_qkv = PackedLinear(self.mat_qkv.weight, self._bias)
        self.packed_lengths = self._lengths.detach() if self.attn_l2_norm else None
        self.proj = PackedLinear.of(self.proj)
        del self.mat_qkv

    @property
    def _bias(self) -> Tensor:
        return torch.cat((self.q_bias, self.zero_k_bias, self.v_bias))


class FeedForward(nn.Module):
    """Two linear layers with tanh-approximated GELU between, four times as wide inside."""

    def __init__(self, embed_dim: int) -> None:
        super().__init__()
        self.fc1: nn.Module = nn.Linear(embed_dim, 4 * embed_dim)
        self.act: nn.Module = nn.GELU(approximate="tanh")
        self.fc2: nn.Module = nn.Linear(4 * embed_dim, embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, L, C) to (B, L, C)."""
        out: Tensor = self.fc2(self.act(self.fc1(x)))
        return out

    def pack(self) -> None:
        """See `VAR.pack`."""
        self.fc1, self.act = PackedLinear.of(self.fc1, gelu=True), nn.Identity()
        self.fc2 = PackedLinear.of(self.fc2)


class Block(nn.Module):
    """Transformer layer with adaptive normalisation (Peebles and Xie 2023, arXiv 2212.09748, adaLN).

    With `shared_aln` the modulation is the model's one projection of the class plus this block's offset
    `ada_gss` (1, 1, 6, C); otherwise the block has its own projection `ada_lin`.
    """

    def __init__(self, embed_dim: int, num_heads: int, attn_l2_norm: bool, shared_aln: bool) -> None:
        super().__init__()
        self.shared_aln = shared_aln
        self.norm = nn.LayerNorm(embed_dim, eps=1e-6, elementwise_affine=False)
        self.attn = SelfAttention(embed_dim, num_heads, attn_l2_norm)
        self.ffn = FeedForward(embed_dim)
        if shared_aln:
            self.ada_gss = nn.Parameter(torch.randn(1, 1, MODULATIONS, embed_dim) / math.sqrt(embed_dim))
        else:
            self.ada_lin = adaptive_projection(embed_dim, MODULATIONS)

    def modulation(self, condition: Tensor) -> Tensor:
        """Return gamma1, gamma2, 1 + scale1, 1 + scale2, shift1, shift2 as (B, 6, C), float32.

        Args:
            condition: the class embedding (B, C), or with `shared_aln` its shared projection (B, 6, C).
        """
        if self.shared_aln:
            own = condition + self.ada_gss[0]
        else:
            own = self.ada_lin(condition.to(self.attn.q_bias.dtype)).unflatten(1, (MODULATIONS, -1))
        gammas, scales, shifts = own.float().chunk(3, dim=1)
        return torch.cat((gammas, 1 + scales, shifts), dim=1)

    def forward(
        self, x: Tensor, modulation: Tensor, mask: Tensor | None = None, update: KeyValueUpdate | None = None
    ) -> Tensor:
        """Map (B, L, C) to (B, L, C); `modulation` (B, 6, C); `mask` and `update` go to the attention.

        `x` keeps its own precision, whatever that of the layer: in bfloat16 the sum over all layers would
        lose what single layers add.
        """
        gamma1, gamma2, gain1, gain2, shift1, shift2 = modulation.unsqueeze(2).unbind(1)
        dtype = self.attn.q_bias.dtype
        h = torch.addcmul(shift1, self.norm(x), gain1).to(dtype)
        x = torch.addcmul(x, self.attn(h, mask, update), gamma1)
        h = torch.addcmul(shift2, self.norm(x), gain2).to(dtype)
        return torch.addcmul(x, self.ffn(h), gamma2)
