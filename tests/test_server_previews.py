"""Previews leave the engine thread only when somebody waits for them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from fake_engine import FakeEngine
from test_server_worker import FAKE, Clock, ticket, turn_until

from server.metrics import Metrics
from server.scheduling.preview import PreviewBox
from server.scheduling.ticket import Ticket
from server.scheduling.worker import Worker


@pytest.fixture
def clock() -> Clock:
    return Clock()


def watched(clock: Clock, wake: list[None], *, steps: int) -> tuple[Ticket, PreviewBox]:
    box = PreviewBox(steps, lambda: wake.append(None))
    return dataclasses.replace(ticket(clock, steps=steps), previews=box), box


def start(clock: Clock, engine: FakeEngine, *tickets: Ticket) -> Worker:
    worker = Worker(max_waiting=100, metrics=Metrics("test"), clock=clock)
    worker.attach(FAKE, engine)
    worker.submit(tickets)
    return worker


def test_each_preview_is_made_once_it_is_asked_for(clock: Clock) -> None:
    engine, wake = FakeEngine(sleep=clock.advance, cost_s=1.0), []
    row, box = watched(clock, wake, steps=10)
    worker = start(clock, engine, row, ticket(clock, steps=10))
    worker.turn()
    assert (engine.previewed, box.take()) == (0, None)
    box.ask()
    for _ in range(3):
        worker.turn()
    assert (engine.previewed, len(wake)) == (1, 1), "two calls ended before it was taken: no more are made"
    preview = box.take()
    assert preview is not None
    assert (preview.call, preview.calls, box.take()) == (2, 10, None)
    box.ask(call=6)
    worker.turn()
    assert box.take() is None
    worker.turn()
    assert (preview := box.take()) is not None
    assert preview.call == 6
    box.ask(time=9.0)
    turn_until(worker, row.future.done)
    assert (preview := box.take()) is not None
    assert (preview.call, engine.previewed) == (9, 3)


def test_the_last_call_gives_the_image_and_no_preview(clock: Clock) -> None:
    engine, wake = FakeEngine(), []
    row, box = watched(clock, wake, steps=1)
    box.ask()
    start(clock, engine, row).turn()
    assert (row.future.result(0).shape, engine.previewed, wake) == ((32, 32, 3), 0, [])


def test_a_finished_image_does_not_wait_for_the_previews_of_others(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, wake, short = FakeEngine(), [], ticket(clock, steps=1)
    row, box = watched(clock, wake, steps=3)
    told = []
    monkeypatch.setattr(engine, "preview", lambda _: told.append(short.future.done()))
    box.ask()
    start(clock, engine, short, row).turn()
    assert told == [True]


def test_a_preview_that_fails_costs_the_preview_alone(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, tries = FakeEngine(), []

    def failing(_: object) -> np.ndarray:
        tries.append(None)
        raise MemoryError

    monkeypatch.setattr(engine, "preview", failing)
    row, box = watched(clock, [], steps=4)
    box.ask()
    turn_until(start(clock, engine, row), row.future.done)
    assert (row.future.result(0).shape, box.take(), len(tries)) == ((32, 32, 3), None, 1)
