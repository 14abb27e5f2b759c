"""AdamW: what decays, and how a gradient is clipped."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from models.networks.mp_layers import MPConv
from trainer.training.config import OptimizerConfig
from trainer.training.optimizer import adam, clip_gradient


class Mixed(nn.Module):
    """A parameter of each kind, and one that does not train."""

    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.ones(3, 2))
        self.kernel = MPConv(2, 3, (3, 3)).weight
        self.vector = nn.Parameter(torch.ones(3))
        self.scalar = nn.Parameter(torch.ones([]))
        self.frozen = nn.Parameter(torch.ones(2, 2), requires_grad=False)


def gradients(network: nn.Module) -> Tensor:
    trained = [p.grad.flatten() for p in network.parameters() if p.grad is not None]
    return torch.cat(trained)


def test_weight_decay_is_for_matrices_and_kernels() -> None:
    network = Mixed()
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    optimizer = adam(network, OptimizerConfig(weight_decay=0.5))
    for group in optimizer.param_groups:
        group["lr"] = 0.1
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, parameter in network.named_parameters():
        kept = 0.95 if name in ("matrix", "kernel") else 1.0
        torch.testing.assert_close(parameter.detach(), kept * before[name])


def test_the_optimizer_is_the_one_that_was_asked_for() -> None:
    optimizer = adam(Mixed(), OptimizerConfig(betas=(0.8, 0.7), eps=0.3))
    assert isinstance(optimizer, torch.optim.AdamW)
    assert {(group["betas"], group["eps"]) for group in optimizer.param_groups} == {((0.8, 0.7), 0.3)}


@pytest.mark.parametrize(("clip_norm", "share"), [(None, 1.0), (1e3, 1.0), (0.25, None)])
def test_the_whole_gradient_is_scaled_to_the_norm(clip_norm: float | None, share: float | None) -> None:
    network = Mixed()
    optimizer = adam(network, OptimizerConfig())
    network.matrix.grad = torch.full((3, 2), 2.0)
    network.vector.grad = torch.tensor([1.0, -2.0, 3.0])
    network.scalar.grad = torch.tensor(-4.0)
    before = gradients(network)
    norm = clip_gradient(optimizer, clip_norm)
    assert norm.item() == pytest.approx((6 * 4 + 14 + 16) ** 0.5)
    expected = before * (share if share is not None else 0.25 / norm.item())
    torch.testing.assert_close(gradients(network), expected)
    assert network.kernel.grad is None
