"""Several versions of one model, side by side in one server."""

from __future__ import annotations

import asyncio
import base64
import io
import re
import time
from collections.abc import Iterator
from typing import Any

import httpx
import PIL.Image
import pytest
from fake_engine import FakeEngine
from fake_server import serving_app, version, wait_until_ready

from engines.settings import EngineSettings
from models.errors import CheckpointError
from models.version import ModelVersion
from server.app import create_app
from server.hosting.catalogue import Catalogue
from server.settings import Settings

SIDES = {("fake", 2): 16, ("fake", 1): 32, ("other", 7): 48}
VERSIONS = [
    version("fake", 2, classes=("dog", "cat")),
    version("fake", 1, classes=("dog",)),
    version("other", 7),
]


def load(opened: ModelVersion, _: EngineSettings) -> FakeEngine:
    """An engine whose images have the version's own size. It refuses rows that it did not open."""
    return FakeEngine(size=SIDES[opened.spec.name, opened.number or 0])


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with (
        serving_app(create_app(Settings(), VERSIONS, load)) as url,
        httpx.Client(base_url=url) as client,
    ):
        wait_until_ready(client)
        yield client


@pytest.mark.parametrize(
    ("wanted", "served"),
    [
        ({}, ("fake", 2)),
        ({"model": "fake"}, ("fake", 2)),
        ({"version": 2}, ("fake", 2)),
        ({"version": 1}, ("fake", 1)),
        ({"model": "fake", "version": 1}, ("fake", 1)),
        ({"model": "other"}, ("other", 7)),
        ({"model": "other", "version": 7}, ("other", 7)),
    ],
)
def test_a_request_gets_the_version_that_it_asks_for(
    client: httpx.Client, wanted: dict[str, Any], served: tuple[str, int]
) -> None:
    body = {"class_id": 0, "seed": 1, **wanted}
    answer = client.post("/generate", json=body).json()
    assert (answer["model"], answer["version"]) == served
    assert answer["images"][0]["width"] == SIDES[served]
    bare = client.post("/generate", json=body, headers={"Accept": "image/png"})
    assert (bare.headers["X-Model"], int(bare.headers["X-Model-Version"])) == served
    assert bare.content == base64.b64decode(answer["images"][0]["image"])
    with PIL.Image.open(io.BytesIO(bare.content)) as image:
        assert image.width == SIDES[served]


@pytest.mark.parametrize(
    ("wanted", "kind", "says"),
    [
        ({"version": 3}, "unknown-version", "fake has no version 3 here; served are: 1, 2"),
        ({"version": 0}, "unknown-version", "fake has no version 0 here; served are: 1, 2"),
        ({"model": "other", "version": 1}, "unknown-version", "other has no version 1 here; served are: 7"),
        ({"model": "nope", "version": 1}, "unknown-model", "GET /models lists them: fake, other"),
    ],
)
def test_a_version_that_is_not_served_is_a_404_that_lists_those_that_are(
    client: httpx.Client, wanted: dict[str, Any], kind: str, says: str
) -> None:
    path = f"/models/{wanted.get('model', 'fake')}"
    query = {"version": wanted["version"]}
    for answer in (
        client.post("/generate", json={"class_id": 0, **wanted}),
        client.get(path, params=query),
        client.get(f"{path}/classes", params=query),
    ):
        assert answer.status_code == 404
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert answer.json()["type"] == f"urn:ddo-serve:{kind}"
        assert says in answer.json()["detail"]


@pytest.mark.parametrize("number", ["x", "-1", "1.5", ""])
@pytest.mark.parametrize("path", ["/models/fake", "/models/fake/classes"])
def test_a_query_that_is_no_version_is_a_problem_that_names_it(
    client: httpx.Client, path: str, number: str
) -> None:
    answer = client.get(path, params={"version": number})
    assert (answer.status_code, answer.headers["Content-Type"]) == (422, "application/problem+json")
    assert answer.json()["type"] == "urn:ddo-serve:invalid-input"
    assert [entry["field"] for entry in answer.json()["errors"]] == ["version"]


@pytest.mark.parametrize("number", ["1", -1, 1.5, True])
def test_a_body_with_no_version_number_is_a_problem_that_names_it(client: httpx.Client, number: Any) -> None:
    answer = client.post("/generate", json={"class_id": 0, "version": number})
    assert answer.status_code == 422
    assert [entry["field"] for entry in answer.json()["errors"]] == ["version"]


def test_every_version_is_listed_and_two_flags_say_which_one_answers(client: httpx.Client) -> None:
    keys = ("name", "version", "classes", "ready", "default", "default_version")
    assert [tuple(model[key] for key in keys) for model in client.get("/models").json()["models"]] == [
        ("fake", 2, 2, True, True, True),
        ("fake", 1, 1, True, False, False),
        ("other", 7, 4, True, False, True),
    ]


def test_models_and_classes_are_shown_by_version(client: httpx.Client) -> None:
    assert client.get("/models/fake").json()["version"] == 2
    first = client.get("/models/fake", params={"version": 1}).json()
    assert (first["version"], first["classes"], first["default_version"]) == (1, 1, False)
    dog, cat = ({"class_id": 0, "class_name": "dog"}, {"class_id": 1, "class_name": "cat"})
    listings = [client.get("/models/fake/classes", params=query).json() for query in ({}, {"version": 1})]
    assert listings == [
        {"model": "fake", "version": 2, "classes": [dog, cat]},
        {"model": "fake", "version": 1, "classes": [dog]},
    ]


def test_a_version_has_its_own_classes_and_says_where_they_are(client: httpx.Client) -> None:
    assert client.post("/generate", json={"class_name": "cat"}).status_code == 200
    answer = client.post("/generate", json={"class_name": "cat", "version": 1})
    assert answer.status_code == 422
    place = re.search(r"GET (\S+)", answer.json()["detail"])
    assert place is not None
    assert client.get(place[1]).json()["classes"] == [{"class_id": 0, "class_name": "dog"}]


def test_requests_of_all_versions_at_once_get_their_own_images(client: httpx.Client) -> None:
    bodies = [
        {"class_id": 0, "seed": seed, "model": name, "version": number, "n": 2}
        for seed in range(20)
        for name, number in SIDES
    ]

    async def post_all() -> list[httpx.Response]:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=client.base_url, limits=limits) as many:
            return await asyncio.gather(*(many.post("/generate", json=body) for body in bodies))

    for body, answer in zip(bodies, asyncio.run(post_all()), strict=True):
        images = answer.json()["images"]
        assert {image["width"] for image in images} == {SIDES[body["model"], body["version"]]}
        assert images == client.post("/generate", json=body).json()["images"]


@pytest.mark.parametrize(("asked", "other"), [(1, 2), (2, 1)])
def test_metrics_tell_versions_apart(client: httpx.Client, asked: int, other: int) -> None:
    def samples() -> dict[str, float]:
        lines = client.get("/metrics").text.splitlines()
        pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        return {name: float(value) for name, value in pairs}

    names = [
        'ddo_images_total{format="png",model="fake",version="%d"}',
        'ddo_queue_wait_seconds_count{model="fake",version="%d"}',
        'ddo_engine_call_seconds_count{bucket="1",lane="lane0",model="fake",version="%d"}',
        'ddo_batch_rows_sum{model="fake",version="%d"}',
    ]
    before = samples()
    client.post("/generate", json={"class_id": 0, "steps": 1, "version": asked})
    after = samples()
    for name in names:
        assert after[name % asked] - before.get(name % asked, 0) == 1
        assert after.get(name % other, 0) == before.get(name % other, 0)
    for name, number in SIDES:
        for gauge in ("ddo_queue_rows", "ddo_active_rows"):
            assert after[f'{gauge}{{model="{name}",version="{number}"}}'] == 0
        assert after[f'ddo_model_info{{family="edm",model="{name}",round="0",version="{number}"}}'] == 1


def test_the_api_document_knows_versions(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    assert "version" in document["components"]["schemas"]["GenerateRequest"]["properties"]
    for path in ("/models/{name}", "/models/{name}/classes"):
        operation = document["paths"][path]["get"]
        assert [parameter["name"] for parameter in operation["parameters"]] == ["name", "version"]
        assert operation["responses"].keys() == {"200", "401", "403", "404", "422", "500"}
        for status in ("404", "422"):
            assert "application/problem+json" in operation["responses"][status]["content"]
    assert "HTTPValidationError" not in document["components"]["schemas"]


def test_versions_load_in_order_and_one_that_fails_leaves_the_others_serving() -> None:
    order = []

    def load_most(opened: ModelVersion, settings: EngineSettings) -> FakeEngine:
        order.append((opened.spec.name, opened.number))
        if opened.number == 1:
            raise CheckpointError("its weights are gone")
        return load(opened, settings)

    with (
        serving_app(create_app(Settings(), VERSIONS, load_most)) as url,
        httpx.Client(base_url=url) as client,
    ):
        end = time.monotonic() + 20
        while client.get("/readyz").json()["reasons"] != ["fake/1: its weights are gone"]:
            assert time.monotonic() < end
            time.sleep(0.02)
        assert order == list(SIDES)
        assert client.post("/generate", json={"class_id": 0}).status_code == 200
        refusal = client.post("/generate", json={"class_id": 0, "version": 1})
        assert (refusal.status_code, refusal.json()["type"]) == (503, "urn:ddo-serve:not-ready")
        assert "fake/1 is not ready: its weights are gone" in refusal.json()["detail"]


@pytest.mark.parametrize(
    "versions",
    [[version("one", 2), version("two", 2), version("one", 2)], [version("one", 2)] * 2],
)
def test_a_version_is_served_once_only(versions: list[ModelVersion]) -> None:
    with pytest.raises(ValueError, match=r"more than once: one/2$"):
        Catalogue(versions)


def test_a_server_without_models_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one model"):
        Catalogue([])
