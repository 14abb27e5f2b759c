"""Doubling and convolving at once gives what one after the other gives."""

from __future__ import annotations

import pytest
import torch
from reference import relative_error
from torch import nn
from torch.nn import functional as F
from var_tiny import tiny_vqvae

from models.networks.autoencoder import Upsample
from models.networks.doubling import doubling_convolution, fold_doubling


def test_it_is_the_convolution_of_the_doubled_image() -> None:
    torch.manual_seed(0)
    conv, images = nn.Conv2d(5, 7, 3, padding=1).requires_grad_(False), torch.randn(2, 5, 6, 9)
    expected = conv(F.interpolate(images, scale_factor=2, mode="nearest"))
    found = doubling_convolution(conv)(images)
    torch.testing.assert_close(found, expected)
    conv.weight[:, :, 0, 1] += 0.1
    assert relative_error(conv(F.interpolate(images, scale_factor=2, mode="nearest")), found) > 1e-2


def test_its_kernel_is_summed_before_it_is_rounded() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(4, 4, 3, padding=1).to(torch.bfloat16)
    same = nn.Conv2d(4, 4, 3, padding=1)
    same.load_state_dict(conv.state_dict())
    folded = doubling_convolution(conv)
    assert folded.weight.dtype == torch.bfloat16
    assert torch.equal(folded.weight, doubling_convolution(same).weight.to(torch.bfloat16))


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(4, 4, 1),
        nn.Conv2d(4, 4, 3),
        nn.Conv2d(4, 4, 3, padding=1, stride=2),
        nn.Conv2d(4, 4, 3, padding=1, groups=2),
        nn.Conv2d(4, 4, 3, padding=1, bias=False),
    ],
)
def test_other_convolutions_are_refused(conv: nn.Conv2d) -> None:
    with pytest.raises(ValueError, match="3x3"):
        doubling_convolution(conv)


def test_a_decoder_whose_doublings_are_folded_decodes_the_same() -> None:
    vqvae = tiny_vqvae()
    features = torch.randn(
        1, vqvae.post_quant_conv.in_channels, 4, 4, generator=torch.Generator().manual_seed(0)
    )
    with torch.inference_mode():
        expected = vqvae.decode_features(features)
        fold_doubling(vqvae.decoder, Upsample)
        assert not any(isinstance(module, Upsample) for module in vqvae.decoder.modules())
        assert any(isinstance(module, nn.ConvTranspose2d) for module in vqvae.decoder.modules())
        torch.testing.assert_close(vqvae.decode_features(features), expected)
