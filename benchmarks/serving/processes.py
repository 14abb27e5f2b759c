"""Server processes: started, watched from outside, killed."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import psutil

READY_TIMEOUT_S = 120.0
ROOT = Path(__file__).resolve().parents[2]


class ServerError(Exception):
    """A server process that did not do what it should; the message says what."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What a server's processes hold: resident bytes, open descriptors, threads."""

    resident: int
    descriptors: int
    threads: int


class ServerProcess:
    """A server that `with` starts, and kills at the end with all its children.

    Args:
        command: what runs it.
        port: that it listens on, on 127.0.0.1.
        log: file for its output.
        environment: added to this process's.
        ready: says whether the server at a URL takes requests; by default `/readyz` does.

    Raises:
        ServerError: it ended before it was ready, or was not ready in time.
    """

    def __init__(
        self,
        command: Sequence[str],
        port: int,
        log: Path,
        environment: Mapping[str, str] | None = None,
        *,
        ready: Callable[[str], bool] | None = None,
    ) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._command = list(command)
        self._log = log
        self._environment = {**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})}
        self._ready = ready or answers_ready
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> ServerProcess:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def start(self) -> None:
        """Start the process and wait until it is ready."""
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=self._environment,
                start_new_session=True,
            )
        try:
            self._wait_until_ready()
        except BaseException:
            self.kill()
            raise

    def kill(self) -> None:
        """Kill the process and its children with SIGKILL."""
        if self._process is not None:
            # Some servers' children leave their parent's group, others lose their parent.
            with suppress(psutil.NoSuchProcess):
                for process in psutil.Process(self._process.pid).children(recursive=True):
                    with suppress(psutil.NoSuchProcess):
                        process.kill()
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def cpu_seconds(self) -> float:
        """Return the CPU time that all processes of the server have used."""
        return sum(sum(process.cpu_times()[:2]) for process in self._processes())

    def usage(self) -> Usage:
        """Return what all processes of the server hold now."""
        processes = self._processes()
        return Usage(
            resident=sum(process.memory_info().rss for process in processes),
            descriptors=sum(process.num_fds() for process in processes),
            threads=sum(process.num_threads() for process in processes),
        )

    def libraries(self) -> set[str]:
        """Return the names of all files that the server's processes have mapped."""
        return {Path(mapped.path).name for process in self._processes() for mapped in process.memory_maps()}

    def _processes(self) -> list[psutil.Process]:
        if self._process is None:
            raise ServerError("the server does not run")
        parent = psutil.Process(self._process.pid)
        return [parent, *parent.children(recursive=True)]

    def _wait_until_ready(self) -> None:
        assert self._process is not None
        end = time.monotonic() + READY_TIMEOUT_S
        while not self._ready(self.url):
            if self._process.poll() is not None:
                raise ServerError(f"the server ended with {self._process.returncode}: {self._last_words()}")
            if time.monotonic() > end:
                raise ServerError(f"not ready after {READY_TIMEOUT_S:.0f} s: {self._last_words()}")
            time.sleep(0.02)

    def _last_words(self) -> str:
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return " | ".join(lines[-3:])[:500] or "no word"


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def answers_ready(url: str) -> bool:
    """Return whether a server says that it takes requests."""
    try:
        return get(url, "/readyz")[0] == 200
    except OSError:
        return False


def get(url: str, path: str) -> tuple[int, bytes]:
    """Return status and body of a GET.

    Raises:
        OSError: no connection.
    """
    return _exchange(url, "GET", path, None)


def post(url: str, path: str, body: Any) -> tuple[int, Any]:
    """Return status and JSON of a POST.

    Raises:
        OSError: no connection.
        ValueError: the answer is not JSON.
    """
    status, text = _exchange(url, "POST", path, json.dumps(body).encode())
    return status, json.loads(text)


def gauges(url: str) -> dict[str, float]:
    """Return `/metrics`: sample name to value, samples of one name summed."""
    found: dict[str, float] = {}
    for line in get(url, "/metrics")[1].decode().splitlines():
        if line and not line.startswith("#"):
            name, _, value = line.rpartition(" ")
            name = name.partition("{")[0]
            found[name] = found.get(name, 0.0) + float(value)
    return found


def python(module: str, argument: Mapping[str, Any]) -> list[str]:
    """Return the command that runs one of our modules with a JSON argument."""
    return [sys.executable, "-m", module, json.dumps(argument)]


def server_command(*options: str) -> list[str]:
    """Return the command that runs the real server."""
    return [sys.executable, "-m", "server", *options]


def _exchange(url: str, method: str, path: str, body: bytes | None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
    try:
        headers = {} if body is None else {"Content-Type": "application/json"}
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()
