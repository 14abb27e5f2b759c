"""The HTTP interface: paths, bodies, problems."""
