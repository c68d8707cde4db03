"""Prints what a command found: a table on a terminal, JSON in a pipe."""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from rich.console import Console, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from spotctl.rows import Row, State

_COLOURS: Final[Mapping[State, str]] = {
    State.OK: "green",
    State.WARNING: "yellow",
    State.FAILED: "bold red",
}
_WIDTH_OF_A_PIPE: Final = 160


class Output:
    """Where a command's words go: the result to stdout, progress to wherever people look.

    `as_json` None: JSON unless stdout is a terminal.
    """

    def __init__(self, as_json: bool | None) -> None:
        is_terminal = sys.stdout.isatty()
        self.is_json: Final = not is_terminal if as_json is None else as_json
        width = None if is_terminal else _WIDTH_OF_A_PIPE
        self._console = Console(width=width, highlight=False)
        people = None if sys.stderr.isatty() else _WIDTH_OF_A_PIPE
        self._progress = (
            Console(stderr=True, width=people, highlight=False) if self.is_json else self._console
        )

    def tell(self, text: str) -> None:
        """Say what is being done, at once: to stderr where stdout is JSON."""
        self._progress.print(escape(text), soft_wrap=True)

    def result(self, value: Mapping[str, Any], table: Callable[[], RenderableType]) -> None:
        """Print the result: the value as JSON, or what `table` makes of it."""
        if self.is_json:
            self.text(as_json(value))
            return
        made = table()
        self._console.print(escape(made) if isinstance(made, str) else made)

    def text(self, text: str) -> None:
        """Print the result as it is: for programs."""
        sys.stdout.write(text)


def as_json(value: Mapping[str, Any]) -> str:
    """Return JSON: Decimals as strings, exact; times in ISO 8601; dataclasses by field."""
    return json.dumps(value, indent=2, default=_plain) + "\n"


def table_of(title: str, columns: Sequence[str], lines: Sequence[Sequence[str | Text]]) -> Table:
    """Return a table of plain texts."""
    table = Table(title=escape(title), title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    for line in lines:
        table.add_row(*(escape(cell) if isinstance(cell, str) else cell for cell in line))
    return table


def table_of_rows(title: str, rows: Sequence[Row]) -> Table:
    """Return the table of a status."""
    lines = []
    for row in rows:
        colour, found = _COLOURS[row.state], Text(row.found)
        if row.next_step:
            found.append(f"\n→ {row.next_step}", colour)
        lines.append((row.part, Text(row.state.value, colour), found))
    return table_of(title, ("part", "state", "found, and → what to do"), lines)


def _plain(value: object) -> object:
    match value:
        case date():  # a datetime is one
            return value.isoformat()
        case Decimal():
            return f"{value:f}"
        case UUID() | Path():
            return str(value)
        case _ if is_dataclass(value) and not isinstance(value, type):
            return asdict(value)
        case _:
            raise TypeError(f"{type(value).__name__} has no form in JSON")
