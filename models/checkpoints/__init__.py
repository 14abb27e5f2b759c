"""Checkpoint files of every published layout, read without running anything that they contain."""

from models.checkpoints.loading import Checkpoint, check_finite, check_schema, load, load_into

__all__ = ["Checkpoint", "check_finite", "check_schema", "load", "load_into"]
