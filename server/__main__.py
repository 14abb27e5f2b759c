"""`python -m server`."""

from server.cli import cli

cli()
