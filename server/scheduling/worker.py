"""The engine thread: the only thread that touches engines.

One thread serves every model. A call uses all cores (or the one device) anyway, so two threads would only
take turns on them, each with a thread pool of its own, and every call of both would take longer.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

import structlog

from engines.base import Engine
from server.errors import DeadlineError, EngineFailureError, NotReadyError, ServeError
from server.hosting.version_key import VersionKey
from server.metrics import Metrics
from server.scheduling.admission import Admission
from server.scheduling.batch import Batch
from server.scheduling.cost import CostModel
from server.scheduling.meters import Meters
from server.scheduling.policy import POLICIES, Policy, PolicyName
from server.scheduling.scheduler import Drop, Scheduler
from server.scheduling.ticket import Image, Ticket
from server.tracing.journal import Call

log = structlog.get_logger(__name__)


class Worker:
    """Turns tickets into images, one engine call a turn.

    `start` runs the turns on a thread of its own; tests call `turn` themselves.
    """

    def __init__(
        self,
        *,
        max_waiting: int,
        max_pending_s: float = math.inf,
        policy: Policy = POLICIES[PolicyName.DEADLINE],
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start without engines.

        Args:
            max_waiting: rows of all models that may wait for a place.
            max_pending_s: engine seconds that all accepted rows may need.
            policy: the order of rows.
            metrics: where to write what is measured.
            clock: gives seconds.
        """
        self._cost = CostModel()
        self._scheduler: Scheduler[Ticket] = Scheduler(max_waiting, policy, self._cost)
        self._admission = Admission(self._scheduler, self._cost, max_pending_s=max_pending_s)
        self._metrics = metrics
        self._clock = clock
        self._engines: dict[VersionKey, Engine[Any]] = {}
        self._meters: dict[VersionKey, Meters] = {}
        self._free_at = 0.0
        self._finished: list[tuple[Ticket, Image]] = []
        self._lock = threading.RLock()
        self._wake = threading.Condition(self._lock)  # To take the lock through it takes longer.
        self._leaving: dict[VersionKey, Future[None]] = {}
        self._stopping = False
        # A daemon, so that an engine call that never returns cannot keep the process alive.
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        """Start the engine thread."""
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """End after the engine call in progress, waiting at most `timeout_s`; unfinished tickets fail."""
        with self._lock:
            self._stopping = True
            self._wake.notify()
        self._thread.join(timeout_s)

    @property
    def alive(self) -> bool:
        """Whether the engine thread runs."""
        return self._thread.is_alive()

    def attach(self, model: VersionKey, engine: Engine[Any]) -> None:
        """Serve an engine as `model` from now on; from then on only the engine thread may use it.

        Raises:
            ValueError: `model` has an engine.
        """
        with self._lock:
            if model in self._engines:
                raise ValueError(f"{model} has an engine; detach it first")
            self._engines[model] = engine
            self._scheduler.add_model(model, capacity=engine.capacity, max_rows=engine.max_rows)
            self._cost.expect(model, engine.costs)
            self._meters[model] = Meters(self._metrics, model)
        self._metrics.add_costs(model, engine.costs)

    def detach(self, model: VersionKey) -> Future[None]:
        """Let go of a model's engine once all its rows are done; the caller submits no more of them."""
        future: Future[None] = Future()
        with self._lock:
            if self._stopping:
                future.cancel()
            else:
                self._leaving[model] = future
                self._wake.notify()
        return future

    def submit(self, tickets: Sequence[Ticket]) -> None:
        """Queue the tickets of one request, all or none.

        Raises:
            QueueFullError: there is no room for all of them; it says when there will be.
            TooLateError: a deadline that was promised to be kept would be missed.
            NotReadyError: the version has no engine.
            EngineFailureError: the engine thread has ended.
        """
        with self._lock:
            if self._stopping:
                raise EngineFailureError("the engine has stopped")
            if any(ticket.model not in self._engines for ticket in tickets):
                raise NotReadyError("the version has just left the memory; ask again", 0)
            self._admission.check(tickets, self._clock(), self._free_at)
            self._scheduler.submit(tickets)
            self._wake.notify()
        for ticket in tickets:
            ticket.future.add_done_callback(self._note)

    def waiting(self, model: VersionKey) -> int:
        """Return how many rows of a model wait for a place."""
        return self._scheduler.waiting(model)

    def active(self, model: VersionKey) -> int:
        """Return how many rows of a model are open."""
        return len(self._scheduler.active(model))

    def backlog_s(self) -> float:
        """Estimate the seconds until every row now in front is done; 0 before anything was measured."""
        with self._lock:
            return self._admission.pending_s()

    def turn(self) -> None:
        """Let go of what is idle, drop what nobody wants, admit what has a place, make one engine call."""
        now = self._clock()
        with self._lock:
            self._let_go()
            dropped = self._scheduler.drop(now)
            admitted = self._scheduler.admit()
        for ticket, reason in dropped:
            self._discard(ticket, reason)
        for ticket in admitted:
            self._open(ticket)
        with self._lock:
            batch = self._scheduler.batch(now)
        if batch:
            self._start(batch.rows, now)
            self._advance(batch, now)
        if not self._scheduler.busy:
            self._deliver()

    def _run(self) -> None:
        try:
            while True:
                with self._lock:
                    self._wake.wait_for(lambda: self._stopping or self._leaving or self._scheduler.busy)
                    if self._stopping:
                        return
                self.turn()
        except Exception:
            log.exception("the engine thread ended")
        finally:
            self._abandon()

    def _abandon(self) -> None:
        """Fail whatever is left and refuse whatever still comes."""
        self._deliver()
        with self._lock:
            self._stopping = True
            for ticket in self._scheduler.clear():
                _refuse(ticket, EngineFailureError("the engine has stopped"))
            for future in self._leaving.values():
                future.cancel()

    def _let_go(self) -> None:
        """Forget the engines that are to leave and have no row. Between two turns no row is half released."""
        idle = [model for model in self._leaving if not self._scheduler.models[model]]
        for model in idle:
            self._scheduler.remove_model(model)
            self._cost.forget(model)
            del self._engines[model], self._meters[model]
            future = self._leaving.pop(model)
            if future.set_running_or_notify_cancel():
                future.set_result(None)

    def _open(self, ticket: Ticket) -> None:
        try:
            ticket.row = self._engines[ticket.model].open(ticket.request)
        except Exception as error:
            self._fail([ticket], error)

    def _start(self, tickets: Sequence[Ticket], now: float) -> None:
        """Note when each row first takes part in a call: an open row may still wait for its lane."""
        for ticket in tickets:
            if ticket.started is None:
                ticket.started = now
                self._meters[ticket.model].start(now - ticket.arrival)

    def _advance(self, batch: Batch[Ticket], turned: float) -> None:
        tickets, lane, width = batch.rows, batch.lane, batch.width
        model = tickets[0].model
        costs = self._cost.lane(model, lane)
        self._deliver()
        started = self._clock()
        self._free_at = started + costs.seconds(width)
        try:
            self._engines[model].step([ticket.row for ticket in tickets])
        except Exception as error:
            self._fail(tickets, error)
            return
        seconds = self._clock() - started
        slots = costs.slots(width)
        self._meters[model].call(lane, rows=len(tickets), width=width, slots=slots, seconds=seconds)
        for ticket in tickets:
            if ticket.journal is not None:
                ticket.journal.calls.append(Call(lane, len(tickets), started, started + seconds))
            if ticket.calls_left == 0:
                self._finish(ticket)
        with self._lock:  # What comes with a call is part of what it costs; previews come with few.
            costs.observe(width, self._clock() - turned)
        watched = [(each.previews, each.row) for each in tickets if each.previews is not None]
        if watched:
            self._deliver()  # A preview may take as long as a call.
        for previews, row in watched:
            if row is not None:
                previews.offer(self._engines[model], row, started + seconds)

    def _finish(self, ticket: Ticket) -> None:
        if ticket.journal is not None:
            ticket.journal.decoding = self._clock()
        try:
            image: Image = self._engines[ticket.model].image(ticket.row)
        except Exception as error:
            self._fail([ticket], error)
            return
        ticket.finished = now = self._clock()
        self._admission.learn(ticket, now)
        if ticket.expected is not None:
            self._meters[ticket.model].finish(now - ticket.expected)
        self._finished.append((ticket, image))
        self._release(ticket)

    def _deliver(self) -> None:
        """Hand finished images over.

        Whoever waits for one wakes up and wants Python's lock, which is free as soon as a call begins. Woken
        before, it would go to sleep again, and a processor that has slept is slow for a while.
        """
        for ticket, image in self._finished:
            if ticket.future.set_running_or_notify_cancel():
                ticket.future.set_result(image)
        self._finished.clear()

    def _fail(self, tickets: Sequence[Ticket], error: Exception) -> None:
        name, version = tickets[0].model
        log.error("engine failure", model=name, version=version, rows=len(tickets), exc_info=error)
        for ticket in tickets:
            _refuse(ticket, EngineFailureError("the engine failed while making this image"))
            self._release(ticket)

    def _discard(self, ticket: Ticket, reason: Drop) -> None:
        self._meters[ticket.model].drop(reason, started=ticket.started is not None)
        if reason is Drop.EXPIRED:
            self._admission.learn(ticket, self._clock())
        _refuse(ticket, DeadlineError("the deadline passed before the image was finished"))
        self._release(ticket)

    def _note(self, future: Future[Image]) -> None:
        """Look for a cancelled ticket at the next turn. Called by whichever thread ended the future."""
        if future.cancelled():
            self._scheduler.note_cancelled()

    def _release(self, ticket: Ticket) -> None:
        with self._lock:
            self._scheduler.retire(ticket)
        if ticket.row is not None:
            self._engines[ticket.model].close(ticket.row)


def _refuse(ticket: Ticket, error: ServeError) -> None:
    if ticket.future.set_running_or_notify_cancel():
        ticket.future.set_exception(error)
