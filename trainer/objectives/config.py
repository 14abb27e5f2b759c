"""What is minimised, as a configuration names it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from models.frozen import FrozenModel


class NoiseLevels(FrozenModel):
    """Mean and deviation of ln(sigma) in training (Karras et al. 2022, Table 1)."""

    p_mean: float = -1.2
    p_std: float = Field(default=1.2, gt=0)


class Denoising(NoiseLevels):
    """EDM's loss."""

    kind: Literal["denoising"] = "denoising"


class Uncertainty(NoiseLevels):
    """EDM2's loss, with its noise levels (Karras et al. 2024, Table 6)."""

    kind: Literal["uncertainty"] = "uncertainty"
    p_mean: float = -0.4
    p_std: float = Field(default=1.0, gt=0)


class Likelihood(FrozenModel):
    """VAR's loss; `label_drop` is the share of rows that do without their label."""

    kind: Literal["likelihood"] = "likelihood"
    label_drop: float = Field(default=0.1, ge=0, le=1)


class Tokenizer(FrozenModel):
    """The loss of VAR's tokenizer.

    Attributes:
        decoder_only: leave encoder and codes as they are, so that a VAR trained on them keeps its meaning.
    """

    kind: Literal["tokenizer"] = "tokenizer"
    decoder_only: bool = False


PretrainObjective = Annotated[Denoising | Uncertainty | Likelihood | Tokenizer, Field(discriminator="kind")]


class DdoStrength(FrozenModel):
    """How hard DDO pulls (Zheng et al. 2025, Eq. 13).

    Attributes:
        alpha: weight of the fakes.
        beta: sharpness of the discriminator, for log-densities summed over all pixels or tokens.
    """

    alpha: float = Field(ge=0)
    beta: float = Field(gt=0)
