"""The servers that are compared, and how each is started."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.serving.ours import CALL_S, stub_server
from benchmarks.serving.peers.model import VARIABLE, PeerSettings
from benchmarks.serving.processes import ROOT, ServerProcess, free_port, post
from benchmarks.serving.toy import Tally

PROBE = {"class_id": 0, "seed": 0, "steps": 1}


@dataclass(frozen=True, slots=True)
class Peer:
    """A server that is not ours.

    Attributes:
        name: its own.
        package: what its interpreter must have.
        arguments: of the interpreter; `{port}` is filled in.
    """

    name: str
    package: str
    arguments: Sequence[str]

    def version(self, python: str) -> str | None:
        """Return the package's version in an interpreter; None where it is not installed."""
        code = "import importlib.metadata, sys; print(importlib.metadata.version(sys.argv[1]))"
        done = subprocess.run([python, "-c", code, self.package], capture_output=True, text=True, check=False)
        return done.stdout.strip() or None

    @contextmanager
    def serve(self, python: str) -> Iterator[tuple[ServerProcess, Tally]]:
        """Run it by an interpreter; give its process and what its model did."""
        with TemporaryDirectory(prefix="ddo-peers-") as directory:
            folder, port = Path(directory), free_port()
            settings = PeerSettings(port, CALL_S, str(folder / "tally"))
            tally = Tally(folder / "tally")
            command = [python, *(argument.format(port=port) for argument in self.arguments)]
            environment = {VARIABLE: json.dumps(asdict(settings)), **QUIET}
            log = folder / "server.log"
            with ServerProcess(command, port, log, environment, ready=answers) as process:
                yield process, tally


QUIET = {
    "BENTOML_DO_NOT_TRACK": "True",
    "RAY_USAGE_STATS_ENABLED": "0",
}
"""No peer reports its use to its makers."""
BENTO_OPTIONS = ("--working-dir", str(ROOT), "--host", "127.0.0.1", "--port", "{port}")
PLAIN = Peer("plain batcher", "fastapi", ["-m", "benchmarks.serving.peers.plain"])
OTHERS = (
    Peer("mosec", "mosec", ["-m", "benchmarks.serving.peers.mosec_worker"]),
    Peer("LitServe", "litserve", ["-m", "benchmarks.serving.peers.lit"]),
    Peer(
        "BentoML",
        "bentoml",
        ["-m", "bentoml", "serve", "benchmarks.serving.peers.bento:Front", *BENTO_OPTIONS],
    ),
    Peer("Ray Serve", "ray", ["-m", "benchmarks.serving.peers.ray_serve"]),
)


class Ours:
    """This server, for the same comparison."""

    name = "ddo-serve"

    @contextmanager
    def serve(self, python: str = sys.executable) -> Iterator[tuple[ServerProcess, Tally]]:
        """Run it; give its process and what its engine did."""
        with stub_server() as server:
            yield server.process, server.tally


def answers(url: str) -> bool:
    """Return whether a server makes images."""
    try:
        status, answer = post(url, "/generate", PROBE)
    except (OSError, ValueError):
        return False
    return status == 200 and bool(_images(answer))


def _images(answer: Any) -> Any:
    return answer.get("images") if isinstance(answer, dict) else None
