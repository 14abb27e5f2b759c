from __future__ import annotations

import numpy as np
import pytest

from trainer.errors import StatisticsError
from trainer.evaluation.metrics import ClassSums, centroid_accuracy, class_diversity, nearest_distances
from trainer.grid import contact_sheet

FEATURES = np.array([[0, 0], [0, 2], [10, 0], [10, 4]], np.float32)
LABELS = np.array([0, 0, 1, 1])


def test_centroids_are_class_means() -> None:
    assert ClassSums.of(FEATURES, LABELS, 2).centroids.tolist() == [[0, 1], [10, 2]]


def test_sums_of_parts_are_those_of_all() -> None:
    parts = [ClassSums.of(FEATURES[part], LABELS[part], 2) for part in (slice(0, 3), slice(3, 4))]
    assert parts[0].merge(parts[1]).centroids.tolist() == [[0, 1], [10, 2]]


def test_class_without_an_image_has_no_centroid() -> None:
    with pytest.raises(StatisticsError, match="class 2 has no image"):
        _ = ClassSums.of(FEATURES, LABELS, 4).centroids


def test_accuracy_counts_images_nearest_to_their_own_class() -> None:
    centroids = ClassSums.of(FEATURES, LABELS, 2).centroids
    images = np.array([[1, 1], [9, 2], [8, 8], [4, 1]], np.float32)
    assert centroid_accuracy(images, np.array([0, 1, 1, 0]), centroids) == 1.0
    assert centroid_accuracy(images, np.array([0, 1, 0, 1]), centroids) == 0.5


def test_nearest_distance_of_a_copy_is_zero() -> None:
    random = np.random.default_rng(0)
    # Large features: distances from float32 products would be off by about one here.
    reference = (random.normal(size=(1500, 32)) + 1000).astype(np.float32)
    images = reference[[3, 1400]] + np.array([[0.0], [0.01]], np.float32)
    expected = [0.0, np.linalg.norm(images[1].astype(np.float64) - reference[1400])]
    assert nearest_distances(images, reference).tolist() == pytest.approx(expected, abs=1e-4)


def test_nearest_distance_is_that_of_the_nearest() -> None:
    random = np.random.default_rng(1)
    images, reference = random.normal(size=(1100, 4)), random.normal(size=(40, 4))
    expected = np.linalg.norm(images[:, None] - reference[None], axis=2).min(axis=1)
    np.testing.assert_allclose(nearest_distances(images, reference), expected, rtol=1e-9)


def test_diversity_is_averaged_over_classes() -> None:
    assert class_diversity(FEATURES, LABELS) == pytest.approx((2 + 4) / 2)
    three = np.array([[0], [3], [9], [50]], np.float32)
    assert class_diversity(three, np.array([7, 7, 7, 1])) == pytest.approx((3 + 9 + 6) / 3)


def test_diversity_of_a_large_class() -> None:
    features = np.random.default_rng(2).normal(size=(1100, 3))
    exact = np.linalg.norm(features[:, None] - features[None], axis=2)
    expected = exact[np.triu_indices(1100, 1)].mean()
    assert class_diversity(features, np.zeros(1100, int)) == pytest.approx(expected, rel=1e-7)


def test_single_images_have_no_diversity() -> None:
    assert class_diversity(FEATURES[1:3], np.array([0, 1])) is None


def test_contact_sheet_places_images_row_by_row() -> None:
    images = np.stack([np.full((4, 4, 3), value, np.uint8) for value in (10, 20, 30)])
    sheet = contact_sheet(images, columns=2, scale=3, gap=1)
    assert sheet.size == (1 + 2 * 13, 1 + 2 * 13)
    assert [sheet.getpixel(at)[0] for at in ((1, 1), (14, 1), (1, 14), (14, 14))] == [10, 20, 30, 224]
    assert [sheet.getpixel(at)[0] for at in ((0, 5), (12, 12), (13, 5))] == [224, 10, 224]
