"""The project's own clients: with real servers, and with one that breaks off or refuses as told."""

from __future__ import annotations

import asyncio
import inspect
import json
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from fake_engine import FakeEngine
from fake_server import NAMES, serving, wait_until_ready
from job_servers import check_npz
from test_server_access import USER, keys_file

from server import client as clients
from server.access.settings import AccessSettings
from server.api.job_schemas import JobInfo
from server.jobs.job import JobState
from server.settings import Settings

SERVED = json.dumps({"models": []}).encode()


class Awaited:
    """An `AsyncClient` whose methods are run to their end, so that one test can try both."""

    def __init__(self, url: str, **options: Any) -> None:
        if "sleep" in options:
            options["sleep"] = self._asleep(options["sleep"])
        self.runner = asyncio.Runner()
        self.client = clients.AsyncClient(url, **options)

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.client, name)
        return lambda *args, **options: self.runner.run(self._end(method(*args, **options)))

    def close(self) -> None:
        self.runner.run(self.client.aclose())
        self.runner.close()

    @staticmethod
    async def _end(result: Any) -> Any:
        return [event async for event in result] if inspect.isasyncgen(result) else await result

    @staticmethod
    def _asleep(sleep: Any) -> Any:
        async def asleep(seconds: float) -> None:
            sleep(seconds)

        return asleep


@pytest.fixture(params=[clients.Client, Awaited])
def connect(request: pytest.FixtureRequest) -> Iterator[Any]:
    opened: list[Any] = []

    def connect(url: str, **options: Any) -> Any:
        opened.append(request.param(url, **options))
        return opened[-1]

    yield connect
    for client in opened:
        client.close()


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving(
        {
            "fake": FakeEngine(),
            "slow": FakeEngine(cost_s=0.005, capacity=1),
            "broken": FakeEngine(fail_class=3),
        }
    ) as url:
        with httpx.Client(base_url=url) as client:
            wait_until_ready(client)
        yield url


@contextmanager
def scripted(*answers: bytes) -> Iterator[tuple[str, list[bytes]]]:
    """Answer one request after another with these bytes, each on a connection that ends with them."""
    left, heard = list(answers), []

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            heard.append(self.request.recv(65536))
            self.request.sendall(left.pop(0))

    with socketserver.TCPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", heard
        finally:
            server.shutdown()
            thread.join()


def answer(status: str, body: bytes, *headers: str, length: int | None = None) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body) if length is None else length}", *headers]
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode() + body


def test_images_come_as_bytes_and_pictures(connect: Any, url: str, tmp_path: Path) -> None:
    client = connect(url)
    made = client.generate("Dog face", n=2, seed=3, steps=5, model="fake", version=3, format="webp")
    by_number = client.generate(0, n=2, seed=3, steps=5, format="png")
    assert [image.seed for image in made.images] == [3, 4]
    assert (made.model, made.version, made.parameters.class_name, made.format) == (
        "fake",
        3,
        "dog face",
        "webp",
    )
    for image, same in zip(made.images, by_number.images, strict=True):
        np.testing.assert_array_equal(np.asarray(image.pil().convert("RGB")), np.asarray(same.pil()))
    made.images[0].save(tmp_path / "dog.webp")
    assert (tmp_path / "dog.webp").read_bytes() == made.images[0].data


def test_a_stream_tells_typed_events(connect: Any, url: str) -> None:
    preview = {"interval_ms": 0, "limit": 2, "size": 8, "format": "png"}
    events = list(connect(url).stream("ghost", preview=preview, model="slow", seed=1, n=2, steps=8))
    assert isinstance(events[0], clients.Queued)
    assert isinstance(events[-1], clients.Done)
    images = {event.index: event.data for event in events if isinstance(event, clients.StreamedImage)}
    previews = [event for event in events if isinstance(event, clients.Preview)]
    assert len(events) == 2 + len(images) + len(previews)
    assert 1 <= len(previews) <= 4
    assert previews[0].pil().size == (8, 8)
    plain = connect(url).generate("ghost", model="slow", seed=1, n=2, steps=8)
    assert [images[0], images[1]] == [image.data for image in plain.images]


def test_a_stream_that_fails_midway_raises(connect: Any, url: str) -> None:
    with pytest.raises(clients.ServerFailureError, match="engine"):
        list(connect(url).stream("ghost", model="broken"))


def test_leaving_a_stream_cancels_it(url: str) -> None:
    with clients.Client(url) as client:
        events = client.stream("ghost", model="slow", steps=1000)
        assert isinstance(next(events), clients.Queued)
        events.close()  # type: ignore[attr-defined]
        assert client.generate("ghost", model="slow", steps=1, deadline_ms=2000).images


def test_what_is_served_is_told(connect: Any, url: str) -> None:
    client = connect(url)
    assert [model.name for model in client.models()] == ["fake", "slow", "broken"]
    assert client.model("slow", 3).defaults["solver"]
    assert client.classes("slow") == list(NAMES)


def test_a_job_is_made_watched_and_downloaded(connect: Any, url: str, tmp_path: Path) -> None:
    client, told = connect(url), []
    job = client.create_job(70, ["ghost", 1], seed=8, format="npz", idempotency_key=str(connect))
    assert (
        client.create_job(70, ["ghost", 1], seed=8, format="npz", idempotency_key=str(connect)).id == job.id
    )
    done = client.wait(job.id, progress=told.append, poll_s=0.01, timeout_s=30)
    assert (done.state, done.done, told[-1]) == (JobState.FINISHED, 70, done)
    assert job.id in [each.id for each in client.jobs()]
    path = client.download(job.id, tmp_path / "images.npz")
    check_npz(path.read_bytes(), 70, 8, [3, 1])
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(clients.ConflictError, match="finished"):
        client.resume_job(job.id)
    client.delete_job(job.id)
    with pytest.raises(clients.NotFoundError, match="no job"):
        client.job(job.id)


@pytest.mark.parametrize(
    ("wanted", "error", "says"),
    [
        ({"class_": "dgo face"}, clients.InvalidRequestError, "did you mean 'dog face'"),
        ({"class_": 4}, clients.InvalidRequestError, "4 is not 0 to 3"),
        ({"steps": 0}, clients.InvalidRequestError, "greater than or equal to 1"),
        ({"model": "nope"}, clients.NotFoundError, "no model is called 'nope'"),
        ({"model": "broken", "class_": 3}, clients.ServerFailureError, "engine"),
    ],
)
def test_problems_are_typed_errors(
    connect: Any, url: str, wanted: dict[str, Any], error: type[clients.RefusedError], says: str
) -> None:
    client = connect(url, retries=clients.Retries(attempts=2), sleep=lambda _: None)
    class_, options = wanted.get("class_", 0), {key: wanted[key] for key in wanted.keys() - {"class_"}}
    with pytest.raises(error, match=says) as caught:
        client.generate(class_, **options)
    assert caught.value.problem.request_id
    assert type(caught.value) is error


def test_a_server_that_asks_for_a_key_gets_it(connect: Any, tmp_path: Path) -> None:
    access = AccessSettings(keys=keys_file(tmp_path, images_per_minute=2))
    with serving({"fake": FakeEngine()}, Settings(access=access)) as url:
        with httpx.Client(base_url=url) as plain:
            wait_until_ready(plain)
        with pytest.raises(clients.UnauthenticatedError, match="an API key is needed"):
            connect(url).models()
        waits: list[float] = []
        client = connect(url, api_key=USER, sleep=waits.append, retries=clients.Retries(total_s=30))
        assert len(client.generate("ghost", n=2).images) == 2
        with pytest.raises(clients.BusyError, match="2 images a minute") as busy:
            client.generate("ghost")
        assert 30 < (busy.value.retry_after_s or 0) <= 60
        assert not waits, "more than is left is not waited for"


@pytest.mark.parametrize(
    ("answers", "waits"),
    [
        ([answer("429 Too Many Requests", b"{}", "Retry-After: 7")], [7 * 1.25]),
        ([answer("503 Service Unavailable", b"<html>", "Retry-After: 2")] * 2, [2.5, 2.5]),
        ([answer("502 Bad Gateway", b"<html>")] * 3, [1.25, 2.5, 5.0]),
        ([b"", answer("200 OK", b"{", length=20)], [1.25, 2.5]),
    ],
)
def test_what_may_pass_is_tried_again(connect: Any, answers: Sequence[bytes], waits: list[float]) -> None:
    slept: list[float] = []
    retries = clients.Retries(attempts=4, first_s=1.0, draw=lambda: 0.5)
    with scripted(*answers, answer("200 OK", SERVED)) as (url, heard):
        assert connect(url, retries=retries, sleep=slept.append).models() == []
    assert slept == waits
    assert len(heard) == len(answers) + 1


@pytest.mark.parametrize(
    ("answers", "error", "says"),
    [
        ([answer("429 Too Many Requests", b"no")], clients.BusyError, "429 Too Many Requests: no"),
        ([answer("504 Gateway Timeout", b"")], clients.TooLateError, "504 Gateway Timeout"),
        ([answer("503 Busy", b"", "Retry-After: 61")], clients.UnavailableError, "503"),
        ([answer("500 Oops", b"")] * 3, clients.ServerFailureError, "500 Oops"),
        ([b""] * 3, clients.UnreachableError, "does not answer"),
    ],
)
def test_trying_again_ends(
    connect: Any, answers: Sequence[bytes], error: type[clients.ClientError], says: str
) -> None:
    with scripted(*answers) as (url, heard):
        client = connect(url, retries=clients.Retries(attempts=3), sleep=lambda _: None)
        with pytest.raises(error, match=says):
            client.models()
    assert len(heard) == len(answers)


def test_a_download_goes_on_where_it_broke_off(connect: Any, tmp_path: Path) -> None:
    answers = [
        answer("200 OK", b"0123", 'ETag: "a"', length=10),
        answer("206 Partial Content", b"45", 'ETag: "a"', length=6),
        answer("200 OK", b"another fi", 'ETag: "b"', length=12),
        answer("206 Partial Content", b"le", 'ETag: "b"'),
    ]
    with scripted(*answers) as (url, heard):
        path = connect(url, sleep=lambda _: None).download("1", tmp_path / "images.zip")
    assert path.read_bytes() == b"another file"
    ranges = [
        [line for line in request.decode().lower().splitlines() if line.startswith(("range", "if-range"))]
        for request in heard
    ]
    assert ranges == [
        [],
        ["range: bytes=4-", 'if-range: "a"'],
        ["range: bytes=6-", 'if-range: "a"'],
        ["range: bytes=10-", 'if-range: "b"'],
    ]


@pytest.mark.parametrize(
    ("state", "error", "says"),
    [
        ("failed", clients.JobFailedError, "after 3 of 9 images: disk full"),
        ("running", clients.JobTimeoutError, "3 of 9 images"),
    ],
)
def test_waiting_ends_with_a_job_that_does_not(
    connect: Any, state: str, error: type[clients.ClientError], says: str
) -> None:
    job = {
        "id": "1",
        "state": state,
        "reason": "disk full",
        "done": 3,
        "total": 9,
        "model": "fake",
        "version": 1,
    }
    job |= {"parameters": {}, "seed": 0, "format": "npz", "created": "2026-01-01T00:00:00Z"}
    assert JobInfo.model_validate_json(json.dumps(job))
    with scripted(answer("200 OK", json.dumps(job).encode())) as (url, _), pytest.raises(error, match=says):
        connect(url).wait("1", timeout_s=0)


def test_importing_the_client_is_light() -> None:
    code = "import sys, server.client; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"torch", "fastapi", "starlette", "uvicorn", "prometheus_client", "numpy"} & set(loaded)
    assert "httpx" in loaded
