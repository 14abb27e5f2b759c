from __future__ import annotations

import io
import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import PIL.Image
import pytest
from fake_engine import FakeEngine
from fake_server import serving, version, wait_until_ready

from engines.base import ImageRequest
from models.spec import GoldenImage
from models.version import ModelVersion, seal
from server import logs
from server.settings import Settings


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    # What the slow one takes is known only once it has been waited for in vain.
    engines = {"fake": FakeEngine(fail_class=3), "free": FakeEngine(), "slow": FakeEngine(cost_s=0.5)}
    settings = Settings(max_images=4, body_bytes=1000, body_timeout_s=0.2, deadline_ms=5000)
    with (
        serving(engines, settings, free=version("free", classes=())) as url,
        httpx.Client(base_url=url) as client,
    ):
        wait_until_ready(client)
        yield client


def check_problem(answer: httpx.Response, status: int, kind: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    assert problem["type"] == (kind if ":" in kind else f"urn:ddo-serve:{kind}")
    assert (problem["status"], problem["instance"]) == (status, answer.url.path)
    assert problem["request_id"] == answer.headers["X-Request-ID"] != ""
    assert problem["title"] and problem["detail"]
    assert "Traceback" not in answer.text
    return problem


@pytest.mark.parametrize(
    ("body", "field", "says"),
    [
        ({"class_id": 4}, "class_id", "0 to 3; GET /models/fake/classes"),
        ({"class_id": -1}, "class_id", "greater than or equal to 0"),
        ({"class_id": 10**30}, "class_id", "0 to 3"),
        ({"class_id": "1"}, "class_id", "valid integer"),
        ({"class_id": True}, "class_id", "valid integer"),
        ({"class_id": 1.5}, "class_id", "integer"),
        ({"class_id": 1, "n": 5.0}, "n", "5 is more than 4"),
        ({}, "class_id", "GET /models/fake/classes"),
        ({"class_name": "dog fase"}, "class_name", "did you mean 'dog face'?"),
        ({"class_name": "xyz"}, "class_name", "GET /models/fake/classes"),
        ({"class_id": 1, "class_name": "ghost"}, "class_name", "not both"),
        ({"class_id": 1, "model": "free"}, "class_id", "unconditional"),
        ({"class_id": 1, "seed": -1}, "seed", "greater than or equal to 0"),
        ({"class_id": 1, "seed": 2**63}, "seed", "less than"),
        ({"class_id": 1, "seed": 2**63 - 2, "n": 3}, "seed", "more than"),
        ({"class_id": 1, "n": 0}, "n", "greater than"),
        ({"class_id": 1, "n": 5}, "n", "5 is more than 4"),
        ({"class_id": 1, "steps": 0}, "steps", "greater than"),
        ({"class_id": 1, "steps": 1001}, "steps", "more than 1000"),
        ({"class_id": 1, "solver": "runge"}, "solver", "heun"),
        ({"class_id": 1, "format": "gif"}, "format", "'png', 'webp' or 'jpeg'"),
        ({"class_id": 1, "deadline_ms": 5001}, "deadline_ms", "more than 5000"),
        ({"class_id": 1, "tempature": 1.0}, "tempature", "did you mean temperature?"),
        ({"class_id": 1, "colour": "red"}, "colour", "known fields: model, version"),
        ("[1]", "body", "object"),
        ("{", "body", "JSON"),
        ("", "body", "JSON"),
        ("class_id=207", "body", "JSON"),
        ('{"class_id": 1, "cfg": NaN}', "cfg", "finite"),
        (b"\xff\xfe", "body", "JSON"),
    ],
)
def test_bad_input_names_the_field(client: httpx.Client, body: Any, field: str, says: str) -> None:
    content = {"json": body} if isinstance(body, dict) else {"content": body}
    problem = check_problem(client.post("/generate", **content), 422, "invalid-input")
    messages = {entry["field"]: entry["message"] for entry in problem["errors"]}
    assert list(messages) == [field]
    assert says in messages[field]
    assert messages[field] in problem["detail"]


def test_all_bad_fields_are_told_at_once(client: httpx.Client) -> None:
    problem = check_problem(client.post("/generate", json={"n": 0, "seed": "x"}), 422, "invalid-input")
    assert {entry["field"] for entry in problem["errors"]} == {"n", "seed"}


@pytest.mark.parametrize(
    ("path", "status", "kind"),
    [
        ("/models/nope", 404, "unknown-model"),
        ("/models/nope/classes", 404, "unknown-model"),
        ("/nope", 404, "about:blank"),
        ("/generate", 405, "about:blank"),
    ],
)
def test_what_is_not_there_is_a_problem_too(client: httpx.Client, path: str, status: int, kind: str) -> None:
    check_problem(client.get(path), status, kind)


@pytest.mark.parametrize(
    ("options", "status", "kind"),
    [
        ({"json": {"model": "nope"}}, 404, "unknown-model"),
        ({"content": b"x" * 1001}, 413, "body-too-large"),
        ({"content": iter([b"x" * 600] * 2)}, 413, "body-too-large"),
        ({"content": b"{}", "headers": {"Content-Type": "image/png"}}, 415, "unsupported-media-type"),
        ({"json": {"class_id": 1, "n": 2}, "headers": {"Accept": "image/png"}}, 406, "not-acceptable"),
        ({"json": {"class_id": 1}, "headers": {"Accept": "text/html"}}, 406, "not-acceptable"),
        ({"json": {"class_id": 1, "model": "slow", "steps": 1, "deadline_ms": 50}}, 504, "deadline"),
        ({"json": {"class_id": 3}}, 500, "engine-failure"),
    ],
)
def test_refusals(client: httpx.Client, options: dict[str, Any], status: int, kind: str) -> None:
    problem = check_problem(client.post("/generate", **options), status, kind)
    assert "secretly" not in str(problem)


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/generate", {"POST"}),
        ("/jobs", {"GET", "POST"}),
        ("/jobs/x", {"DELETE", "GET"}),
        ("/models", {"GET"}),
    ],
)
def test_a_405_says_what_is_allowed(client: httpx.Client, path: str, methods: set[str]) -> None:
    answer = client.patch(path)
    assert answer.status_code == 405
    assert set(answer.headers["Allow"].split(", ")) == methods


def test_a_request_id_that_could_forge_logs_is_replaced(client: httpx.Client) -> None:
    answer = client.get("/livez", headers={"X-Request-ID": "a b{}"})
    assert answer.headers["X-Request-ID"] not in ("", "a b{}")


def test_a_body_that_never_arrives_is_given_up(client: httpx.Client) -> None:
    with socket.create_connection((client.base_url.host, client.base_url.port or 0), timeout=5) as connection:
        connection.sendall(b"POST /generate HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n{")
        assert connection.recv(1000).startswith(b"HTTP/1.1 408 ")
        while connection.recv(1000):
            pass


def test_an_unforeseen_error_is_in_the_log_and_not_in_the_answer(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a secret path")

    monkeypatch.setattr("server.service.Service._check_limits", broken)
    log = io.StringIO()
    logs.configure("info", log)
    answer = client.post("/generate", json={"class_id": 1})
    problem = check_problem(answer, 500, "internal-error")
    assert "secret" not in answer.text
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    entry = next(line for line in lines if line["event"] == "unexpected error")
    assert entry["request_id"] == problem["request_id"]
    assert "RuntimeError: a secret path" in entry["exception"]


def test_a_whole_number_may_have_a_point(client: httpx.Client) -> None:
    bodies = ['{"class_id": 1, "seed": 2, "steps": 3}', '{"class_id": 1.0, "seed": 2.0, "steps": 3e0}']
    first, second = (client.post("/generate", content=body).json()["images"] for body in bodies)
    assert first == second


def test_a_full_queue_says_when_to_come_back() -> None:
    engine = FakeEngine(capacity=2, max_rows=2, cost_s=0.01)
    settings = Settings(queue_rows=2, max_images=2)
    with serving({"fake": engine}, settings) as url, httpx.Client(base_url=url) as client:
        wait_until_ready(client)
        with ThreadPoolExecutor(2) as pool:
            body = {"class_id": 1, "n": 2, "steps": 100}
            filling = []
            for rows in ("ddo_active_rows", "ddo_queue_rows"):
                filling.append(pool.submit(httpx.post, f"{url}/generate", json=body, timeout=30))
                while f'{rows}{{model="fake",version="3"}} 2.0' not in client.get("/metrics").text:
                    assert not filling[-1].done()
            refusal = client.post("/generate", json={"class_id": 1})
            check_problem(refusal, 429, "queue-full")
            assert 1 <= int(refusal.headers["Retry-After"]) <= 10
            assert [each.result().status_code for each in filling] == [200, 200]
        assert client.post("/generate", json={"class_id": 1}).status_code == 200
        assert 'ddo_rejections_total{reason="queue-full"} 1.0' in client.get("/metrics").text


def test_no_request_is_taken_before_the_model_is_ready() -> None:
    slow = threading.Event()

    def load() -> FakeEngine:
        slow.wait(10)
        return FakeEngine()

    with serving({"fake": load}) as url, httpx.Client(base_url=url) as client:
        assert client.get("/livez").status_code == 200
        waiting = client.get("/readyz")
        assert (waiting.status_code, waiting.json()["reasons"]) == (503, ["fake/3: loading"])
        refusal = client.post("/generate", json={"class_id": 1})
        check_problem(refusal, 503, "not-ready")
        assert int(refusal.headers["Retry-After"]) >= 1
        assert client.get("/models").json()["models"][0]["ready"] is False
        assert client.get("/metrics").status_code == 200
        slow.set()
        wait_until_ready(client)
        assert client.post("/generate", json={"class_id": 1}).status_code == 200


def golden_version(directory: Path, image: np.ndarray) -> ModelVersion:
    PIL.Image.fromarray(image).save(directory / "golden.png")
    golden = GoldenImage(class_id=1, seed=5, steps=3, file="golden.png", max_mean_error=2.0)
    return seal(directory, version("fake", golden=golden).spec)


def right_image() -> np.ndarray:
    engine = FakeEngine()
    row = engine.open(engine.resolve(ImageRequest(class_id=1, seed=5, steps=3)))
    row.calls_left = 0
    return engine.image(row)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda image: image, None),
        (lambda image: np.where(image > 250, image - 4, image + 1).astype(np.uint8), None),
        (lambda image: 255 - image, "levels off its golden image; 2 are allowed"),
        (lambda image: image[:16], "shape (32, 32, 3), its golden image (16, 32, 3)"),
    ],
)
def test_a_model_serves_only_if_it_makes_its_golden_image(
    tmp_path: Path, change: Any, reason: str | None
) -> None:
    golden = golden_version(tmp_path, change(right_image()))
    engines = {"fake": FakeEngine(), "other": FakeEngine()}
    with serving(engines, fake=golden) as url, httpx.Client(base_url=url) as client:
        end = time.monotonic() + 10
        while any("loading" in text for text in client.get("/readyz").json()["reasons"]):
            assert time.monotonic() < end
            time.sleep(0.02)
        readiness = client.get("/readyz")
        answer = client.post("/generate", json={"class_id": 1})
        if reason is None:
            assert (readiness.status_code, answer.status_code) == (200, 200)
        else:
            assert readiness.status_code == 503
            assert len(readiness.json()["reasons"]) == 1
            assert reason in readiness.json()["reasons"][0]
            assert reason in check_problem(answer, 503, "not-ready")["detail"]
            assert client.post("/generate", json={"class_id": 1, "model": "other"}).status_code == 200


def test_without_a_golden_image_a_blank_one_is_refused() -> None:
    class BlankEngine(FakeEngine):
        def image(self, row: Any) -> np.ndarray:
            return np.full((8, 8, 3), 17, np.uint8)

    with serving({"fake": BlankEngine()}) as url, httpx.Client(base_url=url) as client:
        end = time.monotonic() + 10
        while client.get("/readyz").json()["reasons"] != ["fake/3: its first image is all 17"]:
            assert time.monotonic() < end
            time.sleep(0.02)
