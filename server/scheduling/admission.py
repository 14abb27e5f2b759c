"""What is accepted: bounded rows, bounded compute, and deadlines that can be kept."""

from __future__ import annotations

from collections.abc import Sequence

from server.errors import QueueFullError, TooLateError
from server.scheduling.calibration import Calibration
from server.scheduling.cost import CostModel
from server.scheduling.forecast import Forecaster, Outlook
from server.scheduling.scheduler import Scheduler
from server.scheduling.ticket import Ticket

ANSWER_S = 0.004
"""Seconds before a deadline that an image's pixels have to be there, to be encoded and sent in time."""

MARGIN = 0.1
"""Share of the time to a deadline that is kept for what nobody foresees; the engine stays as busy."""


class Admission:
    """Says yes, or no and when to come back, before anything is computed."""

    def __init__(self, scheduler: Scheduler[Ticket], cost: CostModel, *, max_pending_s: float) -> None:
        """Bound the compute that accepted rows need by `max_pending_s` engine seconds."""
        self._scheduler = scheduler
        self._cost = cost
        self._forecaster = Forecaster(scheduler, cost)
        self._calibration = Calibration()
        self._max_pending_s = max_pending_s

    def pending_s(self) -> float:
        """Return the engine seconds that all accepted rows still need."""
        return self._forecaster.pending()

    def check(self, tickets: Sequence[Ticket], now: float, free_at: float) -> None:
        """Let the tickets of one request pass, and note when they are expected to be done.

        Args:
            tickets: resolved, not yet submitted.
            now: seconds on the tickets' clock.
            free_at: when the engine call in progress will be over.

        Raises:
            QueueFullError: there are too many rows, or too much compute, in front.
            TooLateError: a promised deadline would be missed, this request's or an accepted one's.
        """
        if not self._scheduler.has_room(len(tickets)):
            raise QueueFullError("the waiting queue is full", self.pending_s())
        outlook = self._forecaster.outlook(tickets, now, free_at)
        self._check_pending(outlook)
        if tickets[0].promised:
            self._check_deadline(tickets, outlook, now)
        for ticket in tickets:
            ticket.begins = now + outlook.starts * self._calibration.usual
            ticket.forecast = outlook.ends
            ticket.expected = now + outlook.ends * self._calibration.usual

    def learn(self, ticket: Ticket, now: float) -> None:
        """Compare what was predicted of a ticket with what came; it is done, or was dropped late, `now`."""
        if ticket.forecast:
            self._calibration.observe(ticket.forecast, now - ticket.arrival)

    def _check_pending(self, outlook: Outlook) -> None:
        excess = outlook.pending + outlook.own - self._max_pending_s
        if outlook.pending and excess > 0:
            raise QueueFullError(
                f"{outlook.pending:.0f} seconds of compute are in front; with this request's "
                f"{outlook.own:.1f} it would be more than {self._max_pending_s:g}",
                min(excess, outlook.pending),
            )

    def _check_deadline(self, tickets: Sequence[Ticket], outlook: Outlook, now: float) -> None:
        first = tickets[0]
        left = first.deadline - now
        least = self._cost.least_seconds(first.model, first.path)
        if least > left:
            raise TooLateError(
                f"alone it takes at least {1000 * least:.0f} ms, and the deadline is in "
                f"{1000 * left:.0f} ms: ask for a later deadline or fewer steps",
                float("inf"),
            )
        if not outlook.pending:
            return  # Nothing is lost by trying, and predictions that are too gloomy are put right.
        ends = outlook.ends * self._calibration.cautious / (1 - MARGIN) + ANSWER_S
        if ends > left:
            raise TooLateError(
                f"it would take up to {1000 * ends:.0f} ms, and the deadline is in {1000 * left:.0f} ms",
                min(ends - left, outlook.pending),
            )
        if outlook.breaks:
            raise TooLateError(
                "it would make accepted requests miss their deadlines", min(outlook.own, outlook.pending)
            )
