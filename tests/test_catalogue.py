"""The catalogue says what published files do not, and downloads are resumed and pinned."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import official
import pytest
from official import EDM_INIT, VAR_INIT, VQVAE_INIT
from reference import fill
from rich.console import Console

from engines.solvers import SOLVERS
from models import build, pull
from models.catalogue import CatalogueEntry, HubFile, UrlFile, catalogue, class_names, find
from models.errors import CheckpointError, DownloadError, ModelNotFoundError
from models.registry import Registry
from models.spec import DiffusionDefaults, PixelCodec, SdVaeCodec, VarDefaults, VqvaeCodec

DDO = ("edm-cifar10-uncond-vp", "edm-cifar10-cond-vp", "edm2-img64-s", "edm2-img512-l", "var-d16", "var-d30")
BASE = (*DDO, "var-d20", "var-d24", "edm-imagenet-64x64-cond-adm", "edm2-img512-xs", "edm2-img512-s")
SILENT = Console(file=io.StringIO())


def test_every_published_model_is_there() -> None:
    assert catalogue().keys() == {*BASE, *(f"{name}-ddo" for name in DDO)}


@pytest.mark.parametrize("entry", catalogue().values(), ids=catalogue())
def test_entries_are_coherent(entry: CatalogueEntry) -> None:
    spec = entry.spec()
    classes = 0 if "uncond" in entry.name else 10 if "cifar10" in entry.name else 1000
    assert len(spec.class_names) == classes
    assert entry.family == entry.name.split("-")[0]
    assert (spec.lineage.round > 0) == entry.name.endswith("-ddo")
    assert spec.licence == (
        "MIT" if entry.name in ("var-d16", "var-d20", "var-d24", "var-d30") else "CC-BY-NC-SA-4.0"
    )
    assert entry.files.keys() == {
        "main",
        *(["guide"] if spec.guidance == "guide" else []),
        *(["vqvae"] if entry.family == "var" else []),
    }
    if entry.family == "var":
        assert (spec.codec, spec.defaults) == (VqvaeCodec(), VarDefaults())
    else:
        assert spec.codec == (SdVaeCodec() if "img512" in entry.name else PixelCodec())
        assert isinstance(spec.defaults, DiffusionDefaults)
        assert spec.defaults.solver in SOLVERS


@pytest.mark.parametrize(
    ("name", "steps", "solver"),
    [
        ("edm-cifar10-cond-vp", 18, "heun"),
        ("edm-imagenet-64x64-cond-adm", 256, "heun-stochastic"),
        ("edm2-img512-l-ddo", 32, "heun"),
    ],
)
def test_sampler_defaults_are_the_papers(name: str, steps: int, solver: str) -> None:
    defaults = find(name).defaults
    assert isinstance(defaults, DiffusionDefaults)
    assert (defaults.steps, defaults.solver) == (steps, solver)


def test_imagenet_names() -> None:
    names = class_names("imagenet")
    assert len(names) == len({name.lower() for name in names}) == 1000
    chosen = {
        0: "tench",
        1: "goldfish",
        207: "golden retriever",
        281: "tabby",
        817: "sports car",
        999: "toilet tissue",
    }
    assert {number: names[number] for number in chosen} == chosen
    assert (names[134], names[517]) == ("crane (bird)", "crane (machine)")


def test_cifar10_names() -> None:
    assert class_names("cifar10")[::3] == ("airplane", "cat", "frog", "truck")


def test_unknown_entry() -> None:
    with pytest.raises(ModelNotFoundError, match="the catalogue has no 'var-d36'; it has edm-cifar10"):
        find("var-d36")


class Server(ThreadingHTTPServer):
    """Serves `content`; hangs up after `limit` bytes if there is one; remembers the ranges asked for."""

    content = b""
    limit: int | None = None
    ranges = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/file.pkl"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.server.asked.append(asked)
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and self.server.ranges else 0
        if start >= len(self.server.content):
            self.send_error(416)
            return
        self.send_response(206 if asked and self.server.ranges else 200)
        body = self.server.content[start:]
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: self.server.limit])

    def log_message(self, format: str, *args: Any) -> None:
        """Keep the tests' output clean."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("ranges", [True, False])
def test_an_interrupted_download_is_resumed(ranges: bool, server: Server, tmp_path: Path) -> None:
    server.content, server.limit, server.ranges = bytes(range(256)) * 4, 300, ranges
    destination = tmp_path / "downloads" / "file.pkl"
    with pytest.raises(OSError, match="ended after 300 of 1,024 bytes"):
        pull.fetch(server.url, destination, SILENT)
    assert not destination.exists()
    server.limit = None
    pull.fetch(server.url, destination, SILENT)
    assert destination.read_bytes() == server.content
    assert server.asked == [None, "bytes=300-"]
    assert [path.name for path in destination.parent.iterdir()] == ["file.pkl"]


def test_a_part_of_another_file_is_dropped(server: Server, tmp_path: Path) -> None:
    server.content = b"short"
    (tmp_path / "file.pkl.part").write_bytes(b"something longer")
    pull.fetch(server.url, tmp_path / "file.pkl", SILENT)
    assert (tmp_path / "file.pkl").read_bytes() == b"short"


def entry(**changes: Any) -> CatalogueEntry:
    plain = find("edm-cifar10-cond-vp").model_copy(update={"classes": None})
    return plain.model_copy(update=changes)


@pytest.fixture
def published(tmp_path: Path) -> bytes:
    init = {**EDM_INIT, "label_dim": 0}
    return official.write_pickle(
        tmp_path / "edm.pkl", official.persistent(fill(build(init)), init)
    ).read_bytes()


def test_pull_converts_and_makes_current(server: Server, published: bytes, tmp_path: Path) -> None:
    server.content = published
    registry = Registry(tmp_path / "registry")
    model = entry(files={"main": UrlFile(url=server.url)})
    version = pull.pull(model, registry, tmp_path / "downloads", SILENT)
    assert registry.open(model.name) == version
    assert version.spec.lineage.source.startswith(f"{server.url} sha256:")
    assert official.tensors_equal(
        version.network().state_dict(), fill(build({**EDM_INIT, "label_dim": 0})).state_dict()
    )
    assert pull.pull(model, registry, tmp_path / "downloads", SILENT) == version
    assert len(server.asked) == 1


def test_a_file_that_changed_since_its_first_download_is_refused(
    server: Server, published: bytes, tmp_path: Path
) -> None:
    server.content = published
    registry = Registry(tmp_path / "registry")
    model = entry(files={"main": UrlFile(url=server.url)})
    pull.pull(model, registry, tmp_path / "downloads", SILENT)
    server.content = published.replace(b"dropout", b"dropin!")
    with pytest.raises(
        DownloadError, match=r"changed: SHA-256 \w{64}, at its first download \w{64}; .*pins\.json"
    ):
        pull.pull(model, registry, tmp_path / "other", SILENT)
    assert registry.versions(model.name) == [1]


def test_hub_files_are_pinned_to_a_commit(
    monkeypatch: pytest.MonkeyPatch, published: bytes, tmp_path: Path
) -> None:
    snapshot = tmp_path / "snapshots" / "c0ffee"
    snapshot.mkdir(parents=True)
    (snapshot / "a.pkl").write_bytes(published)
    asked = []

    def hf_hub_download(repository: str, file: str, *, revision: str | None) -> str:
        asked.append((repository, file, revision))
        return str(snapshot / file)

    monkeypatch.setattr(pull, "hf_hub_download", hf_hub_download)
    registry = Registry(tmp_path / "registry")
    free = entry(files={"main": HubFile(repository="some/where", file="a.pkl")})
    for _ in range(2):
        pull.pull(free, registry, tmp_path, SILENT)
    fixed = entry(files={"main": HubFile(repository="some/where", file="a.pkl", revision="beef")})
    pull.pull(fixed, registry, tmp_path, SILENT)
    assert [revision for _, _, revision in asked] == [None, "c0ffee", "beef"]
    assert "resolve/beef/a.pkl" in fixed.files["main"].url


def test_offline_says_what_was_tried_and_what_to_do(tmp_path: Path) -> None:
    model = entry(files={"main": UrlFile(url="http://127.0.0.1:1/file.pkl")})
    with pytest.raises(DownloadError) as caught:
        pull.pull(model, Registry(tmp_path), tmp_path, SILENT)
    message = str(caught.value)
    assert "tried http://127.0.0.1:1/file.pkl (URLError" in message
    assert "python -m models convert FOLDER/file.pkl --as edm-cifar10-cond-vp" in message
    assert "\n" not in message


def test_damaged_pins(server: Server, tmp_path: Path) -> None:
    (tmp_path / "pins.json").write_text("{")
    model = entry(files={"main": UrlFile(url=server.url)})
    with pytest.raises(DownloadError, match=r"pins\.json is damaged"):
        pull.pull(model, Registry(tmp_path), tmp_path, SILENT)


def test_a_download_that_is_no_checkpoint(server: Server, tmp_path: Path) -> None:
    server.content = b"<html>not found</html>"
    model = entry(files={"main": UrlFile(url=server.url)})
    with pytest.raises(CheckpointError, match="starts like neither"):
        pull.pull(model, Registry(tmp_path / "registry"), tmp_path, SILENT)


def test_var_comes_with_its_tokenizer(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = tmp_path / "snapshots" / "c0ffee"
    folder.mkdir(parents=True)
    for name, init in (("var_d16.pth", VAR_INIT), ("vae_ch160v4096z32.pth", VQVAE_INIT)):
        official.write_archive(folder / name, fill(build(init)).state_dict())
    monkeypatch.setattr(pull, "hf_hub_download", lambda _, file, **__: str(folder / file))
    model = find("var-d16")
    with pytest.raises(CheckpointError, match=r"var_d16\.pth has 5 classes, var-d16 has 1000"):
        pull.pull(model, Registry(tmp_path / "registry"), tmp_path, SILENT)
    monkeypatch.setattr("models.catalogue.class_names", lambda _: ("x",) * 5)
    version = pull.pull(model, Registry(tmp_path / "registry"), tmp_path, SILENT)
    assert version.spec.networks["main"].init == VAR_INIT
    assert version.spec.networks["vqvae"].init == VQVAE_INIT
    assert official.tensors_equal(version.network("vqvae").state_dict(), fill(build(VQVAE_INIT)).state_dict())
