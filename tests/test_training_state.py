"""A state that cannot be written or read: a clear error, and the last good one intact."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import losses, tiny_loop

from trainer.errors import TrainerError
from trainer.training.checkpoint import STATE_FILE, load_state
from trainer.training.loop import Loop


@pytest.fixture
def loop(tmp_path: Path) -> Loop[Any]:
    """A run of two steps, which its folder holds the state of, and a third, which it does not."""
    loop = tiny_loop(tmp_path)
    losses(loop, until=16)
    next(loop.run(until=24))
    return loop


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """What a full disk does to a write, for whoever may not fill a disk: the kernel cuts it short."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_file_that_cannot_grow_leaves_the_last_state(loop: Loop[Any], tmp_path: Path, share: float) -> None:
    good = (tmp_path / STATE_FILE).read_bytes()
    with (
        files_of_at_most(int(share * len(good))),
        pytest.raises(
            TrainerError, match=r"cannot write .*state\.pt: File too large; what was there before is"
        ),
    ):
        loop.save()
    assert (tmp_path / STATE_FILE).read_bytes() == good
    assert [path.name for path in tmp_path.iterdir()] == [STATE_FILE]
    loop.save()
    assert tiny_loop(tmp_path).seen == 24


def test_a_full_disk_leaves_the_last_state(
    loop: Loop[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`/dev/full` answers a write as a full disk does."""
    good = (tmp_path / STATE_FILE).read_bytes()
    opened = Path.open

    def on_the_full_disk(path: Path, *arguments: Any) -> Any:
        path.symlink_to("/dev/full")
        return opened(path, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", on_the_full_disk)
        with pytest.raises(TrainerError, match="No space left on device"):
            loop.save()
    assert (tmp_path / STATE_FILE).read_bytes() == good
    assert [path.name for path in tmp_path.iterdir()] == [STATE_FILE]


@pytest.mark.parametrize("call", ["fsync", "rename"])
def test_a_disk_that_fails_late_leaves_the_last_state(
    loop: Loop[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    good = (tmp_path / STATE_FILE).read_bytes()

    def fail(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(*((os, "fsync") if call == "fsync" else (Path, "replace")), fail)
        with pytest.raises(TrainerError, match="No space left on device"):
            loop.save()
    assert (tmp_path / STATE_FILE).read_bytes() == good
    assert [path.name for path in tmp_path.iterdir()] == [STATE_FILE]


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(TrainerError, match=r"cannot write .*file/run/state\.pt: Not a directory"):
        losses(tiny_loop(tmp_path / "file" / "run"), until=8)


def test_what_a_kill_left_behind_is_removed(tmp_path: Path) -> None:
    (tmp_path / f".{STATE_FILE}.4711").write_bytes(b"half a state")
    losses(tiny_loop(tmp_path), until=8)
    assert [path.name for path in tmp_path.iterdir()] == [STATE_FILE]


@pytest.mark.parametrize("damage", ["cut", "flipped", "emptied", "text"])
def test_a_damaged_state_is_named(loop: Loop[Any], tmp_path: Path, damage: str) -> None:
    path = tmp_path / STATE_FILE
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    match damage:
        case "cut":
            del content[middle:]
        case "flipped":
            content[middle] ^= 1
        case "emptied":
            content.clear()
        case "text":
            content[:] = b"not a state"
    path.write_bytes(content)
    with pytest.raises(TrainerError, match=r"state\.pt is damaged \(.*\); delete it to start anew"):
        tiny_loop(tmp_path)
    assert path.read_bytes() == content


@pytest.mark.parametrize("content", [{"seen": 3}, [1, 2]])
def test_another_kind_of_file_is_named(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / STATE_FILE)
    with pytest.raises(TrainerError, match=r"state\.pt is not the state of a run"):
        load_state(tmp_path)


def test_a_state_that_runs_code_is_not_read(tmp_path: Path, canary: Path) -> None:
    class Hostile:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (canary,)

    torch.save({"seen": Hostile()}, tmp_path / STATE_FILE)
    with pytest.raises(TrainerError, match="damaged"):
        load_state(tmp_path)
    assert not canary.exists()


def test_the_state_of_another_network_is_named(loop: Loop[Any], tmp_path: Path) -> None:
    with pytest.raises(TrainerError, match=r"the saved state is of another network: .* missing \("):
        tiny_loop(tmp_path, "edm2")


def test_a_state_without_the_average_is_named(loop: Loop[Any], tmp_path: Path) -> None:
    with pytest.raises(TrainerError, match=r"holds the averages \['half-life-50'\], not \['power-0.100'\]"):
        tiny_loop(tmp_path, averages=[{"kind": "power", "std": 0.1}])


def test_settings_may_change_on_the_way(loop: Loop[Any], tmp_path: Path) -> None:
    """Those of the optimizer are the configuration's, not the state's."""
    changed = tiny_loop(tmp_path, optimizer={"learning_rate": 1e-9, "warmup_images": 0, "betas": [0.5, 0.6]})
    before = changed.weights("half-life-50")
    moved = changed.network.state_dict()
    start = {name: tensor.clone() for name, tensor in moved.items()}
    losses(changed, until=24)
    assert before.keys() == start.keys()
    for name, tensor in changed.network.state_dict().items():
        torch.testing.assert_close(tensor, start[name], rtol=0, atol=1e-7)
