"""What the documentation sends to a server is answered, and nothing that a server answers is left out."""

from __future__ import annotations

import dataclasses
import io
import re
import shlex
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from fake_engine import FakeEngine
from fake_server import serving_app, wait_until_ready
from test_docs import PAGES, ROOT
from typer.testing import CliRunner

from models.references import parse_reference
from models.version import ModelVersion
from server import logs
from server.api.problems import KINDS
from server.app import create_app
from server.cli import cli
from server.settings import Settings

API = ROOT / "docs" / "api.md"
HERE = "localhost:8000"
COMMAND = "python -m server generate"


def examples(language: str, pages: Sequence[Path]) -> list[Any]:
    """Return the blocks of a language that need a server."""
    return [
        pytest.param(block, id=f"{path.name}-{number}")
        for path in pages
        for number, block in enumerate(re.findall(rf"```{language}\n(.*?)```", path.read_text(), re.DOTALL))
        if HERE in block and COMMAND not in block
    ]


def without_golden_image(version: ModelVersion) -> ModelVersion:
    """Return a version that a fake engine may serve: its images are not the network's."""
    return dataclasses.replace(version, spec=version.spec.model_copy(update={"golden": None}))


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    settings = Settings()
    references = [parse_reference(name, settings.registry) for name in settings.models]
    versions = [without_golden_image(opened) for reference in references for opened in reference.open()]
    app = create_app(settings, versions, lambda *_: FakeEngine(cost_s=0.003), references)
    with serving_app(app) as url:
        with httpx.Client(base_url=url) as client:
            wait_until_ready(client)
        yield url.removeprefix("http://")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty folder, with a curl that tells refusals by its exit code."""
    (tmp_path / ".curlrc").write_text("fail\nsilent\nshow-error\nmax-time = 20\n")
    monkeypatch.setenv("CURL_HOME", str(tmp_path))
    monkeypatch.setenv("DDO_API_KEY", "ddo_example")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("block", examples("python", PAGES))
def test_python_examples_are_answered(block: str, address: str) -> None:
    exec(compile(block.replace(HERE, address), "documentation", "exec"), {})


@pytest.mark.parametrize("block", examples("bash", [API]))
def test_shell_examples_are_answered(block: str, address: str) -> None:
    ended = subprocess.run(
        ["bash", "-eo", "pipefail", "-c", block.replace(HERE, address)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout[-2000:] + ended.stderr[-2000:]


@pytest.mark.parametrize("line", re.findall(rf"^{COMMAND}.*{HERE}.*", API.read_text(), re.MULTILINE))
def test_commands_make_their_images(line: str, address: str, folder: Path) -> None:
    """Without a server they need the model itself: the README's is run beside its other commands."""
    logs.configure("error", io.StringIO())  # The server's own, which is in this process.
    ended = CliRunner().invoke(cli, shlex.split(line.replace(HERE, address))[3:])
    assert ended.exit_code == 0, ended.output
    made = [folder / name for name in ended.stdout.split()]
    assert made
    assert all(path.stat().st_size for path in made)


def test_every_path_is_told(address: str) -> None:
    text = API.read_text()
    paths = httpx.get(f"http://{address}/openapi.json").json()["paths"]
    assert len(paths) > 15
    for path in paths:
        *_, last = path.split("/")
        assert path in text or f"`{last}`" in text, f"{path} is not in {API.name}"


def test_every_refusal_of_the_server_has_its_exception_there() -> None:
    told = {
        int(status)
        for row in re.findall(r"^\| ([\d, ]+) \|", API.read_text(), re.MULTILINE)
        for status in row.split(",")
    }
    left_out = {400, 431, 499}  # not HTTP, or nobody is there to read it
    assert {kind.status for kind in KINDS.values()} - left_out == told
