"""What a report shows: curves and sheets of images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from trainer.evaluation.judge import Figures
from trainer.rounds.charts import LOGGED, figure_chart, log_chart
from trainer.rounds.curves import Chart, Style, draw, styles, swatch
from trainer.rounds.history import RunHistory, value_of
from trainer.rounds.markup import figure, image, legend, number, panels, section
from trainer.rounds.sheets import data_urls

T = TypeVar("T")

_MOST_SHEETS = 8
_BYTES_OF_SHEETS = 2_000_000


def figures(history: RunHistory) -> str:
    """Return curves of the metric, large, and of every other figure."""
    main, *others = [figure_chart(history, name) for name in history.titles]
    looks = _looks([main])
    return section(
        "Figures",
        "Across: images of training, round after round. Each round starts from its reference, the dashed "
        "level; a star is a version that was published.",
        figure(draw(main, looks, width=8.5, height=3.4), main.title, kind="main"),
        _legend(looks),
        _panels(others, looks),
    )


def training(history: RunHistory) -> str:
    """Return curves of what the training measured."""
    charts = [chart for name in LOGGED if (chart := log_chart(history, name)).curves]
    if not charts:
        return section("Training", "It has measured nothing yet.")
    looks = _looks(charts)
    return section(
        "Training",
        "Means over the steps since the last report, before any average of the weights.",
        _legend(looks),
        _panels(charts, looks),
    )


def images(history: RunHistory) -> str:
    """Return sheets of the parent and of each round's best, of some rounds where there are many."""
    found = [(history.base_sheet, f"Parent {history.record.parent}", history.base.generated)]
    for round_ in history.rounds:
        best = round_.best(history.metric)
        if best is not None:
            candidate, trial = best
            found.append((candidate.sheet, f"Best of round {round_.number}", trial.figures))
    shown = _spread([sheet for sheet in found if sheet[0].exists()])
    if not shown:
        return section("Images", "The run has kept none.")
    captions = [_caption(history, name, its_figures) for _, name, its_figures in shown]
    urls = data_urls([path for path, *_ in shown], _BYTES_OF_SHEETS)
    sheets = [figure(image(url, text), text) for url, text in zip(urls, captions, strict=True)]
    return section("Images", "Every sheet has the same classes and seeds.", panels(sheets))


def _caption(history: RunHistory, name: str, its_figures: Figures) -> str:
    return f"{name}: {history.titles[history.metric]} {number(value_of(its_figures, history.metric))}"


def _spread(sheets: Sequence[T]) -> list[T]:
    """Return the first, the last, and others evenly between them."""
    if len(sheets) <= _MOST_SHEETS:
        return list(sheets)
    last = len(sheets) - 1
    return [sheets[round(step * last / (_MOST_SHEETS - 1))] for step in range(_MOST_SHEETS)]


def _looks(charts: Sequence[Chart]) -> dict[str, Style]:
    return styles(list(dict.fromkeys(curve.name for chart in charts for curve in chart.curves)))


def _legend(looks: Mapping[str, Style]) -> str:
    return legend((swatch(style), name) for name, style in looks.items())


def _panels(charts: Sequence[Chart], looks: Mapping[str, Style]) -> str:
    return panels(figure(draw(chart, looks, width=4, height=2.2), chart.title) for chart in charts)
