"""The tokenizer turns images into the original's tokens, and tokens into the original's images."""

from __future__ import annotations

import pytest
import torch
from reference import Reference, load, noise, relative_error
from torch import Tensor
from var_tiny import TOKENIZER, tiny_vqvae

from models import build
from models.networks.quantizer import SharedPhis
from models.networks.vqvae import VQVAE

TOLERANCE = 1e-5
BROKEN = 1e-2


@pytest.fixture(scope="module")
def reference() -> Reference:
    return load("var-tiny")


@pytest.fixture(scope="module")
def images() -> Tensor:
    return noise("var-tiny/image", (2, 3, 64, 64)).clamp(-1, 1)


@pytest.fixture
def vqvae() -> VQVAE:
    return tiny_vqvae()


def test_encode(vqvae: VQVAE, reference: Reference, images: Tensor) -> None:
    assert torch.equal(vqvae.encode(images), reference["encode_tokens"])


def test_decode(vqvae: VQVAE, reference: Reference) -> None:
    image = vqvae.decode(reference["tokens"])
    assert relative_error(image, reference["decode_image"]) < TOLERANCE
    assert image.abs().max() <= 1


def test_var_input(vqvae: VQVAE, reference: Reference) -> None:
    assert relative_error(vqvae.var_input(reference["tokens"]), reference["var_input"]) < TOLERANCE


def test_swapped_tokens_break_parity(vqvae: VQVAE, reference: Reference) -> None:
    swapped = reference["tokens"].clone()
    swapped[:, [1, 2]] = swapped[:, [2, 1]]
    assert relative_error(vqvae.decode(swapped), reference["decode_image"]) > BROKEN
    assert relative_error(vqvae.var_input(swapped), reference["var_input"]) > BROKEN


def test_swapped_phis_break_parity(vqvae: VQVAE, reference: Reference, images: Tensor) -> None:
    phis = vqvae.quantize.quant_resi.qresi_ls
    phis[0], phis[1] = phis[1], phis[0]
    assert relative_error(vqvae.var_input(reference["tokens"]), reference["var_input"]) > BROKEN
    assert not torch.equal(vqvae.encode(images), reference["encode_tokens"])


def test_decoding_scale_by_scale(vqvae: VQVAE, reference: Reference) -> None:
    tokens, quantizer = reference["tokens"], vqvae.quantize
    features: Tensor | float = 0.0
    inputs = []
    for scale, span in enumerate(vqvae.scales.spans):
        features = features + quantizer.features_of(scale, tokens[:, span])
        if scale + 1 < len(vqvae.scales):
            inputs.append(quantizer.input_of(scale + 1, features))
    assert torch.equal(torch.cat(inputs, dim=1), vqvae.var_input(tokens))
    assert torch.equal(vqvae.decode_features(features), vqvae.decode(tokens))


def test_nearest_code_is_that_at_the_least_distance(vqvae: VQVAE) -> None:
    vectors = noise("vectors", (2, 50, TOKENIZER["z_channels"]))
    distances = torch.cdist(
        vectors, vqvae.quantize.embedding.weight[None], compute_mode="donot_use_mm_for_euclid_dist"
    )
    assert torch.equal(vqvae.quantize.nearest(vectors), distances.argmin(dim=-1))


def test_phis_of_the_published_scales() -> None:
    phis = SharedPhis(4, 32)
    assert [phis.index(scale / 9) for scale in range(10)] == [0, 0, 1, 1, 1, 2, 2, 3, 3, 3]


def test_any_scales() -> None:
    vqvae = build({**TOKENIZER, "patch_nums": [1, 3, 2], "class_name": "VQVAE"})
    images = noise("other scales", (2, 3, 32, 32)).clamp(-1, 1)
    with torch.inference_mode():
        tokens = vqvae.encode(images)
        assert tokens.shape == (2, 1 + 9 + 4)
        assert vqvae.decode(tokens).shape == images.shape


def test_bfloat16_decoder(vqvae: VQVAE, reference: Reference) -> None:
    vqvae.post_quant_conv.bfloat16()
    vqvae.decoder.bfloat16()
    image = vqvae.decode(reference["tokens"])
    assert image.dtype == torch.float32
    assert 1e-4 < relative_error(image, reference["decode_image"]) < 0.03
