"""What cannot be done in rounds is said in one line, before anything is lost."""

from __future__ import annotations

import fcntl
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from round_toys import CLASSES, DIFFUSION_DDO, EDM, SIZE, VAR_DDO, edm_version, sealed, write_config
from typer.testing import CliRunner, Result

from models.registry import Registry
from models.spec import DiffusionDefaults, SdVaeCodec
from trainer.cli import app
from trainer.data.arrays import ArrayImages
from trainer.errors import DataError
from trainer.evaluation.plan import SamplingPlan
from trainer.rounds.config import PoolConfig
from trainer.rounds.pool import Pool
from trainer.rounds.view import View
from trainer.training.processes import Processes

EDM2_NEON = 'kind = "neon"\nweights = [1.0]\nobjective = { kind = "uncertainty" }'

Change = Callable[[Path], object]


def ddo(config: Path) -> Result:
    place = config.parent
    return CliRunner().invoke(
        app, [*map(str, ("ddo", config, "--out", place / "out", "--registry", place / "reg"))]
    )


def edit(old: str, new: str) -> Change:
    """Return what replaces text in a configuration."""

    def change(config: Path) -> None:
        text = config.read_text()
        assert old in text
        config.write_text(text.replace(old, new))

    return change


def enlarge(config: Path) -> None:
    images = np.zeros((4, 2 * SIZE, 2 * SIZE, 3), np.uint8)
    ArrayImages(images, np.arange(4), CLASSES).save(config.parent / "data.npz")


def add_class(config: Path) -> None:
    images = np.zeros((5, SIZE, SIZE, 3), np.uint8)
    ArrayImages(images, np.arange(5), (*CLASSES, "black")).save(config.parent / "data.npz")


def make_latent(config: Path) -> None:
    parent = config.parent / "latent"
    sealed(parent, "edm", {"main": EDM}, codec=SdVaeCodec(), defaults=DiffusionDefaults())
    edit("/edm", "/latent")(config)


def name_ghost(config: Path) -> None:
    edit(f'"{config.parent / "edm"}"', '"ghost"')(config)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (edit('/edm"', '/nowhere"'), "is neither the directory of a version nor NAME or NAME/NUMBER"),
        (name_ghost, "has no model 'ghost'"),
        (edit(DIFFUSION_DDO, VAR_DDO), "tiny is of the family edm; this method is for var"),
        (edit(DIFFUSION_DDO, EDM2_NEON), "this method is for edm2"),
        (edit("fold = 2", "fold = 1"), r"(3, 8, 8) after folding by 1, tiny makes (12, 4, 4)"),
        (enlarge, "(12, 8, 8) after folding by 2, tiny makes (12, 4, 4)"),
        (add_class, "has 5 classes, tiny 4"),
        (make_latent, "name as evaluation.reference statistics"),
        (edit("[pool]", '[pool]\ncontents = "tokens"'), 'has no tokens: pool.contents = "tokens" is for VAR'),
        (edit("betas = [0.1]", "betas = []"), "method.diffusion-ddo.betas"),
        (edit("neighbours = false", 'neighbours = false\nmetric = "recall"'), "neighbours must be true"),
        (edit("neighbours = false", 'reference = "x.npz"\nmetric = "recall"'), "statistics have no recall"),
        (edit("rounds = 2", "rounds = 0"), "rounds"),
    ],
)  # fmt: skip
def test_the_fault_is_named_before_anything_is_made(change: Change, fault: str, tmp_path: Path) -> None:
    config = write_config(tmp_path)
    change(config)
    done = ddo(config)
    assert done.exit_code == 1
    assert fault in " ".join(done.output.split())
    assert not (tmp_path / "out" / "run.json").exists()
    assert Registry(tmp_path / "reg").names() == []


def test_a_registry_that_cannot_be_written_is_told_first(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    (tmp_path / "reg").write_text("in the way")
    done = CliRunner().invoke(
        app,
        ["ddo", str(config), "--out", str(tmp_path / "out"), "--registry", str(tmp_path / "reg" / "inner")],
    )
    assert done.exit_code == 1
    assert "cannot write to the registry" in done.output
    assert not (tmp_path / "out" / "run.json").exists()


def test_another_configuration_is_refused(tmp_path: Path) -> None:
    config = write_config(tmp_path, rounds=1)
    assert ddo(config).exit_code == 0
    before = (tmp_path / "out" / "run.json").read_bytes()
    edit("batch = 8", "batch = 4")(config)
    edit("betas = [0.1]", "betas = [0.1, 0.2]")(config)
    done = ddo(config)
    assert done.exit_code == 1
    told = " ".join(done.output.split())
    assert "method.betas was [0.1], is [0.1, 0.2]; training.batch was 8, is 4." in told
    assert (tmp_path / "out" / "run.json").read_bytes() == before


def test_a_folder_is_worked_on_by_one_run_at_a_time(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    (tmp_path / "out").mkdir()
    with (tmp_path / "out" / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = ddo(config)
    assert done.exit_code == 1
    assert "another process works on" in done.output


@contextmanager
def nearly_full_disk(size: int) -> Iterator[None]:
    """Let no file grow beyond `size` bytes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_disk_leaves_no_half_shard(tmp_path: Path) -> None:
    config = PoolConfig(plan=SamplingPlan(images=8), shard_images=4)
    version = edm_version(tmp_path / "edm")
    pool = Pool(tmp_path / "pool", config, version, number=1, class_names=CLASSES)
    alone, quiet = Processes(0, 1, torch.device("cpu")), View(silent=True)
    with nearly_full_disk(600), pytest.raises(DataError, match=r"cannot write .*00000\.npz"):
        pool.fill(alone, quiet)
    assert list((tmp_path / "pool").iterdir()) == []
    pool.fill(alone, quiet)
    assert len(pool.open()) == 8


def test_a_run_goes_on_when_there_is_room_again(tmp_path: Path) -> None:
    config = write_config(tmp_path, rounds=1)
    assert ddo(config).exit_code == 0
    edit("rounds = 1", "rounds = 2")(config)
    with nearly_full_disk(20_000):
        done = ddo(config)
    assert done.exit_code == 1
    assert "state.pt: File too large" in done.output.replace("\n", "")
    folder = tmp_path / "out" / "round-02"
    assert len(list((folder / "pool").iterdir())) == 3
    assert not list(folder.rglob("*state.pt*"))
    assert ddo(config).exit_code == 0
    assert (folder / "result.json").exists()
