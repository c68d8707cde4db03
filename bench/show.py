"""Tables, on a terminal and in Markdown."""

from collections.abc import Sequence

import rich.table
from rich.console import Console

from bench.part import Cell, Table
from bench.results import Judgement


def table_of(judgements: Sequence[Judgement]) -> Table:
    """Return the promises as a table."""
    return Table(
        "What is promised, and what was found",
        ("", "at most", "found", ""),
        [(j.meaning, j.most, j.found, "kept" if j.is_kept else "MISSED") for j in judgements],
    )


def show(console: Console, table: Table) -> None:
    """Print a table."""
    drawn = rich.table.Table(title=table.title, title_justify="left", caption_justify="left")
    for index, name in enumerate(table.columns):
        drawn.add_column(name, justify="right" if _is_numeric(table, index) else "left")
    for row in table.rows:
        drawn.add_row(*map(text_of, row))
    console.print(drawn)
    if table.note:
        console.print(table.note, highlight=False)
    console.print()


def markdown_of(table: Table) -> str:
    """Return the table as Markdown, its title in front as bold text."""
    sides = ["--:" if _is_numeric(table, n) else "---" for n in range(len(table.columns))]
    rows = [table.columns, sides, *([text_of(cell) for cell in row] for row in table.rows)]
    lines = [f"| {' | '.join(row)} |" for row in rows]
    parts = [f"**{table.title}**", "\n".join(lines), table.note]
    return "\n\n".join(part for part in parts if part)


def text_of(cell: Cell) -> str:
    """Return a cell as text; numbers with as many digits as say something."""
    match cell:
        case None:
            return "-"
        case str():
            return cell
        case int():
            return f"{cell:,}"
        case float() if abs(cell) >= 100 or cell == int(cell):
            return f"{cell:,.0f}"
        case float() if abs(cell) >= 10:
            return f"{cell:.1f}"
        case float() if abs(cell) >= 1:
            return f"{cell:.2f}"
        case float():
            return f"{cell:.3g}"


def _is_numeric(table: Table, column: int) -> bool:
    cells = [row[column] for row in table.rows if row[column] is not None]
    return bool(cells) and all(isinstance(cell, int | float) for cell in cells)
