from __future__ import annotations

import numpy as np
import pytest

from trainer.errors import StatisticsError
from trainer.evaluation.precision_recall import Manifold


def inside_by_definition(centres: np.ndarray, points: np.ndarray, neighbours: int) -> np.ndarray:
    """Eq. 1 of the paper, one distance at a time."""

    def distance(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.sqrt(((a.astype(np.float64) - b) ** 2).sum()))

    result = []
    for point in points:
        hit = False
        for i, centre in enumerate(centres):
            others = sorted(distance(centre, other) for j, other in enumerate(centres) if j != i)
            hit = hit or distance(point, centre) <= others[neighbours - 1]
        result.append(hit)
    return np.array(result)


@pytest.mark.parametrize("neighbours", [1, 3, 5])
def test_definition(neighbours: int) -> None:
    random = np.random.default_rng(neighbours)
    centres, points = random.normal(size=(30, 3)), random.normal(size=(50, 3)) * 1.5
    expected = inside_by_definition(centres, points, neighbours)
    assert 0 < expected.mean() < 1
    assert np.array_equal(Manifold.of(centres, neighbours).holds(points), expected)


def test_balls_end_at_the_third_neighbour() -> None:
    manifold = Manifold.of(np.array([[0.0], [1.0], [2.0], [10.0]], np.float32))
    assert manifold.radii.tolist() == [10, 9, 8, 10]
    inside = manifold.holds(np.array([[-10.0], [-10.5], [20.0], [20.5], [5.0]], np.float32))
    assert inside.tolist() == [True, False, True, False, True]


def test_many_images_are_taken_in_pieces() -> None:
    random = np.random.default_rng(0)
    features = random.normal(size=(1300, 2)).astype(np.float32)
    manifold = Manifold.of(features)
    exact = np.linalg.norm(features[:, None].astype(np.float64) - features[None], axis=2)
    np.testing.assert_allclose(manifold.radii, np.sort(exact, axis=1)[:, 3], atol=1e-6)
    assert manifold.holds(features).all()
    assert not manifold.holds(features + 100).any()


def test_distances_far_from_zero_keep_their_digits() -> None:
    # In float32 a matrix product rounds |a|^2 = 1e6 to 0.06: the radii of 0.001 to 0.003 would be noise.
    line = np.array([[1000 + i / 1024, 0] for i in range(40)], np.float64)
    manifold = Manifold.of(line)
    np.testing.assert_allclose(manifold.radii[10:-10], 2 / 1024, rtol=1e-3)
    assert manifold.holds(line[:1] - [[2.5 / 1024, 0]]).all()
    assert not manifold.holds(line[:1] - [[3.5 / 1024, 0]]).any()


def test_too_few_images_have_no_neighbours() -> None:
    with pytest.raises(StatisticsError, match="3 neighbours need more than 3 images, there are 3"):
        Manifold.of(np.zeros((3, 2), np.float32))
