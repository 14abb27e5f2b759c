from __future__ import annotations

from functools import reduce

import numpy as np
import pytest
import scipy.linalg

from trainer.errors import StatisticsError
from trainer.evaluation.frechet import FeatureStatistics, frechet_distance


def random_features(seed: int, count: int, size: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    return random.normal(size=(count, size)) @ random.normal(size=(size, size)) + random.normal(size=size)


def statistics(mean: list[float], covariance: list[list[float]]) -> FeatureStatistics:
    return FeatureStatistics(np.array(mean), np.array(covariance) * 99, 100)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (([0.0], [[4.0]]), ([3.0], [[1.0]]), 9 + (2 - 1) ** 2),
        (
            ([1.0, 2.0], [[9.0, 0.0], [0.0, 16.0]]),
            ([1.0, 0.0], [[1.0, 0.0], [0.0, 1.0]]),
            2**2 + (3 - 1) ** 2 + (4 - 1) ** 2,
        ),
        # S_a and S_b commute: both have the eigenvectors (1, 1) and (1, -1).
        (
            ([0.0, 0.0], [[2.5, 1.5], [1.5, 2.5]]),
            ([0.0, 0.0], [[5.0, 4.0], [4.0, 5.0]]),
            (2 - 3) ** 2 + (1 - 1) ** 2,
        ),
        (([0.0, 0.0], [[1.0, 0.0], [0.0, 0.0]]), ([0.0, 0.0], [[0.0, 0.0], [0.0, 4.0]]), 1 + 4),
    ],
    ids=["one dimension", "diagonal", "commuting", "singular"],
)
def test_closed_form(a: tuple, b: tuple, expected: float) -> None:
    assert frechet_distance(statistics(*a), statistics(*b)) == pytest.approx(expected, abs=1e-12)
    assert frechet_distance(statistics(*b), statistics(*a)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("size", [2, 17, 64])
def test_agrees_with_the_matrix_square_root(size: int) -> None:
    x, y = random_features(1, 300, size), random_features(2, 200, size)
    shift = x.mean(axis=0) - y.mean(axis=0)
    a, b = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    expected = shift @ shift + np.trace(a + b - 2 * scipy.linalg.sqrtm(a @ b).real)
    found = frechet_distance(FeatureStatistics.of(x), FeatureStatistics.of(y))
    assert found == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("count", [20, 200])
def test_identical_sets_are_at_distance_zero(count: int) -> None:
    same = FeatureStatistics.of(random_features(3, count, 64))
    scale = np.trace(same.covariance)
    assert 0 <= frechet_distance(same, same) < 1e-6 * scale


def test_statistics_are_exact_far_from_zero() -> None:
    # A mean far from zero would ruin a sum of squares.
    features = random_features(4, 101, 9).astype(np.float32) + 1e4
    statistics, exact = FeatureStatistics.of(features), features.astype(np.float64)
    assert statistics.count == 101
    np.testing.assert_allclose(statistics.mean, exact.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(statistics.covariance, np.cov(exact, rowvar=False), rtol=1e-7)


@pytest.mark.parametrize("sizes", [(1, 1), (1, 100), (100, 1), (30, 50, 20), (1,) * 40])
@pytest.mark.parametrize("offset", [0, 1e4])
def test_merged_statistics_are_those_of_all_at_once(sizes: tuple[int, ...], offset: float) -> None:
    features = random_features(5, sum(sizes), 7) + offset
    parts = [FeatureStatistics.of(part) for part in np.split(features, np.cumsum(sizes)[:-1])]
    merged, whole = reduce(FeatureStatistics.merge, parts), FeatureStatistics.of(features)
    assert merged.count == whole.count == sum(sizes)
    np.testing.assert_allclose(merged.mean, whole.mean, rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose(merged.scatter, whole.scatter, rtol=0, atol=1e-9 * np.trace(whole.scatter))


def test_sets_of_different_features_do_not_merge() -> None:
    a, b = FeatureStatistics.of(random_features(8, 9, 4)), FeatureStatistics.of(random_features(8, 9, 5))
    with pytest.raises(StatisticsError, match="4 features cannot be compared with 5"):
        a.merge(b)


def test_one_image_is_too_few() -> None:
    one, many = FeatureStatistics.of(random_features(7, 1, 4)), FeatureStatistics.of(random_features(7, 9, 4))
    for pair in ((one, many), (many, one)):
        with pytest.raises(StatisticsError, match="at least 2 images, there are 1"):
            frechet_distance(*pair)


def test_different_features_do_not_compare() -> None:
    a, b = FeatureStatistics.of(random_features(8, 9, 4)), FeatureStatistics.of(random_features(8, 9, 5))
    with pytest.raises(StatisticsError, match="4 features cannot be compared with 5"):
        frechet_distance(a, b)


@pytest.mark.parametrize("features", [np.zeros((0, 4)), np.zeros(4), np.zeros((2, 2, 2))])
def test_wrong_shapes_are_refused(features: np.ndarray) -> None:
    with pytest.raises(StatisticsError, match=r"must be \(N, F\) and not empty"):
        FeatureStatistics.of(features)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_non_finite_features_are_refused(value: float) -> None:
    features = random_features(9, 9, 4)
    features[3, 2] = value
    with pytest.raises(StatisticsError, match="NaN or infinite"):
        FeatureStatistics.of(features)
