"""Which curves show how a run went: its figures and what its training measured, round after round."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from trainer.rounds.curves import Chart, Curve, Mark
from trainer.rounds.history import CandidateHistory, RoundHistory, RunHistory, value_of
from trainer.rounds.records import Trial

LOGGED = {
    "real": "Log-ratio of real images",
    "fake": "Log-ratio of fakes",
    "accuracy": "Accuracy of the discriminator",
    "loss": "Loss",
}
"""What the log of a candidate may hold, and what a reader calls it."""


def figure_chart(history: RunHistory, name: str) -> Chart:
    """Return a figure of all evaluations; every curve starts at its round's reference.

    Args:
        history: of a run with a round or more.
        name: one of its `titles`.
    """
    curves = []
    for round_, start in _starts(history):
        for candidate in round_.candidates:
            for label, trials in _series(history, candidate):
                points = [(0, round_.reference), *((trial.images, trial.figures) for trial in trials)]
                found = [
                    (start + x, y) for x, figures in points if (y := value_of(figures, name)) is not None
                ]
                curves.append(Curve(label, *zip(*found, strict=True)))
    marks = [
        Mark((found.round - 1) * history.round_images + found.images, y, label.rpartition("/")[2])
        for label, found in history.published.items()
        if (y := value_of(found.figures, name)) is not None
    ]
    levels = [y for round_ in history.rounds if (y := value_of(round_.reference, name)) is not None]
    return Chart(history.titles[name], curves, _edges(history), levels, marks, dots=True)


def log_chart(history: RunHistory, name: str) -> Chart:
    """Return one of `LOGGED` of all candidates; the chart has no curves where no log has it."""
    curves = []
    for round_, start in _starts(history):
        for candidate in round_.candidates:
            points = [(start + line["images"], line[name]) for line in candidate.log if name in line]
            if points:
                curves.append(Curve(candidate.name, *zip(*points, strict=True)))
    return Chart(LOGGED[name], curves, _edges(history))


def _series(history: RunHistory, candidate: CandidateHistory) -> Iterator[tuple[str, list[Trial]]]:
    """Part a candidate's evaluations by what tells them apart beside its images of training."""
    several = len(history.record.config.training.averages) > 1

    def label(trial: Trial) -> str:
        average = f", {trial.average}" if several else ""
        return f"{candidate.name}{average}" + ("" if trial.w is None else f", w {trial.w:g}")

    for name, trials in groupby(sorted(candidate.trials.all, key=label), key=label):
        yield name, list(trials)


def _starts(history: RunHistory) -> Iterator[tuple[RoundHistory, int]]:
    """Give each round, and where it begins on the axis of all of them."""
    for round_ in history.rounds:
        yield round_, (round_.number - 1) * history.round_images


def _edges(history: RunHistory) -> list[float]:
    return [float(number * history.round_images) for number in range(len(history.rounds) + 1)]
