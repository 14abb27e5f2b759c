"""The toy model as peers serve it: by whole requests. Whoever serves it needs numpy and Pillow only."""

from __future__ import annotations

import base64
import io
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import PIL.Image

from benchmarks.serving.toy import Tally, Toy

VARIABLE = "TOY_MODEL"
"""The environment's variable that tells a peer what it serves."""
WAIT_S = 0.002
"""How long a batch is held open for more rows, where a peer has such a setting."""


@dataclass(frozen=True, slots=True)
class PeerSettings:
    """What a peer serves: JSON in the environment's `TOY_MODEL`.

    Attributes:
        port: that it listens on.
        call_s: seconds of a call.
        tally: file for its counts.
    """

    port: int
    call_s: float
    tally: str

    @classmethod
    def from_environment(cls) -> PeerSettings:
        """Read `TOY_MODEL`."""
        return cls(**json.loads(os.environ[VARIABLE]))

    def model(self) -> RequestModel:
        """Return the model."""
        return RequestModel(Toy(self.call_s, Tally(Path(self.tally))))


class RequestModel:
    """Runs requests together from the first step to the last: a short one waits for the longest."""

    def __init__(self, toy: Toy) -> None:
        """Run `toy`."""
        self._toy = toy
        self.max_rows = toy.max_rows

    def generate(self, bodies: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Make an image for each body: `class_id`, `seed`, `steps`; return answers as ours gives them."""
        steps = [body["steps"] for body in bodies]
        states = [self._toy.noise(body["class_id"], body["seed"], body["steps"]) for body in bodies]
        for step in range(max(steps)):
            rows = [row for row, own in enumerate(steps) if own > step]
            for row, state in zip(rows, self._toy.call([states[row] for row in rows]), strict=True):
                states[row] = state
        return [self._answer(state) for state in states]

    def _answer(self, state: int) -> dict[str, Any]:
        file = io.BytesIO()
        PIL.Image.fromarray(self._toy.image(state)).save(file, format="PNG", compress_level=1)
        return {"images": [{"image": base64.b64encode(file.getvalue()).decode()}], "version": 1}
