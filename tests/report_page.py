"""A page of HTML as a browser takes it."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser

from PIL import Image

VOID = {"meta", "img", "br", "path", "use"}


class Page(HTMLParser):
    """What a page holds; a part that is not closed where it should be is an error."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: list[list[list[str]]] = []
        self.facts: dict[str, str] = {}
        self.images: dict[str, Image.Image] = {}
        self.charts: dict[str, list[dict[str, str]]] = {}
        self.links: list[str] = []
        self.ids: list[str] = []
        self.text = ""
        self._open: list[str] = []
        self._words: list[str] = []
        self._term = ""
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.links += [
            given[name] for name in ("src", "href", "xlink:href", "action", "data") if name in given
        ]
        self.links += re.findall(r"url\(([^)]*)\)", " ".join(given.values()))
        self.ids += [given["id"]] if "id" in given else []
        if tag == "img":
            kind, _, data = given["src"].partition("base64,")
            assert kind == "data:image/png;"
            self.images[given["alt"]] = Image.open(io.BytesIO(base64.b64decode(data)))
        if tag == "svg" and "aria-label" in given:
            self.charts[given["aria-label"]] = []
        if "svg" in self._open and tag == "path" and self.charts:
            list(self.charts.values())[-1].append(given)
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag not in VOID:
            self._open.append(tag)
            self._words = []

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag in VOID:
            return
        assert self._open.pop() == tag
        words = "".join(self._words)
        if tag in ("td", "th"):
            self.tables[-1][-1].append(words)
        if tag == "dt":
            self._term = words
        if tag == "dd":
            self.facts[self._term] = words

    def handle_data(self, data: str) -> None:
        self._words.append(data)
        if "style" not in self._open:
            self.text += data
