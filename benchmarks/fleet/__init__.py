"""Fleets of devices, simulated: the real scheduler and router, measured costs, a clock that does not tick."""
