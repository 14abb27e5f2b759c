"""Maximum-likelihood training of VAR, and its Direct Discriminative Optimization."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from models.networks.var import VAR
from trainer.data.draws import Draws
from trainer.data.order import Order
from trainer.data.tokens import TokenizedImages
from trainer.objectives.config import DdoStrength
from trainer.objectives.ddo import discriminator_accuracy
from trainer.objectives.label_drop import drop_labels
from trainer.objectives.likelihood import TokenBatch, means_by_scale, token_losses
from trainer.objectives.var_ddo import UnconditionalLoss, token_log_ratios, var_ddo_loss


class TokenRows:
    """Tokenised images in training's order."""

    def __init__(self, images: TokenizedImages, seed: int, device: torch.device) -> None:
        self._images = images
        self._order = Order(len(images), seed)
        self._device = device

    def __call__(self, rows: range) -> TokenBatch:
        """Return the images of these rows with the teacher-forcing input of their tokens."""
        indices = torch.from_numpy(self._order[rows.start : rows.stop])
        class_ids, ids = (t[indices].to(self._device) for t in (self._images.class_ids, self._images.ids))
        return TokenBatch(class_ids, ids, self._images.var_input(ids))


class LikelihoodObjective:
    """VAR's cross-entropy, with the label dropped now and then.

    Args:
        images: real ones.
        label_drop: share of rows without their label.
        seed: of the order of images and of the drop.
        device: of the batches.
    """

    def __init__(
        self, images: TokenizedImages, label_drop: float, *, seed: int, device: torch.device
    ) -> None:
        self._rows = TokenRows(images, seed, device)
        self._drop = LabelDrop(label_drop, images.no_class, seed, device)
        self._scales = images.vqvae.scales

    def batch(self, rows: range) -> TokenBatch:
        """Return the images of these rows, some without their label."""
        batch = self._rows(rows)
        return batch._replace(class_ids=self._drop.apply(batch.class_ids, rows))

    def loss(self, network: nn.Module, batch: TokenBatch) -> Mapping[str, Tensor]:
        """Return `loss`, in nats a token, and that of each scale: `scale_0`, the coarsest, and so on."""
        losses = token_losses(network, *batch)
        scales = means_by_scale(losses.detach(), self._scales)
        return {"loss": losses.mean()} | {f"scale_{k}": mean for k, mean in enumerate(scales)}


class LabelDrop:
    """Which rows do without their label."""

    def __init__(self, probability: float, no_class: int, seed: int, device: torch.device) -> None:
        self.no_class = no_class
        self._probability = probability
        self._draws = Draws(seed, stream=2)
        self._device = device

    def __call__(self, rows: range) -> Tensor:
        """Return (B,) bool."""
        return (self._draws.uniform(rows) < self._probability).to(self._device)

    def apply(self, class_ids: Tensor, rows: range) -> Tensor:
        """Return `class_ids` with the dropped ones replaced."""
        return drop_labels(class_ids, self(rows), self.no_class)


class TokenPairs(NamedTuple):
    """B real images, B fakes, and (B,) bool: which pairs do without their labels."""

    real: TokenBatch
    fake: TokenBatch
    dropped: Tensor


class VarDdo:
    """A real image and a fake a row, both scored exactly.

    Args:
        real: images of the data.
        fake: images of the reference, decoded and encoded again.
        reference: the frozen network, on `device`.
        strength: alpha and beta.
        label_drop: share of pairs without their labels.
        unconditional: loss of real images without their label.
        seed: of the order of the images and of the drop.
        device: of the batches.
    """

    def __init__(
        self,
        real: TokenizedImages,
        fake: TokenizedImages,
        reference: nn.Module,
        strength: DdoStrength,
        *,
        label_drop: float,
        unconditional: UnconditionalLoss,
        seed: int,
        device: torch.device,
    ) -> None:
        self._real = TokenRows(real, seed, device)
        self._fake = TokenRows(fake, seed + 1, device)
        self._drop = LabelDrop(label_drop, real.no_class, seed, device)
        self._reference = cast(VAR, reference)
        self._strength = strength
        self._unconditional: UnconditionalLoss = unconditional

    def batch(self, rows: range) -> TokenPairs:
        """Draw the pairs of these rows."""
        return TokenPairs(self._real(rows), self._fake(rows), self._drop(rows))

    def loss(self, network: nn.Module, batch: TokenPairs) -> Mapping[str, Tensor]:
        """Return `loss`, the mean log-ratios `real` and `fake`, and the discriminator's `accuracy`."""
        real, fake = token_log_ratios(
            network,
            self._reference,
            batch.real,
            batch.fake,
            dropped=batch.dropped,
            no_class=self._drop.no_class,
        )
        loss = var_ddo_loss(
            real,
            fake,
            dropped=batch.dropped,
            alpha=self._strength.alpha,
            beta=self._strength.beta,
            unconditional=self._unconditional,
        )
        return {
            "loss": loss,
            "real": real.mean(),
            "fake": fake.mean(),
            "accuracy": discriminator_accuracy(real, fake),
        }
