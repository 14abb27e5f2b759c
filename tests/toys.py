"""Networks of a few thousand parameters, and batches, for the tests of fine-tuning."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from reference import fill
from torch import Tensor, nn

from models import build
from models.networks.var import VAR
from trainer.objectives.likelihood import TokenBatch

SIGMA_DATA = 0.5
CLASSES = 3
NO_CLASS = CLASSES


class ToyDenoiser(nn.Module):
    """EDM's preconditioning around any network; unlike the real ones it can compute in float64.

    Args:
        network: maps (c_in x and the logarithm of the noise level as one more channel) to the raw output.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        level = sigma.reshape(-1, 1, 1, 1)
        deviation = (level**2 + SIGMA_DATA**2).sqrt()
        channel = (level.log() / 4).expand(-1, 1, *x.shape[2:])
        raw = self.network(torch.cat([x / deviation, channel], dim=1)).to(x.dtype)
        return (SIGMA_DATA / deviation) ** 2 * x + level * SIGMA_DATA / deviation * raw


def toy_denoiser(channels: int, width: int, kernel: int = 1) -> ToyDenoiser:
    """Return three convolutions; with `kernel` 1 on one pixel they are a perceptron."""
    sides = [(channels + 1, width), (width, width), (width, channels)]
    layers: list[nn.Module] = [nn.SiLU()] * 5
    layers[::2] = [nn.Conv2d(before, after, kernel, padding=kernel // 2) for before, after in sides]
    return fill(ToyDenoiser(nn.Sequential(*layers))).requires_grad_(True)


def tiny_edm() -> nn.Module:
    init = {"class_name": "EDMPrecond", "model_type": "SongUNet", "img_resolution": 4, "img_channels": 3}
    unet = {"label_dim": CLASSES, "model_channels": 16, "channel_mult": [1], "num_blocks": 1}
    return fill(build({**init, **unet, "attn_resolutions": []})).requires_grad_(True)


def tiny_var() -> VAR:
    scales = {"patch_nums": (1, 2), "vocab_size": 2, "z_channels": 4}
    return fill(VAR(**scales, num_classes=CLASSES, depth=1, embed_dim=16, num_heads=2)).requires_grad_(True)


def frozen(network: nn.Module) -> nn.Module:
    return copy.deepcopy(network).requires_grad_(False)


@torch.no_grad()
def moved(network: nn.Module, share: float, seed: int = 0) -> nn.Module:
    """Return a copy whose every tensor has moved by `share` of its own size in a random direction."""
    copied, generator = copy.deepcopy(network), torch.Generator().manual_seed(seed)
    for parameter in copied.parameters():
        step = torch.randn(parameter.shape, generator=generator)
        parameter.add_(share * parameter.norm() / step.norm() * step)
    return copied


def gradient(loss: Tensor, network: nn.Module, *, retain_graph: bool = False) -> Tensor:
    """Return the gradient of all parameters that train, as one vector in float64."""
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    gradients = torch.autograd.grad(loss, trained, retain_graph=retain_graph, materialize_grads=True)
    return torch.cat([each.flatten().double() for each in gradients])


def draw_sigma(count: int, p_mean: float, p_std: float, generator: torch.Generator) -> Tensor:
    """Draw (count,) noise levels with ln(sigma) normal."""
    return (torch.randn(count, generator=generator) * p_std + p_mean).exp()


@dataclass(frozen=True)
class ImagePairs:
    """Real and fake images of the same number, and one draw for each pair."""

    real: Tensor
    fake: Tensor
    real_labels: Tensor
    fake_labels: Tensor
    sigma: Tensor
    noise: Tensor

    @classmethod
    def draw(cls, count: int, shape: Sequence[int], seed: int = 0) -> ImagePairs:
        g = torch.Generator().manual_seed(seed)
        real, fake, noise = (torch.randn(count, *shape, generator=g) for _ in range(3))
        labels = torch.eye(CLASSES)[torch.randint(CLASSES, (2, count), generator=g)]
        return cls(real / 2, fake / 3, labels[0], labels[1], draw_sigma(count, -1.2, 1.2, g), noise)

    @property
    def stacked(self) -> tuple[Tensor, Tensor]:
        """Images and labels, the real ones first."""
        return torch.cat([self.real, self.fake]), torch.cat([self.real_labels, self.fake_labels])

    @property
    def draws(self) -> dict[str, Tensor]:
        """Noise levels and noise of `stacked`."""
        return {"sigma": self.sigma.repeat(2), "noise": self.noise.repeat(2, 1, 1, 1)}


def all_token_batches() -> TokenBatch:
    """Return every sequence of `tiny_var`'s five tokens once, (32, 5), all of class 1."""
    ids = torch.cartesian_prod(*[torch.arange(2)] * 5)
    return token_batch(torch.ones(len(ids), dtype=torch.int64), ids)


def draw_tokens(count: int, seed: int) -> TokenBatch:
    g = torch.Generator().manual_seed(seed)
    ids = torch.randint(2, (count, 5), generator=g)
    return token_batch(torch.randint(CLASSES, (count,), generator=g), ids)


def token_batch(class_ids: Tensor, ids: Tensor) -> TokenBatch:
    """Return `ids` with inputs that depend on the first scale's token alone, as the tokenizer's would."""
    codes = torch.tensor([[1.0, -0.5, 0.3, 0.0], [-0.7, 0.2, 0.0, 0.9]])
    return TokenBatch(class_ids, ids, codes[ids[:, :1]].expand(-1, 4, -1))
