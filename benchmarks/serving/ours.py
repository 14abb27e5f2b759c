"""Our server around the toy model, ready to be measured."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.serving import stub
from benchmarks.serving.processes import ServerProcess, free_port, python
from benchmarks.serving.toy import Tally

CALL_S = 0.002


@dataclass(frozen=True, slots=True)
class StubServer:
    """A running server.

    Attributes:
        process: the server's.
        tally: what its engine did.
        folder: for files that go with the server; `folder / "registry"` is its registry.
    """

    process: ServerProcess
    tally: Tally
    folder: Path

    @property
    def url(self) -> str:
        """Where it listens."""
        return self.process.url


@contextmanager
def stub_server(*, versions: int = 1, call_s: float = CALL_S, **settings: Any) -> Iterator[StubServer]:
    """Run a server around the toy model.

    Args:
        versions: published ones; the first is the current one.
        call_s: seconds of an engine call.
        settings: of the server, over its defaults.
    """
    with TemporaryDirectory(prefix="ddo-serving-") as directory:
        folder = Path(directory)
        registry, tally, port = folder / "registry", folder / "tally", free_port()
        stub.publish_versions(registry, versions)
        given = {
            "models": [stub.NAME],
            "registry": str(registry),
            "port": port,
            "jobs": {"directory": str(folder / "jobs")},
            "log_level": "warning",
        }
        argument = {"call_s": call_s, "tally": str(tally), "settings": given | settings}
        counts = Tally(tally)
        with ServerProcess(python(stub.__name__, argument), port, folder / "server.log") as process:
            yield StubServer(process, counts, folder)
