from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from trainer.errors import DataError, StatisticsError
from trainer.evaluation.frechet import FeatureStatistics, frechet_distance
from trainer.evaluation.statistics import ReferenceStatistics


@pytest.fixture
def measured() -> FeatureStatistics:
    return FeatureStatistics.of(np.random.default_rng(0).normal(size=(50, 6)).astype(np.float32))


def test_round_trip(measured: FeatureStatistics, tmp_path: Path) -> None:
    path = tmp_path / "new" / "stats.npz"
    ReferenceStatistics.of(measured, extractor="pixels", source="a.npz").save(path)
    read = ReferenceStatistics.load(path)
    assert (read.extractor, read.images, read.source) == ("pixels", 50, "a.npz")
    assert np.array_equal(read.mean, measured.mean)
    assert np.array_equal(read.covariance, measured.covariance)
    assert [file.name for file in path.parent.iterdir()] == ["stats.npz"]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_files_of_others_have_two_arrays(dtype: type, measured: FeatureStatistics, tmp_path: Path) -> None:
    path = tmp_path / "cifar10-32x32.npz"
    np.savez(path, mu=measured.mean.astype(dtype), sigma=measured.covariance.astype(dtype))
    read = ReferenceStatistics.load(path)
    assert (read.extractor, read.images, read.source) == (None, None, str(path))
    assert (read.mean.dtype, read.covariance.dtype) == (np.float64, np.float64)
    assert frechet_distance(read, measured) == pytest.approx(0, abs=1e-5)


def test_others_can_read_ours(measured: FeatureStatistics, tmp_path: Path) -> None:
    path = tmp_path / "stats.npz"
    ReferenceStatistics.of(measured, extractor="pixels", source="a.npz").save(path)
    with np.load(path, allow_pickle=False) as arrays:
        assert arrays["mu"].shape == (6,)
        np.testing.assert_array_equal(arrays["sigma"], measured.covariance)


EYE = np.eye(3)


@pytest.mark.parametrize(
    ("arrays", "fault"),
    [
        ({"mu": np.zeros(3)}, "with the arrays mu and sigma"),
        ({"mu": np.zeros((3, 1)), "sigma": EYE}, r"mu must be \(F,\)"),
        ({"mu": np.zeros(4), "sigma": EYE}, r"sigma \(F, F\)"),
        ({"mu": np.array([0, np.nan, 0]), "sigma": EYE}, "NaN or infinite"),
        ({"mu": np.zeros(3), "sigma": np.full((3, 3), np.inf)}, "NaN or infinite"),
        ({"mu": np.zeros(3), "sigma": np.triu(np.ones((3, 3)))}, "not symmetric"),
        ({"mu": np.array(["a", "b"]), "sigma": EYE}, "with the arrays mu and sigma"),
        ({"mu": np.array([None, {}], dtype=object), "sigma": EYE}, "with the arrays mu and sigma"),
        ({"mu": np.zeros(3), "sigma": EYE, "images": np.array([1, 2])}, "with the arrays mu and sigma"),
        ({"mu": np.zeros(0), "sigma": np.zeros((0, 0))}, r"mu must be \(F,\)"),
    ],
    ids=["missing", "column", "sizes", "nan", "infinite", "triangle", "text", "pickle", "count", "empty"],
)
def test_bad_statistics_are_named(arrays: dict, fault: str, tmp_path: Path) -> None:
    path = tmp_path / "stats.npz"
    np.savez(path, **arrays)
    with pytest.raises(StatisticsError, match=fault):
        ReferenceStatistics.load(path)


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04 cut"])
def test_broken_files_are_named(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "stats.npz"
    path.write_bytes(content)
    with pytest.raises(StatisticsError, match=r"stats\.npz is not an \.npz of statistics"):
        ReferenceStatistics.load(path)


def test_an_unwritable_place_keeps_what_was_there(measured: FeatureStatistics, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(DataError, match="cannot write"):
        ReferenceStatistics.of(measured, extractor="p", source="s").save(tmp_path / "file" / "stats.npz")
    assert (tmp_path / "file").read_text() == "mine"
