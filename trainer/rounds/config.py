"""Everything that decides a run of self-play rounds, read from one TOML file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from engines import EngineSettings
from engines.settings import Precision
from models.frozen import FrozenModel
from models.spec import NAME_PATTERN
from trainer.data.config import DataConfig
from trainer.evaluation.plan import SamplingPlan
from trainer.objectives.config import DdoStrength, Denoising, Likelihood, NoiseLevels, Uncertainty
from trainer.objectives.var_ddo import UnconditionalLoss
from trainer.training.config import TrainingConfig

Metric = Literal["frechet_distance", "centroid_accuracy", "precision", "recall"]
"""The figure that the best model is chosen by: the lowest Frechet distance, the highest of the others."""


class DdoSweep(FrozenModel):
    """What a round of DDO tries: each of `alphas` with each of `betas`; see `DdoStrength`."""

    alphas: tuple[Annotated[float, Field(ge=0)], ...] = Field(min_length=1)
    betas: tuple[Annotated[float, Field(gt=0)], ...] = Field(min_length=1)

    @property
    def strengths(self) -> Sequence[DdoStrength]:
        """Every pair, in order."""
        return [DdoStrength(alpha=alpha, beta=beta) for alpha in self.alphas for beta in self.betas]


class DiffusionDdoMethod(DdoSweep, NoiseLevels):
    """DDO of EDM and EDM2 on these noise levels."""

    kind: Literal["diffusion-ddo"] = "diffusion-ddo"


class VarDdoMethod(DdoSweep):
    """DDO of VAR; see `trainer.objectives.tokens.VarDdo`."""

    kind: Literal["var-ddo"] = "var-ddo"
    label_drop: float = Field(default=0.1, ge=0, le=1)
    unconditional: UnconditionalLoss = "likelihood"


class NeonMethod(FrozenModel):
    """Neon: training on the fakes alone, then a step of each of the strengths `w` away from it.

    Attributes:
        weights: the strengths to try.
        objective: what the training on the fakes minimises: the loss that the model was pretrained with.
    """

    kind: Literal["neon"] = "neon"
    weights: tuple[Annotated[float, Field(gt=0)], ...] = Field(min_length=1)
    objective: Annotated[Denoising | Uncertainty | Likelihood, Field(discriminator="kind")]


Method = Annotated[DiffusionDdoMethod | VarDdoMethod | NeonMethod, Field(discriminator="kind")]


class SamplingConfig(FrozenModel):
    """Images that a model makes, and how.

    Attributes:
        plan: which images.
        rows: images in one engine call.
        precision: of the engine.
    """

    plan: SamplingPlan
    rows: int = Field(default=16, ge=1)
    precision: Precision = "float32"

    def engine(self, device: str) -> EngineSettings:
        """Return how the engine is built on `device`."""
        return EngineSettings(device=device, precision=self.precision, max_rows=self.rows)


class PoolConfig(SamplingConfig):
    """A round's fakes. Round r takes the seeds from plan.seed + (r - 1) plan.images on.

    Attributes:
        contents: what is kept of an image that VAR makes: the image itself, which is encoded again as real
            images are, or the tokens that were drawn. Choose the latter where the tokenizer does not give
            about the same tokens back: the fakes would not be what the reference draws.
        shard_images: images in one file.
    """

    contents: Literal["images", "tokens"] = "images"
    shard_images: int = Field(default=1000, ge=1)


class EvaluationConfig(SamplingConfig):
    """How models are compared; every evaluation has the same seeds.

    Attributes:
        every_images: how often, in images of training.
        extractor: gives the features, see `open_extractor`.
        extractor_weights: file of the weights of `inception-v3`; None: they are downloaded.
        reference: the .npz of `statistics`; None: the images that are trained on.
        neighbours: also compare image with image: precision, recall, nearest real image.
        metric: decides which model is best.
        patience: evaluations without a better one after which a candidate ends; None: it trains to the end.
    """

    every_images: int = Field(ge=1)
    extractor: str = "efficientnet-lite0"
    extractor_weights: Path | None = None
    reference: Path | None = None
    neighbours: bool = True
    metric: Metric = "frechet_distance"
    patience: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _check_metric(self) -> Self:
        if self.reference is not None and self.metric != "frechet_distance":
            raise ValueError(
                f"statistics have no {self.metric}: choose frechet_distance, or leave reference out"
            )
        if not self.neighbours and self.metric in ("precision", "recall"):
            raise ValueError(f"{self.metric} compares image with image: neighbours must be true")
        return self


class RoundsConfig(FrozenModel):
    """A run of rounds; it ends early after a round that brings nothing better.

    Attributes:
        name: of the model that is published.
        parent: what to start from: directory of a version or of a model, or `NAME` or `NAME/NUMBER` in the
            registry.
        data: real images.
        rounds: most rounds.
        method: how a round improves on its reference.
        pool: the reference's own images.
        training: of each candidate in each round; round r draws with the seed training.seed + r.
        evaluation: how the best is found.
    """

    name: str = Field(pattern=NAME_PATTERN)
    parent: str
    data: DataConfig
    rounds: int = Field(default=1, ge=1)
    method: Method
    pool: PoolConfig
    training: TrainingConfig
    evaluation: EvaluationConfig
