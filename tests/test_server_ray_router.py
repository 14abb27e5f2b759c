"""The router of a cluster, with replicas that answer as they are told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from server.settings import Settings

ray = pytest.importorskip("ray", reason="Ray is an optional extra")

from ray.exceptions import ActorDiedError  # noqa: E402

from server.ray.call import Call  # noqa: E402
from server.ray.router import Router  # noqa: E402

Script = Sequence[Any]


def start(status: int, kind: str = "application/json") -> dict[str, Any]:
    return {"type": "http.response.start", "status": status, "headers": [(b"content-type", kind.encode())]}


def body(data: bytes) -> dict[str, Any]:
    return {"type": "http.response.body", "body": data}


def refusal(name: str, status: int = 429) -> Script:
    return [start(status), body(json.dumps({"type": f"urn:ddo-serve:{name}"}).encode())]


def event(name: str, index: int = 0) -> dict[str, Any]:
    return body(f'event: {name}\ndata: {{"index": {index}}}\n\n'.encode())


GOOD = [start(200), body(b"the image")]
EVENTS = start(200, "text/event-stream")
LOST = ActorDiedError()


class Told:
    """A handle whose replicas 0, 1, ... send what they are told; an exception is the replica's end."""

    def __init__(self, *scripts: Script) -> None:
        self.scripts = scripts
        self.calls: list[Call] = []
        self.cancelled = 0

    def options(self, **_: Any) -> Told:
        return self

    def remote(self, call: Call) -> Told.Answer:
        self.calls.append(call)
        return Told.Answer(self, str(len(self.calls) - 1), self.scripts[len(self.calls) - 1])

    class Answer:
        def __init__(self, told: Told, replica: str, script: Script) -> None:
            self.told = told
            self.messages = self.run(replica, script)

        async def run(self, replica: str, script: Script) -> AsyncIterator[Any]:
            yield replica
            for message in script:
                if isinstance(message, Exception):
                    raise message
                yield message

        def __aiter__(self) -> Told.Answer:
            return self

        def __anext__(self) -> Any:
            return anext(self.messages)

        def cancel(self) -> None:
            self.told.cancelled += 1


def post(told: Told, path: str = "/generate", content: bytes = b"{}") -> httpx.Response:
    router = Router(told, Settings(), 3)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        response = await router(Request(scope, receive))
        await response(scope, receive, send)

    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://cluster") as client:
            return await client.post(path, content=content)

    return asyncio.run(ask())


@pytest.mark.parametrize("name", ["queue-full", "too-late", "not-ready", "draining"])
def test_what_one_replica_refuses_another_makes(name: str) -> None:
    told = Told(refusal(name), GOOD)
    answer = post(told)
    assert (answer.status_code, answer.content) == (200, b"the image")
    assert [call.avoid for call in told.calls] == [frozenset(), {"0"}]


@pytest.mark.parametrize("name", ["rate-limit", "caller-busy", "invalid-input"])
def test_what_is_the_callers_own_is_not_asked_elsewhere(name: str) -> None:
    told = Told(refusal(name), GOOD)
    assert post(told).json()["type"] == f"urn:ddo-serve:{name}"
    assert len(told.calls) == 1


def test_a_refusal_by_all_reaches_the_client() -> None:
    told = Told(*[refusal("queue-full")] * 3, GOOD)
    assert post(told).status_code == 429
    assert told.calls[-1].avoid == {"0", "1"}


@pytest.mark.parametrize("before", [[], [start(200)]])
def test_a_lost_request_is_made_again_with_the_same_seed(before: Script) -> None:
    told = Told([*before, LOST], GOOD)
    assert post(told, content=b'{"n": 2}').content == b"the image"
    first, second = told.calls
    assert first.body == second.body
    assert isinstance(json.loads(first.body)["seed"], int)
    assert first.images == 2


@pytest.mark.parametrize("content", [b"", b"not JSON", b"[1]", b'{"seed": 3}'])
def test_a_body_that_needs_no_seed_is_left_alone(content: bytes) -> None:
    told = Told(GOOD)
    post(told, content=content)
    assert told.calls[0].body == content


def test_losing_every_replica_is_told() -> None:
    answer = post(Told(*[[LOST]] * 3))
    assert answer.status_code == 503
    assert answer.json()["type"] == "urn:ddo-serve:no-replica"
    assert answer.headers["retry-after"] == "1"


def test_a_stream_goes_on_at_another_replica() -> None:
    told = Told(
        [EVENTS, event("queued"), event("image", 0), LOST],
        [LOST],
        [EVENTS, event("queued"), event("image", 0), event("image", 1), event("done")],
    )
    answer = post(told)
    assert [line for line in answer.text.splitlines() if line.startswith("event")] == [
        "event: queued",
        "event: image",
        "event: image",
        "event: done",
    ]


def test_a_stream_that_no_replica_ends_tells_so() -> None:
    answer = post(Told([EVENTS, event("queued"), LOST], [LOST], [LOST]))
    assert "event: error" in answer.text
    assert "no-replica" in answer.text


@pytest.mark.parametrize(
    ("change", "status", "name"),
    [
        ({"path": "/jobs"}, 501, "not-in-cluster"),
        ({"content": b" " * 100_000}, 413, "body-too-large"),
    ],
)
def test_what_the_router_refuses_itself(change: dict[str, Any], status: int, name: str) -> None:
    told = Told()
    answer = post(told, **change)
    assert (answer.status_code, answer.json()["type"]) == (status, f"urn:ddo-serve:{name}")
    assert not told.calls
