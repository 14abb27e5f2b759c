"""Agreement with torch-fidelity on the same features and the same weights."""

from __future__ import annotations

import hashlib
import importlib.abc
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from fidelity import torch_fidelity
from hostile import Call

from trainer.errors import TrainerError
from trainer.evaluation.extractors import distance_name, open_extractor
from trainer.evaluation.frechet import FeatureStatistics, frechet_distance
from trainer.evaluation.precision_recall import Manifold

CPU = torch.device("cpu")


def random_features(seed: int, count: int, size: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    features = random.normal(size=(count, size)) @ random.normal(size=(size, size)) + random.normal(size=size)
    return features.astype(np.float32)


@pytest.mark.parametrize(("count", "size"), [(50, 3), (300, 17), (400, 64), (1000, 200)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_frechet_distance_agrees_to_a_millionth(count: int, size: int, dtype: torch.dtype) -> None:
    fid = torch_fidelity("metric_fid")
    a, b = random_features(1, count, size), random_features(2, count + 7, size)
    theirs = [fid.fid_features_to_statistics(torch.from_numpy(x).to(dtype)) for x in (a, b)]
    expected = fid.fid_statistics_to_metric(*theirs, verbose=False)["frechet_inception_distance"]
    found = frechet_distance(FeatureStatistics.of(a), FeatureStatistics.of(b))
    assert found == pytest.approx(expected, rel=1e-6)
    merged = FeatureStatistics.of(b[:20]).merge(FeatureStatistics.of(b[20:]))
    assert frechet_distance(FeatureStatistics.of(a), merged) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("generated", "real", "size"), [(300, 200, 4), (40, 700, 8), (900, 600, 2)])
def test_precision_and_recall_agree(generated: int, real: int, size: int) -> None:
    prc = torch_fidelity("metric_prc")
    a, b = random_features(3, generated, size), random_features(3, real + generated, size)[generated:] + 0.5
    expected = prc.prc_features_to_metric(
        torch.from_numpy(a).double(), torch.from_numpy(b).double(), prc_neighborhood=3, verbose=False
    )
    precision, recall = Manifold.of(b).holds(a).mean(), Manifold.of(a).holds(b).mean()
    assert 0 < expected["precision"] < 1
    assert 0 < expected["recall"] < 1
    assert precision == pytest.approx(expected["precision"], abs=1e-6)
    assert recall == pytest.approx(expected["recall"], abs=1e-6)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of Inception-v3; the library makes none without a file."""
    library = torch_fidelity("feature_extractor_inceptionv3")
    path = tmp_path_factory.mktemp("inception") / "weights.pth"
    torch.save({}, path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(library.FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: None)
        network = library.FeatureExtractorInceptionV3(
            "random", ["2048"], feature_extractor_weights_path=str(path)
        )
    torch.save(network.state_dict(), path)
    return path


def photographs() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (2, 24, 40, 3), dtype=np.uint8)


def test_inception_gives_the_librarys_features(weights: Path) -> None:
    library = torch_fidelity("feature_extractor_inceptionv3")
    reference = library.FeatureExtractorInceptionV3(
        "r", ["2048"], feature_extractor_weights_path=str(weights)
    )
    expected = reference(torch.from_numpy(photographs()).permute(0, 3, 1, 2))[0].numpy()
    extractor = open_extractor("inception-v3", CPU, weights)
    found = extractor(photographs())
    assert (found.shape, found.dtype) == ((2, 2048), np.float32)
    scale = np.abs(expected).max()
    assert np.abs(expected[0] - expected[1]).max() > 1e-3 * scale
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * scale)


def test_only_the_published_weights_give_fid(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    other = open_extractor("inception-v3", CPU, weights).name
    assert other == f"inception-v3 (weights {digest[:8]})"
    assert distance_name(other) == f"Frechet distance ({other})"
    monkeypatch.setattr("trainer.evaluation.inception._PUBLISHED", digest[:8])
    assert distance_name(open_extractor("inception-v3", CPU, weights).name) == "FID"


def test_weights_are_downloaded_once(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def download(url: str, target: str, hash_prefix: str) -> None:
        asked.append((url.rsplit("-", 1)[1], hash_prefix))
        shutil.copy(weights, target)

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    names = {open_extractor("inception-v3", CPU).name for _ in range(2)}
    assert asked == [("6726825d.pth", "6726825d")]
    assert names == {open_extractor("inception-v3", CPU, weights).name}


def test_a_failed_download_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch_fidelity("feature_extractor_inceptionv3")

    def download(*_: object, **__: object) -> None:
        raise URLError("no route")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    with pytest.raises(TrainerError, match=r"no route.*--weights"):
        open_extractor("inception-v3", CPU)


def test_other_files_are_refused_and_nothing_in_them_runs(tmp_path: Path, canary: Path) -> None:
    torch_fidelity("feature_extractor_inceptionv3")
    path = tmp_path / "weights.pth"
    torch.save({"evil": Call(open, (str(canary), "w"))}, path)
    with pytest.raises(TrainerError, match="is not a file of weights"):
        open_extractor("inception-v3", CPU, path)
    assert not canary.exists()
    torch.save({"fc.weight": torch.zeros(3)}, path)
    with pytest.raises(TrainerError, match="does not hold the weights of Inception-v3"):
        open_extractor("inception-v3", CPU, path)
    with pytest.raises(TrainerError, match="is not a file of weights"):
        open_extractor("inception-v3", CPU, tmp_path / "missing.pth")


@pytest.fixture
def broken_import(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the import of torch-fidelity fail."""

    class Broken(importlib.abc.MetaPathFinder):
        def find_spec(self, name: str, path: object, target: object = None) -> None:
            if name.partition(".")[0] == "torch_fidelity":
                raise request.param

    for name in [name for name in sys.modules if name.partition(".")[0] == "torch_fidelity"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    yield


@pytest.mark.parametrize(
    "broken_import",
    [ImportError("no module"), RuntimeError("operator torchvision::nms does not exist")],
    indirect=True,
)
@pytest.mark.usefixtures("broken_import")
def test_a_torchvision_for_another_torch_is_explained(weights: Path) -> None:
    with pytest.raises(TrainerError, match=r"torchvision built for torch 2.*install the `fid` extra"):
        open_extractor("inception-v3", CPU, weights)
