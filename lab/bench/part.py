"""What a part of the benchmark is, and what it returns.

A part is a module with TITLE, NOTES (a sentence or two below a table, by the table's title) and
`measure(log, *, short)`; `short`: smallest sizes, once, for the test that keeps the benchmark from
rotting.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

from lab.tables import Row

PARTS: Final = ("observer", "floor", "cold", "storm", "sweep")
"""Each is a module of this package; in the order in which they are measured and shown."""

Log = Callable[[str], None]
"""Takes a line of progress."""


@dataclass(frozen=True)
class Measured:
    """`targets`: this part's share of `build/bench.json`; `tables`: what people read, by title."""

    targets: dict[str, Any]
    tables: Mapping[str, Sequence[Row]]


def medians(rows: Sequence[Row]) -> Row:
    """Return the median of each column; None for a column that holds nothing."""
    columns = {key: [row[key] for row in rows] for key in rows[0]}
    return {key: None if None in column else median(column) for key, column in columns.items()}


def ratio(ours: float, theirs: float) -> float:
    """Return ours ÷ theirs, to three digits after the point: below 1 is in our favour."""
    return round(ours / theirs, 3)
