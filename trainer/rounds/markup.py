"""Parts of an HTML page. Texts are escaped here; parts that are put into others are HTML already."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape

DASH = "\N{EN DASH}"


def number(value: float | None) -> str:
    """Return a figure with five digits; None: a dash."""
    return DASH if value is None else f"{value:.5g}"


def change(before: float | None, after: float | None) -> str:
    """Return by how many percent a figure has changed; a dash where that means nothing."""
    if before is None or after is None or before == 0:
        return DASH
    return f"{(after - before) / abs(before):+.1%}"


def section(title: str, text: str, *parts: str) -> str:
    """Return a part of the page under its title, with a sentence or none."""
    words = f"<p>{escape(text)}</p>" if text else ""
    return "\n".join([f"<section><h2>{escape(title)}</h2>{words}", *parts, "</section>"])


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table that scrolls by itself where the page is narrow."""
    names = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    lines = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>\n" for row in rows)
    return (
        f'<div class="wide"><table>\n<thead><tr>{names}</tr></thead>\n<tbody>\n{lines}</tbody></table></div>'
    )


def facts(known: Mapping[str, str]) -> str:
    """Return names and what they are."""
    lines = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>\n" for name, value in known.items())
    return f"<dl>\n{lines}</dl>"


def figure(content: str, caption: str, *, kind: str = "panel") -> str:
    """Return something to look at under its name; `kind` is `panel` or `main`."""
    return f'<figure class="{kind}"><figcaption>{escape(caption)}</figcaption>{content}</figure>'


def image(url: str, text: str) -> str:
    """Return an image, and what to read in its place."""
    return f'<img src="{escape(url)}" alt="{escape(text)}">'


def legend(entries: Iterable[tuple[str, str]]) -> str:
    """Return what curves are called, each beside a swatch of it."""
    lines = "".join(f"<span>{swatch} {escape(name)}</span>\n" for swatch, name in entries)
    return f'<p class="legend">{lines}</p>'


def panels(figures: Iterable[str]) -> str:
    """Return figures side by side, as many as the page has room for."""
    return f'<div class="panels">{"".join(figures)}</div>'


def folded(title: str, text: str) -> str:
    """Return a long text, as it is, that opens when it is asked for."""
    return f"<details><summary>{escape(title)}</summary><pre>{escape(text)}</pre></details>"
