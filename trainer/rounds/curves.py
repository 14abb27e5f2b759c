"""Curves as SVG that stands inside a page and takes its colours."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

_INK = "#010203"
"""Stands for the colour of the page's text until the drawing is done."""
_STYLE: dict[Any, Any] = {
    **dict.fromkeys(("axes.edgecolor", "axes.labelcolor", "text.color", "xtick.color", "ytick.color"), _INK),
    **dict.fromkeys(("axes.spines.top", "axes.spines.right", "axes.formatter.useoffset"), False),
    "axes.ymargin": 0.15,
    "font.size": 9,
    "svg.fonttype": "none",
}
_COLOURS = ("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#17becf", "#bcbd22")
_DASHES = ((), (5, 2), (1, 1.5), (5, 2, 1, 2))
_LEFT, _BOTTOM, _RIGHT, _TOP = 0.55, 0.25, 0.15, 0.15
"""Margins around the axes, in inches."""
_POINTS_PER_INCH = 72
_MOST_POINTS = 200


class Style(NamedTuple):
    """How a curve is drawn: an SVG colour, and lengths of dashes and gaps in line widths; none: solid."""

    colour: str
    dashes: Sequence[float]


class Curve(NamedTuple):
    """A name and points."""

    name: str
    x: Sequence[float]
    y: Sequence[float]


class Mark(NamedTuple):
    """A point that has a word to it."""

    x: float
    y: float
    word: str


class Chart(NamedTuple):
    """Curves over images of training.

    Attributes:
        title: what y is.
        curves: in the order of drawing.
        edges: where rounds begin, and the last one ends.
        levels: y of each round's reference; empty: it has none.
        marks: points to point out.
        dots: draw the points, not only the lines between them.
    """

    title: str
    curves: Sequence[Curve]
    edges: Sequence[float]
    levels: Sequence[float] = ()
    marks: Sequence[Mark] = ()
    dots: bool = False


def styles(names: Sequence[str]) -> dict[str, Style]:
    """Tell curves apart by colour, then by dashes; after 36 names it begins anew."""
    pairs = [Style(colour, dashes) for dashes in _DASHES for colour in _COLOURS]
    return {name: pairs[index % len(pairs)] for index, name in enumerate(names)}


def draw(chart: Chart, styles: Mapping[str, Style], *, width: float, height: float) -> str:
    """Return a chart as an `<svg>` element; the same chart gives the same bytes.

    Args:
        chart: what to draw.
        styles: of every curve by its name.
        width: inches of 72 points, the unit of the viewBox.
        height: likewise.
    """
    inner = (width - _LEFT - _RIGHT, height - _BOTTOM - _TOP)
    # Ids inside the SVG are hashes with this salt, so those of several charts on a page differ.
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": chart.title}):
        figure = Figure((width, height))
        axes = figure.add_axes((_LEFT / width, _BOTTOM / height, inner[0] / width, inner[1] / height))
        axes.xaxis.set_major_locator(MaxNLocator(max(2, round(inner[0]))))
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.yaxis.set_major_locator(MaxNLocator(max(2, round(2 * inner[1]))))
        _plot(axes, chart, styles)
        text = io.StringIO()
        no_metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(text, format="svg", transparent=True, metadata=no_metadata)
    return _inlined(text.getvalue(), chart.title, width * _POINTS_PER_INCH, height * _POINTS_PER_INCH)


def swatch(style: Style) -> str:
    """Return a short line of a style as an `<svg>` element."""
    dashes = " ".join(f"{2 * length:g}" for length in style.dashes)
    return (
        '<svg class="swatch" viewBox="0 0 28 8" aria-hidden="true"><path d="M 0 4 H 28" '
        f'stroke="{style.colour}" stroke-width="2" stroke-dasharray="{dashes}"/></svg>'
    )


def _plot(axes: Axes, chart: Chart, styles: Mapping[str, Style]) -> None:
    for edge in chart.edges[1:-1]:
        axes.axvline(edge, color=_INK, alpha=0.25, linewidth=0.6)
    if chart.levels:
        axes.stairs(chart.levels, chart.edges, baseline=None, color=_INK, alpha=0.6, linestyle="--")
    for curve in chart.curves:
        style = styles[curve.name]
        points = (_thinned(curve.x), _thinned(curve.y))
        marker = "." if chart.dots else ""
        (line,) = axes.plot(*points, color=style.colour, marker=marker, clip_on=False)
        line.set_dashes(style.dashes)
    for mark in chart.marks:
        axes.plot(mark.x, mark.y, marker="*", markersize=10, color=_INK)
        axes.annotate(
            mark.word, (mark.x, mark.y), textcoords="offset points", xytext=(0, 7), ha="center", clip_on=False
        )
    axes.set_xlim(chart.edges[0], chart.edges[-1])


def _thinned(values: Sequence[float]) -> list[float]:
    """Return means of neighbours where there are more points than a page can show."""
    if len(values) <= _MOST_POINTS:
        return list(values)
    return [float(part.mean()) for part in np.array_split(np.asarray(values), _MOST_POINTS)]


def _inlined(document: str, title: str, width: float, height: float) -> str:
    """Make an SVG file an element; names of groups go, since several elements would share them."""
    _, _, tag_and_body = document.partition("<svg")
    _, _, body = tag_and_body.partition(">")
    body = re.sub(r'<g id="[^"]*"', "<g", body).replace(_INK, "currentColor")
    return f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(title)}">{body}'
