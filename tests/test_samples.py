"""A diffusion engine without its decoder ends with the samples that the images are decoded from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from rich.progress import Progress
from test_loading import var_version, write_version

from engines import EngineSettings, load, load_sampler
from engines.base import ImageRequest
from engines.diffusion import DiffusionEngine
from engines.errors import EngineError
from engines.pixels import PixelDecoder, to_pixels
from engines.sampling import finish, generate
from models.spec import DiffusionDefaults, PixelCodec, SdVaeCodec
from models.version import ModelVersion

FLOAT32 = EngineSettings(precision="float32", max_rows=4)
REQUESTS = [ImageRequest(class_id=class_id, seed=7 + class_id) for class_id in range(3)]
QUIET = Progress(disable=True)


def diffusion(directory: Path, codec: PixelCodec | SdVaeCodec) -> ModelVersion:
    defaults = DiffusionDefaults(steps=3)
    return write_version(
        directory, {"main": ("edm2-tiny", "")}, name="tiny", family="edm2", codec=codec, defaults=defaults
    )


def test_samples_decode_to_the_images(tmp_path: Path) -> None:
    version = diffusion(tmp_path, PixelCodec())
    whole, bare = load(version, FLOAT32), load_sampler(version, FLOAT32)
    samples = np.stack(list(finish(bare, REQUESTS, QUIET, bare.sample)))
    assert (samples.dtype, samples.shape) == (np.float32, (3, 3, 16, 16))
    decoded = to_pixels(PixelDecoder(PixelCodec()).decode(torch.from_numpy(samples)))
    assert np.array_equal(decoded, np.stack(list(generate(whole, REQUESTS, QUIET))))
    assert isinstance(whole, DiffusionEngine)
    assert np.array_equal(np.stack(list(finish(whole, REQUESTS, QUIET, whole.sample))), samples)


def test_latents_need_no_decoder_weights(tmp_path: Path) -> None:
    """The autoencoder that this version names does not exist."""
    version = diffusion(tmp_path, SdVaeCodec(repository=str(tmp_path / "nowhere")))
    engine = load_sampler(version, FLOAT32)
    row = engine.open(engine.resolve(REQUESTS[0]))
    calls = row.calls_left
    assert calls == len(row.table.calls)
    with pytest.raises(EngineError, match=f"the sample is not finished: {calls} calls are left"):
        engine.sample(row)
    while row.calls_left:
        engine.step([row])
    assert engine.sample(row).shape == (3, 16, 16)
    with pytest.raises(EngineError, match="the image is not finished"):
        engine.image(row)
    with pytest.raises(EngineError):
        engine.step([row])


def test_var_has_images_alone(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="is no diffusion model"):
        load_sampler(var_version(tmp_path), FLOAT32)
