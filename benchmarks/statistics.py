"""Percentiles and the tables that show them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from rich.table import Table

PERCENTILES = (50, 95, 99)


def percentile_table(title: str, columns: Mapping[str, Sequence[float]]) -> Table:
    """Return a table with a line for every named series: percentiles and maximum, in milliseconds."""
    table = Table("", *(f"p{p}" for p in PERCENTILES), "max", title=title)
    for name, values in columns.items():
        figures = [*np.percentile(values, PERCENTILES), max(values)]
        table.add_row(name, *(f"{figure:.2f}" for figure in figures))
    return table
