"""Classes are found by what people call them."""

from __future__ import annotations

import pytest

from models.catalogue import class_names
from models.class_names import UnknownClassError, close_names, find_class

NAMES = ("dog face", "guide dog", "hot-beverage", "T-shirt", "7", "straße")
IMAGENET = class_names("imagenet")


@pytest.mark.parametrize(
    ("wanted", "number"),
    [
        ("dog face", 0),
        ("Dog Face", 0),
        ("dog_face", 0),
        (" dog  face ", 0),
        ("hot beverage", 2),
        ("t shirt", 3),
        ("7", 4),
        ("5", 5),
        ("STRASSE", 5),
    ],
)
def test_a_class_is_found(wanted: str, number: int) -> None:
    assert find_class(wanted, NAMES) == number


@pytest.mark.parametrize("wanted", ["", "6", "-1", "²", "dog", "nothing like it"])
def test_what_no_class_is_called_is_refused(wanted: str) -> None:
    with pytest.raises(UnknownClassError, match="no class is called"):
        find_class(wanted, NAMES)


def test_every_class_is_found_by_its_own_name() -> None:
    assert [IMAGENET[find_class(name, IMAGENET)] for name in IMAGENET] == list(IMAGENET)


@pytest.mark.parametrize(
    ("wanted", "close"),
    [
        ("dog", ["dog face", "guide dog"]),
        ("dog fase", ["dog face"]),
        ("tshirt", ["T-shirt"]),
        ("", []),
        ("xylophone", []),
    ],
)
def test_close_names_are_suggested(wanted: str, close: list[str]) -> None:
    assert close_names(wanted, NAMES) == close


def test_the_error_says_what_may_be_meant() -> None:
    with pytest.raises(UnknownClassError, match=r"did you mean 'dog face', 'guide dog'\?"):
        find_class("dog", NAMES)
