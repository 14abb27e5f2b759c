"""The report on a run: one HTML page that needs nothing beside itself."""

from __future__ import annotations

from html import escape
from importlib import resources
from pathlib import Path
from string import Template

from trainer.data.replacing import replacing
from trainer.rounds.history import RunHistory
from trainer.rounds.markup import folded, section
from trainer.rounds.pictures import figures, images, training
from trainer.rounds.tables import evaluations, lead, rounds, summary

REPORT_FILE = "report.html"


def write_report(directory: Path, path: Path) -> None:
    """Write what the files of a run tell, finished or not, as a page; equal files give equal bytes.

    Args:
        directory: of the run.
        path: of the page.

    Raises:
        TrainerError: there is no run, its parent is not judged yet, or a file is damaged.
        DataError: the page cannot be written.
    """
    history = RunHistory.read(directory)
    config = history.record.config
    parts = [summary(history)]
    if history.rounds:
        parts += [figures(history), training(history), rounds(history)]
    parts += [images(history), evaluations(history)]
    parts.append(section("Configuration", "", folded(config.name, config.model_dump_json(indent=2))))
    page = Template((resources.files("trainer.rounds") / "data" / "report.html").read_text(encoding="utf-8"))
    title = f"{config.name}: self-play rounds"
    text = page.substitute(title=escape(title), lead=escape(lead(history)), body="\n".join(parts))
    with replacing(path) as file:
        file.write(text.encode())
