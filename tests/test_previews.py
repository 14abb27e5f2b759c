"""What engines show of images that they are still making."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_programs import network
from var_tiny import tiny_engine

from engines.backends.torch_backend import TorchBackend
from engines.base import ImageRequest
from engines.diffusion import DiffusionEngine
from engines.pixels import Decoder, PixelDecoder, SdVaeDecoder, to_pixels
from engines.programs.diffusion_step import DiffusionStep
from engines.solvers.plan import SOLVERS
from models.spec import DiffusionDefaults, PixelCodec, SdVaeCodec

CPU = torch.device("cpu")


def diffusion(decoder: Decoder | None) -> DiffusionEngine:
    return DiffusionEngine(
        DiffusionStep(network("edm2-tiny"), network("edm2-tiny-uncond", salt="guide/")),
        TorchBackend(CPU, torch.float32),
        decoder,
        shape=(3, 16, 16),
        defaults=DiffusionDefaults(steps=3),
        num_classes=10,
        max_rows=1,
    )


@pytest.fixture(scope="module")
def engine() -> DiffusionEngine:
    return diffusion(PixelDecoder(PixelCodec()))


@torch.inference_mode()
@pytest.mark.parametrize("cfg", [1.0, 1.5])
@pytest.mark.parametrize("solver", SOLVERS)
def test_a_diffusion_preview_is_what_the_last_call_evaluated(
    engine: DiffusionEngine, solver: str, cfg: float
) -> None:
    main, guide = network("edm2-tiny"), network("edm2-tiny-uncond", salt="guide/")
    row = engine.open(engine.resolve(ImageRequest(class_id=3, seed=1, solver=solver, cfg=cfg)))
    assert engine.preview(row) is None
    for call in row.table.calls:
        point, sigma = row.state[:1], torch.tensor([call.sigma], dtype=torch.float32)
        weak = guide(point, sigma, None)
        denoised = weak + cfg * (main(point, sigma, torch.eye(10)[[3]]) - weak)
        engine.step([row])
        preview = engine.preview(row)
        assert preview is not None
        assert np.abs(preview.astype(int) - to_pixels(denoised)[0]).max() <= 1
    engine.close(row)


def test_samples_that_are_not_decoded_have_no_preview() -> None:
    sampler = diffusion(None)
    row = sampler.open(sampler.resolve(ImageRequest(class_id=3, seed=1)))
    sampler.step([row])
    assert sampler.preview(row) is None


def test_a_var_preview_is_the_image_of_the_scales_so_far() -> None:
    engine = tiny_engine(max_rows=2, capacity=2)
    watched, alone = (engine.open(engine.resolve(ImageRequest(class_id=3, seed=1))) for _ in range(2))
    assert engine.preview(watched) is None
    seen = []
    while watched.calls_left:
        engine.step([watched])
        if (preview := engine.preview(watched)) is not None:
            seen.append(preview)
    assert len(seen) == watched.scales - 1, "the last scale's image is the next call's"
    assert all((a != b).any() for a, b in zip(seen, [*seen[1:], engine.image(watched)], strict=True))
    assert {preview.shape for preview in seen} == {engine.image(watched).shape}
    while alone.calls_left:
        engine.step([alone])
    np.testing.assert_array_equal(engine.image(watched), engine.image(alone))


def test_latents_show_their_colours_without_the_vae(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    vae = torch.nn.Module()  # has no `decode`
    vae.decoder = torch.nn.Module()
    monkeypatch.setattr("engines.pixels.load_sd_vae", lambda *_: vae)
    codec = SdVaeCodec(repository="nowhere")
    decoder = SdVaeDecoder(codec, CPU, torch.float32)
    grey = to_pixels(decoder.approximate(torch.zeros(1, 4, 8, 6)))[0]
    assert grey.shape == (8, 6, 3)
    # The mean latent of ImageNet is its mean colour: a medium grey.
    assert np.abs(grey.astype(int) - 127).max() < 10
    bright = torch.zeros(1, 4, 2, 2)
    bright[:, 0] = 0.5
    assert (to_pixels(decoder.approximate(bright))[0] > grey[:2, :2] + 30).all()
