"""What a run leaves to look at, and what of it a killed run takes back."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from trainer.training.record import LOG_FILE, Record


def logged(directory: Path) -> list[tuple[int, float]]:
    lines = (directory / LOG_FILE).read_text().splitlines()
    return [(line["images"], line["loss"]) for line in map(json.loads, lines)]


def on_the_board(directory: Path) -> EventAccumulator:
    board = EventAccumulator(str(directory / "tensorboard"))
    board.Reload()
    return board


def test_figures_and_grids_are_kept(tmp_path: Path) -> None:
    sheet = Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3))
    with Record(tmp_path) as record:
        record.scalars(8, {"loss": 0.5})
        record.scalars(16, {"loss": 0.25})
        record.grid(16, sheet)
    assert logged(tmp_path) == [(8, 0.5), (16, 0.25)]
    assert json.loads((tmp_path / LOG_FILE).read_text().splitlines()[0])["time"].endswith("+00:00")
    with Image.open(tmp_path / "grids" / "000000016.png") as kept:
        np.testing.assert_array_equal(np.asarray(kept), np.asarray(sheet))
    board = on_the_board(tmp_path)
    assert [(event.step, event.value) for event in board.Scalars("loss")] == [(8, 0.5), (16, 0.25)]
    assert [event.step for event in board.Images("samples")] == [16]


@pytest.mark.parametrize("torn", ["", '{"images": 24, "lo'])
def test_what_lies_beyond_the_state_is_dropped(tmp_path: Path, torn: str) -> None:
    """A run that was killed goes on at image 8, and reports 16 again."""
    with Record(tmp_path) as record:
        for images in (8, 16):
            record.scalars(images, {"loss": images})
    with (tmp_path / LOG_FILE).open("a") as log:
        log.write(torn)
    with Record(tmp_path, seen=8) as record:
        record.scalars(16, {"loss": -1})
    assert logged(tmp_path) == [(8, 8.0), (16, -1.0)]
    assert [event.step for event in on_the_board(tmp_path).Scalars("loss")] == [8, 16]


def test_without_a_place_everything_stays(tmp_path: Path) -> None:
    for loss in (1.0, 2.0):
        with Record(tmp_path) as record:
            record.scalars(8, {"loss": loss})
    assert logged(tmp_path) == [(8, 1.0), (8, 2.0)]
