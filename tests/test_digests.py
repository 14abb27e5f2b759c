"""Digests see what rounding hides."""

from __future__ import annotations

import torch
from torch import nn

from engines.digests import RowDigests, digest


class Rounds(nn.Module):
    """Two layers with a rounding to bfloat16 behind them."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.second = nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x)).bfloat16()


def test_equal_bits_have_equal_digests() -> None:
    values = torch.randn(3, 5, 2, generator=torch.Generator().manual_seed(0))
    assert torch.equal(digest(values), digest(values.clone()))
    assert torch.equal(digest(values[:, :, :1]), digest(values[:, :, :1].contiguous()))


def test_one_bit_changes_the_digest_of_its_row_alone() -> None:
    for dtype in (torch.float32, torch.bfloat16, torch.float64, torch.uint8):
        values = (torch.rand(3, 100, generator=torch.Generator().manual_seed(0)) * 100).to(dtype)
        changed = values.clone()
        changed[1, 40] = (
            torch.nextafter(values[1, 40], torch.tensor(1e3, dtype=dtype)) if dtype.is_floating_point else 101
        )
        assert (digest(values) != digest(changed)).tolist() == [False, True, False]


def test_swapped_values_have_other_digests() -> None:
    assert not torch.equal(digest(torch.tensor([[1.0, 2.0]])), digest(torch.tensor([[2.0, 1.0]])))


def test_a_difference_that_rounding_hides_is_seen() -> None:
    network = Rounds().eval()
    x = torch.ones(2, 4)
    digests = []
    for nudge in (0.0, 1e-6):
        with torch.no_grad():
            network.first.bias += nudge
            with RowDigests(network, 2) as watched:
                result = network(x)
            digests.append(watched.with_result(result))
    assert torch.equal(digests[0][:, -1], digests[1][:, -1])
    assert not torch.equal(digests[0], digests[1])


def test_hooks_are_gone_after_the_block() -> None:
    network = Rounds()
    with RowDigests(network, 2):
        pass
    assert all(not module._forward_hooks for module in network.modules())
