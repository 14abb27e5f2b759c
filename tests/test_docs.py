"""What the documentation shows runs as it stands, or says what it needs; what it lists is what there is."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import typer
from fake_server import wait_until_ready

import benchmarks.cli
import engines.cli
import models.cli
import server.cli
import trainer.cli
from models.catalogue import CatalogueEntry, catalogue
from server.api.problems import INTERNAL, KINDS

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCKS = [
    pytest.param(block, id=f"{path.name}-{number}")
    for path in PAGES
    for number, block in enumerate(re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL))
    if "localhost:8000" not in block  # test_docs_api.py
]
# After ```sh stands why a test does not run a block.
NEEDS = {"network", "gpu", "containers", "root", "long", "serves"}
SHELL = [
    pytest.param(needs, block, path.name, id=f"{path.name}-{number}")
    for path in PAGES
    for number, (needs, block) in enumerate(
        re.findall(r"^```sh *(.*?)\n(.*?)^```$", path.read_text(), re.DOTALL | re.MULTILINE)
    )
]
COMMANDS = sorted(
    {
        (package, " ".join(rest.split()))
        for path in PAGES
        for package, rest in re.findall(
            r"^(?: {4}|\S*=\S* )*(?:\S*/)?python -m (benchmarks|engines|models|server|trainer)(?!\.)\b(.*)$",
            path.read_text().replace("\\\n", " "),
            re.MULTILINE,
        )
    }
)
APPS = {
    package: typer.main.get_command(app)
    for package, app in {
        "benchmarks": benchmarks.cli.cli,
        "engines": engines.cli.app,
        "models": models.cli.app,
        "server": server.cli.cli,
        "trainer": trainer.cli.app,
    }.items()
}


@pytest.mark.parametrize("block", BLOCKS)
def test_python_examples_run(block: str) -> None:
    exec(compile(block, "documentation", "exec"), {})


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Serve the bundled models as `make serve` does; give host and port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "server", "--port", str(port)], cwd=ROOT, stderr=subprocess.DEVNULL
    )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
            wait_until_ready(client, timeout_s=300)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(60)


@pytest.mark.parametrize(("needs", "block", "page"), [param for param in SHELL if not param.values[0]])
def test_shell_examples_run(needs: str, block: str, page: str, address: str, tmp_path: Path) -> None:
    assert not needs
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    if page != "troubleshooting.md":  # where refusals are shown
        (tmp_path / ".curlrc").write_text("fail")
    (tmp_path / "assets").symlink_to(ROOT / "assets")
    block = block.replace("localhost:8000", address).replace(".venv/bin/python", "python")
    folders = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    ran = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block],
        cwd=tmp_path,
        env={**os.environ, "PATH": folders, "PYTHONPATH": str(ROOT), "CURL_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert not [path for path in tmp_path.iterdir() if path.is_file() and not path.stat().st_size]


@pytest.mark.parametrize(("needs", "block", "page"), SHELL)
def test_shell_examples_say_what_they_need(needs: str, block: str, page: str) -> None:
    assert block.strip(), page
    assert not needs or needs in NEEDS


@pytest.mark.parametrize(("package", "rest"), COMMANDS)
def test_commands_and_options_exist(package: str, rest: str) -> None:
    """Those of commands that are too long to run, too."""
    command, words = APPS[package], rest.partition("#")[0].split()
    while (commands := getattr(command, "commands", {})) and words and not words[0].startswith("-"):
        name = words.pop(0)
        assert name in commands, f"{package} has no command {name!r}"
        command = commands[name]
    known = {
        option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)
    }
    options = {word.partition("=")[0] for word in words if word.startswith("--")}
    assert options <= known | {"--help"}, sorted(options - known)


def test_links_inside_the_repository_lead_somewhere() -> None:
    for path in PAGES:
        for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]+))?\)", path.read_text()):
            page = path.parent / target if target else path
            assert page.exists(), f"{path.name} links to {target}"
            if anchor:
                assert anchor in headings(page), f"{path.name} links to {target}#{anchor}"


def headings(page: Path) -> set[str]:
    """Return the anchors that GitHub makes of a page's headings."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_every_problem_has_its_entry() -> None:
    text = (ROOT / "docs" / "troubleshooting.md").read_text()
    entries = re.findall(r"^### ([\w-]+)\n\n\*\*(\d+)\*\* (.+)\.\n\n\S", text, re.MULTILINE)
    kinds = {(kind.slug, str(kind.status), kind.title) for kind in (*KINDS.values(), INTERNAL)}
    assert sorted(entries) == sorted(kinds)


def test_models_are_those_of_the_catalogue() -> None:
    text = (ROOT / "docs" / "models.md").read_text()
    rows = [
        [cell.strip(" `") for cell in row.split("|")[1:-1]]
        for row in re.findall(r"^\| `.*", text, re.MULTILINE)
    ]
    assert [(row[0], row[3], row[5], row[6]) for row in rows] == [
        (entry.name, steps_of(entry), entry.licence, str(entry.metrics.get("published_fid", "-")))
        for entry in catalogue().values()
    ]
    assert all(
        row[1] == entry.title.split(",")[0] for row, entry in zip(rows, catalogue().values(), strict=True)
    )


def steps_of(entry: CatalogueEntry) -> str:
    return "-" if entry.defaults.kind == "var" else str(entry.defaults.steps)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_stand_in_blocks_that_are_run_or_marked(page: Path) -> None:
    prose = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    command = r"^ {4}(?:\S*/)?(?:python|make|curl|docker|torchrun|pip|kubectl|[A-Z_]+=\S+) .*$"
    assert not re.findall(command, prose, re.MULTILINE), (
        "put them into a block ```sh, or ```sh with what they need"
    )
