"""How far predictions were off lately, so that promises allow for it."""

from __future__ import annotations

WEIGHT = 0.05
"""Of a new observation against those before it."""

MOST = 4.0
"""Observations count as at most this many times, and at least this part of, what was predicted."""


class Calibration:
    """Averages of real over predicted time and of how far it strays, as in TCP (RFC 6298)."""

    def __init__(self) -> None:
        """Trust predictions until there is reason not to."""
        self._mean = 1.0
        self._deviation = 0.0

    @property
    def usual(self) -> float:
        """What to multiply a prediction by to be right on average."""
        return self._mean

    @property
    def cautious(self) -> float:
        """What to multiply a prediction by to be rarely too early."""
        return self._mean + 4 * self._deviation

    def observe(self, predicted: float, real: float) -> None:
        """Learn from one prediction, both in seconds."""
        ratio = min(MOST, max(1 / MOST, real / predicted))
        self._deviation += (abs(ratio - self._mean) - self._deviation) * WEIGHT
        self._mean += (ratio - self._mean) * WEIGHT
