"""How many replicas there should be: by the compute that accepted requests still need."""

from __future__ import annotations

import math
from typing import Any


class PendingCompute:
    """Ray's autoscaling policy: as many replicas as keep the pending engine seconds of each within a bound.

    Args:
        pending_s: engine seconds that each replica may have in front of it.
        idle_s: seconds for which fewer replicas would have done before one leaves.
    """

    def __init__(self, pending_s: float, idle_s: float) -> None:
        self._pending_s = pending_s
        self._idle_s = idle_s

    def __call__(self, context: Any) -> tuple[int, dict[str, Any]]:
        """Return the wanted number of replicas and what to remember until the next call."""
        pending = sum((context.aggregated_metrics or {}).get("pending_s", {}).values())
        least, most = context.capacity_adjusted_min_replicas, context.capacity_adjusted_max_replicas
        wanted = min(max(math.ceil(pending / self._pending_s), least), most)
        now, target = context.current_time, context.target_num_replicas
        if wanted >= target:
            return wanted, {"enough_since": now}
        since = (context.policy_state or {}).get("enough_since") or now
        if now - since < self._idle_s:
            return target, {"enough_since": since}
        return target - 1, {"enough_since": now}
