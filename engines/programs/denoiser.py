"""A denoiser's trunk as a program: all of it but its conditioning and preconditioning."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from engines.programs.program import Port, Program, Range


class Trunk(nn.Module):
    """F(c_in x; emb) of Karras et al. 2022 (arXiv 2206.00364, Eq. 7), its conditioning given.

    What has to stay float32 while a backend computes in a lower precision is outside: the noise level's
    features, whose angles need more than bfloat16's 8 bits, and the preconditioning, which at low noise adds
    little of F to an input that must not be rounded.

    Args:
        network: a denoiser with `trunk`.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """Map c_in x (B, C, H, W) and the conditioning (B, emb_channels) to F (B, C, H, W), float32."""
        network: Any = self.network
        raw: Tensor = network.trunk(x, emb)
        return raw.float()


def trunk_program(network: nn.Module, *, name: str, max_rows: int) -> Program:
    """Return the program of an EDM or EDM2 denoiser's trunk, prepared for inference.

    Args:
        network: as `models.build` makes it.
        name: the program's name.
        max_rows: most rows of a call.
    """
    denoiser: Any = network
    image = ("batch", denoiser.img_channels, denoiser.img_resolution, denoiser.img_resolution)
    return Program(
        name=name,
        module=Trunk(network).eval(),
        inputs=(Port("x", image), Port("emb", ("batch", denoiser.emb_channels))),
        outputs=(Port("raw", image),),
        profiles=({"batch": Range(1, max_rows, max_rows)},),
    )
