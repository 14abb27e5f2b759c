from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import limits.storage.memory
import pytest
from fake_engine import FakeEngine
from fake_server import serving, wait_until_ready
from test_server_access import ADMIN, USER, keys_file

from server.access.caller import Caller, Limits
from server.access.quotas import Quotas
from server.access.settings import AccessSettings
from server.errors import CallerBusyError, DeadlineError, InvalidInputError, QueueFullError, RateLimitError
from server.settings import Settings


class Clock:
    """A clock in place of the one that `limits` reads."""

    def __init__(self) -> None:
        self.now = 1000.0

    def time(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    clock = Clock()
    monkeypatch.setattr(limits.storage.memory, "time", clock)
    monkeypatch.setattr("server.access.quotas.time", clock)
    yield clock


def caller(id: str = "alice", **bounds: int) -> Caller:
    return Caller(id, admin=False, limits=Limits(**bounds))


def use(quotas: Quotas, who: Caller, images: int, error: Exception | None = None) -> None:
    with quotas.hold(who, images):
        if error:
            raise error


def test_images_a_minute_are_counted_in_a_moving_window(clock: Clock) -> None:
    quotas, alice, bob = Quotas(), caller(images_per_minute=10), caller("bob", images_per_minute=10)
    use(quotas, alice, 4)
    clock.now += 20
    use(quotas, alice, 6)
    with pytest.raises(RateLimitError, match="10 images a minute") as refused:
        use(quotas, alice, 1)
    assert refused.value.retry_after_s == pytest.approx(40)
    with pytest.raises(RateLimitError) as refused:
        use(quotas, alice, 5)
    assert refused.value.retry_after_s == pytest.approx(60)
    use(quotas, bob, 10)
    clock.now += 41
    use(quotas, alice, 4)
    with pytest.raises(RateLimitError):
        use(quotas, alice, 1)


@pytest.mark.parametrize(
    ("error", "counted"), [(QueueFullError("full", 1), False), (DeadlineError("late"), True)]
)
def test_images_that_were_refused_do_not_count(clock: Clock, error: Exception, counted: bool) -> None:
    quotas, alice = Quotas(), caller(images_per_minute=2)
    with pytest.raises(type(error)):
        use(quotas, alice, 2, error)
    if counted:
        with pytest.raises(RateLimitError):
            use(quotas, alice, 1)
    else:
        use(quotas, alice, 2)


def test_more_images_than_a_minute_has_are_never_to_be_had() -> None:
    with pytest.raises(InvalidInputError, match="n: 3 is more than the 2 images a minute"):
        use(Quotas(), caller(images_per_minute=2), 3)


def test_requests_in_progress_are_counted_until_they_end_however_they_end() -> None:
    quotas, alice = Quotas(), caller(concurrency=1)
    for error in (None, RuntimeError(), QueueFullError("full", 1)):
        with pytest.raises(type(error)) if error else quotas.hold(caller("bob"), 1):
            use(quotas, alice, 1, error)
    with quotas.hold(alice, 1):
        with pytest.raises(CallerBusyError, match="1 requests in progress"):
            use(quotas, alice, 1)
        use(quotas, caller("bob", concurrency=1), 1)


def test_limits_hold_over_http(tmp_path: Path) -> None:
    gate = threading.Event()
    engine = FakeEngine(cost_s=0.001, sleep=lambda _: None)
    access = AccessSettings(keys=keys_file(tmp_path, concurrency=1, images_per_minute=3))
    body = {"class_id": 1, "steps": 1}
    with (
        serving({"fake": engine}, Settings(access=access)) as url,
        httpx.Client(base_url=url, headers={"X-API-Key": USER}) as client,
        ThreadPoolExecutor(1) as pool,
    ):
        wait_until_ready(client)
        engine.sleep = lambda _: gate.wait(20) and None
        held = pool.submit(httpx.post, f"{url}/generate", json=body, headers={"X-API-Key": USER}, timeout=30)
        while 'ddo_active_rows{model="fake",version="3"} 1.0' not in client.get("/metrics").text:
            assert not held.done()
        busy = client.post("/generate", json=body)
        assert (busy.status_code, busy.json()["type"]) == (429, "urn:ddo-serve:caller-busy")
        assert busy.headers["Retry-After"] == "1"
        gate.set()
        assert held.result().status_code == 200
        assert client.post("/generate", json=body | {"class_id": 99}).status_code == 422
        assert client.post("/generate", json=body | {"n": 2}).status_code == 200
        limited = client.post("/generate", json=body)
        assert (limited.status_code, limited.json()["type"]) == (429, "urn:ddo-serve:rate-limit")
        assert 1 <= int(limited.headers["Retry-After"]) <= 60
        other = client.post("/generate", json=body, headers={"X-API-Key": ADMIN})
        assert other.status_code == 200
