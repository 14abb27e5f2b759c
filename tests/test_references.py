"""What the settings' references to models open."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_server import version

from models.errors import ModelNotFoundError
from models.references import open_reference
from models.registry import Registry
from models.spec import ModelSpec
from models.version import seal


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The registries `main` (tiny has 3 versions, the second is current) and `more`; and a lone `version`."""

    def empty(name: str) -> ModelSpec:
        return version(name).spec

    main, more = Registry(tmp_path / "main"), Registry(tmp_path / "more")
    for _ in range(3):
        main.publish(lambda _: empty("tiny"))
    main.point("tiny", 2)
    main.publish(lambda _: empty("loose"))
    more.publish(lambda _: empty("tiny"), point=True)
    (tmp_path / "version").mkdir()
    seal(tmp_path / "version", empty("alone"))
    (tmp_path / "tiny").mkdir()  # A folder of the same name that is no model does not hide the registry's.
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("reference", "opened"),
    [
        ("tiny", [("main/tiny/versions/0002", 2)]),
        ("tiny/3", [("main/tiny/versions/0003", 3)]),
        ("tiny/0003", [("main/tiny/versions/0003", 3)]),
        (
            "tiny/all",
            [
                ("main/tiny/versions/0002", 2),
                ("main/tiny/versions/0001", 1),
                ("main/tiny/versions/0003", 3),
            ],
        ),
        ("loose/1", [("main/loose/versions/0001", 1)]),
        ("more/tiny", [("more/tiny/versions/0001", 1)]),
        ("more/tiny/1", [("more/tiny/versions/0001", 1)]),
        ("{places}/more/tiny/all", [("more/tiny/versions/0001", 1)]),
        ("version", [("version", None)]),
        ("main/tiny/versions/0003", [("main/tiny/versions/0003", None)]),
    ],
)
def test_what_a_reference_opens(places: Path, reference: str, opened: list[tuple[str, int | None]]) -> None:
    versions = open_reference(reference.format(places=places), places / "main")
    found = [(str(each.directory.resolve().relative_to(places)), each.number) for each in versions]
    assert found == opened


@pytest.mark.parametrize(
    ("reference", "says"),
    [
        ("nope", "has no model 'nope'; it has loose, tiny"),
        ("nope/all", "has no model 'nope'"),
        ("all", "has no model 'all'"),
        ("tiny/9", r"tiny has no version 9; it has \[1, 2, 3\]"),
        ("tiny/0", "tiny has no version 0"),
        ("tiny/latest", "has no model 'latest'"),
        ("loose", r"no version of loose is current; it has \[1\]"),
        ("loose/all", "no version of loose is current"),
        ("more/nope", "more has no model 'nope'; it has tiny"),
        ("", "has no model"),
    ],
)
@pytest.mark.usefixtures("places")
def test_a_reference_that_opens_nothing_says_why(reference: str, says: str) -> None:
    with pytest.raises(ModelNotFoundError, match=says):
        open_reference(reference, Path("main"))
