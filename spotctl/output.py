"""What a command shows: rows with a state and a next step, as a table or as JSON."""

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from datetime import date
from decimal import Decimal
from enum import IntEnum, StrEnum
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from rich.console import Console, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

DEPLOY: Final = "run spotctl deploy"
"""The next step where a part of the stage is missing."""


class State(StrEnum):
    """The state of a part. A warning costs money or may become a failure; it fails no command."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


class Exit(IntEnum):
    """Exit codes of every command; `spotctl --help` explains them."""

    OK = 0
    FAILED = 1
    """A part failed; the output names it."""
    NOT_DONE = 2
    """The command could not run: a wrong setting or option, no credentials."""


@dataclass(frozen=True, slots=True)
class Row:
    """One part: what was `found` there, and the `next_step`, empty where there is none to take."""

    part: str
    state: State
    found: str
    next_step: str = ""


def ok(part: str, found: str) -> Row:
    """Return the row of a part that works."""
    return Row(part, State.OK, found)


def warning(part: str, found: str, next_step: str) -> Row:
    """Return the row of a part that works, but not as well as it could."""
    return Row(part, State.WARNING, found, next_step)


def failed(part: str, found: str, next_step: str) -> Row:
    """Return the row of a part that does not work."""
    return Row(part, State.FAILED, found, next_step)


def exit_of(rows: Iterable[Row]) -> Exit:
    """Return FAILED where a row is failed, otherwise OK."""
    return Exit.FAILED if any(row.state is State.FAILED for row in rows) else Exit.OK


_COLOURS: Final[Mapping[State, str]] = {
    State.OK: "green",
    State.WARNING: "yellow",
    State.FAILED: "bold red",
}
_PIPE_WIDTH: Final = 160
"""Columns of a table that goes to no terminal."""


class Output:
    """Prints a command's result to stdout; its progress too, but to stderr where that is JSON."""

    def __init__(self, as_json: bool | None) -> None:
        """`as_json` None: JSON unless stdout is a terminal."""
        is_terminal = sys.stdout.isatty()
        self.is_json: Final = not is_terminal if as_json is None else as_json
        self._console = _console(is_terminal, stderr=False)
        self._progress = (
            _console(sys.stderr.isatty(), stderr=True) if self.is_json else self._console
        )

    def progress(self, text: str) -> None:
        """Print a line about the work in progress, at once."""
        self._progress.print(escape(text), soft_wrap=True)

    def result(self, value: Mapping[str, Any], table: Callable[[], RenderableType]) -> None:
        """Print the result: the value as JSON, or what `table` makes of it."""
        if self.is_json:
            self.text(as_json(value))
            return
        shown = table()
        self._console.print(escape(shown) if isinstance(shown, str) else shown)

    def text(self, text: str) -> None:
        """Print the result unchanged, for programs."""
        sys.stdout.write(text)


def _console(is_terminal: bool, *, stderr: bool) -> Console:
    width = None if is_terminal else _PIPE_WIDTH
    return Console(width=width, stderr=stderr, highlight=False)


def as_json(value: Mapping[str, Any]) -> str:
    """Return JSON text: Decimals as exact strings, times in ISO 8601, dataclasses by field.

    Raises TypeError for a value of another kind.
    """
    return json.dumps(value, indent=2, default=_plain) + "\n"


def table_of(title: str, columns: Sequence[str], lines: Sequence[Sequence[str | Text]]) -> Table:
    """Return a table; a text is shown as it is, without markup."""
    table = Table(title=escape(title), title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    for line in lines:
        table.add_row(*(escape(cell) if isinstance(cell, str) else cell for cell in line))
    return table


def table_of_rows(title: str, rows: Sequence[Row]) -> Table:
    """Return a table of rows; a next step stands below what was found, after an arrow."""
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
            raise TypeError(f"{type(value).__name__} is not JSON serializable")
