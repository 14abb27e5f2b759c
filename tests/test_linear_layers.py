"""Linear layers made for inference on a CPU: the same numbers, and the same bits for any number of rows."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from models.networks.packed_linear import PackedLinear
from models.networks.rowwise import float32_linear
from models.networks.var_block import attend

BF16 = pytest.mark.skipif(
    not PackedLinear.works_for(torch.bfloat16, torch.device("cpu"))
    or not torch.cpu._is_avx512_bf16_supported(),
    reason="the CPU emulates bfloat16",
)


def layer() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(96, 160).requires_grad_(False)


@torch.inference_mode()
@pytest.mark.parametrize("tokens", [9, 64])
def test_a_float32_layer_gives_rows_the_same_bits_in_any_batch(tokens: int) -> None:
    linear, x = layer(), torch.randn(1, tokens, 96)
    alone = float32_linear(x, linear.weight, linear.bias)
    torch.testing.assert_close(alone, linear(x), rtol=1e-5, atol=1e-6)
    for rows in (2, 3, 8):
        many = float32_linear(x.expand(rows, -1, -1).contiguous(), linear.weight, linear.bias)
        assert torch.equal(many, alone.expand(rows, -1, -1))


def test_a_float32_layer_still_trains() -> None:
    linear = layer().requires_grad_(True)
    float32_linear(torch.ones(2, 96), linear.weight, linear.bias).sum().backward()
    assert linear.weight.grad is not None
    assert torch.equal(linear.weight.grad, torch.full((160, 96), 2.0))


@BF16
@torch.inference_mode()
@pytest.mark.parametrize("gelu", [False, True])
def test_a_packed_layer_is_the_layer(gelu: bool) -> None:
    linear = layer().to(torch.bfloat16)
    x = torch.randn(2, 9, 96, dtype=torch.bfloat16)
    expected = F.linear(x.double(), linear.weight.double(), linear.bias.double())
    if gelu:
        expected = F.gelu(expected, approximate="tanh")
    packed = PackedLinear.of(linear, gelu=gelu)
    torch.testing.assert_close(packed(x).double(), expected, rtol=2**-7, atol=2**-8)
    assert torch.equal(packed(x[:1]), packed(x)[:1])


@torch.inference_mode()
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("scale", [1.0, 0.125])
def test_attention_in_three_operations_is_attention(scale: float, masked: bool) -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 3, 10, 16) for _ in range(3))
    mask = torch.full((1, 1, 10, 10), -torch.inf).triu(1) if masked else None
    expected = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)
    low = [tensor.bfloat16() for tensor in (q, k, v)]
    found = attend(*low, mask=None if mask is None else mask.bfloat16(), scale=scale)
    assert found.dtype == torch.bfloat16
    assert ((found.float() - expected).norm() / expected.norm()).item() < 0.01
