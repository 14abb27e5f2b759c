"""Images told as they come: events over real HTTP."""

from __future__ import annotations

import base64
import io
import json
import signal
import socket
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import httpx
import numpy as np
import PIL.Image
import pytest
from fake_engine import FakeEngine, FakeRow
from fake_server import serving, wait_until_ready
from httpx_sse import connect_sse
from test_server_load import FOREVER, gauge, process, wait_for

from server.settings import Settings

EVERY_CALL = {"interval_ms": 0, "format": "png"}


@pytest.fixture(scope="module")
def engine() -> FakeEngine:
    return FakeEngine(cost_s=0.002)


@pytest.fixture(scope="module")
def client(engine: FakeEngine) -> Iterator[httpx.Client]:
    engines = {
        "fake": engine,
        "large": FakeEngine(size=96, cost_s=0.005),
        "single": FakeEngine(capacity=1, cost_s=0.005),
    }
    with serving(engines) as url, httpx.Client(base_url=url) as client:
        wait_until_ready(client)
        yield client


def events(client: httpx.Client, body: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    with connect_sse(client, "POST", "/generate", json={"stream": True, **body}) as source:
        assert source.response.status_code == 200, source.response.read()
        return [(event.event, json.loads(event.data)) for event in source.iter_sse()]


def named(told: Sequence[tuple[str, dict[str, Any]]], name: str) -> list[dict[str, Any]]:
    return [data for event, data in told if event == name]


def pixels(data: str) -> np.ndarray:
    with PIL.Image.open(io.BytesIO(base64.b64decode(data, validate=True))) as image:
        return np.asarray(image.convert("RGB"))


def samples(client: httpx.Client) -> dict[str, float]:
    lines = client.get("/metrics").text.splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if line[0] != "#")}


@pytest.mark.parametrize("model", ["fake", "large", "single"])
def test_events_tell_what_the_plain_answer_tells(client: httpx.Client, model: str) -> None:
    body = {"class_id": 1, "n": 3, "steps": 5, "seed": 40, "model": model, "format": "webp"}
    told = events(client, {**body, "preview": EVERY_CALL})
    plain = client.post("/generate", json=body).json()
    names = [name for name, _ in told]
    assert (names[0], names[-1]) == ("queued", "done")
    assert {"image"} <= set(names[1:-1]) <= {"preview", "image"}
    images = sorted(named(told, "image"), key=lambda image: image["index"])
    assert [image.pop("index") for image in images] == [0, 1, 2]
    assert images == plain["images"]
    done = told[-1][1]
    queued = told[0][1]
    assert (queued["position"], queued["request_id"]) == (0, done["request_id"])
    assert done.keys() == plain.keys() - {"images"}
    same = plain.keys() - {"images", "timings", "request_id"}
    assert {key: done[key] for key in same} == {key: plain[key] for key in same}


def test_a_queued_request_hears_what_is_in_front_and_when_it_will_be_its_turn() -> None:
    engine = FakeEngine(capacity=1, max_rows=1, cost_s=0.01)
    with serving({"fake": engine}) as url, httpx.Client(base_url=url) as client:
        wait_until_ready(client)
        client.post("/generate", json={"class_id": 1, "steps": 20})
        body = {"class_id": 1, "steps": FOREVER, "stream": True}
        with connect_sse(client, "POST", "/generate", json={**body, "n": 4}):
            wait_for(lambda: len(engine.rows) == 1)
            with connect_sse(client, "POST", "/generate", json=body) as source:
                first = next(source.iter_sse())
    queued = json.loads(first.data)
    assert first.event == "queued"
    assert queued["position"] == 3
    assert 10_000 < queued["start_ms"] < queued["end_ms"], "3000 calls of 10 ms are in front"


def test_previews_show_the_image_grow(client: httpx.Client) -> None:
    told = events(client, {"class_id": 1, "n": 2, "steps": 100, "seed": 5, "preview": EVERY_CALL})
    finals = {image["index"]: pixels(image["image"]) for image in named(told, "image")}
    for index in (0, 1):
        shown = [preview for preview in named(told, "preview") if preview["index"] == index]
        calls = [preview["call"] for preview in shown]
        assert calls == sorted(set(calls))
        assert (calls[0], len(calls) > 2) == (1, True)
        for preview in shown:
            assert (preview["seed"], preview["calls"], preview["format"]) == (5 + index, 100, "png")
            grown = (finals[index] * (preview["call"] / 100)).astype(np.uint8)
            np.testing.assert_array_equal(pixels(preview["image"]), grown)
        places = [place for place, (_, data) in enumerate(told) if data.get("index") == index]
        assert [name for place, (name, _) in enumerate(told) if place in places] == [
            *["preview"] * len(shown),
            "image",
        ]


def test_images_come_as_they_are_finished(client: httpx.Client) -> None:
    told = events(client, {"class_id": 1, "n": 3, "steps": 30, "model": "single", "preview": EVERY_CALL})
    order = [(name, data["index"]) for name, data in told[1:-1]]
    last_preview = max(place for place, entry in enumerate(order) if entry == ("preview", 1))
    assert order.index(("image", 0)) < last_preview < order.index(("image", 1)) < order.index(("image", 2))


@pytest.mark.parametrize(
    ("options", "size", "file"),
    [({}, 96, "JPEG"), ({"size": 24, "format": "webp"}, 24, "WEBP"), ({"size": 500}, 96, "JPEG")],
)
def test_previews_have_the_size_and_format_asked_for(
    client: httpx.Client, options: dict[str, Any], size: int, file: str
) -> None:
    told = events(client, {"class_id": 1, "steps": 50, "model": "large", "preview": options})
    preview = named(told, "preview")[0]
    assert (preview["width"], preview["height"]) == (size, size)
    with PIL.Image.open(io.BytesIO(base64.b64decode(preview["image"]))) as image:
        assert (image.format, image.size) == (file, (size, size))
    assert named(told, "image")[0]["width"] == 96


def test_previews_keep_their_distance(client: httpx.Client, engine: FakeEngine) -> None:
    before = engine.previewed
    told = events(
        client, {"class_id": 1, "steps": 200, "preview": {"interval_calls": 7, "interval_ms": 0, "limit": 3}}
    )
    calls = [preview["call"] for preview in named(told, "preview")]
    assert len(calls) == 3 == engine.previewed - before
    assert all(later - earlier >= 7 for earlier, later in pairwise(calls))
    told = events(client, {"class_id": 1, "steps": 30, "preview": {"interval_ms": 10_000}})
    assert len(named(told, "preview")) == 1
    before = engine.previewed
    told = events(client, {"class_id": 1, "steps": 30, "preview": {"limit": 0}})
    assert [name for name, _ in told] == ["queued", "image", "done"]
    client.post("/generate", json={"class_id": 1, "steps": 30})
    assert engine.previewed == before, "nobody asked for any"


def test_the_accept_header_asks_for_events_too(client: httpx.Client) -> None:
    headers = {"Accept": "text/event-stream"}
    with connect_sse(client, "POST", "/generate", json={"class_id": 1}, headers=headers) as source:
        assert [event.event for event in source.iter_sse()][-1] == "done"
        assert source.response.headers["Cache-Control"] == "no-store"
        assert source.response.headers["X-Request-ID"]


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"class_id": 99, "stream": True}, 422, "class_id"),
        ({"class_id": 1, "stream": True, "model": "none"}, 404, "no model"),
        ({"class_id": 1, "stream": True, "n": 10**6}, 422, "more than"),
        ({"class_id": 1, "preview": {}}, 422, 'add "stream": true'),
        ({"class_id": 1, "stream": True, "preview": {"sise": 3}}, 422, "did you mean size?"),
        ({"class_id": 1, "stream": True, "preview": {"size": 0}}, 422, "preview.size"),
    ],
)
def test_refusals_keep_their_status(
    client: httpx.Client, body: dict[str, Any], status: int, message: str
) -> None:
    before = samples(client)
    answer = client.post("/generate", json=body)
    assert answer.status_code == status
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert message in answer.json()["detail"]
    rejected = [
        value - before.get(name, 0)
        for name, value in samples(client).items()
        if name.startswith(("ddo_rejections_total", "ddo_request_seconds_count"))
    ]
    assert sorted(rejected)[-2:] == [1, 1], "counted once"


class Breaking(FakeEngine):
    """Its second image breaks."""

    def step(self, rows: Sequence[FakeRow]) -> None:
        super().step(rows)
        if self.closed == 2:
            raise RuntimeError("the engine breaks, secretly")


def test_a_failure_midway_is_an_event_behind_what_was_finished() -> None:
    engine = Breaking(capacity=1, cost_s=0.002)
    with serving({"fake": engine}) as url, httpx.Client(base_url=url) as client:
        wait_until_ready(client)
        told = events(client, {"class_id": 1, "n": 3, "preview": {"limit": 0}})
        assert [name for name, _ in told] == ["queued", "image", "error"]
        problem = told[-1][1]
        assert (problem["type"], problem["status"]) == ("urn:ddo-serve:engine-failure", 500)
        assert problem["request_id"] == told[0][1]["request_id"]
        assert "secretly" not in json.dumps(problem)
        assert samples(client)['ddo_request_seconds_count{outcome="engine-failure"}'] == 1
        wait_for(lambda: not engine.rows)


def test_a_stream_that_is_cancelled_by_its_id_says_so(client: httpx.Client, engine: FakeEngine) -> None:
    body = {"class_id": 1, "steps": FOREVER, "stream": True, "preview": {"limit": 0}}
    headers = {"X-Request-ID": "unwanted"}
    with connect_sse(client, "POST", "/generate", json=body, headers=headers) as source:
        told = source.iter_sse()
        assert json.loads(next(told).data)["request_id"] == "unwanted"
        assert client.delete("/requests/unwanted").is_success
        (last,) = told
    assert (last.event, json.loads(last.data)["type"]) == ("error", "urn:ddo-serve:cancelled")
    wait_for(lambda: not engine.rows)


def test_heartbeats_show_life_while_nothing_happens() -> None:
    settings = Settings(heartbeat_s=0.05)
    with (
        serving({"fake": FakeEngine(cost_s=0.5)}, settings) as url,
        httpx.Client(base_url=url) as client,
    ):
        wait_until_ready(client)
        body = {"class_id": 1, "steps": 1, "stream": True}
        with client.stream("POST", "/generate", json=body) as answer:
            lines = [line for line in answer.iter_lines() if line]
    assert lines.count(": still here") >= 2
    assert lines.index("event: queued") < lines.index(": still here") < lines.index("event: image")


def test_a_client_that_leaves_a_stream_frees_its_rows() -> None:
    engine = FakeEngine(cost_s=0.005)
    with serving({"fake": engine}) as url, httpx.Client(base_url=url) as client:
        wait_until_ready(client)
        body = {"class_id": 1, "n": 2, "steps": FOREVER, "stream": True}
        with connect_sse(client, "POST", "/generate", json=body) as source:
            assert next(event for event in source.iter_sse() if event.event == "preview")
        wait_for(lambda: not engine.rows)
        assert len(engine.batches) < FOREVER / 2
        wait_for(lambda: samples(client).get('ddo_request_seconds_count{outcome="client-disconnected"}') == 1)


def test_a_slow_reader_loses_previews_and_nothing_else() -> None:
    steps, n = 400, 2
    engine = FakeEngine(cost_s=0.001, size=128)
    body = {"class_id": 1, "n": n, "steps": steps, "seed": 3}
    streamed = json.dumps({**body, "stream": True, "preview": EVERY_CALL}).encode()
    with serving({"fake": engine}) as url, httpx.Client(base_url=url, timeout=60) as client:
        wait_until_ready(client)
        with socket.socket() as reader:
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            reader.connect((client.base_url.host, client.base_url.port))
            head = b"POST /generate HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
            reader.sendall(head + b"Content-Length: %d\r\n\r\n" % len(streamed) + streamed)
            wait_for(lambda: gauge(client, "ddo_active_rows") == n)
            assert client.post("/generate", json={"class_id": 2, "steps": 20}).status_code == 200
            wait_for(lambda: not engine.rows)
            assert len(engine.batches) <= 1 + steps + 20, "and nobody makes a call more"
            assert engine.previewed < n * steps / 2, "none are made that cannot be sent"
            answer = b""
            while received := reader.recv(1 << 20):
                answer += received
        plain = client.post("/generate", json=body).json()
    data = [json.loads(line[6:]) for line in answer.decode().splitlines() if line.startswith("data: {")]
    images = [entry for entry in data if "index" in entry and "call" not in entry]
    assert {image["image"] for image in images} == {image["image"] for image in plain["images"]}
    assert data[-1]["parameters"] == plain["parameters"]


def test_a_drained_server_ends_its_streams_first() -> None:
    with process(cost_s=0.01) as (server, client):
        body = {"class_id": 1, "steps": 30, "stream": True}
        with connect_sse(client, "POST", "/generate", json=body) as source:
            told = source.iter_sse()
            assert next(told).event == "queued"
            server.send_signal(signal.SIGTERM)
            assert [event.event for event in told][-2:] == ["image", "done"]
        assert server.wait(20) == 0


def test_the_time_to_the_first_preview_is_measured(client: httpx.Client) -> None:
    name = 'ddo_first_preview_seconds_count{model="fake",version="3"}'
    before = samples(client).get(name, 0.0)
    events(client, {"class_id": 1, "n": 2, "steps": 100, "preview": EVERY_CALL})
    assert samples(client)[name] == before + 1


def test_the_api_document_describes_every_event(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    content = document["paths"]["/generate"]["post"]["responses"]["200"]["content"]
    kinds = [kind["properties"] for kind in content["text/event-stream"]["schema"]["oneOf"]]
    described = {
        kind["event"]["const"]: kind["data"]["contentSchema"]["$ref"].rsplit("/", 1)[1] for kind in kinds
    }
    assert described == {
        "queued": "QueuedEvent",
        "preview": "PreviewEvent",
        "image": "ImageEvent",
        "done": "DoneEvent",
        "error": "Problem",
    }
    assert {*described.values()} <= document["components"]["schemas"].keys()
