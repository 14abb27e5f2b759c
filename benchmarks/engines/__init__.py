"""Engines against other ways to run the same networks: each in a process of its own, taking turns."""
