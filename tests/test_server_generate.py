from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator

import httpx
import numpy as np
import PIL.Image
import pytest
from fake_engine import FakeEngine
from fake_server import serving, version, wait_until_ready

from engines.base import ImageRequest

MANY_CLASSES = tuple(f"class {number}" for number in range(256))


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    engines = {"fake": FakeEngine(), "other": FakeEngine(size=16), "free": FakeEngine()}
    versions = {"fake": version("fake", classes=MANY_CLASSES), "free": version("free", classes=())}
    with serving(engines, **versions) as url, httpx.Client(base_url=url) as client:
        wait_until_ready(client)
        yield client


def expected(**fields: int | str) -> np.ndarray:
    """The pixels that the fake engine makes of a request."""
    engine = FakeEngine()
    row = engine.open(engine.resolve(ImageRequest(**fields)))  # type: ignore[arg-type]
    row.calls_left = 0
    return engine.image(row)


def pixels(data: bytes) -> np.ndarray:
    with PIL.Image.open(io.BytesIO(data)) as image:
        return np.asarray(image)


def test_json_answer(client: httpx.Client) -> None:
    body = {"class_id": 207, "cfg": 1.5, "seed": 40, "n": 3, "steps": 7, "solver": "euler"}
    answer = client.post("/generate", json=body, headers={"X-Request-ID": "mine-1"})
    assert answer.status_code == 200
    result = answer.json()
    assert result["request_id"] == answer.headers["X-Request-ID"] == "mine-1"
    assert (result["model"], result["version"], result["format"]) == ("fake", 3, "png")
    assert result["parameters"] == {
        "class_id": 207,
        "class_name": "class 207",
        "cfg": 1.5,
        "steps": 7,
        "solver": "euler",
    }
    assert [image["seed"] for image in result["images"]] == [40, 41, 42]
    for image in result["images"]:
        data = base64.b64decode(image["image"], validate=True)
        assert (image["width"], image["height"]) == (32, 32)
        made = expected(class_id=207, seed=image["seed"], steps=7, solver="euler")
        np.testing.assert_array_equal(pixels(data), made)


def test_timings_fill_the_total(client: httpx.Client) -> None:
    timings = client.post("/generate", json={"class_id": 1, "n": 4}).json()["timings"]
    assert all(value >= 0 for value in timings.values())
    parts = timings["queue_ms"] + timings["compute_ms"] + timings["encode_ms"]
    assert parts == pytest.approx(timings["total_ms"], abs=0.01)


def test_a_drawn_seed_is_told_and_gives_the_same_image_again(client: httpx.Client) -> None:
    drawn = [client.post("/generate", json={"class_id": 5}).json()["images"][0] for _ in range(2)]
    assert drawn[0]["seed"] != drawn[1]["seed"]
    again = client.post("/generate", json={"class_id": 5, "seed": drawn[0]["seed"]}).json()["images"][0]
    assert again == drawn[0]


@pytest.mark.parametrize("name", ["png", "webp", "jpeg"])
def test_bare_image(client: httpx.Client, name: str) -> None:
    body = {"class_id": 3, "seed": 9}
    answers = [client.post("/generate", json=body, headers={"Accept": f"image/{name}"}) for _ in range(2)]
    answer = answers[0]
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, f"image/{name}")
    assert answer.content == answers[1].content
    assert (answer.headers["X-Seed"], answer.headers["X-Model"]) == ("9", "fake")
    assert answer.headers["X-Model-Version"] == "3"
    assert json.loads(answer.headers["X-Parameters"])["class_name"] == "class 3"
    assert all(float(answer.headers[f"X-{part}-Ms"]) >= 0 for part in ("Queue", "Compute", "Encode", "Total"))
    with PIL.Image.open(io.BytesIO(answer.content)) as image:
        assert (image.format, image.size) == (name.upper(), (32, 32))
    if name != "jpeg":
        np.testing.assert_array_equal(pixels(answer.content), expected(class_id=3, seed=9))


def test_format_of_the_json_answer(client: httpx.Client) -> None:
    result = client.post("/generate", json={"class_id": 3, "format": "webp"}).json()
    assert result["format"] == "webp"
    assert base64.b64decode(result["images"][0]["image"])[8:12] == b"WEBP"


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "application/json; charset=utf-8",
        "application/x-www-form-urlencoded",
        "text/plain",
        "application/a+json",
    ],
)
def test_json_is_read_whatever_curl_calls_it(client: httpx.Client, content_type: str | None) -> None:
    headers = {} if content_type is None else {"Content-Type": content_type}
    answer = client.post("/generate", content=b'{"class_id": 1}', headers=headers)
    assert answer.status_code == 200


def test_class_names_work_in_any_case(client: httpx.Client) -> None:
    by_name = client.post("/generate", json={"class_name": "Class 12", "seed": 1}).json()
    assert by_name["parameters"]["class_id"] == 12


def test_models_are_chosen_by_name(client: httpx.Client) -> None:
    other = client.post("/generate", json={"class_id": 1, "seed": 1, "model": "other"}).json()
    assert (other["model"], other["images"][0]["width"]) == ("other", 16)


def test_an_unconditional_model_needs_no_class(client: httpx.Client) -> None:
    free = client.post("/generate", json={"model": "free", "seed": 1}).json()
    assert "class_id" not in free["parameters"]


def test_models_and_classes_are_listed(client: httpx.Client) -> None:
    models = client.get("/models").json()["models"]
    assert [(model["name"], model["classes"], model["default"]) for model in models] == [
        ("fake", 256, True),
        ("other", 4, False),
        ("free", 0, False),
    ]
    detail = client.get("/models/fake").json()
    assert (detail["ready"], detail["defaults"]["solver"], detail["licence"]) == (True, "heun", "Apache-2.0")
    classes = client.get("/models/fake/classes").json()["classes"]
    assert classes[207] == {"class_id": 207, "class_name": "class 207"}
    assert len(classes) == 256


def test_every_documented_example_runs(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    operation = document["paths"]["/generate"]["post"]
    examples = operation["requestBody"]["content"]["application/json"]["examples"]
    assert len(examples) >= 3
    for example in examples.values():
        assert client.post("/generate", json=example["value"]).status_code == 200
    schema_examples = document["components"]["schemas"]["GenerateRequest"]["examples"]
    assert all(client.post("/generate", json=example).status_code == 200 for example in schema_examples)


def test_every_reference_of_the_api_document_resolves(client: httpx.Client) -> None:
    text = client.get("/openapi.json").text
    schemas = json.loads(text)["components"]["schemas"]
    references = {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert {"Problem", "GenerateRequest", "GenerateResponse"} <= references <= schemas.keys()
    responses = json.loads(text)["paths"]["/generate"]["post"]["responses"]
    problems = {"401", "403", "404", "406", "408", "409", "413", "415", "422", "429", "500", "503", "504"}
    assert responses.keys() == {"200", *problems}
    assert all("application/problem+json" in responses[status]["content"] for status in problems)
    assert "Retry-After" in responses["429"]["headers"]
    assert client.get("/docs").status_code == 200


def test_metrics_count_what_happened(client: httpx.Client) -> None:
    client.post("/generate", json={"class_id": 1, "n": 2, "format": "webp"})
    client.post("/generate", json={"class_id": 256})
    text = client.get("/metrics").text
    samples = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert float(samples['ddo_images_total{format="webp",model="fake",version="3"}']) >= 2
    assert float(samples['ddo_request_seconds_count{outcome="ok"}']) >= 1
    assert float(samples['ddo_request_seconds_count{outcome="invalid-input"}']) >= 1
    assert float(samples['ddo_rejections_total{reason="invalid-input"}']) >= 1
    assert float(samples['ddo_queue_wait_seconds_count{model="fake",version="3"}']) >= 2
    assert float(samples['ddo_batch_rows_bucket{le="8.0",model="fake",version="3"}']) >= 1
    calls = 'ddo_engine_call_seconds_count{bucket="%d",lane="lane0",model="fake",version="3"}'
    assert sum(float(samples.get(calls % rows, 0)) for rows in range(1, 9)) >= 4
    assert float(samples['ddo_encode_seconds_count{format="webp"}']) >= 2
    assert samples['ddo_queue_rows{model="fake",version="3"}'] == "0.0"
    assert samples['ddo_active_rows{model="fake",version="3"}'] == "0.0"
    assert samples['ddo_model_info{family="edm",model="fake",round="0",version="3"}'] == "1.0"
    assert any(name.startswith("ddo_build_info{") for name in samples)
