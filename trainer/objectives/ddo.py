"""Direct Discriminative Optimization, DDO (Zheng et al. 2025, arXiv 2503.01103).

What the loss is least for. Where r may be any function: sigmoid(beta r) = p_data / (p_data + alpha p_ref).
Normalised that is p_theta ~ p_ref^(1 - 1/beta) p_data^(1/beta), and alpha only shifts r by -ln(alpha) / beta.

A model that stays normalised, as VAR does, cannot take that shift. With alpha = 1 it reaches the same law:
exactly for beta = 1, else but for terms of second order in the distance of p_data from p_ref. With another
alpha the exponent near p_ref is 1 / b with b = beta (1 + alpha) / 2 + 1 - alpha in beta's place: more fakes
overshoot the data. For b <= 0, which is alpha >= (2 + beta) / (2 - beta) for beta < 2, p_ref is no
resting place even where it is the data's own distribution. Training then passes by the data on its way to a
few modes, and sooner so where p_ref is far off: on eight outcomes with alpha 2 and beta 1, KL(data, model)
falls from 0.027 to 0.0035 and ends at 0.37. So a round is short, and its best model lies inside.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid


def ddo_loss(log_ratio_real: Tensor, log_ratio_fake: Tensor, alpha: float | Tensor, beta: float) -> Tensor:
    """Return -E_data[log sigmoid(beta r)] - alpha E_ref[log sigmoid(-beta r)], a scalar (Eq. 13).

    Args:
        log_ratio_real: r = log p_theta - log p_ref of real images, (B,) float32.
        log_ratio_fake: the same of images that the reference made, (B,) float32.
        alpha: weight of the fakes, one for all or one each (B,).
        beta: sharpness of the implied discriminator sigmoid(beta r), in units of 1 / r: it goes with the SUM
            over all dimensions.
    """
    real = -logsigmoid(beta * log_ratio_real)
    fake = -logsigmoid(-beta * log_ratio_fake)
    return real.mean() + (alpha * fake).mean()


def discriminator_accuracy(log_ratio_real: Tensor, log_ratio_fake: Tensor) -> Tensor:
    """Return the share of images that the sign of r tells right, a scalar in [0, 1].

    A ratio of exactly 0, as at the start, tells nothing and counts one half.

    Args:
        log_ratio_real: r of real images, (B,).
        log_ratio_fake: r of fake images, (B,).
    """
    told = torch.cat([log_ratio_real, -log_ratio_fake]).sign()
    return (1 + told).mean() / 2
