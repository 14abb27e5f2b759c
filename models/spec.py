"""`model.json`: what one immutable version of a model is made of."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from models.frozen import FrozenModel

MODEL_FILE = "model.json"
NAME_PATTERN = r"^[a-z0-9][a-z0-9._-]*$"


class NetworkSpec(FrozenModel):
    """One network of a model: how to build it and where its weights lie.

    Attributes:
        init: constructor arguments for `models.build`, `class_name` included.
        weights: safetensors file, relative to the version's directory.
    """

    init: dict[str, Any]
    weights: str


class PixelCodec(FrozenModel):
    """The network works on RGB in [-1, 1], `fold` x `fold` pixels folded into channels (1: not folded)."""

    kind: Literal["pixels"] = "pixels"
    fold: int = Field(default=1, ge=1)


class VqvaeCodec(FrozenModel):
    """Tokens of all scales are decoded by the multi-scale VQVAE of the network called `network`."""

    kind: Literal["vqvae"] = "vqvae"
    network: str = "vqvae"


class SdVaeCodec(FrozenModel):
    """Latents are decoded by a Stable Diffusion VAE: raw = (latent / final_std) * std + mean."""

    kind: Literal["sd-vae"] = "sd-vae"
    repository: str = "stabilityai/sd-vae-ft-mse"
    mean: tuple[float, ...] = (5.81, 3.25, 0.12, -2.15)
    std: tuple[float, ...] = (4.17, 4.62, 3.71, 3.28)
    final_std: float = 0.5


Codec = Annotated[PixelCodec | VqvaeCodec | SdVaeCodec, Field(discriminator="kind")]


class Churn(FrozenModel):
    """Stochasticity of Heun's method (Karras et al. 2022, Algorithm 2), set for ImageNet-64 (Table 5)."""

    s_churn: float = Field(default=40.0, ge=0)
    s_min: float = Field(default=0.05, ge=0)
    s_max: float = Field(default=50.0, gt=0)
    s_noise: float = Field(default=1.003, gt=0)


class DiffusionDefaults(FrozenModel):
    """What a diffusion request means when it does not say otherwise (Karras et al. 2022, Table 1)."""

    kind: Literal["diffusion"] = "diffusion"
    solver: str = "heun"
    steps: int = Field(default=18, ge=1)
    sigma_min: float = Field(default=0.002, gt=0)
    sigma_max: float = Field(default=80.0, gt=0)
    rho: float = Field(default=7.0, gt=0)
    churn: Churn = Churn()


class VarDefaults(FrozenModel):
    """What a VAR request means when it does not say otherwise. `top_k` 0 and `top_p` 0: no truncation."""

    kind: Literal["var"] = "var"
    temperature: float = Field(default=1.0, gt=0)
    top_k: int = Field(default=0, ge=0)
    top_p: float = Field(default=0.0, ge=0, le=1)


SamplerDefaults = Annotated[DiffusionDefaults | VarDefaults, Field(discriminator="kind")]


class Lineage(FrozenModel):
    """Where a version comes from.

    Attributes:
        source: the file or command that it was made from.
        parent: `NAME/VERSION` of the model that it was fine-tuned from.
        round: self-play round of DDO; 0 is maximum likelihood.
        metrics: measured figures by name, e.g. `frechet_efficientnet_lite0`.
    """

    source: str
    parent: str | None = None
    round: int = 0
    metrics: dict[str, float] = Field(default_factory=dict)


class FileRecord(FrozenModel):
    """Size in bytes and SHA-256 (hexadecimal) of one file of a version."""

    size: int
    sha256: str


class GoldenImage(FrozenModel):
    """A request and the image it must give, checked before a version serves.

    Attributes:
        class_id, seed, steps: the request, everything else at its default.
        file: PNG, relative to the version's directory.
        max_mean_error: mean absolute difference allowed, in 8-bit levels.
    """

    class_id: int
    seed: int
    file: str
    steps: int | None = None
    max_mean_error: float = 8.0


class ModelSpec(FrozenModel):
    """The content of `model.json`.

    Attributes:
        networks: `main`, and where the family has them `guide` and `vqvae`.
        guidance: `none`; `guide` (a second network is extrapolated from); `label-dropout` (the
            network itself without a label).
        class_names: index = class id; empty for an unconditional model.
        files: every other file of the version.
    """

    format: Literal[1] = 1
    name: str = Field(pattern=NAME_PATTERN)
    family: Literal["edm", "edm2", "var"]
    networks: dict[str, NetworkSpec]
    codec: Codec
    class_names: tuple[str, ...] = ()
    defaults: SamplerDefaults
    guidance: Literal["none", "guide", "label-dropout"] = "none"
    licence: str
    lineage: Lineage
    golden: GoldenImage | None = None
    files: dict[str, FileRecord] = Field(default_factory=dict)

    def save(self, directory: Path) -> None:
        """Write `model.json` into `directory`."""
        (directory / MODEL_FILE).write_text(self.model_dump_json(indent=2) + "\n")
