"""Cached files: found by what they depend on, never trusted, never fatal, bounded."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from engines.backends.artifact_cache import ArtifactCache, default_folder


class Counted:
    """Text that is made anew each time, with its number."""

    def __init__(self, cache: ArtifactCache) -> None:
        self._cache = cache
        self.made = 0

    def get(self, **sources: str) -> str:
        return self._cache.get(sources, read=bytes.decode, make=self._make, write=str.encode)

    def _make(self) -> str:
        self.made += 1
        return f"made {self.made}"


def test_an_artifact_is_made_once_for_its_sources(tmp_path: Path) -> None:
    counted = Counted(ArtifactCache(tmp_path / "new" / "folder"))
    assert [counted.get(model=model, cpu="a") for model in "xyx"] == ["made 1", "made 2", "made 1"]
    assert Counted(ArtifactCache(tmp_path / "new" / "folder")).get(cpu="a", model="y") == "made 2"


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        flip,
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(b""),
        lambda path: path.with_suffix(".json").unlink(),
        lambda path: path.with_suffix(".json").write_text("{"),
        lambda path: path.with_suffix(".json").write_text("[]"),
        lambda path: (path.unlink(), path.mkdir()),
    ],
    ids=["flipped", "truncated", "emptied", "no record", "half a record", "no digest", "a folder"],
)
def test_what_is_damaged_is_made_again(tmp_path: Path, damage: object) -> None:
    counted = Counted(ArtifactCache(tmp_path))
    counted.get(model="x")
    (path,) = tmp_path.glob("*.bin")
    damage(path)  # type: ignore[operator]
    assert counted.get(model="x") == "made 2"


def test_what_cannot_be_read_is_made_again_and_then_found(tmp_path: Path) -> None:
    cache = ArtifactCache(tmp_path)
    numbers = {"read": int, "make": lambda: 7, "write": lambda number: str(number).encode()}
    cache.get({}, read=bytes.decode, make=lambda: "seven", write=str.encode)
    assert cache.get({}, **numbers) == 7
    assert cache.get({}, **{**numbers, "make": lambda: pytest.fail("made again")}) == 7


def test_a_folder_that_cannot_be_written_is_not_fatal(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    counted = Counted(ArtifactCache(tmp_path / "file" / "folder"))
    assert [counted.get(model="x") for _ in range(2)] == ["made 1", "made 2"]


def test_the_longest_unused_goes_first(tmp_path: Path) -> None:
    counted = Counted(ArtifactCache(tmp_path, most_bytes=3 * len("made 1")))
    for age, model in enumerate("cba", start=1):
        counted.get(model=model)
        newest = max(tmp_path.glob("*.bin"), key=lambda path: path.stat().st_mtime_ns)
        os.utime(newest, (1000 - age, 1000 - age))
    counted.get(model="a")
    assert counted.get(model="d") == "made 4"
    assert [counted.get(model=model) for model in "acd"] == ["made 3", "made 1", "made 4"]
    assert counted.get(model="b") == "made 5"
    assert len(list(tmp_path.iterdir())) == 6


def test_the_record_says_what_a_file_was_made_from(tmp_path: Path) -> None:
    Counted(ArtifactCache(tmp_path)).get(model="x", cpu="a")
    (path,) = tmp_path.glob("*.json")
    assert json.loads(path.read_text())["sources"] == {"cpu": "a", "model": "x"}


def test_the_default_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "ddo-serve"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert default_folder() == tmp_path / "home" / ".cache" / "ddo-serve"
