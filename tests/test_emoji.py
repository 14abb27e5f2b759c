from __future__ import annotations

import base64
import hashlib
import io
import json
import stat
import sys
import tarfile
import threading
from collections.abc import Iterator, Mapping
from functools import partial
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.progress import Progress
from typer.testing import CliRunner

from trainer.cli import app
from trainer.data.arrays import ArrayImages
from trainer.data.emoji import (
    HELD_OUT_STYLE,
    TRAINING_STYLES,
    EmojiClass,
    EmojiStyle,
    build_emoji,
    emoji_classes,
    emoji_styles,
)
from trainer.data.npm import NpmPackage, TarballStore
from trainer.errors import DataError, PackageError

SIZE = 8
RED = '<rect width="10" height="10" fill="#f00"/>'
BLUE_HALF = '<rect x="5" width="5" height="10" fill="#00f"/>'
CLASSES = [EmojiClass(codepoint="1f436", name="dog"), EmojiClass(codepoint="2600", name="sun")]


def tarball(directory: Path, name: str, files: Mapping[str, bytes]) -> NpmPackage:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for path, content in files.items():
            member = tarfile.TarInfo(f"package/{path}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    digest = base64.b64encode(hashlib.sha512(buffer.getvalue()).digest()).decode()
    package = NpmPackage(name=name, version="1.0.0", integrity=f"sha512-{digest}")
    (directory / package.filename).write_bytes(buffer.getvalue())
    return package


def icon_set(icons: Mapping[str, object], chars: Mapping[str, str] | None = None) -> dict[str, bytes]:
    content = {"prefix": "tiny", "width": 10, "height": 10, "icons": icons}
    files = {"icons.json": json.dumps(content).encode()}
    return files if chars is None else {**files, "chars.json": json.dumps(chars).encode()}


def webp(colour: tuple[int, int, int, int]) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGBA", (24, 24), colour).save(buffer, "WEBP", lossless=True)
    return buffer.getvalue()


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    directory = tmp_path / "packages"
    directory.mkdir()
    return directory


@pytest.fixture
def styles(packages: Path) -> list[EmojiStyle]:
    by_codepoint = tarball(
        packages, "@icons/coded", icon_set({"dog-face": {"body": RED}}, {"1f436": "dog-face"})
    )
    wide = {"body": BLUE_HALF, "height": 5}
    by_name = tarball(packages, "@icons/named", icon_set({"dog": {"body": BLUE_HALF}, "sun": wide}))
    bitmaps = tarball(packages, "@art/three-d", {"assets/2600-fe0f.webp": webp((0, 255, 0, 0))})
    return [
        EmojiStyle(name="coded", format="iconify", package=by_codepoint, licence="MIT"),
        EmojiStyle(
            name="named",
            format="iconify",
            package=by_name,
            licence="MIT",
            icons={"1f436": "dog", "2600": "sun"},
        ),
        EmojiStyle(name="solid", format="webp", package=bitmaps, licence="MIT"),
    ]


def build(styles: list[EmojiStyle], packages: Path) -> ArrayImages:
    return build_emoji(styles, CLASSES, TarballStore(packages), SIZE, Progress(disable=True))


def test_every_drawing_is_there_on_white(styles: list[EmojiStyle], packages: Path) -> None:
    emoji = build(styles, packages)
    assert emoji.images.shape == (4, SIZE, SIZE, 3)
    assert emoji.images.dtype == np.uint8
    assert emoji.labels.tolist() == [0, 0, 1, 1]
    assert emoji.style.tolist() == [0, 1, 1, 2]
    red, half, wide, transparent = emoji.images
    assert (red == (255, 0, 0)).all()
    assert (half[:, : SIZE // 2] == 255).all()
    assert (half[:, SIZE // 2 :] == (0, 0, 255)).all()
    assert (wide[: SIZE // 4] == 255).all(), "an icon that is not square is centred"
    assert (wide[SIZE // 4 : SIZE - SIZE // 4, SIZE // 2 :] == (0, 0, 255)).all()
    assert (transparent == 255).all()


def test_edges_are_averaged(packages: Path) -> None:
    third = tarball(packages, "edge", icon_set({"dog": {"body": '<rect width="5.625" height="10"/>'}}))
    style = EmojiStyle(name="edge", format="iconify", package=third, licence="MIT", icons={"1f436": "dog"})
    image = build_emoji([style], CLASSES[:1], TarballStore(packages), SIZE, Progress(disable=True)).images[0]
    assert image[0, SIZE // 2].tolist() == pytest.approx([255 / 2] * 3, abs=1), "half covered: half dark"


def test_same_arrays_every_time_and_after_saving(
    styles: list[EmojiStyle], packages: Path, tmp_path: Path
) -> None:
    first, again = build(styles, packages), build(styles, packages)
    first.save(tmp_path / "new" / "emoji.npz")
    loaded = ArrayImages.load(tmp_path / "new" / "emoji.npz")
    for other in (again, loaded):
        for name in ("images", "labels", "style"):
            one, two = getattr(first, name), getattr(other, name)
            assert one.dtype == two.dtype
            assert one.tobytes() == two.tobytes()
        assert other.style_names == ("coded", "named", "solid")
        assert other.class_names == ("dog", "sun")


def test_styles_are_chosen_by_name(styles: list[EmojiStyle], packages: Path) -> None:
    emoji = build(styles, packages)
    chosen = emoji.of_styles("solid", "coded")
    assert chosen.style.tolist() == [0, 2]
    assert chosen.labels.tolist() == [0, 1]
    assert np.array_equal(chosen.images, emoji.images[[0, 3]])
    with pytest.raises(DataError, match=r"unknown styles \['cubist'\]; known: coded, named, solid"):
        emoji.of_styles("cubist")


def test_class_without_any_drawing_is_an_error(styles: list[EmojiStyle], packages: Path) -> None:
    with pytest.raises(DataError, match="no style draws sun"):
        build(styles[:1], packages)


def test_name_without_an_icon_is_an_error(styles: list[EmojiStyle], packages: Path) -> None:
    wrong = styles[1].model_copy(update={"icons": {"1f436": "wolf"}})
    with pytest.raises(PackageError, match=r"tiny has no icon wolf for U\+1F436"):
        build([wrong], packages)


def test_package_without_its_file_is_an_error(packages: Path) -> None:
    empty = tarball(packages, "empty", {"README.md": b""})
    style = EmojiStyle(name="empty", format="iconify", package=empty, licence="MIT")
    with pytest.raises(PackageError, match=r"has no file package/icons\.json"):
        build([style], packages)


def test_changed_tarball_is_refused(styles: list[EmojiStyle], packages: Path) -> None:
    path = packages / styles[0].package.filename
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(PackageError, match=r"is not @icons/coded@1\.0\.0: its integrity is sha512-"):
        build(styles, packages)


@pytest.fixture
def registry(styles: list[EmojiStyle], packages: Path, tmp_path: Path) -> Iterator[str]:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    root = tmp_path / "registry"
    for style in styles:
        place = root / style.package.path
        place.parent.mkdir(parents=True)
        place.write_bytes((packages / style.package.filename).read_bytes())
    server = HTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(root)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


def test_registry_is_asked_once(styles: list[EmojiStyle], registry: str, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    store = TarballStore(cache, registry=registry)
    path = store.get(styles[0].package)
    assert [each.name for each in cache.iterdir()] == ["icons-coded-1.0.0.tgz"]
    assert TarballStore(cache).get(styles[0].package) == path, "no second download"


def test_wrong_download_is_refused_and_not_kept(
    styles: list[EmojiStyle], registry: str, tmp_path: Path
) -> None:
    pinned = styles[0].package.model_copy(update={"integrity": styles[1].package.integrity})
    with pytest.raises(PackageError, match="its integrity is sha512-"):
        TarballStore(tmp_path / "cache", registry=registry).get(pinned)
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize("how", ["nothing", "missing version", "nobody listens", "npm fails"])
def test_failed_download_says_what_to_do(how: str, registry: str, tmp_path: Path) -> None:
    package = NpmPackage(name="@icons/lost", version="2.0.0", integrity=f"sha512-{'A' * 86}==")
    cache = tmp_path / "cache"
    store, tried = {
        "nothing": (TarballStore(cache), "there is no npm command and NPM_CONFIG_REGISTRY is not set"),
        "missing version": (TarballStore(cache, registry=registry), "404"),
        "nobody listens": (TarballStore(cache, registry="http://127.0.0.1:1"), "refused"),
        "npm fails": (TarballStore(cache, npm=sys.executable), "npm|pack|failed"),
    }[how]
    with pytest.raises(PackageError, match=tried) as caught:
        store.get(package)
    assert "run `npm pack @icons/lost@2.0.0` and place icons-lost-2.0.0.tgz in" in str(caught.value)


def test_npm_command_is_used_where_there_is_one(
    styles: list[EmojiStyle], packages: Path, tmp_path: Path
) -> None:
    npm = tmp_path / "npm"
    script = (
        f"#!{sys.executable}\nimport shutil, sys\n"
        "command, spec, silent, option, place = sys.argv[1:]\n"
        "assert (command, spec, option) == ('pack', '@icons/coded@1.0.0', '--pack-destination')\n"
        f"shutil.copy({str(packages / 'icons-coded-1.0.0.tgz')!r}, place)\n"
    )
    npm.write_text(script)
    npm.chmod(npm.stat().st_mode | stat.S_IXUSR)
    store = TarballStore(tmp_path / "cache", npm=str(npm))
    assert store.get(styles[0].package) == tmp_path / "cache" / "icons-coded-1.0.0.tgz"


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "../escape"},
        {"name": "@scope/../escape"},
        {"version": "latest"},
        {"version": "^1.0.0"},
        {"integrity": "sha1-abc"},
    ],
)
def test_only_exact_pins_are_accepted(wrong: dict[str, str]) -> None:
    good = {"name": "tiny", "version": "1.0.0", "integrity": f"sha512-{'A' * 86}=="}
    assert NpmPackage.model_validate(good).spec == "tiny@1.0.0"
    with pytest.raises(ValueError, match=next(iter(wrong))):
        NpmPackage.model_validate(good | wrong)


def test_demo_classes() -> None:
    classes = emoji_classes()
    assert len(classes) == 256
    assert classes[207] == EmojiClass(codepoint="1f436", name="dog face")
    assert len({each.codepoint for each in classes}) == len({each.name for each in classes}) == 256


def test_demo_styles() -> None:
    styles = {style.name: style for style in emoji_styles()}
    assert {*TRAINING_STYLES, HELD_OUT_STYLE} < styles.keys()
    assert HELD_OUT_STYLE not in TRAINING_STYLES
    known = {each.codepoint for each in emoji_classes()}
    for style in styles.values():
        assert style.icons.keys() <= known
        assert style.licence in {"Apache-2.0", "CC-BY-4.0", "MIT"}, "none that would bind the weights"


def test_command_without_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("NPM_CONFIG_REGISTRY", raising=False)
    out = tmp_path / "emoji.npz"
    result = CliRunner().invoke(app, ["data", "emoji", str(out), "--packages", str(tmp_path / "cache")])
    assert result.exit_code == 1
    assert "error: @iconify-json/noto@1.2.9 could not be downloaded" in result.output
    assert not out.exists()
