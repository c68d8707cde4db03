"""Prints what a command found: a table on a terminal, JSON in a pipe."""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from rich.console import Console, RenderableType
from rich.markup import escape
from rich.table import Table

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

    def result(self, value: Mapping[str, Any], table: Callable[[], Table | str]) -> None:
        """Print the result: the value as JSON, or what `table` makes of it."""
        if self.is_json:
            self.text(json.dumps(value, indent=2, default=_plain) + "\n")
            return
        made = table()
        self.table(escape(made) if isinstance(made, str) else made)

    def text(self, text: str) -> None:
        """Print the result as it is: for programs."""
        sys.stdout.write(text)

    def table(self, made: RenderableType) -> None:
        """Print the result as a table: for people."""
        self._console.print(made)


def table_of(title: str, columns: Sequence[str], lines: Sequence[Sequence[str]]) -> Table:
    """Return a table of plain texts."""
    table = Table(title=escape(title), title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    for line in lines:
        table.add_row(*map(escape, line))
    return table


def table_of_rows(title: str, rows: Sequence[Row]) -> Table:
    """Return the table of a status."""
    table = Table(title=escape(title), title_justify="left")
    for column in ("part", "state", "found, and → what to do"):
        table.add_column(column, overflow="fold")
    for row in rows:
        colour = _COLOURS[row.state]
        next_step = f"\n[{colour}]→ {escape(row.next_step)}[/]" if row.next_step else ""
        table.add_row(
            escape(row.part), f"[{colour}]{row.state.value}[/]", escape(row.found) + next_step
        )
    return table


def _plain(value: object) -> object:
    match value:
        case datetime():
            return value.isoformat()
        case UUID() | Path():
            return str(value)
        case _ if is_dataclass(value) and not isinstance(value, type):
            return asdict(value)
        case _:
            raise TypeError(f"{type(value).__name__} has no form in JSON")
