"""DDPM++ and NCSN++ U-Nets (Song et al. 2021, arXiv 2011.13456) in the form that EDM trains (Table 7)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.networks.edm_layers import (
    BlockStyle,
    Conv2d,
    FourierEmbedding,
    Initializer,
    Linear,
    UNetBlock,
    UNetTrunk,
    group_norm,
    positional_embedding,
)

_INIT = Initializer("xavier_uniform")
_INIT_ZERO = Initializer("xavier_uniform", weight=1e-5)
_INIT_ATTN = Initializer("xavier_uniform", weight=math.sqrt(0.2))
_EPS = 1e-6


class SongUNet(UNetTrunk):
    """U-Net over (B, in_channels, img_resolution, img_resolution).

    Args:
        img_resolution, in_channels, out_channels: geometry; the image is square.
        label_dim: width of the class label; 0 without.
        augment_dim: width of the augmentation label; 0 without.
        model_channels, channel_mult, num_blocks: widths and depth of the levels.
        attn_resolutions: resolutions whose blocks attend.
        embedding_type: `positional` (DDPM++) or `fourier` (NCSN++).
        channel_mult_noise: width of the noise embedding, in model_channels: 1 or 2.
        encoder_type: `standard` (DDPM++), `skip` or `residual` (NCSN++).
        decoder_type: `standard` or `skip`.
        resample_filter: (1, 1) for DDPM++, (1, 3, 3, 1) for NCSN++.
    """

    def __init__(
        self,
        *,
        img_resolution: int,
        in_channels: int,
        out_channels: int,
        label_dim: int = 0,
        augment_dim: int = 0,
        model_channels: int = 128,
        channel_mult: Sequence[int] = (1, 2, 2, 2),
        channel_mult_emb: int = 4,
        num_blocks: int = 4,
        attn_resolutions: Sequence[int] = (16,),
        dropout: float = 0.10,
        label_dropout: float = 0.0,
        embedding_type: str = "positional",
        channel_mult_noise: int = 1,
        encoder_type: str = "standard",
        decoder_type: str = "standard",
        resample_filter: Sequence[int] = (1, 1),
    ) -> None:
        super().__init__()
        for name, value, known in (
            ("embedding_type", embedding_type, ("positional", "fourier")),
            ("encoder_type", encoder_type, ("standard", "skip", "residual")),
            ("decoder_type", decoder_type, ("standard", "skip")),
        ):
            if value not in known:
                raise ValueError(f"{name} is {value!r}; known: {', '.join(known)}")
        self.label_dim = label_dim
        self.label_dropout = label_dropout
        self.emb_channels = emb_channels = model_channels * channel_mult_emb
        self.noise_channels = model_channels * channel_mult_noise
        style = BlockStyle(
            emb_channels=emb_channels,
            dropout=dropout,
            skip_scale=math.sqrt(0.5),
            eps=_EPS,
            channels_per_head=None,
            adaptive_scale=False,
            resample_proj=True,
            resample_filter=tuple(resample_filter),
            init=_INIT,
            init_zero=_INIT_ZERO,
            init_attn=_INIT_ATTN,
        )
        self.map_noise = FourierEmbedding(self.noise_channels) if embedding_type == "fourier" else None
        self.map_label = Linear(label_dim, self.noise_channels, _INIT) if label_dim else None
        self.map_augment = (
            Linear(augment_dim, self.noise_channels, _INIT, bias=False) if augment_dim else None
        )
        self.map_layer0 = Linear(self.noise_channels, emb_channels, _INIT)
        self.map_layer1 = Linear(emb_channels, emb_channels, _INIT)

        levels: dict[str, Any] = {
            "widths": [model_channels * mult for mult in channel_mult],
            "resolutions": [img_resolution >> level for level in range(len(channel_mult))],
            "num_blocks": num_blocks,
            "attn_resolutions": attn_resolutions,
            "style": style,
        }
        self.enc, skips = self._encoder(
            in_channels=in_channels, channels=model_channels, encoder_type=encoder_type, **levels
        )
        self.dec = self._decoder(out_channels=out_channels, decoder_type=decoder_type, skips=skips, **levels)

    @staticmethod
    def _encoder(
        *,
        in_channels: int,
        channels: int,
        widths: Sequence[int],
        resolutions: Sequence[int],
        num_blocks: int,
        attn_resolutions: Sequence[int],
        encoder_type: str,
        style: BlockStyle,
    ) -> tuple[nn.ModuleDict, list[int]]:
        enc = nn.ModuleDict()
        skips: list[int] = []
        auxiliary = in_channels
        for level, (res, width) in enumerate(zip(resolutions, widths, strict=True)):
            name = f"{res}x{res}"
            if level == 0:
                enc[f"{name}_conv"] = Conv2d(in_channels, channels, 3, _INIT)
            else:
                enc[f"{name}_down"] = UNetBlock(channels, channels, style, resample="down")
                shrink = {"resample": "down", "resample_filter": style.resample_filter}
                if encoder_type == "skip":
                    enc[f"{name}_aux_down"] = Conv2d(auxiliary, auxiliary, 0, _INIT, **shrink)  # type: ignore[arg-type]
                    enc[f"{name}_aux_skip"] = Conv2d(auxiliary, channels, 1, _INIT)
                if encoder_type == "residual":
                    enc[f"{name}_aux_residual"] = Conv2d(auxiliary, channels, 3, _INIT, fused=True, **shrink)  # type: ignore[arg-type]
                    auxiliary = channels
            skips.append(channels)
            for index in range(num_blocks):
                attention = res in attn_resolutions
                enc[f"{name}_block{index}"] = UNetBlock(channels, width, style, attention=attention)
                channels = width
                skips.append(channels)
        return enc, skips

    @staticmethod
    def _decoder(
        *,
        out_channels: int,
        widths: Sequence[int],
        resolutions: Sequence[int],
        num_blocks: int,
        attn_resolutions: Sequence[int],
        decoder_type: str,
        style: BlockStyle,
        skips: list[int],
    ) -> nn.ModuleDict:
        dec = nn.ModuleDict()
        channels, last = widths[-1], len(widths) - 1
        for level in reversed(range(len(widths))):
            res, width = resolutions[level], widths[level]
            name = f"{res}x{res}"
            if level == last:
                dec[f"{name}_in0"] = UNetBlock(channels, channels, style, attention=True)
                dec[f"{name}_in1"] = UNetBlock(channels, channels, style)
            else:
                dec[f"{name}_up"] = UNetBlock(channels, channels, style, resample="up")
            for index in range(num_blocks + 1):
                attention = index == num_blocks and res in attn_resolutions
                joined = channels + skips.pop()
                dec[f"{name}_block{index}"] = UNetBlock(joined, width, style, attention=attention)
                channels = width
            if decoder_type == "skip" or level == 0:
                if decoder_type == "skip" and level < last:
                    dec[f"{name}_aux_up"] = Conv2d(
                        out_channels,
                        out_channels,
                        0,
                        _INIT,
                        resample="up",
                        resample_filter=style.resample_filter,
                    )
                dec[f"{name}_aux_norm"] = group_norm(channels, _EPS)
                dec[f"{name}_aux_conv"] = Conv2d(channels, out_channels, 3, _INIT_ZERO)
        return dec

    def embed(self, noise: Tensor, labels: Tensor | None, augment: Tensor | None) -> Tensor:
        """Return the conditioning (B, emb_channels) of noise levels (B,), labels and augmentation labels."""
        if self.map_noise is None:
            emb = positional_embedding(noise, self.noise_channels, endpoint=True)
        else:
            emb = self.map_noise(noise)
        emb = torch.cat(emb.chunk(2, dim=1)[::-1], dim=1)  # sines first
        if self.map_label is not None and labels is not None:
            if self.training and self.label_dropout:
                keep = torch.rand(labels.shape[0], 1, device=labels.device) >= self.label_dropout
                labels = labels * keep
            emb = emb + self.map_label(labels * math.sqrt(self.label_dim))
        if self.map_augment is not None and augment is not None:
            emb = emb + self.map_augment(augment)
        return F.silu(self.map_layer1(F.silu(self.map_layer0(emb))))

    def trunk(self, x: Tensor, emb: Tensor) -> Tensor:
        """Return the raw output F (B, out_channels, H, W) in the compute dtype."""
        x = x.to(self.compute_dtype)
        auxiliary = x
        skips: list[Tensor] = []
        for name, block in self.enc.items():
            if "aux_down" in name:
                auxiliary = block(auxiliary)
            elif "aux_skip" in name:
                x = skips[-1] = x + block(auxiliary)
            elif "aux_residual" in name:
                x = skips[-1] = auxiliary = (x + block(auxiliary)) * math.sqrt(0.5)
            else:
                x = block(x, emb) if isinstance(block, UNetBlock) else block(x)
                skips.append(x)

        output: Tensor | None = None
        normalised = x
        for name, block in self.dec.items():
            if "aux_up" in name:
                output = block(output)
            elif "aux_norm" in name:
                normalised = block(x)
            elif "aux_conv" in name:
                contribution = block(F.silu(normalised))
                output = contribution if output is None else contribution + output
            else:
                if x.shape[1] != block.in_channels:
                    x = torch.cat([x, skips.pop()], dim=1)
                x = block(x, emb)
        assert output is not None
        return output
