"""The loop: optimizer, averages, precision, processes, state on disk."""
