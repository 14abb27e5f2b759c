"""Everything that decides a maximum-likelihood run, read from one TOML file."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, Self, TypeVar

from pydantic import Field, ValidationError, model_validator

from models.frozen import FrozenModel
from trainer.data.config import DataConfig
from trainer.errors import TrainerError
from trainer.objectives.config import Denoising, Likelihood, PretrainObjective, Tokenizer, Uncertainty
from trainer.training.config import TrainingConfig


class PretrainConfig(FrozenModel):
    """A whole run.

    Attributes:
        name: of the model that is published.
        network: constructor arguments for `models.build`.
        objective: what is minimised.
        training: how.
        tokenizer: VAR only: the `weights.safetensors` of a finished run of its tokenizer.
        start: the `weights.safetensors` of a finished run of the same network, which is trained further.
        licence: of the published weights.
        golden_class: class of the image that servers check the published weights by.
        grid_images: how often a sample grid is drawn, in images.
    """

    name: str
    network: dict[str, Any]
    data: DataConfig
    objective: PretrainObjective
    training: TrainingConfig
    tokenizer: Path | None = None
    start: Path | None = None
    licence: str = "Apache-2.0"
    golden_class: int = Field(default=0, ge=0)
    grid_images: int = Field(default=50_000, ge=1)

    @model_validator(mode="after")
    def _check_network(self) -> Self:
        network = self.network.get("class_name")
        learns = _LEARNS.get(str(network))
        if learns is None:
            raise ValueError(f"network.class_name must be one of {', '.join(_LEARNS)}, not {network!r}")
        if not isinstance(self.objective, learns):
            kinds = " or ".join(repr(kind.model_fields["kind"].default) for kind in learns)
            raise ValueError(f"{network} is trained with objective.kind = {kinds}")
        if (self.tokenizer is not None) != isinstance(self.objective, Likelihood):
            raise ValueError("VAR needs the weights of its tokenizer, and nothing else has one")
        if isinstance(self.objective, Tokenizer) and self.objective.decoder_only and self.start is None:
            raise ValueError("a decoder alone needs finished codes: say where in `start`")
        if not isinstance(self.objective, Denoising | Uncertainty) and self.data.fold != 1:
            raise ValueError("VAR and its tokenizer work on unfolded pixels: data.fold must be 1")
        return self


_LEARNS: dict[str, tuple[type[FrozenModel], ...]] = {
    "EDMPrecond": (Denoising,),
    "Precond": (Uncertainty, Denoising),
    "VAR": (Likelihood,),
    "VQVAE": (Tokenizer,),
}

C = TypeVar("C", bound=FrozenModel)


def load_config(path: Path, kind: type[C]) -> C:
    """Read a TOML file; relative paths in it are relative to the working directory.

    Raises:
        TrainerError: the file is missing, is not TOML, or holds a wrong value; the message names it.
    """
    try:
        return kind.model_validate(tomllib.loads(path.read_text()))
    except OSError as error:
        raise TrainerError(f"cannot read the configuration {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, ValidationError) as error:
        raise TrainerError(f"{path}: {error}") from error
