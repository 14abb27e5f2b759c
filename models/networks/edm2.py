"""The EDM2 network (Karras et al. 2024, arXiv 2312.02696, configuration G; Figure 21 and Table 6)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.networks.mp_layers import MPConv, MPFourier, mp_cat, mp_silu, mp_sum, normalize
from models.networks.preconditioning import denoise, precondition


class Block(nn.Module):
    """Residual block of the encoder (normalises its input) or of the decoder (Figure 21).

    Args:
        in_channels, out_channels, emb_channels: widths.
        encoder: an encoder block (else a decoder block).
        resample: `up`, `down` or None.
        attention: attend, with heads of `channels_per_head`.
        dropout: probability, training only.
        res_balance, attn_balance: weight of the branch in each residual sum.
        clip_act: activations are clipped to this magnitude.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        emb_channels: int,
        *,
        encoder: bool,
        resample: str | None = None,
        attention: bool = False,
        channels_per_head: int = 64,
        dropout: float = 0.0,
        res_balance: float = 0.3,
        attn_balance: float = 0.3,
        clip_act: float | None = 256.0,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.resample = resample
        self.dropout = dropout
        self.res_balance = res_balance
        self.attn_balance = attn_balance
        self.clip_act = clip_act
        self.heads = out_channels // channels_per_head if attention else 0
        self.emb_gain = nn.Parameter(torch.zeros([]))
        self.conv_res0 = MPConv(out_channels if encoder else in_channels, out_channels, (3, 3))
        self.emb_linear = MPConv(emb_channels, out_channels)
        self.conv_res1 = MPConv(out_channels, out_channels, (3, 3))
        self.conv_skip = MPConv(in_channels, out_channels, (1, 1)) if in_channels != out_channels else None
        if self.heads:
            self.attn_qkv = MPConv(out_channels, out_channels * 3, (1, 1))
            self.attn_proj = MPConv(out_channels, out_channels, (1, 1))

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """Map (B, in, H, W) and the conditioning (B, emb_channels), float32, to (B, out, H', W')."""
        if self.resample == "down":
            x = F.avg_pool2d(x, 2)
        elif self.resample == "up":
            x = F.interpolate(x, scale_factor=2, mode="nearest")
        if self.encoder:
            x = normalize(x if self.conv_skip is None else self.conv_skip(x), dim=1)
        y = self.conv_res0(mp_silu(x))
        condition = self.emb_linear(emb, gain=self.emb_gain) + 1
        y = mp_silu(y * condition[:, :, None, None].to(y.dtype))
        y = self.conv_res1(F.dropout(y, self.dropout, self.training))
        if not self.encoder and self.conv_skip is not None:
            x = self.conv_skip(x)
        x = mp_sum(x, y, self.res_balance)
        if self.heads:
            x = mp_sum(x, self.attn_proj(self._attend(self.attn_qkv(x))), self.attn_balance)
        return x if self.clip_act is None else x.clip(-self.clip_act, self.clip_act)

    def _attend(self, qkv: Tensor) -> Tensor:
        batch, channels, height, width = qkv.shape
        # Channels run head, then feature, then (q, k, v); all three are normalised (cosine attention).
        split = qkv.reshape(batch, self.heads, channels // (3 * self.heads), 3, height * width)
        q, k, v = normalize(split, dim=2).permute(3, 0, 1, 4, 2).unbind(0)
        attended = F.scaled_dot_product_attention(q, k, v)
        return attended.transpose(-1, -2).reshape(batch, channels // 3, height, width)


class UNet(nn.Module):
    """Magnitude-preserving U-Net over (B, img_channels, img_resolution, img_resolution).

    Args:
        img_resolution, img_channels: geometry; the image is square.
        label_dim: number of classes; 0 for an unconditional model.
        model_channels, channel_mult, num_blocks: widths and depth of the levels.
        channel_mult_noise, channel_mult_emb: widths of the noise features and of the conditioning, in
            model_channels; None: the first and the largest level's.
        attn_resolutions: resolutions whose blocks attend.
        label_balance, concat_balance: weight of the label in the conditioning, of the skip in its joint.
        block: further arguments of `Block`.
    """

    def __init__(
        self,
        *,
        img_resolution: int,
        img_channels: int,
        label_dim: int = 0,
        model_channels: int = 192,
        channel_mult: Sequence[int] = (1, 2, 3, 4),
        channel_mult_noise: int | None = None,
        channel_mult_emb: int | None = None,
        num_blocks: int = 3,
        attn_resolutions: Sequence[int] = (16, 8),
        label_balance: float = 0.5,
        concat_balance: float = 0.5,
        **block: Any,
    ) -> None:
        super().__init__()
        widths = [model_channels * mult for mult in channel_mult]
        noise_channels = model_channels * channel_mult_noise if channel_mult_noise else widths[0]
        emb_channels = model_channels * channel_mult_emb if channel_mult_emb else max(widths)
        self.emb_channels = emb_channels
        self.label_balance = label_balance
        self.concat_balance = concat_balance
        self.out_gain = nn.Parameter(torch.zeros([]))
        self.emb_fourier = MPFourier(noise_channels)
        self.emb_noise = MPConv(noise_channels, emb_channels)
        self.emb_label = MPConv(label_dim, emb_channels) if label_dim else None

        resolutions = [img_resolution >> level for level in range(len(widths))]
        self.enc = nn.ModuleDict()
        channels = img_channels + 1  # a constant channel stands in for biases
        skips: list[int] = []
        for level, (res, width) in enumerate(zip(resolutions, widths, strict=True)):
            if level == 0:
                self.enc[f"{res}x{res}_conv"] = MPConv(channels, width, (3, 3))
                channels = width
            else:
                self.enc[f"{res}x{res}_down"] = Block(
                    channels, channels, emb_channels, encoder=True, resample="down", **block
                )
            skips.append(channels)
            for index in range(num_blocks):
                attention = res in attn_resolutions
                self.enc[f"{res}x{res}_block{index}"] = Block(
                    channels, width, emb_channels, encoder=True, attention=attention, **block
                )
                channels = width
                skips.append(channels)

        self.dec = nn.ModuleDict()
        for level in reversed(range(len(widths))):
            res, width = resolutions[level], widths[level]
            if level == len(widths) - 1:
                self.dec[f"{res}x{res}_in0"] = Block(
                    channels, channels, emb_channels, encoder=False, attention=True, **block
                )
                self.dec[f"{res}x{res}_in1"] = Block(channels, channels, emb_channels, encoder=False, **block)
            else:
                self.dec[f"{res}x{res}_up"] = Block(
                    channels, channels, emb_channels, encoder=False, resample="up", **block
                )
            for index in range(num_blocks + 1):
                attention = res in attn_resolutions
                self.dec[f"{res}x{res}_block{index}"] = Block(
                    channels + skips.pop(), width, emb_channels, encoder=False, attention=attention, **block
                )
                channels = width
        self.out_conv = MPConv(channels, img_channels, (3, 3))

    @property
    def compute_dtype(self) -> torch.dtype:
        """Dtype of the convolutions' weights: activations are cast to it, conditioning stays float32."""
        return self.out_conv.weight.dtype

    def embed(self, noise: Tensor, labels: Tensor | None) -> Tensor:
        """Return the conditioning (B, emb_channels), float32, of noise levels (B,) and labels."""
        emb: Tensor = self.emb_noise(self.emb_fourier(noise))
        if self.emb_label is not None and labels is not None:
            emb = mp_sum(emb, self.emb_label(labels * math.sqrt(labels.shape[1])), self.label_balance)
        return mp_silu(emb)

    def trunk(self, x: Tensor, emb: Tensor) -> Tensor:
        """Return the raw output F (B, img_channels, H, W) in the compute dtype."""
        x = x.to(self.compute_dtype)
        x = torch.cat([x, torch.ones_like(x[:, :1])], dim=1)
        skips: list[Tensor] = []
        for block in self.enc.values():
            x = block(x, emb) if isinstance(block, Block) else block(x)
            skips.append(x)
        for name, block in self.dec.items():
            if "_block" in name:
                x = mp_cat(x, skips.pop(), self.concat_balance)
            x = block(x, emb)
        output: Tensor = self.out_conv(x, gain=self.out_gain)
        return output


class Precond(nn.Module):
    """EDM preconditioning around the U-Net, with the learned uncertainty of the loss (Eq. 14, 15).

    Args:
        img_resolution, img_channels, label_dim: geometry and number of classes.
        sigma_data: standard deviation of the data.
        logvar_channels: width of the uncertainty's Fourier features.
        unet: further arguments of `UNet`.
    """

    def __init__(
        self,
        img_resolution: int,
        img_channels: int,
        label_dim: int = 0,
        sigma_data: float = 0.5,
        logvar_channels: int = 128,
        **unet: Any,
    ) -> None:
        super().__init__()
        self.img_resolution = img_resolution
        self.img_channels = img_channels
        self.label_dim = label_dim
        self.sigma_data = sigma_data
        self.unet = UNet(
            img_resolution=img_resolution, img_channels=img_channels, label_dim=label_dim, **unet
        )
        self.logvar_fourier = MPFourier(logvar_channels)
        self.logvar_linear = MPConv(logvar_channels, 1)

    def prepare_inference(self, dtype: torch.dtype) -> None:
        """Normalise all weights once (see `MPConv.fold`) and cast the convolutions to `dtype`.

        Linear layers are conditioning and stay float32.
        """
        for module in self.modules():
            if isinstance(module, MPConv):
                module.fold()
                if module.weight.ndim == 4:
                    module.to(dtype)

    def logvar(self, sigma: Tensor) -> Tensor:
        """Return the uncertainty u(sigma) of noise levels (B,), as (B, 1, 1, 1) float32."""
        features = self.logvar_fourier(precondition(sigma, self.sigma_data).c_noise)
        uncertainty: Tensor = self.logvar_linear(features)
        return uncertainty.reshape(-1, 1, 1, 1)

    @property
    def emb_channels(self) -> int:
        """Width of what the trunk is conditioned on."""
        return self.unet.emb_channels

    def drop_trunk(self) -> None:
        """Free the trunk's weights, for good: something else computes it."""
        self.unet.enc.to("meta")
        self.unet.dec.to("meta")

    def embed(self, noise: Tensor, labels: Tensor | None) -> Tensor:
        """Return what `trunk` is conditioned on, (B, emb_channels) float32.

        Args:
            noise: c_noise, (B,) float32.
            labels: see `forward`.
        """
        if self.label_dim and labels is None:
            labels = torch.zeros(1, self.label_dim, device=noise.device)
        return self.unet.embed(noise, labels)

    def trunk(self, x: Tensor, emb: Tensor) -> Tensor:
        """Return F (B, C, H, W), in the convolutions' dtype, of c_in x and the conditioning."""
        return self.unet.trunk(x, emb)

    def forward(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        """Denoise.

        Args:
            x: (B, C, H, W), data plus noise of standard deviation sigma.
            sigma: (B,) or a scalar.
            labels: (B, label_dim) one-hot floats; None means no label, all zeros.

        Returns:
            The denoised estimate (B, C, H, W), float32.
        """
        return denoise(
            x, sigma, self.sigma_data, lambda scaled, noise: self.trunk(scaled, self.embed(noise, labels))
        )
