"""The report on a run of rounds, read as a browser would read it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from report_page import Page
from report_runs import AVERAGE, NASTY, NEON, candidate, config, end, figures, sheet, start, trials
from round_toys import write_config
from typer.testing import CliRunner, Result

from trainer.cli import app


def report(folder: Path, *arguments: object) -> Result:
    return CliRunner().invoke(app, ["report", str(folder), *map(str, arguments)])


def page(folder: Path) -> Page:
    done = report(folder)
    assert done.exit_code == 0, done.output
    assert done.output.strip() == str(folder / "report.html")
    return Page((folder / "report.html").read_text())


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run in its third round.

    A candidate has diverged at once, another one later, when it was as good as the best, which came first.
    """
    folder = tmp_path / "run"
    start(folder, figures(400, centroid_accuracy=0.25, class_diversity=8.5))
    good, wild = "alpha1-beta0.05", "alpha4-beta0.05"
    first = trials(
        (8, figures(360, centroid_accuracy=0.375, class_diversity=8.25)),
        (16, figures(300.125, centroid_accuracy=0.5, class_diversity=8.0)),
        (24, figures(340, centroid_accuracy=0.4375, class_diversity=7.0)),
    )
    candidate(folder / "round-01" / good, first)
    candidate(folder / "round-01" / wild, [])
    end(folder / "round-01", 1, good, first[1], "tiny/0002")
    equal = figures(280.5, centroid_accuracy=0.5, class_diversity=7.5)
    second = trials((8, equal), (16, figures(326, centroid_accuracy=0.5, class_diversity=7.5)))
    candidate(folder / "round-02" / good, second)
    best = trials((8, figures(280.5, centroid_accuracy=0.625, class_diversity=7.75)))
    late = [(images, figures(290, centroid_accuracy=0.5, class_diversity=7.0)) for images in (16, 24)]
    candidate(folder / "round-02" / wild, [*best, *trials(*late)])
    end(folder / "round-02", 2, wild, best[0], "tiny/0003")
    candidate(
        folder / "round-03" / good, trials((8, figures(281, centroid_accuracy=0.5, class_diversity=7.0)))
    )
    with (folder / "round-03" / good / "log.jsonl").open("a") as log:
        log.write('{"images": 32, "lo')
    sheet(folder / "base.png", 0)
    sheet(folder / "round-01" / good / "best.png", 1)
    sheet(folder / "round-02" / good / "best.png", 2)
    sheet(folder / "round-02" / wild / "best.png", 3)
    return folder


def test_the_summary_has_every_number_and_what_it_depends_on(run: Path) -> None:
    found = page(run)
    summary = {row[0]: row[1:] for row in found.tables[0]}
    assert summary == {
        "Figure": ["Parent", "Best", "Change"],
        "Frechet distance (means)": ["400", "280.5", "-29.9%"],
        "Centroid accuracy": ["0.25", "0.625", "+150.0%"],
        "Class diversity": ["8.5", "7.75", "-8.8%"],
    }
    assert found.facts == {
        "Parent": "tiny/0001",
        "Best version": "tiny/0003",
        "Published": "tiny/0002, tiny/0003",
        "Method": "diffusion-ddo",
        "Features": "means",
        "Compared with": f"{NASTY}, 48 images",
        "Judged by": "32 images, seeds 5 to 36",
        "Sampler": "steps 7, solver heun, cfg 1.0, precision float32",
        "Class diversity of the real images": "9.75",
    }
    sentence = (
        "tiny/0003 is the best after 2 of at most 4 rounds: Frechet distance (means) 400 → 280.5, -29.9%."
    )
    assert sentence in found.text
    assert json.loads(found.text[found.text.index('{\n  "name"') :]) == config().model_dump(mode="json")


def test_every_candidate_and_evaluation_is_told_of(run: Path) -> None:
    found = page(run)
    _, rounds, evaluations = found.tables
    assert [(row[0], row[1], row[2], row[5], row[7], row[8]) for row in rounds[1:]] == [
        ("1", "alpha1-beta0.05", "trained to the end", "300.12", "-25.0%", "published as tiny/0002"),
        ("1", "alpha4-beta0.05", "diverged", "–", "–", ""),  # noqa: RUF001
        ("2", "alpha1-beta0.05", "diverged", "280.5", "-6.5%", ""),
        ("2", "alpha4-beta0.05", "trained to the end", "280.5", "-6.5%", "published as tiny/0003"),
        ("3", "alpha1-beta0.05", "unfinished", "281", "+0.2%", ""),
    ]
    assert evaluations[1][1:] == ["tiny/0001", "0", "–", "400", "0.25", "8.5"]  # noqa: RUF001
    assert evaluations[4] == ["1", "alpha1-beta0.05", "24", AVERAGE, "340", "0.4375", "7"]
    assert len(evaluations) == 2 + 3 + 2 + 3 + 1


def test_curves_are_where_the_figures_are(run: Path) -> None:
    """A chart's axes are straight, so its points are the figures scaled and moved."""
    found = page(run)
    assert list(found.charts) == [
        "Frechet distance (means)",
        "Centroid accuracy",
        "Class diversity",
        "Log-ratio of real images",
        "Log-ratio of fakes",
        "Accuracy of the discriminator",
        "Loss",
    ]
    expected = {
        "#1f77b4": [
            (0, 400), (8, 360), (16, 300.125), (24, 340),
            (24, 300.125), (32, 280.5), (40, 326),
            (48, 280.5), (56, 281),
        ],
        "#ff7f0e": [(24, 300.125), (32, 280.5), (40, 290), (48, 290)],
    }  # fmt: skip
    drawn: dict[str, list[list[float]]] = {colour: [] for colour in expected}
    for path in found.charts["Frechet distance (means)"]:
        for colour, points in drawn.items():
            if f"fill: none; stroke: {colour}" in path.get("style", ""):
                points += [
                    [float(word) for word in pair] for pair in re.findall(r"([\d.]+) ([\d.]+)", path["d"])
                ]
    for axis in (0, 1):
        want = np.array([point[axis] for points in expected.values() for point in points])
        have = np.array([point[axis] for points in drawn.values() for point in points])
        slope, offset = np.polyfit(want, have, 1)
        assert (slope > 0) == (axis == 0)
        np.testing.assert_allclose(slope * want + offset, have, atol=1e-3)
    (level,) = (
        path for path in found.charts["Frechet distance (means)"] if "opacity: 0.6" in path.get("style", "")
    )
    heights = [y for _, y in re.findall(r"([\d.]+) ([\d.]+)", level["d"])]
    starts = [points[0] for points in (drawn["#1f77b4"], drawn["#1f77b4"][4:], drawn["#1f77b4"][7:])]
    assert [float(y) for y in dict.fromkeys(heights)] == [y for _, y in starts]
    for version in ("0002", "0003"):
        assert len(re.findall(rf"(?<![/\d]){version}(?!\d)", found.text)) == 3, "one star a chart of figures"


def test_images_of_parent_and_bests_stand_side_by_side(run: Path) -> None:
    found = page(run)
    kept = {
        "Parent tiny/0001: Frechet distance (means) 400": run / "base.png",
        "Best of round 1: Frechet distance (means) 300.12": run / "round-01/alpha1-beta0.05/best.png",
        "Best of round 2: Frechet distance (means) 280.5": run / "round-02/alpha4-beta0.05/best.png",
    }
    assert list(found.images) == list(kept)
    for text, path in kept.items():
        assert np.array_equal(np.asarray(found.images[text]), np.asarray(Image.open(path)))


def test_the_page_needs_nothing_and_runs_nothing(run: Path) -> None:
    found = page(run)
    text = (run / "report.html").read_text()
    assert "http" not in text
    assert "<script" not in text
    assert "@import" not in text
    assert len(found.ids) == len(set(found.ids)) > 0
    inside = [link for link in found.links if not link.startswith("data:image/png;base64,")]
    assert {link.removeprefix("#") for link in inside} <= set(found.ids)


def test_equal_files_give_equal_bytes(run: Path, tmp_path: Path) -> None:
    page(run)
    log = run / "round-01" / "alpha1-beta0.05" / "log.jsonl"
    log.write_text(log.read_text().replace("noon", "midnight"))
    assert report(run, "--out", tmp_path / "again.html").exit_code == 0
    assert (tmp_path / "again.html").read_bytes() == (run / "report.html").read_bytes()


def test_a_strength_of_neon_is_a_curve(tmp_path: Path) -> None:
    start(tmp_path, figures(4), config(NEON))
    weak, strong = (trials((8, figures(3)), (16, figures(w)), w=w) for w in (0.5, 2.0))
    candidate(tmp_path / "round-01" / "self", [weak[0], strong[0], weak[1], strong[1]], names=())
    found = page(tmp_path)
    assert list(found.charts) == ["Frechet distance (means)", "Loss"]
    assert re.findall(r"self, w [\d.]+", found.text.partition("Rounds")[0]) == ["self, w 0.5", "self, w 2"]
    assert [row[3:] for row in found.tables[2][2:]] == [
        [f"{AVERAGE}, w 0.5", "3"],
        [f"{AVERAGE}, w 2", "3"],
        [f"{AVERAGE}, w 0.5", "0.5"],
        [f"{AVERAGE}, w 2", "2"],
    ]
    assert "The run has kept none." in found.text


def test_a_round_may_bring_nothing(tmp_path: Path) -> None:
    start(tmp_path, figures(4), config(evaluation={"plan": {}, "every_images": 8, "patience": 1}))
    tried = trials((8, figures(5)), (16, figures(6)))
    candidate(tmp_path / "round-01" / "alpha1-beta0.05", tried)
    end(tmp_path / "round-01", 1, "alpha1-beta0.05", tried[0], None)
    found = page(tmp_path)
    assert "Nothing is better than the parent tiny/0001 after 1 of at most 4 rounds." in found.text
    assert found.facts["Published"] == "nothing"
    (row,) = found.tables[1][1:]
    assert (row[2], row[-1]) == ("ended early: nothing better came", "not better than the reference")


def test_a_run_without_a_round_has_a_page(tmp_path: Path) -> None:
    start(tmp_path, figures(4))
    sheet(tmp_path / "base.png", 0)
    found = page(tmp_path)
    assert found.charts == {}
    assert list(found.images) == ["Parent tiny/0001: Frechet distance (means) 4"]


def test_many_large_sheets_and_long_logs_stay_small(tmp_path: Path) -> None:
    start(tmp_path, figures(100), config(rounds=12))
    sheet(tmp_path / "base.png", 0, size=400)
    for number in range(1, 13):
        folder = tmp_path / f"round-{number:02d}"
        tried = trials((8, figures(100.0 - number)))
        candidate(folder / "alpha1-beta0.05", tried)
        end(folder, number, "alpha1-beta0.05", tried[0], f"tiny/{number + 1:04d}")
        sheet(folder / "alpha1-beta0.05" / "best.png", number, size=400)
    with (tmp_path / "round-12" / "alpha1-beta0.05" / "log.jsonl").open("a") as log:
        losses = np.random.default_rng(0).normal(size=20_000)
        log.writelines(json.dumps({"images": n / 1000, "loss": x}) + "\n" for n, x in enumerate(losses))
    found = page(tmp_path)
    assert len(found.images) == 8
    assert next(iter(found.images)).startswith("Parent")
    assert list(found.images)[-1].startswith("Best of round 12:")
    sizes = {image.size for image in found.images.values()}
    assert len(sizes) == 1
    assert 100 < sizes.pop()[0] < 400
    assert (tmp_path / "report.html").stat().st_size < 3_000_000
    assert 100 < max(path["d"].count("L") for path in found.charts["Loss"]) <= 200


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("run.json", None, "holds no run of rounds"),
        ("base.json", None, "tiny/0001 is not judged"),
        ("base.json", "{", "cannot read .*base.json"),
        ("round-01/alpha1-beta0.05/log.jsonl", "{\n", "cannot read .*log.jsonl"),
        ("round-01/alpha1-beta0.05/evaluations.jsonl", "{}\n", "cannot read .*evaluations.jsonl"),
        ("base.png", "no image", "cannot read the images .*base.png"),
    ],
)
def test_what_is_missing_or_damaged_is_named(run: Path, file: str, content: str | None, message: str) -> None:
    if content is None:
        (run / file).unlink()
    else:
        (run / file).write_text(content)
    done = report(run)
    assert done.exit_code == 1
    assert re.search(message, done.output.replace("\n", ""))
    assert not (run / "report.html").exists()


def test_a_run_reports_by_itself_and_keeps_the_images(tmp_path: Path) -> None:
    place = tmp_path / "out"
    settings = write_config(tmp_path, rounds=1, every=48)
    arguments = ["ddo", settings, "--out", place, "--registry", tmp_path / "registry"]
    done = CliRunner().invoke(app, [*map(str, arguments)])
    assert done.exit_code == 0, done.output
    by_itself = (place / "report.html").read_bytes()
    found = page(place)
    assert (place / "report.html").read_bytes() == by_itself
    assert [text.partition(":")[0] for text in found.images] == ["Parent tiny/0001", "Best of round 1"]
    parent, best = (np.asarray(image) for image in found.images.values())
    assert parent.shape == best.shape == (4 * 10 + 2, 8 * 10 + 2, 3), "32 images of 8 x 8 in rows of 8"
    assert not np.array_equal(parent, best)
    assert found.facts["Judged by"] == "32 images, seeds 5 to 36"

    (place / "base.png").write_text("no image")
    again = CliRunner().invoke(app, [*map(str, arguments)])
    assert again.exit_code == 0, "a report is no reason to stop training"
    assert "the report is not renewed" in again.output
    assert (place / "report.html").read_bytes() == by_itself
