"""`python -m benchmarks`."""

from benchmarks.cli import cli

cli()
