"""`python -m server generate`, with a server and without."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import PIL.Image
import pytest
from click.testing import Result
from fake_engine import FakeEngine
from fake_registry import FakeLoader, pixels, publish, serving_registry
from fake_server import wait_until_ready
from test_server_access import USER, keys_file
from typer.testing import CliRunner

import engines
from models.registry import Registry
from server import logs
from server.access.settings import AccessSettings
from server.cli import cli
from server.settings import Settings


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    registry = Registry(tmp_path_factory.mktemp("registry"))
    for _ in range(2):
        publish(registry)
    registry.point("fake", 2)
    return registry


@pytest.fixture(params=["here", "there"])
def place(
    request: pytest.FixtureRequest, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[list[str]]:
    """Give the arguments for images from an engine in this process, and from a server that asks for a key."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(engines, "load", FakeLoader(), raising=False)
    monkeypatch.setenv("DDO_MODELS", f"{registry.root}/fake/all")
    if request.param == "here":
        yield []
        return
    logs.configure("error", io.StringIO())  # The server's own, which is in this process.
    access = AccessSettings(keys=keys_file(tmp_path))
    settings = Settings(access=access, registry_poll_s=0.01)
    with serving_registry(registry, FakeLoader(), f"{registry.root}/fake/all", settings=settings) as url:
        with httpx.Client(base_url=url) as client:
            wait_until_ready(client)
        monkeypatch.setenv("DDO_API_KEY", USER)
        yield ["--url", url]


def run(*arguments: str | int) -> Result:
    return CliRunner().invoke(cli, ["generate", *map(str, arguments)])


def read(path: Path) -> np.ndarray:
    with PIL.Image.open(path) as image:
        return np.asarray(image)


def test_every_image_has_a_file_and_the_grid_all(place: list[str], tmp_path: Path) -> None:
    ended = run("--class", "Dog Face", "--n", 20, "--seed", 7, "--out", "images", "--grid", "all.png", *place)
    assert ended.exit_code == 0, ended.output
    expected = [pixels(2, seed=seed, steps=4) for seed in range(7, 27)]
    files = [tmp_path / "images" / f"dog-face-{seed}.png" for seed in range(7, 27)]
    for file, image in zip(files, expected, strict=True):
        np.testing.assert_array_equal(read(file), image)
    rows = [np.concatenate(expected[start : start + 5], axis=1) for start in range(0, 20, 5)]
    np.testing.assert_array_equal(read(tmp_path / "all.png"), np.concatenate(rows))
    assert ended.stdout.split() == [*(str(file.relative_to(tmp_path)) for file in files), "all.png"]
    assert "dog face, fake/2, seeds 7 to 26" in ended.stderr


@pytest.mark.parametrize(
    ("arguments", "version", "steps"),
    [
        (["--version", "1"], 1, 4),
        (["--model", "fake", "--steps", "2", "--solver", "heun"], 2, 2),
    ],
)
def test_model_and_settings_are_chosen(
    place: list[str], tmp_path: Path, arguments: list[str], version: int, steps: int
) -> None:
    ended = run("--class", 3, "--seed", 1, "--grid", "one.png", *arguments, *place)
    assert ended.exit_code == 0, ended.output
    np.testing.assert_array_equal(
        read(tmp_path / "one.png"), pixels(version, seed=1, steps=steps, class_id=3)
    )
    assert f"ghost, fake/{version}, seed 1" in ended.stderr
    assert [path.name for path in tmp_path.glob("*.*g")] == ["one.png"]


def test_a_drawn_seed_is_told_and_formats_are_what_they_say(place: list[str], tmp_path: Path) -> None:
    ended = run("--class", "ghost", "--format", "webp", "--grid", "grid.jpg", "--out", ".", *place)
    assert ended.exit_code == 0, ended.output
    seed = int(ended.stderr.rpartition("seed ")[2])
    np.testing.assert_array_equal(
        read(tmp_path / f"ghost-{seed}.webp"), pixels(2, seed=seed, steps=4, class_id=3)
    )
    with PIL.Image.open(tmp_path / "grid.jpg") as grid:
        assert grid.format == "JPEG"


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--class", "dgo face"], 1, "did you mean 'dog face'"),
        (["--class", "dog"], 1, "did you mean 'dog face'"),
        ([], 1, "class"),
        (["--class", "ghost", "--solver", "nope"], 1, "'nope' is none of heun, euler"),
        (["--class", "ghost", "--model", "nope"], 1, "nope"),
        (["--class", "ghost", "--version", "9"], 1, "no version 9"),
        (["--class", "ghost", "--top-p", "3"], 2, "top_p: Input should be less than or equal to 1"),
        (["--class", "ghost", "--n", "0"], 2, "--n"),
        (["--class", "ghost", "--grid", "all.gif"], 2, "has to end in .png"),
        (["--class", "ghost", "--seed", str(2**63 - 1), "--n", "2"], 2, "seed"),
    ],
)
def test_what_cannot_be_made_is_said(
    place: list[str], tmp_path: Path, arguments: list[str], code: int, says: str
) -> None:
    ended = run(*arguments, *place)
    assert ended.exit_code == code, ended.output
    assert says in " ".join(ended.stderr.replace("│", " ").split())
    assert not ended.stdout
    assert not list(tmp_path.glob("*.png"))


def test_a_missing_client_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "server.generation.remote", None)
    ended = run("--class", "ghost", "--url", "http://127.0.0.1:9")
    assert (ended.exit_code, "pip install 'ddo-serve[client]'" in ended.stderr) == (1, True)


def test_an_engine_that_fails_midway_writes_nothing(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(engines, "load", lambda *_: FakeEngine(salt=2, fail_class=1), raising=False)
    ended = run("--class", 1, "--model", f"{registry.root}/fake")
    assert isinstance(ended.exception, RuntimeError)
    assert not list(tmp_path.iterdir())
