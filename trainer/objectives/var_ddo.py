"""DDO for VAR, which stays usable with classifier-free guidance (Zheng et al. 2025, arXiv 2503.01103)."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from trainer.objectives.label_drop import drop_labels
from trainer.objectives.likelihood import TokenBatch, TokenPredictor
from trainer.objectives.log_ratio import token_log_ratio

UnconditionalLoss = Literal["likelihood", "log-sigmoid"]
"""What a real image without its label trains on."""


def token_log_ratios(
    network: TokenPredictor,
    reference: TokenPredictor,
    real: TokenBatch,
    fake: TokenBatch,
    *,
    dropped: Tensor,
    no_class: int,
) -> tuple[Tensor, Tensor]:
    """Return r of the real and of the fake images, (B,) each, from one forward pass of each network.

    Args:
        network: maps (class_ids, var_input) to logits (B, L, V).
        reference: the same, frozen.
        real: B images of the data.
        fake: B images of the reference, each with its own class.
        dropped: (B,) bool: in these rows neither image has its label, and neither network sees one.
        no_class: the id that stands for no label.
    """
    class_ids, ids, var_input = (torch.cat(pair) for pair in zip(real, fake, strict=True))
    class_ids = drop_labels(class_ids, dropped.repeat(2), no_class)
    log_ratio_real, log_ratio_fake = token_log_ratio(network, reference, class_ids, ids, var_input).chunk(2)
    return log_ratio_real, log_ratio_fake


def var_ddo_loss(
    log_ratio_real: Tensor,
    log_ratio_fake: Tensor,
    *,
    dropped: Tensor,
    alpha: float,
    beta: float,
    unconditional: UnconditionalLoss = "likelihood",
) -> Tensor:
    """Return the loss of Eq. 13 over max(alpha, 1), with alpha = 0 where the label was dropped, a scalar.

    The unconditional model is the negative signal of guidance and should go on covering every mode, so it
    sees no fakes. Which loss its real images take is not published; there are two:

    - `likelihood`: maximum likelihood, as ln 2 - (beta / 2) r, the tangent of the log-sigmoid at r = 0. Its
      gradient is that of -(beta / 2) log p: a row with and a row without label pull alike at the start,
      whatever beta and the number of tokens, and the likelihood's pull never fades.
    - `log-sigmoid`: the same loss as for labelled images, whose pull fades as r grows.

    Args:
        log_ratio_real: (B,) float32.
        log_ratio_fake: (B,) float32.
        dropped: (B,) bool.
        alpha: weight of the fakes.
        beta: sharpness of the discriminator; goes with the sum over all tokens.
        unconditional: loss of the real images without label.
    """
    real = -logsigmoid(beta * log_ratio_real)
    if unconditional == "likelihood":
        real = torch.where(dropped, math.log(2) - beta / 2 * log_ratio_real, real)
    fake = -logsigmoid(-beta * log_ratio_fake).masked_fill(dropped, 0)
    return (real + alpha * fake).mean() / max(alpha, 1)
