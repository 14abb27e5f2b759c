"""The side of a comparison's process that asks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from tempfile import TemporaryFile
from types import TracebackType
from typing import Any


class ArmError(Exception):
    """A process ended or answered nonsense; the message is the last line of what it wrote."""


@dataclass(frozen=True)
class Timing:
    """Seconds of one call: on the wall, and of all the process's threads together."""

    wall: float
    compute: float


class Arm:
    """A process that computes cases one at a time.

    Args:
        module: what `python -m` runs; it calls `answering.answer`.
        settings: its one argument, JSON.
        threads: that it may compute with.

    Attributes:
        ready_seconds: from the process's start until it could take a case.

    Raises:
        ArmError: it ended before it was ready.
    """

    def __init__(self, module: str, settings: Mapping[str, Any], threads: int) -> None:
        self._errors = TemporaryFile("w+")  # noqa: SIM115 - `close` does
        started = time.perf_counter()
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, json.dumps({**settings, "threads": threads})],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            bufsize=1,
            # CI: OpenVINO would report its use to its makers, from a process that outlives this one.
            env={**os.environ, "OMP_NUM_THREADS": str(threads), "CI": "true"},
        )
        try:
            self._reply()
        except BaseException:
            self.close()
            raise
        self.ready_seconds = time.perf_counter() - started

    def __enter__(self) -> Arm:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def run(self, case: Mapping[str, Any]) -> Timing:
        """Compute one case.

        Raises:
            ArmError: the process ended.
        """
        assert self._process.stdin is not None
        try:
            print(json.dumps(case), file=self._process.stdin)
        except BrokenPipeError:
            raise ArmError(self._last_words()) from None
        return Timing(**self._reply())

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        # Not `communicate`: a child that it left behind may hold the pipes open for ever.
        for pipe in (self._process.stdin, self._process.stdout, self._errors):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()

    def _reply(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise ArmError(self._last_words())
        reply: dict[str, Any] = json.loads(line)
        return reply

    def _last_words(self) -> str:
        self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().strip().splitlines()
        return lines[-1] if lines else f"exit status {self._process.returncode}"
