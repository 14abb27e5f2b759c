"""OpenAI's own client, unmodified, against a server."""

from __future__ import annotations

import asyncio
import base64
import io
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import PIL.Image
import pytest
from fake_engine import FakeEngine
from fake_server import serving, version, wait_until_ready
from test_server_access import USER, keys_file

from server.access.settings import AccessSettings
from server.settings import Settings

RESPONSES = (openai.BadRequestError, openai.NotFoundError, openai.InternalServerError)


@pytest.fixture(scope="module")
def plain() -> Iterator[httpx.Client]:
    engines = {"fake": FakeEngine(), "slow": FakeEngine(cost_s=0.005), "free": FakeEngine()}
    engines["broken"] = FakeEngine(fail_class=3)
    with serving(engines, free=version("free", classes=())) as url, httpx.Client(base_url=url) as client:
        wait_until_ready(client)
        yield client


@pytest.fixture(scope="module")
def client(plain: httpx.Client) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{plain.base_url}/v1", api_key="none needed", max_retries=0) as client:
        yield client


def files(answer: Any) -> list[bytes]:
    return [base64.b64decode(image.b64_json, validate=True) for image in answer.data]


def brightness_of(image: str) -> float:
    with PIL.Image.open(io.BytesIO(base64.b64decode(image))) as picture:
        return float(np.asarray(picture).mean())


def ours(plain: httpx.Client, **body: Any) -> list[bytes]:
    answer = plain.post("/generate", json=body).raise_for_status()
    return [base64.b64decode(image["image"]) for image in answer.json()["images"]]


@pytest.mark.parametrize(
    ("asked", "same"),
    [
        ({"prompt": "dog face"}, {"class_id": 0}),
        ({"prompt": "Dog_Face", "size": "32x32", "model": "slow"}, {"class_id": 0, "model": "slow"}),
        ({"prompt": "3", "n": 3, "size": "auto"}, {"class_id": 3, "n": 3}),
        ({"prompt": "ghost", "output_format": "webp", "model": "fake/3"}, {"class_id": 3, "format": "webp"}),
        ({"prompt": "", "model": "free", "response_format": "b64_json"}, {"model": "free"}),
        (
            {"prompt": "ghost", "extra_body": {"steps": 7, "solver": "euler", "cfg": 2, "priority": "batch"}},
            {"class_id": 3, "steps": 7, "solver": "euler"},
        ),
    ],
)
def test_images_are_those_of_generate(
    plain: httpx.Client, client: openai.OpenAI, asked: dict[str, Any], same: dict[str, Any]
) -> None:
    extra = {"seed": 5, **asked.pop("extra_body", {})}
    answer = client.images.generate(**asked, extra_body=extra)
    assert files(answer) == ours(plain, seed=5, **same)
    assert (answer.size, answer.output_format) == ("32x32", asked.get("output_format", "png"))
    assert [image.seed for image in answer.data or ()] == list(range(5, 5 + same.get("n", 1)))  # type: ignore[attr-defined]


def test_the_asynchronous_client_streams_and_generates(plain: httpx.Client) -> None:
    async def both() -> tuple[list[bytes], list[Any]]:
        async with openai.AsyncOpenAI(base_url=f"{plain.base_url}/v1", api_key="x", max_retries=0) as client:
            many = [client.images.generate(prompt=str(number), extra_body={"seed": 9}) for number in (1, 2)]
            made = [files(answer)[0] for answer in await asyncio.gather(*many)]
            stream = await client.images.generate(
                prompt="1", n=2, stream=True, partial_images=0, extra_body={"seed": 9}
            )
            return made, [event async for event in stream]

    made, events = asyncio.run(both())
    assert made == [ours(plain, class_id=number, seed=9)[0] for number in (1, 2)]
    assert [event.type for event in events] == ["image_generation.completed"] * 2
    assert made[0] in [base64.b64decode(event.b64_json) for event in events]


@pytest.mark.parametrize("partial_images", [0, 1, 3])
def test_a_stream_shows_previews_spread_over_the_making(
    plain: httpx.Client, client: openai.OpenAI, partial_images: int
) -> None:
    stream = client.images.generate(
        prompt="dog face",
        model="slow",
        stream=True,
        partial_images=partial_images,
        extra_body={"seed": 1, "steps": 16},
    )
    *partial, last = list(stream)
    assert last.type == "image_generation.completed"
    assert last.usage.total_tokens == 0
    assert [base64.b64decode(last.b64_json)] == ours(plain, model="slow", class_id=0, seed=1, steps=16)
    assert [event.type for event in partial] == ["image_generation.partial_image"] * len(partial)
    assert [event.partial_image_index for event in partial] == list(range(partial_images))  # type: ignore[union-attr]
    brightness = [brightness_of(event.b64_json) for event in (*partial, last)]
    assert brightness == sorted(set(brightness))
    if partial_images == 3:
        assert brightness[2] > 0.4 * brightness[3], "calls 1, 5 and 9 of 16, or later"


def test_models_are_listed_and_shown(client: openai.OpenAI) -> None:
    names = [model.id for model in client.models.list()]
    assert names[:2] == ["fake", "fake/3"]
    assert {"slow", "free/3"} < set(names)
    assert [client.models.retrieve(name).id for name in names] == names
    with pytest.raises(openai.NotFoundError, match="no model is called 'gpt'"):
        client.models.retrieve("gpt")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("asked", "error", "says"),
    [
        ({"prompt": "dgo face"}, (400, "prompt", "invalid_value"), "did you mean 'dog face'"),
        ({"prompt": "4"}, (400, "prompt", "invalid_value"), "no class is called '4'"),
        ({"prompt": ""}, (400, "prompt", "invalid_value"), "a class is needed"),
        ({"prompt": "dog", "model": "free"}, (400, "prompt", "invalid_value"), "has no classes"),
        ({"size": "1024x1024"}, (400, "size", "invalid_value"), "makes images of 32x32"),
        ({"response_format": "url"}, (400, "response_format", "invalid_value"), "no URL"),
        ({"output_format": "gif"}, (400, "output_format", "invalid_value"), "'png', 'webp' or 'jpeg'"),
        ({"quality": "hd"}, (400, "quality", "invalid_value"), "'auto' or 'standard'"),
        ({"n": 17}, (400, "n", "invalid_value"), "17 is more than 16"),
        ({"extra_body": {"stepz": 3}}, (400, "stepz", "invalid_value"), "did you mean steps?"),
        ({"extra_body": {"steps": 1001}}, (400, "steps", "invalid_value"), "more than 1000"),
        (
            {"model": "fake/3", "extra_body": {"version": 2}},
            (400, "version", "invalid_value"),
            "2 is not the",
        ),
        ({"model": "gpt-image-2"}, (404, None, "model_not_found"), "no model is called"),
        ({"model": "fake/9"}, (404, None, "model_not_found"), "no version 9"),
    ],
)
def test_refusals_are_the_clients_own_errors(
    client: openai.OpenAI, asked: dict[str, Any], error: tuple[int, str | None, str], says: str, stream: bool
) -> None:
    with pytest.raises(openai.APIStatusError, match=says) as caught:
        client.images.generate(**({"prompt": "ghost"} | asked), stream=stream)
    assert (caught.value.status_code, caught.value.param, caught.value.code) == error
    assert isinstance(caught.value, RESPONSES)
    assert caught.value.type == "invalid_request_error"
    assert caught.value.request_id


def test_partial_images_need_a_stream(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="with streams alone"):
        client.images.generate(prompt="ghost", partial_images=1)


def test_an_engine_that_fails_is_a_server_error(client: openai.OpenAI) -> None:
    with pytest.raises(openai.InternalServerError) as caught:
        client.images.generate(prompt="ghost", model="broken")
    assert (caught.value.type, caught.value.code) == ("server_error", "engine_failure")
    with pytest.raises(openai.APIError) as midway:
        list(client.images.generate(prompt="ghost", model="broken", stream=True))
    assert (midway.value.type, midway.value.code) == ("server_error", "engine_failure")


@pytest.mark.parametrize(
    ("asked", "status", "code", "options"),
    [
        ("GET /v1/nothing", 404, "not_found", {}),
        ("PUT /v1/models", 405, "method_not_allowed", {}),
        ("POST /v1/images/generations", 400, "invalid_value", {"content": b"{"}),
        ("POST /v1/images/generations", 413, "body_too_large", {"content": b" " * 70_000}),
        ("POST /v1/images/generations", 403, "forbidden", {"headers": {"Origin": "https://a.example"}}),
    ],
)
def test_every_refusal_has_openais_shape(
    plain: httpx.Client, asked: str, status: int, code: str, options: dict[str, Any]
) -> None:
    answer = plain.request(*asked.split(), **options)
    assert (answer.status_code, answer.headers["Content-Type"]) == (status, "application/json")
    assert answer.json()["error"].keys() == {"message", "type", "param", "code"}
    assert (answer.json()["error"]["code"], answer.json()["error"]["param"]) == (code, None)


def test_keys_are_asked_for_and_limits_are_waited_for(tmp_path: Path) -> None:
    access = AccessSettings(keys=keys_file(tmp_path, concurrency=1))
    with serving({"fake": FakeEngine(cost_s=0.02)}, Settings(access=access)) as url:
        with httpx.Client(base_url=url) as plain:
            wait_until_ready(plain)
        stranger = openai.OpenAI(base_url=f"{url}/v1", api_key="sk-wrong", max_retries=0)
        with pytest.raises(openai.AuthenticationError, match="not known here") as refused:
            stranger.models.list()
        assert refused.value.code == "invalid_api_key"
        client = openai.OpenAI(base_url=f"{url}/v1", api_key=USER, max_retries=0)
        stream = client.images.generate(prompt="ghost", stream=True, extra_body={"steps": 1000})
        with pytest.raises(openai.RateLimitError) as busy:
            client.images.generate(prompt="ghost")
        assert (busy.value.code, busy.value.response.headers["Retry-After"]) == ("caller_busy", "1")
        threading.Timer(0.2, stream.close).start()
        assert len(files(client.with_options(max_retries=2).images.generate(prompt="ghost"))) == 1
