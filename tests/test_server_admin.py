"""An admin loads, unloads, switches and rolls back; a memory budget sends away who was idle longest."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

import httpx
import pytest
from fake_registry import FakeLoader, picture, publish, serving_registry
from fake_server import wait_until_ready
from test_server_access import ADMIN, USER, keys_file
from test_server_swaps import default, images, sample, states, wait_for

from models.registry import Registry
from server.access.settings import AccessSettings
from server.settings import Settings

NBYTES = 1_000_000  # of a fake engine


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """Versions 1 to 4 of one model, the first one current."""
    registry = Registry(tmp_path)
    for _ in range(4):
        publish(registry)
    registry.point("fake", 1)
    return registry


@contextmanager
def client_of(
    registry: Registry, name: str, load: FakeLoader | None = None, **settings: Any
) -> Iterator[httpx.Client]:
    with (
        serving_registry(registry, load or FakeLoader(), name, settings=Settings(**settings)) as url,
        httpx.Client(base_url=url, timeout=30) as client,
    ):
        wait_until_ready(client)
        yield client


def post(client: httpx.Client, what: str, version: int | None = None) -> httpx.Response:
    return client.post(f"/admin/models/fake/{what}", json={} if version is None else {"version": version})


def generate(client: httpx.Client, version: int | None = None, **body: Any) -> httpx.Response:
    wanted = {"class_id": 0, "seed": 1, "steps": 2, **body}
    return client.post("/generate", json=wanted if version is None else {**wanted, "version": version})


def check_problem(answer: httpx.Response, status: int, kind: str, says: str) -> None:
    assert (answer.status_code, answer.json()["type"]) == (status, f"urn:ddo-serve:{kind}"), answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert says in answer.json()["detail"]


def test_versions_are_loaded_switched_rolled_back_and_unloaded(registry: Registry) -> None:
    with client_of(registry, "fake") as client:
        assert post(client, "load", 2).json() == {
            "name": "fake",
            "default_version": 1,
            "earlier_version": None,
            "refused": None,
            "versions": [
                {
                    "version": number,
                    "state": "ready",
                    "reason": None,
                    "memory_bytes": NBYTES,
                    "waiting_rows": 0,
                    "active_rows": 0,
                }
                for number in (1, 2)
            ],
        }
        assert generate(client, 2).json()["version"] == 2
        assert post(client, "switch", 3).json()["default_version"] == 3
        assert images(generate(client)) == [picture(3, seed=1, steps=2)]
        switched = post(client, "switch", 4).json()
        assert (switched["default_version"], switched["earlier_version"]) == (4, 3)
        back = post(client, "roll-back").json()
        assert (back["default_version"], back["earlier_version"]) == (3, 1)
        assert images(generate(client)) == [picture(3, seed=1, steps=2)]
        assert post(client, "roll-back").json()["default_version"] == 1
        check_problem(post(client, "roll-back"), 409, "conflict", "no other default version")
        wait_for(lambda: states(client) == {1: "ready", 2: "ready", 3: "unloaded", 4: "unloaded"})
        unloaded = post(client, "unload", 2).json()
        assert [version["version"] for version in unloaded["versions"]] == [1, 3, 4]
        check_problem(generate(client, 2), 404, "unknown-version", "served are: 1, 3, 4")
        assert sample(client, "ddo_model_state", version="2") == 0
        assert generate(client, 3).json()["version"] == 3  # known, so its request loads it
        assert post(client, "load", 2).status_code == 200
        assert generate(client, 2).status_code == 200


def test_without_a_number_the_registrys_current_version_is_meant(registry: Registry) -> None:
    with client_of(registry, "fake/2", registry_poll_s=0.01) as client:
        assert default(client) == 2
        assert post(client, "switch").json()["default_version"] == 1
        wait_for(lambda: states(client) == {1: "ready", 2: "ready"})  # the settings name version 2


@pytest.mark.parametrize(
    ("path", "body", "problem"),
    [
        ("nope/load", {"version": 1}, (404, "unknown-model", "GET /models lists them: fake")),
        ("nope/roll-back", {}, (404, "unknown-model", "GET /models lists them: fake")),
        ("fake/load", {"version": 9}, (404, "unknown-version", "has no version 9; it has [1, 2, 3, 4]")),
        ("fake/switch", {"version": 9}, (404, "unknown-version", "has no version 9")),
        ("fake/unload", {"version": 2}, (404, "unknown-version", "served are: 1")),
        ("fake/unload", {"version": 1}, (409, "conflict", "switch to another first")),
        ("fake/unload", {}, (422, "invalid-input", "version")),
        ("fake/load", {"version": "1"}, (422, "invalid-input", "version")),
        ("fake/switch", {"versoin": 1}, (422, "invalid-input", "did you mean version?")),
    ],
)
def test_what_cannot_be_done_is_a_problem(
    client: httpx.Client, path: str, body: dict[str, Any], problem: tuple[int, str, str]
) -> None:
    check_problem(client.post(f"/admin/models/{path}", json=body), *problem)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    registry = Registry(tmp_path_factory.mktemp("registry"))
    for _ in range(4):
        publish(registry)
    registry.point("fake", 1)
    with client_of(registry, "fake") as client:
        yield client


def test_a_bad_version_is_not_switched_to(registry: Registry) -> None:
    bad = publish(registry, golden_of=1)
    with client_of(registry, "fake") as client:
        for what in ("load", "switch"):
            check_problem(post(client, what, bad), 409, "version-refused", "off its golden image")
        assert default(client) == 1
        (model,) = client.get("/admin/models").json()["models"]
        assert model["refused"].endswith("fake/1 stays")
        post(client, "unload", bad)
        post(client, "switch", 2)
        assert client.get("/readyz").json() == {"status": "ready", "reasons": []}


@pytest.mark.parametrize(
    ("key", "status"), [(ADMIN, 200), (USER, 403), (None, 401)], ids=["admin", "user", "none"]
)
def test_an_admins_key_is_needed(registry: Registry, tmp_path: Path, key: str | None, status: int) -> None:
    with client_of(registry, "fake", access=AccessSettings(keys=keys_file(tmp_path))) as client:
        client.headers = {"X-API-Key": key} if key else {}
        assert client.get("/admin/models").status_code == status
        for what in ("load", "switch"):
            assert post(client, what, 2).status_code == status
        assert post(client, "roll-back").status_code == status
        assert post(client, "unload", 2).status_code == status


def test_the_idlest_version_makes_room(registry: Registry) -> None:
    load = FakeLoader()
    with client_of(registry, "fake/all", load, memory_bytes=2 * NBYTES + 1) as client:
        assert states(client) == {1: "ready", 2: "ready", 3: "unloaded", 4: "unloaded"}
        assert client.get("/readyz").status_code == 200
        generate(client, 2)
        generate(client, 1)
        for wanted, left in ((3, {1, 3}), (4, {3, 4}), (3, {3, 4}), (1, {1, 3})):
            answer = generate(client, wanted)
            assert (answer.json()["version"], images(answer)) == (wanted, [picture(wanted, seed=1, steps=2)])
            assert {number for number, state in states(client).items() if state == "ready"} == left
            assert {engine.salt for engine in load.alive} == left
            hosted = client.get("/admin/models").json()
            assert (hosted["memory_bytes"], hosted["memory_limit_bytes"]) == (2 * NBYTES, 2 * NBYTES + 1)
            assert sample(client, "ddo_model_memory_bytes", version=str(wanted)) == NBYTES


def test_a_swap_does_not_send_away_what_it_replaces(registry: Registry) -> None:
    limit = 2 * NBYTES - 1
    with client_of(registry, "fake", memory_bytes=limit) as client:
        check_problem(post(client, "switch", 2), 503, "not-ready", f"memory_bytes {limit}")
        assert generate(client).json()["version"] == 1
        assert generate(client, 2).json()["version"] == 2  # nothing is replaced: version 1 is idle and leaves
        assert generate(client).json()["version"] == 1
    with client_of(registry, "fake", memory_bytes=limit, registry_poll_s=0.01) as client:
        registry.point("fake", 3)
        wait_for(lambda: "fake/1 stays" in str(client.get("/readyz").json()["reasons"]))
        assert generate(client).json()["version"] == 1


def test_versions_that_take_turns_in_memory_all_answer(registry: Registry) -> None:
    """None leaves before those have it who waited for it."""
    with (
        client_of(registry, "fake/all", memory_bytes=NBYTES) as client,
        ThreadPoolExecutor(6) as pool,
    ):
        numbers = [1 + index % 3 for index in range(30)]
        answers = list(pool.map(lambda number: until_ready(client, number), numbers))
        assert [answer.json()["version"] for answer in answers] == numbers


def until_ready(client: httpx.Client, number: int) -> httpx.Response:
    while (answer := generate(client, number)).status_code == 503:
        time.sleep(0.01)
    return answer


def test_a_version_in_use_stays_and_the_other_has_to_wait(registry: Registry) -> None:
    with (
        client_of(registry, "fake/all", FakeLoader(cost_s=0.005), memory_bytes=NBYTES) as client,
        ThreadPoolExecutor(1) as pool,
    ):
        long = pool.submit(generate, client, 1, steps=200)
        wait_for(lambda: sample(client, "ddo_active_rows", version="1") == 1)
        refusal = generate(client, 2)
        check_problem(refusal, 503, "not-ready", "those in use hold")
        assert int(refusal.headers["Retry-After"]) > 0
        assert images(long.result()) == [picture(1, seed=1, steps=200)]
        assert images(generate(client, 2)) == [picture(2, seed=1, steps=2)]


def test_a_version_larger_than_the_budget_is_refused(registry: Registry) -> None:
    with serving_registry(registry, FakeLoader(), "fake", settings=Settings(memory_bytes=NBYTES - 1)) as url:
        wait_for(lambda: "memory_bytes is" in str(httpx.get(f"{url}/readyz").json()["reasons"]))
        assert httpx.get(f"{url}/readyz").status_code == 503


def test_a_request_waits_for_its_version_as_long_as_its_deadline(registry: Registry) -> None:
    may_load = Event()
    may_load.set()
    load = FakeLoader(before=lambda _: may_load.wait(20) and None)
    with client_of(registry, "fake/all", load, memory_bytes=NBYTES) as client, ThreadPoolExecutor(4) as pool:
        may_load.clear()
        load.loads.clear()
        check_problem(generate(client, 2, deadline_ms=30), 503, "not-ready", "fake/2 is not ready: loading")
        waiting = [pool.submit(generate, client, 2, seed=seed) for seed in range(4)]
        time.sleep(0.05)
        assert not any(answer.done() for answer in waiting)
        may_load.set()
        for seed, answer in enumerate(waiting):
            assert images(answer.result()) == [picture(2, seed=seed, steps=2)]
        assert load.loads[2] == 1
