"""Measurements of a running server and of engines."""
