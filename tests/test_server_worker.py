from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from fake_engine import FakeEngine

from engines.base import ImageRequest
from server.errors import DeadlineError, EngineFailureError, QueueFullError
from server.hosting.version_key import VersionKey
from server.metrics import Metrics
from server.scheduling.ticket import Ticket
from server.scheduling.worker import Worker

FAKE = VersionKey("fake", 1)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


def make(clock: Clock, max_waiting: int = 100, **engine: Any) -> tuple[Worker, FakeEngine]:
    fake = FakeEngine(sleep=clock.advance, **engine)
    worker = Worker(max_waiting=max_waiting, metrics=Metrics("test"), clock=clock)
    worker.attach(FAKE, fake)
    return worker, fake


def ticket(
    clock: Clock, seed: int = 0, *, steps: int = 3, class_id: int = 0, timeout_s: float = 1e9, lanes: int = 1
) -> Ticket:
    request = ImageRequest(class_id=class_id, seed=seed, steps=steps, solver="heun")
    return Ticket(
        model=FAKE,
        request=request,
        arrival=clock(),
        deadline=clock() + timeout_s,
        path=FakeEngine(lanes=lanes).path(request),
    )


def turn_until(worker: Worker, done: Callable[[], bool]) -> int:
    turns = 0
    while not done():
        worker.turn()
        turns += 1
        assert turns < 1000
    return turns


def test_an_image_is_that_of_its_request_whoever_shares_the_batch(clock: Clock) -> None:
    worker, fake = make(clock)
    alone = ticket(clock, seed=8, steps=5)
    worker.submit([alone])
    turn_until(worker, alone.future.done)
    crowd = [ticket(clock, seed=seed, steps=2 + seed % 5) for seed in range(30)]
    worker.submit(crowd)
    turn_until(worker, lambda: all(each.future.done() for each in crowd))
    same = next(each for each in crowd if each.request == alone.request)
    np.testing.assert_array_equal(same.future.result(0), alone.future.result(0))
    assert max(len(batch) for batch in fake.batches) == 8
    assert fake.rows == []


@pytest.mark.parametrize("capacity", [1, 2])
def test_times_are_told(clock: Clock, capacity: int) -> None:
    worker, _ = make(clock, cost_s=2.0, capacity=capacity, max_rows=1)
    first, second = ticket(clock), ticket(clock)
    worker.submit([first, second])
    turn_until(worker, second.future.done)
    assert (first.started, first.finished) == (0.0, 6.0)
    assert (second.started, second.finished) == (6.0, 12.0)


def test_a_cancelled_row_costs_at_most_the_call_in_progress(clock: Clock) -> None:
    worker, fake = make(clock)
    gone = ticket(clock, steps=100)
    worker.submit([gone])
    worker.turn()
    gone.future.cancel()
    worker.turn()
    worker.turn()
    assert len(fake.batches) == 1
    assert fake.rows == []


def test_a_row_past_its_deadline_is_dropped_and_its_place_given_on(clock: Clock) -> None:
    worker, _ = make(clock, capacity=1, cost_s=1.0)
    late, next_one = ticket(clock, steps=100, timeout_s=3.0), ticket(clock, steps=1)
    worker.submit([late, next_one])
    turn_until(worker, next_one.future.done)
    assert isinstance(late.future.exception(0), DeadlineError)
    assert next_one.finished == 4.0


def test_images_are_handed_over_as_the_next_call_begins_or_when_there_is_none(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker, fake = make(clock)
    short, long = ticket(clock, steps=1), ticket(clock, steps=2)
    told: list[bool] = []
    step = fake.step
    monkeypatch.setattr(fake, "step", lambda rows: (told.append(short.future.done()), step(rows)))
    worker.submit([short, long])
    worker.turn()
    assert short.finished is not None
    worker.turn()
    assert told == [False, True]
    assert long.future.done()


def test_stop_hands_over_what_is_finished(clock: Clock) -> None:
    worker, fake = make(clock)
    short, long = ticket(clock, steps=1), ticket(clock, steps=100)
    begun, stopped = threading.Event(), threading.Event()
    fake.cost_s, fake.sleep = 1.0, lambda _: bool(begun.set() or stopped.wait(10))
    worker.submit([short, long])
    worker.start()
    begun.wait(10)
    worker.stop(0)
    stopped.set()
    assert short.future.result(10).shape == (32, 32, 3)
    assert isinstance(long.future.exception(10), EngineFailureError)


def test_a_failing_call_fails_its_rows_and_nothing_else(clock: Clock) -> None:
    worker, fake = make(clock, capacity=4, max_rows=4, lanes=2, fail_class=3)
    bad = [ticket(clock, seed=0, class_id=3, lanes=2), ticket(clock, seed=2, lanes=2)]
    good = [ticket(clock, seed=seed, lanes=2) for seed in (1, 3, 4)]
    worker.submit([*bad, *good])
    turn_until(worker, lambda: all(each.future.done() for each in (*bad, *good)))
    for each in bad:
        error = each.future.exception(0)
        assert isinstance(error, EngineFailureError)
        assert "secretly" not in str(error)
    assert all(each.future.result(0).shape == (32, 32, 3) for each in good)
    assert fake.rows == []


def test_a_row_that_cannot_be_opened_fails_alone(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    worker, fake = make(clock)
    real_open = fake.open

    def failing_open(request: ImageRequest) -> Any:
        if request.seed == 1:
            raise MemoryError
        return real_open(request)

    monkeypatch.setattr(fake, "open", failing_open)
    tickets = [ticket(clock, seed=seed) for seed in range(3)]
    worker.submit(tickets)
    turn_until(worker, lambda: all(each.future.done() for each in tickets))
    assert [each.future.exception(0) is None for each in tickets] == [True, False, True]


def test_a_request_enters_the_queue_whole_or_not_at_all(clock: Clock) -> None:
    worker, _ = make(clock, max_waiting=3)
    worker.submit([ticket(clock), ticket(clock)])
    with pytest.raises(QueueFullError):
        worker.submit([ticket(clock), ticket(clock)])
    assert worker.waiting(FAKE) == 2
    worker.submit([ticket(clock)])


def test_a_refusal_says_when_the_rows_in_front_will_be_done(clock: Clock) -> None:
    worker, _ = make(clock, max_waiting=8, capacity=4, max_rows=4, cost_s=0.5)
    for _ in range(2):  # What it learns from: full batches of 10 calls, 0.5 s each.
        worker.submit([ticket(clock, steps=10) for _ in range(4)])
        turn_until(worker, lambda: worker.active(FAKE) == 0 and worker.waiting(FAKE) == 0)
    worker.submit([ticket(clock, steps=10) for _ in range(8)])
    worker.turn()
    worker.submit([ticket(clock, steps=10) for _ in range(4)])
    before = clock()
    with pytest.raises(QueueFullError) as refusal:
        worker.submit([ticket(clock, steps=10)])
    turn_until(worker, lambda: worker.active(FAKE) == 0 and worker.waiting(FAKE) == 0)
    assert refusal.value.retry_after_s == pytest.approx(clock() - before)


def test_nothing_measured_is_no_guess(clock: Clock) -> None:
    worker, _ = make(clock)
    worker.submit([ticket(clock)])
    assert worker.backlog_s() == 0


def test_a_dead_engine_thread_refuses_instead_of_hanging(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker, fake = make(clock)

    def broken_close(_: object) -> None:
        raise OSError("broken")

    monkeypatch.setattr(fake, "close", broken_close)
    doomed, waiting = ticket(clock, steps=1), ticket(clock, steps=50)
    worker.submit([doomed, waiting])
    worker.start()
    assert isinstance(waiting.future.exception(5), EngineFailureError)
    assert doomed.future.result(0).shape == (32, 32, 3)
    worker.stop(5)
    assert not worker.alive
    with pytest.raises(EngineFailureError):
        worker.submit([ticket(clock)])


def test_stop_fails_what_is_left(clock: Clock) -> None:
    worker, _ = make(clock, max_waiting=10)
    worker.start()
    left = ticket(clock, steps=10**9)
    worker.submit([left])
    worker.stop(5)
    assert not worker.alive
    assert isinstance(left.future.exception(0), EngineFailureError)


def test_an_engine_leaves_once_its_rows_are_done_and_another_may_take_its_place(clock: Clock) -> None:
    worker, fake = make(clock)
    accepted = [ticket(clock, seed=seed) for seed in range(20)]
    worker.submit(accepted)
    left = worker.detach(FAKE)
    with pytest.raises(ValueError, match="has an engine"):
        worker.attach(FAKE, FakeEngine())
    turn_until(worker, left.done)
    assert all(each.future.result(0).shape == (32, 32, 3) for each in accepted)
    assert (fake.rows, fake.closed) == ([], 20)
    successor = FakeEngine(size=8)
    worker.attach(FAKE, successor)
    later = ticket(clock)
    worker.submit([later])
    turn_until(worker, later.future.done)
    assert later.future.result(0).shape == (8, 8, 3)


def test_the_engine_thread_lets_an_idle_engine_go(clock: Clock) -> None:
    worker, fake = make(clock)
    gone = weakref.ref(fake)
    del fake
    worker.start()
    assert worker.detach(FAKE).result(5) is None
    assert gone() is None
    worker.stop(5)


def test_an_engine_cannot_leave_a_thread_that_has_ended(clock: Clock) -> None:
    worker, _ = make(clock)
    worker.start()
    worker.submit([ticket(clock, steps=10**9)])
    left = worker.detach(FAKE)
    worker.stop(5)
    assert left.cancelled()
    assert worker.detach(FAKE).cancelled()
