"""Figures of generated images against real ones."""
