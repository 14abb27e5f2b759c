"""Latents are decoded as EDM2 encodes them, by a Stable Diffusion VAE with random weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL

from engines.errors import EngineError
from engines.pixels import SdVaeDecoder, to_pixels
from models.spec import SdVaeCodec

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def vae(tmp_path_factory: pytest.TempPathFactory) -> tuple[AutoencoderKL, Path]:
    torch.manual_seed(0)
    network = AutoencoderKL(
        latent_channels=4,
        block_out_channels=(8, 8, 8, 8),
        norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
    ).eval()
    folder = tmp_path_factory.mktemp("vae")
    network.save_pretrained(folder)
    return network, folder


def test_latents_are_scaled_back_and_decoded_to_the_unit_interval(vae: tuple[AutoencoderKL, Path]) -> None:
    network, folder = vae
    codec = SdVaeCodec(repository=str(folder))
    latents = torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(0)) * 0.5
    with torch.inference_mode():
        images = SdVaeDecoder(codec, CPU, torch.float32).decode(latents)
        mean, std = (torch.tensor(values).reshape(1, 4, 1, 1) for values in (codec.mean, codec.std))
        expected = network.decode(latents / 0.5 * std + mean).sample.clamp(0, 1)
    assert images.shape == (2, 3, 32, 32)
    torch.testing.assert_close((images + 1) / 2, expected)
    levels = (expected * 255).round().permute(0, 2, 3, 1).numpy()
    assert np.abs(to_pixels(images).astype(int) - levels.astype(int)).max() <= 1
    assert levels.std() > 1


def test_no_image_is_doubled_before_it_is_convolved(
    vae: tuple[AutoencoderKL, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder = SdVaeDecoder(SdVaeCodec(repository=str(vae[1])), CPU, torch.float32)
    monkeypatch.delattr(torch.nn.functional, "interpolate")
    with torch.inference_mode():
        assert decoder.decode(torch.zeros(1, 4, 4, 4)).shape == (1, 3, 32, 32)


def test_weights_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="cannot load"):
        SdVaeDecoder(SdVaeCodec(repository=str(tmp_path)), CPU, torch.float32)
