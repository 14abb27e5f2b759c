"""What clients ask for, and when."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

MAX_ARRIVALS = 500_000
"""Longest schedule: it is drawn before the first request is sent."""


class TrafficError(Exception):
    """A schedule that cannot be sent; the message says why."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request.

    Attributes:
        offset_s: seconds after the start at which a client wants to send it.
        body: of `POST /generate`.
        leave_s: seconds after which the client closes its connection without an answer; None: it waits.
    """

    offset_s: float
    body: Mapping[str, Any]
    leave_s: float | None = None


@dataclass(frozen=True, slots=True)
class Mix:
    """From what the bodies of requests are drawn, each value as likely as any other of its range.

    Attributes:
        model: its name; None: the server's default.
        version: of the model; None: its default one.
        classes: how many the model has; 0 for an unconditional one.
        steps: fewest and most; None leaves them out, as a VAR model needs.
        n: fewest and most images of a request.
        cfg: guidance scales.
        deadline_ms: of every request; None leaves it out.
    """

    model: str | None = None
    version: int | None = None
    classes: int = 0
    steps: tuple[int, int] | None = None
    n: tuple[int, int] = (1, 1)
    cfg: tuple[float, ...] = (1.0,)
    deadline_ms: int | None = None

    def bodies(self, draw: random.Random) -> Iterator[dict[str, Any]]:
        """Draw bodies without end. Their seeds differ, so no image is asked for twice."""
        seed = draw.randrange(2**32) << 16
        while True:
            seed += self.n[1]
            body: dict[str, Any] = {
                "model": self.model,
                "version": self.version,
                "class_id": draw.randrange(self.classes) if self.classes else None,
                "seed": seed,
                "steps": None if self.steps is None else draw.randint(*self.steps),
                "n": draw.randint(*self.n),
                "cfg": draw.choice(self.cfg),
                "deadline_ms": self.deadline_ms,
            }
            yield {name: value for name, value in body.items() if value is not None}


def poisson(mix: Mix, *, rate: float, seconds: float, draw: random.Random) -> list[Arrival]:
    """Draw arrivals that do not wait for answers: a Poisson process.

    Args:
        mix: what is asked for.
        rate: requests a second.
        seconds: after which none arrives.
        draw: source of all randomness.

    Raises:
        TrafficError: there would be too many.
    """
    _check_length(rate * seconds)
    arrivals: list[Arrival] = []
    bodies = mix.bodies(draw)
    offset = draw.expovariate(rate)
    while offset < seconds:
        arrivals.append(Arrival(offset, next(bodies)))
        offset += draw.expovariate(rate)
    return arrivals


def at_once(mix: Mix, *, requests: int, draw: random.Random) -> list[Arrival]:
    """Draw requests that are all due at the start; a closed loop sends each when a client is free.

    Raises:
        TrafficError: there would be too many.
    """
    _check_length(requests)
    return [Arrival(0.0, body) for body in islice(mix.bodies(draw), requests)]


def read_trace(file: Path) -> list[Arrival]:
    """Read recorded arrivals: a JSON object a line, `offset` in seconds and `body`; in any order.

    Raises:
        TrafficError: a line is not that, or there are too many or none.
    """
    arrivals = []
    with file.open() as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                arrivals.append(_recorded(line, f"{file}, line {number}"))
            _check_length(len(arrivals))
    if not arrivals:
        raise TrafficError(f"{file} holds no request")
    return sorted(arrivals, key=lambda arrival: arrival.offset_s)


def last_offset(arrivals: Sequence[Arrival]) -> float:
    """Return the seconds from the start to the last arrival; 0 where there is none."""
    return arrivals[-1].offset_s if arrivals else 0.0


def _recorded(line: str, where: str) -> Arrival:
    try:
        entry = json.loads(line)
        offset, body = float(entry["offset"]), entry["body"]
    except (ValueError, KeyError, TypeError):
        raise TrafficError(f'{where}: want {{"offset": SECONDS, "body": {{...}}}}') from None
    if not 0 <= offset < 86_400 or not isinstance(body, dict):
        raise TrafficError(f"{where}: the offset has to be 0 to 86400 seconds, the body an object")
    return Arrival(offset, body)


def _check_length(requests: float) -> None:
    if requests > MAX_ARRIVALS:
        raise TrafficError(f"{requests:.0f} requests are more than {MAX_ARRIVALS}: ask for fewer a run")
