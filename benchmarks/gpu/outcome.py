"""What a check found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

from pydantic import Field

from engines.errors import EngineError
from models.frozen import FrozenModel

Figures: TypeAlias = dict[str, float]


class CheckError(Exception):
    """A check found something wrong.

    Attributes:
        figures: what was measured all the same.
    """

    def __init__(self, message: str, figures: Figures) -> None:
        """Remember the figures beside the message."""
        super().__init__(message)
        self.figures = figures


class SkippedError(Exception):
    """A check cannot be made here; the message says why."""


class Outcome(FrozenModel):
    """The end of one check.

    Attributes:
        check: its name.
        status: of three.
        detail: why it failed or was skipped; empty where it passed.
        figures: what it measured, names with units.
    """

    check: str
    status: Literal["pass", "fail", "skipped"]
    detail: str = ""
    figures: Figures = Field(default_factory=dict)


def attempt(name: str, check: Callable[[], Figures]) -> Outcome:
    """Make a check, whatever it ends with."""
    try:
        return Outcome(check=name, status="pass", figures=check())
    except SkippedError as reason:
        return Outcome(check=name, status="skipped", detail=str(reason))
    except CheckError as error:
        return Outcome(check=name, status="fail", detail=str(error), figures=error.figures)
    except EngineError as error:
        return Outcome(check=name, status="fail", detail=str(error))
    except Exception as error:  # a driver's errors are of every kind, and the other checks are still wanted
        return Outcome(check=name, status="fail", detail=f"{type(error).__name__}: {error}")
