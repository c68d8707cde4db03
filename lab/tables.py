"""Rows as tables, for benchmark and simulation: in Markdown, and on a terminal."""

import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.markdown import Markdown

Row = dict[str, Any]
"""Text, numbers, shares with their interval, or None for nothing, by column."""


def console() -> Console:
    """Return the terminal; wide enough for all tables where the output is none."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else 160)


def show(on: Console, title: str, rows: Sequence[Row]) -> None:
    """Print a table."""
    on.print(Markdown(markdown(title, rows)))


def markdown(title: str, rows: Sequence[Row]) -> str:
    """Return rows as a table in Markdown, its title in front as bold text."""
    columns = list(rows[0]) if rows else []
    cells = [[text_of(row[column]) for column in columns] for row in rows]
    sides = ["--:" if _is_numeric(rows, column) else "---" for column in columns]
    lines = [f"| {' | '.join(row)} |" for row in (columns, sides, *cells)]
    return "\n".join([f"**{title}**", "", *lines, ""])


def text_of(cell: object) -> str:
    """Return a cell as text; numbers with as many digits as say something.

    A share with the ends of its 95 % interval is in percent, with half the interval's width.
    """
    match cell:
        case None:
            return "-"
        case bool():
            return "yes" if cell else "no"
        case {"value": share, "low": low, "high": high}:
            return f"{100 * share:.0f} ± {50 * (high - low):.0f} %"
        case int() | float() if cell >= 100 or cell == int(cell):
            return f"{cell:,.0f}"
        case float():
            return f"{cell:.3g}"
    return str(cell)


def _is_numeric(rows: Sequence[Row], column: str) -> bool:
    cells = [row[column] for row in rows if row[column] is not None]
    return bool(cells) and all(isinstance(cell, int | float) for cell in cells)
