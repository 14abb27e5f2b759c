"""The learning rate along a run."""

from __future__ import annotations

import math

from trainer.training.config import InverseSquareRootSchedule, LinearSchedule, OptimizerConfig


def learning_rate(seen: int, total: int, config: OptimizerConfig) -> float:
    """Return the rate of the step that starts at `seen` of `total` images."""
    warm = min(1.0, seen / config.warmup_images) if config.warmup_images else 1.0
    match config.schedule:
        case LinearSchedule(decay_images=decay, final=final):
            left = min(1.0, max(0.0, (total - seen) / decay)) if decay else 1.0
            factor = final + (1 - final) * left
        case InverseSquareRootSchedule(constant_images=constant, final=final):
            factor = max(final, 1 / math.sqrt(max(1.0, seen / constant)))
    return config.learning_rate * warm * factor
