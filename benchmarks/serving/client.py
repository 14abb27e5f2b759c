"""The process that sends a schedule: JSON on standard input, outcomes on standard output.

It imports little, so that on a small machine it costs the server as little as can be.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

import uvloop

from benchmarks.serving.outcome import LEFT, OK, Outcome
from benchmarks.serving.traffic import Arrival
from benchmarks.serving.wire import Answer, Pool

JSON, EVENTS = "application/json", "text/event-stream"
CONNECTIONS = 1000
START_S = 0.05
"""From reading the schedule to its start: the first request is then on time."""


class ClientError(Exception):
    """The client's process ended without outcomes; the message is the last line of what it wrote."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a client process does.

    Attributes:
        url: of the server.
        arrivals: what is sent, in order of time.
        concurrency: the closed loop's number of clients, each sending the next request when its last one
            is answered and counting time from then; None: each request goes out when it is due.
        stream: ask for server-sent events.
        timeout_s: after which a request counts as failed.
        path: of the route.
    """

    url: str
    arrivals: Sequence[Arrival]
    concurrency: int | None = None
    stream: bool = False
    timeout_s: float = 120.0
    path: str = "/generate"


@dataclass(slots=True)
class ClientProcess:
    """A client under way; `outcomes` waits for its end."""

    _process: subprocess.Popen[str]
    _plan: str = field(repr=False)

    @classmethod
    def start(cls, plan: Plan) -> ClientProcess:
        """Start a process that sends `plan` as soon as it can."""
        command = [sys.executable, "-m", "benchmarks.serving.client"]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        text = json.dumps(dataclasses.asdict(plan))
        assert process.stdin is not None
        process.stdin.write(text)
        process.stdin.close()
        process.stdin = None
        return cls(process, text)

    def outcomes(self) -> list[Outcome]:
        """Wait until every request has its outcome; return them in the schedule's order.

        Raises:
            ClientError: the process failed.
        """
        output, errors = self._process.communicate()
        if self._process.returncode:
            raise ClientError((errors.strip().splitlines() or ["no word"])[-1])
        return [Outcome(*row) for row in json.loads(output)]


def send(plan: Plan) -> list[Outcome]:
    """Send a schedule from a process of its own; return what became of its requests, in its order.

    Raises:
        ClientError: the process failed.
    """
    return ClientProcess.start(plan).outcomes()


async def run(plan: Plan) -> list[Outcome]:
    """Send a schedule from this process."""
    pool = Pool(plan.url, plan.concurrency or CONNECTIONS)
    sender = _Sender(plan, pool, time.monotonic() + START_S)
    try:
        return await (
            sender.open_loop() if plan.concurrency is None else sender.closed_loop(plan.concurrency)
        )
    finally:
        pool.close()


class _Sender:
    def __init__(self, plan: Plan, pool: Pool, start: float) -> None:
        self._plan = plan
        self._pool = pool
        self._start = start

    async def open_loop(self) -> list[Outcome]:
        tasks: list[asyncio.Task[Outcome]] = []
        for index, arrival in enumerate(self._plan.arrivals):
            wait = arrival.offset_s - self._now()
            if wait > 0:
                await asyncio.sleep(wait)
            tasks.append(asyncio.create_task(self._request(index, arrival, arrival.offset_s)))
        return await asyncio.gather(*tasks)

    async def closed_loop(self, concurrency: int) -> list[Outcome]:
        outcomes: list[Outcome] = []
        queue = iter(enumerate(self._plan.arrivals))

        async def one_client() -> None:
            for index, arrival in queue:
                outcomes.append(await self._request(index, arrival, self._now()))

        await asyncio.gather(*(one_client() for _ in range(concurrency)))
        return sorted(outcomes, key=lambda outcome: outcome.index)

    def _now(self) -> float:
        return time.monotonic() - self._start

    async def _request(self, index: int, arrival: Arrival, due: float) -> Outcome:
        sent = self._now()
        work = self._pool.post(self._plan.path, arrival.body, EVENTS if self._plan.stream else JSON)
        try:
            answer = await self._patiently(work, arrival.leave_s)
        except TimeoutError:
            kind = "timeout" if arrival.leave_s is None else LEFT
            return Outcome(index, due, sent, self._now(), kind)
        except OSError:
            return Outcome(index, due, sent, self._now(), "connection")
        ended = self._now()
        preview = None if answer.preview is None else answer.preview - self._start
        return Outcome(index, due, sent, ended, status=answer.status, preview_s=preview, **_contents(answer))

    async def _patiently(self, work: Coroutine[Any, Any, Answer], leave_s: float | None) -> Answer:
        async with asyncio.timeout(self._plan.timeout_s if leave_s is None else leave_s):
            return await work


def _contents(answer: Answer) -> dict[str, Any]:
    """Return what an answer says: kind, version, images, digest, queue_ms and compute_ms."""
    if answer.body.startswith((b"event:", b":", b"id:", b"data:")):
        return _streamed(answer.events())
    try:
        document = answer.json()
    except ValueError:
        document = {}
    if answer.status != 200:
        return {"kind": _problem(document, answer.status)}
    return _made(document, document.get("images", []))


def _streamed(events: list[tuple[str, Any]]) -> dict[str, Any]:
    name, last = events[-1] if events else ("", {})
    if name != "done":
        return {"kind": _problem(last, 200) if name == "error" else "broken-stream"}
    images = [data for kind, data in events if kind == "image"]
    return _made(last, sorted(images, key=lambda image: image["seed"]))


def _made(document: dict[str, Any], images: list[dict[str, Any]]) -> dict[str, Any]:
    timings = document.get("timings", {})
    digest = hashlib.blake2b("".join(image["image"] for image in images).encode(), digest_size=12)
    return {
        "kind": OK,
        "version": document.get("version"),
        "images": len(images),
        "digest": digest.hexdigest(),
        "queue_ms": timings.get("queue_ms"),
        "compute_ms": timings.get("compute_ms"),
    }


def _problem(document: Any, status: int) -> str:
    kind = document.get("type", "") if isinstance(document, dict) else ""
    return str(kind).rpartition(":")[2] or f"http-{status}"


def _main() -> None:
    given = json.load(sys.stdin)
    plan = Plan(**{**given, "arrivals": [Arrival(**arrival) for arrival in given["arrivals"]]})
    outcomes = uvloop.run(run(plan))
    json.dump([dataclasses.astuple(outcome) for outcome in outcomes], sys.stdout)


if __name__ == "__main__":
    _main()
