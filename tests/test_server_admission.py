"""What is refused at the door, and how right the predictions are."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from fake_engine import FakeEngine
from fake_server import serving, wait_until_ready

from engines.base import ImageRequest
from server.errors import QueueFullError, TooLateError
from server.hosting.version_key import VersionKey
from server.metrics import Metrics
from server.scheduling.calibration import Calibration
from server.scheduling.policy import POLICIES, PolicyName
from server.scheduling.priority import Priority
from server.scheduling.ticket import Ticket
from server.scheduling.worker import Worker
from server.settings import Settings

FAKE = VersionKey("fake", 1)
CALL_S = 0.01
COSTS = {"lane0": dict.fromkeys(range(1, 9), CALL_S)}


@dataclass
class Bench:
    """A worker around a fake engine on a clock of its own."""

    policy: PolicyName = PolicyName.DEADLINE
    max_pending_s: float = 1e9
    now: float = 0.0
    costs: dict[str, dict[int, float]] = field(default_factory=lambda: COSTS)
    max_waiting: int = 10_000

    def __post_init__(self) -> None:
        self.metrics = Metrics("test")
        self.engine = FakeEngine(capacity=32, cost_s=CALL_S, sleep=self.sleep, costs=self.costs)
        self.worker = Worker(
            policy=POLICIES[self.policy],
            max_waiting=self.max_waiting,
            max_pending_s=self.max_pending_s,
            metrics=self.metrics,
            clock=lambda: self.now,
        )
        self.worker.attach(FAKE, self.engine)

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def submit(
        self, steps: int = 10, n: int = 1, *, within: float | None = None, **more: Any
    ) -> list[Ticket]:
        request = self.engine.resolve(ImageRequest(class_id=0, seed=0, steps=steps))
        tickets = [
            Ticket(
                model=FAKE,
                request=request,
                path=self.engine.path(request),
                arrival=self.now,
                deadline=self.now + (1e6 if within is None else within),
                promised=within is not None,
                **more,
            )
            for _ in range(n)
        ]
        self.worker.submit(tickets)
        return tickets

    def run(self, until: float) -> None:
        while self.now < until:
            before = self.now
            self.worker.turn()
            if self.now == before:
                self.now = until


def test_a_hopeless_deadline_is_refused_and_no_time_to_come_back_is_made_up() -> None:
    bench = Bench()
    with pytest.raises(TooLateError, match="at least 100 ms, and the deadline is in 50 ms") as refusal:
        bench.submit(10, within=0.05)
    assert refusal.value.retry_after_s == float("inf")
    bench.submit(10, within=0.11)


def test_a_refusal_says_when_the_same_request_would_be_accepted() -> None:
    bench = Bench(PolicyName.THROUGHPUT)
    for _ in range(6):
        bench.submit(50, n=8)
    bench.worker.turn()
    with pytest.raises(TooLateError) as refusal:
        bench.submit(10, within=1.0)
    retry_after_s = refusal.value.retry_after_s
    assert 0 < retry_after_s < 6 * 50 * CALL_S
    bench.run(bench.now + 0.8 * retry_after_s)
    with pytest.raises(TooLateError):
        bench.submit(10, within=1.0)
    bench.run(bench.now + 0.2 * retry_after_s + CALL_S)
    accepted = bench.submit(10, within=1.0)
    deadline = bench.now + 1.0
    bench.run(deadline + 1)
    assert accepted[0].finished is not None
    assert accepted[0].finished <= deadline


def test_a_promise_is_not_broken_for_a_more_urgent_request() -> None:
    bench = Bench()
    tight = bench.submit(100, n=8, within=1.02)
    with pytest.raises(TooLateError, match="accepted requests"):
        bench.submit(50, n=8, within=0.9)
    bench.run(2.0)
    assert all(ticket.finished is not None and ticket.finished <= 1.02 for ticket in tight)


def test_without_a_deadline_of_its_own_nothing_is_refused_as_late() -> None:
    bench = Bench()
    for _ in range(50):
        bench.submit(1000, n=8)
    assert bench.worker.waiting(FAKE) == 400


def test_pending_compute_is_bounded_and_an_idle_server_takes_anything() -> None:
    bench = Bench(max_pending_s=5.0)
    bench.submit(1000, n=8)  # 10 s
    with pytest.raises(QueueFullError, match="compute") as refusal:
        bench.submit(10)
    bench.run(bench.now + refusal.value.retry_after_s + 2 * CALL_S)
    bench.submit(10)


@pytest.mark.parametrize("policy", PolicyName)
def test_at_half_as_much_again_as_can_be_served_promises_are_kept_and_the_engine_is_busy(
    policy: PolicyName,
) -> None:
    """Virtual time; the mean request needs 17.5 of the 800 row steps that a second has."""
    bench, draw = Bench(policy), random.Random(0)
    rate, seconds = 1.5 * 800 / 17.5, 30
    accepted, refused, due = [], 0, 0.0
    while due < seconds:
        bench.run(due)
        try:
            accepted += bench.submit(draw.randint(5, 30), within=0.6)
        except TooLateError:
            refused += 1
        due += draw.expovariate(rate)
    bench.run(due + 5)
    kept = [ticket for ticket in accepted if ticket.finished and ticket.finished <= ticket.deadline]
    assert refused > 0.1 * len(accepted)
    assert len(kept) >= 0.98 * len(accepted)
    assert sum(ticket.request.steps or 0 for ticket in kept) >= 0.9 * 800 * seconds


def test_ten_thousand_requests_a_second_of_virtual_load() -> None:
    """A call of 8 rows in 0.2 ms and requests of 1 to 5 steps: the scheduler alone is put to work."""
    bench, draw = Bench(), random.Random(1)
    bench.engine.cost_s = 0.0002
    accepted, ends, due = [], 1.0, 0.0
    while due < ends:
        bench.run(due)
        accepted += bench.submit(draw.randint(1, 5), priority=draw.choice(list(Priority)))
        due += draw.expovariate(10_000)
    bench.run(due + 1)
    assert len(accepted) > 9_000
    assert all(ticket.future.result(0).shape == (32, 32, 3) for ticket in accepted)
    assert bench.engine.rows == []
    waits = [ticket.finished - ticket.arrival for ticket in accepted if ticket.finished]
    assert sorted(waits)[len(waits) // 2] < 0.01


@pytest.mark.parametrize("policy", PolicyName)
def test_behind_a_long_queue_the_end_is_foreseen(policy: PolicyName) -> None:
    bench, draw = Bench(policy), random.Random(2)
    for number in range(200):
        priority = Priority.BATCH if number % 4 == 0 else Priority.INTERACTIVE
        bench.submit(draw.randint(5, 30), priority=priority)
        bench.now += 1e-6
    last = bench.submit(30, n=3)
    batch = bench.submit(30, priority=Priority.BATCH)
    bench.run(20.0)
    for ticket in (*last, *batch):
        assert ticket.begins is not None and ticket.started is not None
        assert ticket.expected is not None and ticket.finished is not None
        assert ticket.started == pytest.approx(ticket.begins, rel=0.15)
        assert ticket.finished == pytest.approx(ticket.expected, rel=0.15)


def test_what_is_pending_is_known_after_every_turn_of_a_row() -> None:
    bench, draw = Bench(), random.Random(3)
    tickets = [ticket for _ in range(60) for ticket in bench.submit(draw.randint(5, 30))]
    for ticket in draw.sample(tickets, 20):
        ticket.future.cancel()
    for _ in range(10):
        bench.run(bench.now + CALL_S)
        left = sum(ticket.calls_left for ticket in tickets if not ticket.future.done())
        assert bench.worker.backlog_s() == pytest.approx(left * CALL_S / 8, rel=1e-3)
    bench.run(bench.now + 100)
    assert bench.worker.backlog_s() == 0.0


def test_prediction_errors_are_told() -> None:
    bench = Bench()
    bench.submit(10)
    bench.run(1.0)
    text = bench.metrics.render().decode()
    for bound, count in (("-0.0025", 0.0), ("0.0025", 1.0)):
        labels = f'le="{bound}",model="fake",version="1"'
        assert f"ddo_prediction_error_seconds_bucket{{{labels}}} {count}" in text


def test_predictions_that_are_off_are_corrected() -> None:
    calibration = Calibration()
    for _ in range(200):
        calibration.observe(1.0, 1.5)
    assert calibration.usual == pytest.approx(1.5, rel=0.01)
    assert 1.5 <= calibration.cautious < 1.6
    for real in (1.0, 2.0) * 100:
        calibration.observe(1.0, real)
    assert calibration.cautious > 2.0


def test_over_http_the_refusal_is_a_problem_at_once() -> None:
    settings = Settings(policy="latency", pending_s=3.0)  # type: ignore[arg-type]
    with serving({"fake": FakeEngine(cost_s=0.002)}, settings) as url, httpx.Client(base_url=url) as client:
        wait_until_ready(client)
        assert (
            client.post("/generate", json={"class_id": 1}).status_code == 200
        )  # what costs are learned from
        late = client.post("/generate", json={"class_id": 1, "steps": 1000, "deadline_ms": 100})
        assert (late.status_code, late.json()["type"]) == (429, "urn:ddo-serve:too-late")
        assert "Retry-After" not in late.headers
        assert client.post("/generate", json={"class_id": 1, "deadline_ms": 2000}).status_code == 200
        metrics = client.get("/metrics").text
        assert 'ddo_rejections_total{reason="too-late"} 1.0' in metrics
        assert "ddo_pending_compute_seconds 0.0" in metrics
        batch = {"class_id": 1, "priority": "batch", "format": "png"}
        assert client.post("/generate", json=batch).status_code == 200
        assert client.post("/generate", json=batch | {"priority": "soon"}).status_code == 422
