"""Requests cancelled by their ids, and rows cancelled at any moment."""

from __future__ import annotations

import asyncio
import random

import httpx
import pytest
from fake_engine import FakeEngine
from fake_server import serving, wait_until_ready

from engines.base import ImageRequest
from server.access.caller import Caller, Limits
from server.errors import RequestCancelledError, UnknownRequestError
from server.hosting.version_key import VersionKey
from server.metrics import Metrics
from server.request_id import REQUEST_ID
from server.running import Running
from server.scheduling.priority import Priority
from server.scheduling.ticket import Ticket
from server.scheduling.worker import Worker

FAKE = VersionKey("fake", 1)
FOREVER = {"class_id": 1, "steps": 1000, "n": 2}


def test_a_request_is_cancelled_by_its_id() -> None:
    engine = FakeEngine(cost_s=0.005)

    async def scenario(url: str) -> tuple[httpx.Response, httpx.Response, httpx.Response]:
        async with httpx.AsyncClient(base_url=url, timeout=30) as client:
            headers = {"X-Request-ID": "mine"}
            made = asyncio.create_task(client.post("/generate", json=FOREVER, headers=headers))
            while not engine.rows:
                await asyncio.sleep(0.01)
            first = await client.delete("/requests/mine")
            answer = await made
            return first, answer, await client.delete("/requests/mine")

    with serving({"fake": engine}) as url:
        with httpx.Client(base_url=url) as client:
            wait_until_ready(client)
        first, answer, second = asyncio.run(scenario(url))
    assert (first.status_code, first.content) == (204, b"")
    assert (answer.status_code, answer.json()["type"]) == (409, "urn:ddo-serve:cancelled")
    assert answer.headers["X-Request-ID"] == "mine"
    assert (second.status_code, second.json()["type"]) == (404, "urn:ddo-serve:unknown-request")
    assert engine.rows == []
    assert len(engine.batches) < FOREVER["steps"]


def test_a_caller_cancels_its_own_requests_alone_and_an_admin_all() -> None:
    ada, bob, root = (Caller(name, admin=name == "root", limits=Limits()) for name in ("ada", "bob", "root"))
    running = Running()

    async def request(caller: Caller) -> str:
        try:
            REQUEST_ID.set("same")
            await running.run(caller, asyncio.sleep(60))
        except RequestCancelledError:
            return "cancelled"
        return "done"

    async def scenario() -> None:
        tasks = [asyncio.create_task(request(caller)) for caller in (ada, bob)]
        await asyncio.sleep(0)
        running.cancel("same", ada)
        running.cancel("same", ada)  # at once again: one cancellation
        assert await tasks[0] == "cancelled"
        assert not tasks[1].done()
        with pytest.raises(UnknownRequestError):
            running.cancel("same", ada)
        running.cancel("same", root)
        assert await tasks[1] == "cancelled"
        with pytest.raises(UnknownRequestError):
            running.cancel("same", root)

    asyncio.run(scenario())


def test_ten_thousand_random_cancellations_leak_nothing() -> None:
    draw, now = random.Random(0), [0.0]
    engine = FakeEngine(capacity=16, lanes=3)
    worker = Worker(max_waiting=64, metrics=Metrics("test"), clock=lambda: now[0])
    worker.attach(FAKE, engine)
    open_tickets: list[Ticket] = []
    cancelled = finished = submitted = 0
    while cancelled < 10_000:
        while worker.waiting(FAKE) < 40:
            request = engine.resolve(ImageRequest(class_id=0, seed=submitted, steps=draw.randint(1, 20)))
            ticket = Ticket(
                model=FAKE,
                request=request,
                path=engine.path(request),
                arrival=now[0],
                deadline=now[0] + 1e9,
                priority=draw.choice(list(Priority)),
            )
            worker.submit([ticket])
            open_tickets.append(ticket)
            submitted += 1
        for ticket in draw.sample(open_tickets, 8):
            cancelled += ticket.future.cancel()
        computed = len(engine.batches)
        worker.turn()
        now[0] += 0.001
        gone = {id(ticket.request) for ticket in open_tickets if ticket.future.cancelled()}
        assert not any(id(request) in gone for batch in engine.batches[computed:] for request in batch)
        finished += sum(ticket.future.done() and not ticket.cancelled for ticket in open_tickets)
        open_tickets = [ticket for ticket in open_tickets if not ticket.future.done()]
        rows = sum(
            ticket.finished is None for ticket in open_tickets
        )  # What is finished is about to be told.
        assert worker.waiting(FAKE) + worker.active(FAKE) == rows
    while open_tickets:
        worker.turn()
        finished += sum(ticket.future.done() for ticket in open_tickets)
        open_tickets = [ticket for ticket in open_tickets if not ticket.future.done()]
    assert finished + cancelled == submitted
    assert engine.rows == []
    assert not worker.backlog_s()
