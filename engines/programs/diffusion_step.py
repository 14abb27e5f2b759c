"""One call of every diffusion sampler: the guided denoiser, then a linear update of each row's slots."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class DiffusionStep(nn.Module):
    """Evaluates slot 0 of every row and updates its state; all settings differ row by row.

    Guidance is D = D_guide + s (D_main - D_guide) (Karras et al. 2024, arXiv 2406.02507, Eq. 3).

    Args:
        network: the denoiser, called as network(x, sigma, labels), with attribute `label_dim`.
        guide: the denoiser that guidance extrapolates from; `network` itself means that network without a
            label; None: no guidance.
    """

    def __init__(self, network: nn.Module, guide: nn.Module | None) -> None:
        super().__init__()
        self.network = network
        self.guide = guide
        # Asked once and here: an exporter sees stand-ins for the modules, which are never one another.
        self.guides_itself = guide is network

    def forward(
        self, state: Tensor, sigma: Tensor, class_ids: Tensor, update: Tensor, scale: Tensor | None
    ) -> Tensor:
        """Return the state after the call.

        Args:
            state: (B, K, C, H, W) float32, slot 0 the point to evaluate.
            sigma: (B,) float32, noise level of slot 0.
            class_ids: (B,) int64; not read by a network without labels.
            update: (B, K, K + 1) float32, rows of the solver's table.
            scale: (B,) float32 guidance scales; None: no guidance, and the guide is not run.
        """
        x, labels = state[:, 0], self._labels(self.network, class_ids)
        if scale is None:
            denoised = self.network(x, sigma, labels)
        else:
            denoised, guide = self._both(x, sigma, labels, class_ids)
            denoised = guide + scale.reshape(-1, 1, 1, 1) * (denoised - guide)
        # Products and sums element by element: a row's bits cannot depend on the rows beside it.
        known = [*state.unbind(1), denoised]
        weights = update[..., None, None, None]
        total: Tensor = weights[:, :, 0] * known[0][:, None]
        for slot in range(1, len(known)):
            total = total + weights[:, :, slot] * known[slot][:, None]
        return total

    def _both(
        self, x: Tensor, sigma: Tensor, labels: Tensor | None, class_ids: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the network's estimate and its guide's: in one call of twice the rows where they are one."""
        assert self.guide is not None
        if not self.guides_itself:
            return self.network(x, sigma, labels), self.guide(x, sigma, self._labels(self.guide, class_ids))
        if labels is not None:
            labels = torch.cat([labels, torch.zeros_like(labels)])
        both = self.network(torch.cat([x, x]), torch.cat([sigma, sigma]), labels)
        rows = x.shape[0]
        return both[:rows], both[rows:]

    @staticmethod
    def _labels(network: nn.Module, class_ids: Tensor) -> Tensor | None:
        label_dim = int(network.label_dim)  # type: ignore[arg-type]
        return F.one_hot(class_ids, label_dim).float() if label_dim else None
