from __future__ import annotations

import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest
from real_images import CLASS_NAMES, CLASSES, SIZE, Pixels, painting, paintings, real
from rich.progress import Progress

from trainer.data.arrays import ArrayImages
from trainer.errors import DataError, StatisticsError
from trainer.evaluation.features import feature_chunks, split
from trainer.evaluation.frechet import FeatureStatistics
from trainer.evaluation.images import RealImages
from trainer.evaluation.judge import Figures, Judge
from trainer.evaluation.statistics import ReferenceStatistics

QUIET = Progress(disable=True)


def reference(count: int = 60, extractor: str | None = "pixels", size: int = SIZE) -> ReferenceStatistics:
    random = np.random.default_rng(0)
    measured = FeatureStatistics.of(random.normal(size=(count, size * size * 3)))
    return ReferenceStatistics(measured.mean, measured.covariance, extractor, count, "ref.npz")


def test_new_paintings_are_close_and_right() -> None:
    judge = Judge(Pixels(), QUIET, real=real(300))
    figures = judge.figures(*paintings(300, 0))
    assert figures.images == 300
    assert figures.centroid_accuracy == 1.0
    assert figures.precision is not None
    assert figures.precision > 0.8
    assert figures.recall is not None
    assert figures.recall > 0.8
    assert figures.class_diversity == pytest.approx(judge.real.class_diversity if judge.real else 0, rel=0.05)


def test_one_class_only_has_no_recall_of_others() -> None:
    judge = Judge(Pixels(), QUIET, real=real(300))
    images = np.stack([painting(2, seed) for seed in range(100)])
    figures = judge.figures(images, np.full(100, 2))
    assert figures.precision is not None
    assert figures.precision > 0.8
    assert figures.recall is not None
    assert figures.recall <= 0.2
    assert figures.frechet_distance > 10 * judge.figures(*paintings(100, 0)).frechet_distance


def test_copies_are_told_from_new_images() -> None:
    known = real(60)
    images, labels = paintings(60, 5000)
    judge = Judge(Pixels(), QUIET, real=known)
    copies, others = judge.figures(images, labels), judge.figures(*paintings(60, 0))
    assert copies.nearest_real_distance == pytest.approx(0, abs=1e-4)
    assert copies.frechet_distance == pytest.approx(0, abs=1e-2)
    assert (copies.precision, copies.recall) == (1, 1)
    assert others.nearest_real_distance is not None
    assert others.nearest_real_distance > 10


@pytest.mark.parametrize("size", [1, 7, 500])
def test_a_stream_gives_the_figures_of_the_whole(size: int) -> None:
    judge = Judge(Pixels(), QUIET, real=real())
    images, labels = paintings(1200, 0)
    pieces = [(images[i : i + size], labels[i : i + size]) for i in range(0, 1200, size)]
    streamed, whole = judge.figures_of(iter(pieces)), judge.figures(images, labels)
    assert streamed.model_dump() == pytest.approx(whole.model_dump(), rel=1e-9)


def test_images_are_not_kept() -> None:
    class Means(Pixels):
        def __call__(self, images: np.ndarray) -> np.ndarray:
            return images.mean(axis=(1, 2)).astype(np.float32)

    judge = Judge(Means(), QUIET, statistics=reference(size=1))
    random = np.random.default_rng(0)

    def stream() -> Iterator[tuple[np.ndarray, None]]:
        for _ in range(40):
            yield random.integers(0, 256, (32, 128, 128, 3), np.uint8), None

    tracemalloc.start()
    figures = judge.figures_of(stream())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert figures.images == 1280
    assert peak < 1280 * 128 * 128 * 3 / 4


def test_statistics_alone_give_the_frechet_distance_alone() -> None:
    judge = Judge(Pixels(), QUIET, statistics=reference())
    figures = judge.figures(*paintings(10, 0))
    assert figures == Figures(images=10, frechet_distance=figures.frechet_distance)
    assert figures.frechet_distance > 0
    assert judge.real is None


def test_statistics_of_the_real_images_give_the_same_distance() -> None:
    images = paintings(40, 0)
    chunks = feature_chunks(Pixels(), split(*paintings(60, 5000)), QUIET)
    saved = ReferenceStatistics.of(
        FeatureStatistics.of(np.concatenate([rows for rows, _ in chunks])), extractor="pixels", source="x"
    )
    from_file = Judge(Pixels(), QUIET, statistics=saved).figures(*images)
    from_images = Judge(Pixels(), QUIET, real=real()).figures(*images)
    assert from_file.frechet_distance == pytest.approx(from_images.frechet_distance, rel=1e-9)


def test_both_are_used_where_both_are_given() -> None:
    both = Judge(Pixels(), QUIET, real=real(), statistics=reference()).figures(*paintings(40, 0))
    alone = Judge(Pixels(), QUIET, statistics=reference()).figures(*paintings(40, 0))
    assert both.frechet_distance == alone.frechet_distance
    assert both.centroid_accuracy == 1.0
    assert both.precision is not None


def test_without_neighbours_no_image_is_compared_with_an_image() -> None:
    judge = Judge(Pixels(), QUIET, real=real(), neighbours=False)
    full = Judge(Pixels(), QUIET, real=real()).figures(*paintings(40, 0))
    figures = judge.figures(*paintings(40, 0))
    missing = {"nearest_real_distance": None, "precision": None, "recall": None}
    assert figures == full.model_copy(update=missing)
    assert judge.real is not None
    assert judge.real.class_diversity is None


def test_images_without_labels_have_no_figures_of_classes() -> None:
    judge = Judge(Pixels(), QUIET, real=real())
    figures = judge.figures(paintings(40, 0)[0], None)
    assert (figures.centroid_accuracy, figures.class_diversity) == (None, None)
    assert figures.precision is not None


@pytest.mark.parametrize("fold", [1, 2])
@pytest.mark.parametrize("count", [5, 70])
def test_real_images_are_the_bytes_of_their_file(fold: int, count: int) -> None:
    images, labels = paintings(count, 3)
    batches = list(RealImages(ArrayImages(images, labels, CLASS_NAMES, fold=fold), "x").batches())
    assert np.array_equal(np.concatenate([batch for batch, _ in batches]), images)
    assert np.array_equal(np.concatenate([batch for _, batch in batches]), labels)
    assert max(len(batch) for batch, _ in batches) <= 32


def test_latents_are_refused() -> None:
    class Latents:
        class_names, labels, shape = CLASS_NAMES, np.arange(CLASSES), (4, 64, 64)

        def __len__(self) -> int:
            return CLASSES

        def read(self, indices: np.ndarray) -> None:
            raise AssertionError

    with pytest.raises(DataError, match="4 channels, which are no RGB pixels"):
        RealImages(Latents(), "latents.zip")


@pytest.mark.parametrize(
    ("statistics", "fault"),
    [
        (reference(extractor="inception-v3"), "are of inception-v3, not of pixels"),
        (reference(extractor=None, size=5), "are of 75 features, pixels has 48"),
        (None, "nothing to compare with"),
    ],
)
def test_wrong_references_are_refused_at_once(statistics: ReferenceStatistics | None, fault: str) -> None:
    with pytest.raises(StatisticsError, match=fault):
        Judge(Pixels(), QUIET, statistics=statistics)


def test_a_class_without_real_images_is_named() -> None:
    images, labels = paintings(40, 0)
    fewer = ArrayImages(images[labels != 3], labels[labels != 3], CLASS_NAMES)
    with pytest.raises(StatisticsError, match="class 3 has no image"):
        Judge(Pixels(), QUIET, real=RealImages(fewer, "x"))


def test_bad_streams_are_refused() -> None:
    judge = Judge(Pixels(), QUIET, real=real())
    images, labels = paintings(10, 0)
    with pytest.raises(StatisticsError, match="there are no images"):
        judge.figures_of([])
    with pytest.raises(StatisticsError, match="some of the images have labels"):
        judge.figures_of([(images, labels), (images, None)])
    with pytest.raises(StatisticsError, match="3 neighbours need more than 3"):
        judge.figures(images[:3], labels[:3])
