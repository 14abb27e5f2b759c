"""Where Ray sends a request: to the replica with the fewest images under way that has not refused it."""

from __future__ import annotations

import random
from typing import Any

from ray.serve.request_router import PendingRequest, ReplicaID, RequestRouter, RunningReplica

from server.ray.balance import Balance
from server.ray.call import Call


class Placement(RequestRouter):
    """Routes `Replica.answer(call)`. Admission is the replicas' own; to Ray none is full."""

    def initialize_state(self, **_: Any) -> None:
        """Begin with nothing under way; Ray calls it once."""
        self._balance: Balance[str] = Balance(random.Random())
        self._images: dict[str, int] = {}

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        """Return the replicas in the order in which they are to be asked."""
        replicas = {replica.replica_id.unique_id: replica for replica in candidate_replicas}
        call = _call_of(pending_request)
        avoid = call.avoid if call else ()
        order = self._balance.order([name for name in replicas if name not in avoid] or list(replicas))
        return [[replicas[name]] for name in order]

    def on_request_routed(self, pending_request: PendingRequest, replica_id: ReplicaID, result: Any) -> None:
        """Count a request's images as under way."""
        call = _call_of(pending_request)
        images = self._images[pending_request.metadata.internal_request_id] = call.images if call else 1
        self._balance.add(replica_id.unique_id, images)

    def on_request_completed(self, replica_id: ReplicaID, internal_request_id: str) -> None:
        """Count them as done, made or not."""
        self._balance.add(replica_id.unique_id, -self._images.pop(internal_request_id, 0))


def _call_of(pending: PendingRequest | None) -> Call | None:
    first = pending.args[0] if pending is not None and pending.args else None
    return first if isinstance(first, Call) else None
