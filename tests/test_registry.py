"""Versions appear whole or not at all, and what was published is what is opened."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import official
import pytest
import torch
from official import VAR_INIT, VQVAE_INIT
from reference import fill
from safetensors.torch import load_file, save_file

from models import build
from models.errors import (
    CheckpointError,
    ModelNotFoundError,
    NonFiniteWeightsError,
    UnsafeCheckpointError,
)
from models.registry import Registry
from models.spec import (
    MODEL_FILE,
    DiffusionDefaults,
    GoldenImage,
    Lineage,
    ModelSpec,
    NetworkSpec,
    PixelCodec,
    VarDefaults,
    VqvaeCodec,
)
from models.version import open_version, seal


def spec(name: str = "tiny", **changes: Any) -> ModelSpec:
    plain = ModelSpec(
        name=name,
        family="edm",
        networks={},
        codec=PixelCodec(),
        defaults=DiffusionDefaults(),
        licence="Apache-2.0",
        lineage=Lineage(source="a test"),
    )
    return plain.model_copy(update=changes)


def write(content: str = "hello", **changes: Any) -> Callable[[Path], ModelSpec]:
    def into(directory: Path) -> ModelSpec:
        (directory / "notes.txt").write_text(content)
        (directory / "more").mkdir()
        (directory / "more" / "image.png").write_bytes(b"png")
        return spec(**changes)

    return into


def write_network(directory: Path) -> ModelSpec:
    save_file(fill(build(VAR_INIT)).half().state_dict(), directory / "weights.safetensors")
    networks = {"main": NetworkSpec(init=VAR_INIT, weights="weights.safetensors")}
    return spec(family="var", codec=VqvaeCodec(), defaults=VarDefaults(), networks=networks)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "registry")


def test_an_empty_registry(registry: Registry) -> None:
    assert registry.names() == []
    assert registry.versions("tiny") == []
    assert registry.current("tiny") is None
    with pytest.raises(ModelNotFoundError, match="no model 'tiny'; it has none"):
        registry.open("tiny")


def test_versions_are_numbered_and_one_is_current(registry: Registry) -> None:
    first = registry.publish(write("one"))
    assert first.number == 1
    assert first.directory == registry.root / "tiny" / "versions" / "0001"
    with pytest.raises(ModelNotFoundError, match="no version of tiny is current"):
        registry.open("tiny")
    registry.point("tiny", 1)
    second = registry.publish(write("two"))
    assert (registry.current("tiny"), registry.versions("tiny"), registry.names()) == (1, [1, 2], ["tiny"])
    assert registry.open("tiny") == first
    assert registry.open("tiny", 2) == second
    registry.publish(write("three"), point=True)
    assert registry.open("tiny").number == 3
    assert (registry.root / "tiny" / "current").read_text() == "0003\n"


def test_what_is_published_is_recorded(registry: Registry) -> None:
    version = registry.publish(write())
    record = version.spec.files["notes.txt"]
    assert record.size == 5
    assert record.sha256 == "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
    assert version.spec.files.keys() == {"notes.txt", "more/image.png"}
    assert registry.verify("tiny", 1) == version


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda path: (path / "notes.txt").write_text("hallo"), "not the file that was published"),
        (lambda path: (path / "notes.txt").write_text("hello!"), "not the file that was published"),
        (lambda path: (path / "notes.txt").unlink(), "notes.txt is missing"),
        (lambda path: (path / "new.txt").touch(), "not recorded: new.txt"),
        (lambda path: (path / "link").symlink_to("/etc/passwd"), "not a regular file"),
        (lambda path: (path / MODEL_FILE).write_text("{"), "not valid"),
        (lambda path: (path / MODEL_FILE).write_bytes(b" " * (5 << 20)), "larger than any"),
    ],
)
def test_changed_versions_do_not_verify(
    change: Callable[[Path], Any], message: str, registry: Registry
) -> None:
    version = registry.publish(write())
    registry.verify("tiny", 1)
    change(version.directory)
    with pytest.raises(CheckpointError, match=message):
        registry.verify("tiny", 1)


@pytest.mark.parametrize("name", ["..", ".", "../tiny", "tiny/", "/", "", "TINY", ".staging", "tiny\n"])
def test_names_that_are_no_names(name: str, registry: Registry) -> None:
    registry.publish(write(), point=True)
    with pytest.raises(ModelNotFoundError, match="has no model"):
        registry.open(name, 1)
    assert registry.current(name) is None


def test_unknown_versions(registry: Registry) -> None:
    registry.publish(write())
    with pytest.raises(ModelNotFoundError, match=r"tiny has no version 7; it has \[1\]"):
        registry.open("tiny", 7)
    with pytest.raises(ModelNotFoundError, match="no version 7"):
        registry.point("tiny", 7)


@pytest.mark.parametrize("content", ["", "../../x", "-1", "1", "00001\n00002"])
def test_damaged_pointer(content: str, registry: Registry) -> None:
    registry.publish(write(), point=True)
    (registry.root / "tiny" / "current").write_text(content)
    with pytest.raises(CheckpointError, match="does not hold a version number"):
        registry.open("tiny")


def test_a_build_that_fails_leaves_nothing(registry: Registry) -> None:
    def fail(directory: Path) -> ModelSpec:
        write()(directory)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        registry.publish(fail)
    assert registry.names() == []
    assert [path.name for path in (registry.root / ".staging").iterdir()] == ["lock"]


@pytest.mark.parametrize("calls", range(10))
def test_kill_at_any_moment(calls: int, registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    registry.publish(write("before"), point=True)
    child = os.fork()
    if child == 0:
        left = calls

        def fsync(descriptor: int) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)

        monkeypatch.setattr(os, "fsync", fsync)
        registry.publish(write("after"), point=True)
        os.kill(os.getpid(), signal.SIGKILL)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    for number in registry.versions("tiny"):
        registry.verify("tiny", number)
    assert registry.open("tiny").number in registry.versions("tiny")
    after = registry.publish(write("next"), point=True)
    assert after == registry.open("tiny")
    assert [path.name for path in (registry.root / ".staging").iterdir()] == ["lock"]


def test_publishers_at_once_do_not_disturb_each_other(registry: Registry) -> None:
    threads, each = 4, 5
    meet = threading.Barrier(threads, timeout=10)

    def work(number: int) -> None:
        for turn in range(each):
            meet.wait()
            registry.publish(write(f"{number} {turn}"), point=True)

    workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert registry.versions("tiny") == list(range(1, threads * each + 1))
    opened = [registry.verify("tiny", number) for number in registry.versions("tiny")]
    contents = {(version.directory / "notes.txt").read_text() for version in opened}
    assert len(contents) == threads * each


def test_a_number_that_another_publisher_took_meanwhile(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = Path.rename

    def late(path: Path, target: Path) -> Path:
        monkeypatch.setattr(Path, "rename", rename)
        registry.publish(write("rival"))
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", late)
    version = registry.publish(write("late"))
    assert version.number == 2
    assert (registry.open("tiny", 1).directory / "notes.txt").read_text() == "rival"
    assert (version.directory / "notes.txt").read_text() == "late"


def test_a_published_network_is_the_network(registry: Registry) -> None:
    version = registry.publish(write_network)
    network = version.network()
    assert not network.training
    expected = fill(build(VAR_INIT)).half().state_dict()
    for name, tensor in network.state_dict().items():
        assert tensor.dtype == (torch.float32 if expected[name].is_floating_point() else torch.int64)
        assert torch.equal(tensor, expected[name].to(tensor.dtype))
    with pytest.raises(ModelNotFoundError, match="no network 'guide'; it has main"):
        version.network("guide")


def test_var_takes_its_vocabulary_from_the_tokenizer(registry: Registry) -> None:
    bare = {key: value for key, value in VAR_INIT.items() if key not in ("vocab_size", "z_channels")}

    def into(directory: Path) -> ModelSpec:
        made = write_network(directory)
        save_file({"a": torch.ones(1)}, directory / "vqvae.safetensors")
        tokenizer = NetworkSpec(init=VQVAE_INIT, weights="vqvae.safetensors")
        main = NetworkSpec(init=bare, weights="weights.safetensors")
        return made.model_copy(update={"networks": {"main": main, "vqvae": tokenizer}})

    network = registry.publish(into).network()
    assert official.tensors_equal(
        network.state_dict(),
        fill(build(VAR_INIT)).half().float().state_dict() | {"lvl_1L": network.state_dict()["lvl_1L"]},
    )


def test_weights_that_changed_are_not_loaded(registry: Registry) -> None:
    version = registry.publish(write_network)
    weights = version.directory / "weights.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(CheckpointError, match="SHA-256 differs"):
        version.network()


def test_published_nan_needs_the_flag_again(registry: Registry) -> None:
    def into(directory: Path) -> ModelSpec:
        made = write_network(directory)
        state = load_file(directory / "weights.safetensors")
        state["head.bias"] = state["head.bias"] * torch.nan
        save_file(state, directory / "weights.safetensors")
        return made

    version = registry.publish(into)
    with pytest.raises(NonFiniteWeightsError):
        version.network()
    assert torch.isnan(version.network(allow_non_finite=True).state_dict()["head.bias"]).all()


def test_a_directory_outside_a_registry_is_a_version_too(tmp_path: Path) -> None:
    sealed = seal(tmp_path, write_network(tmp_path))
    opened = open_version(tmp_path)
    assert opened == sealed
    assert opened.number is None
    opened.verify()
    opened.network()
    with pytest.raises(ModelNotFoundError, match=r"there is no .*model\.json"):
        open_version(tmp_path / "other")


ESCAPES = ["../../secret.safetensors", "/etc/passwd", "more/../../../secret.safetensors", "link.safetensors"]


@pytest.mark.parametrize("file", ESCAPES)
@pytest.mark.parametrize("place", ["networks", "files", "golden"])
def test_paths_that_leave_the_directory(file: str, place: str, registry: Registry) -> None:
    version = registry.publish(write_network)
    outside = registry.root / "secret.safetensors"
    save_file(fill(build(VAR_INIT)).state_dict(), outside)
    (version.directory / "link.safetensors").symlink_to(outside)
    content = json.loads((version.directory / MODEL_FILE).read_text())
    content["files"][file] = content["files"]["weights.safetensors"]
    if place == "networks":
        content["networks"]["main"]["weights"] = file
    if place == "golden":
        content["golden"] = {"class_id": 1, "seed": 2, "file": file}
    (version.directory / MODEL_FILE).write_text(json.dumps(content))
    with pytest.raises(UnsafeCheckpointError, match="outside its directory"):
        registry.open("tiny", 1)


def test_links_are_not_published(registry: Registry, tmp_path: Path) -> None:
    def into(directory: Path) -> ModelSpec:
        (directory / "weights.safetensors").symlink_to("/etc/passwd")
        return spec()

    with pytest.raises(UnsafeCheckpointError, match="not a regular file"):
        registry.publish(into)
    assert registry.names() == []


@pytest.mark.parametrize(
    "changes",
    [
        {"networks": {"main": NetworkSpec(init=VAR_INIT, weights="absent.safetensors")}},
        {"golden": GoldenImage(class_id=0, seed=0, file="absent.png")},
    ],
)
def test_files_that_are_not_there_are_not_published(changes: dict[str, Any], registry: Registry) -> None:
    with pytest.raises(CheckpointError, match="absent"):
        registry.publish(write(**changes))
    assert registry.names() == []
