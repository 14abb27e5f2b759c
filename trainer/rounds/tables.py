"""What a report tells in numbers."""

from __future__ import annotations

from trainer.evaluation.judge import Figures
from trainer.rounds.history import CandidateHistory, RoundHistory, RunHistory, value_of
from trainer.rounds.markup import DASH, change, facts, number, section, table
from trainer.rounds.records import Trial


def lead(history: RunHistory) -> str:
    """Return the outcome in a sentence."""
    label, figures = history.best
    before, after = (value_of(each, history.metric) for each in (history.base.generated, figures))
    ended = sum(round_.result is not None for round_ in history.rounds)
    rounds = f"after {ended} of at most {history.record.config.rounds} rounds"
    if not history.published:
        return f"Nothing is better than the parent {label} {rounds}."
    title = history.titles[history.metric]
    return (
        f"{label} is the best {rounds}: {title} {number(before)} → {number(after)}, {change(before, after)}."
    )


def summary(history: RunHistory) -> str:
    """Return the figures of the parent and of the best version, and all that they depend on."""
    base, plan = history.base, history.base.plan
    label, figures = history.best
    rows = []
    for name, title in history.titles.items():
        before, after = value_of(base.generated, name), value_of(figures, name)
        rows.append((title, number(before), number(after), change(before, after)))
    sampler = plan.model_dump(exclude_none=True, exclude={"images", "seed"})
    sampler["precision"] = history.record.config.evaluation.precision
    real = "" if base.frechet.images is None else f", {base.frechet.images} images"
    known = {
        "Parent": history.record.parent,
        "Best version": label,
        "Published": ", ".join(history.published) or "nothing",
        "Method": history.record.config.method.kind,
        "Features": base.extractor,
        "Compared with": f"{base.frechet.source}{real}",
        "Judged by": f"{plan.images} images, seeds {plan.seed} to {plan.seed + plan.images - 1}",
        "Sampler": ", ".join(f"{name} {value}" for name, value in sampler.items()),
    }
    if base.real is not None and base.real.class_diversity is not None:
        known["Class diversity of the real images"] = number(base.real.class_diversity)
    return section("Summary", "", table(("Figure", "Parent", "Best", "Change"), rows), facts(known))


def rounds(history: RunHistory) -> str:
    """Return how each candidate of each round fared at its best."""
    title = history.titles[history.metric]
    head = (
        "Round",
        "Candidate",
        "Training",
        "Best after",
        "Weights",
        title,
        "Reference",
        "Change",
        "Outcome",
    )
    rows = []
    for round_ in history.rounds:
        before = value_of(round_.reference, history.metric)
        for candidate in round_.candidates:
            best = candidate.trials.best(history.metric)
            after = None if best is None else value_of(best.figures, history.metric)
            made = (DASH, DASH) if best is None else (f"{best.images} images", _weights(best))
            fate = history.fate(candidate, round_)
            numbers = (number(after), number(before), change(before, after))
            rows.append(
                (str(round_.number), candidate.name, fate, *made, *numbers, _outcome(round_, candidate))
            )
    return section("Rounds", "", table(head, rows))


def evaluations(history: RunHistory) -> str:
    """Return the figures of all evaluations."""

    def values(figures: Figures) -> list[str]:
        return [number(value_of(figures, name)) for name in history.titles]

    head = ("Round", "Candidate", "Images of training", "Weights", *history.titles.values())
    rows = [(DASH, history.record.parent, "0", DASH, *values(history.base.generated))]
    rows += [
        (str(round_.number), candidate.name, str(trial.images), _weights(trial), *values(trial.figures))
        for round_ in history.rounds
        for candidate in round_.candidates
        for trial in candidate.trials.all
    ]
    return section("Evaluations", "", table(head, rows))


def _weights(trial: Trial) -> str:
    return trial.average if trial.w is None else f"{trial.average}, w {trial.w:g}"


def _outcome(round_: RoundHistory, candidate: CandidateHistory) -> str:
    result = round_.result
    if result is None or result.candidate != candidate.name:
        return ""
    return "not better than the reference" if result.version is None else f"published as {result.version}"
