"""The one door to the terminal: results as table, JSON or CSV, progress, questions, errors.

What is shown contains text of others: names from Prefect, reasons from ECS. All of it is printed
here, cleaned, and never read as markup, emoji code or link. No other module of `spotctl` prints,
or imports rich.
"""

import csv
import io
import json
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass
from datetime import date
from decimal import Decimal
from enum import IntEnum, StrEnum
from math import floor, log10
from pathlib import Path
from shutil import get_terminal_size
from typing import Any, Final, Literal
from uuid import UUID

import typer
from rich.cells import cell_len, set_cell_size
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from spotctl.errors import RefusedError

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
PIPE_WIDTH: Final = 160
"""Columns of a table that goes to no terminal, unless COLUMNS says otherwise."""

_INVISIBLE: Final = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
"""What Unicode calls default-ignorable (DerivedCoreProperties) and Python printable."""
_KEY: Final = re.compile(r"(pn[ub]_)[^\s\W_]{6,}", re.IGNORECASE)
"""A Prefect API key: no text here should hold one, but an exception's may."""
_FORMULA: Final = re.compile(r"""(^|[;,|])([\s"'`]*[=+\-@\uff1d\uff0b\uff0d\uff20])""")
"""Where a spreadsheet begins to read a formula (OWASP, "CSV Injection"): some split at ; or |, and
read full-width signs as the others."""
_LONGEST: Final = 1_000
"""Characters of a text that are shown at once; a name may have millions, and bury all else."""


def clean(text: str) -> str:
    """Return the text on one line, without what a terminal obeys or does not show.

    That is every control and format character: escape sequences lose their beginning, text its
    bidirectional overrides and zero-width characters. White space becomes spaces, one each. A
    Prefect API key is masked.
    """
    visible = _INVISIBLE.sub("", text)
    shown = "".join(c if c.isprintable() else " " * c.isspace() for c in visible)
    return _KEY.sub(r"\1***", shown)


def brief(text: str) -> str:
    """Return the text cleaned, and cut where it is too long to be read."""
    shown = clean(text[: 2 * _LONGEST])
    return shown if len(shown) <= _LONGEST else f"{shown[: _LONGEST - 1]}…"


def padded(text: str, width: int, *, is_figure: bool = False) -> str:
    """Return a cleaned text, filled up to `width` terminal cells: some characters take two."""
    shown = clean(text)
    return shown.rjust(width) if is_figure else set_cell_size(shown, width)


def width_of(text: str) -> int:
    """Return how many terminal cells the cleaned text takes."""
    return cell_len(clean(text))


def shortened(text: str, width: int) -> str:
    """Return a cleaned text, without its middle where it takes over `width` terminal cells.

    Of FLOW/DEPLOYMENT, both stay to be recognized.
    """
    shown, half = clean(text), (width - 1) // 2
    if cell_len(shown) <= width:
        return shown
    return f"{set_cell_size(shown, width - 1 - half)}…{set_cell_size(shown[::-1], half)[::-1]}"


def two_digits(value: float) -> str:
    """Return a number with its two leading digits, or all before the point: 1,204, 45, 0.33."""
    digits = max(0, 1 - floor(log10(abs(value)))) if value else 0
    return f"{value:,.{digits}f}"


def duration(hours: float | Decimal) -> str:
    """Return a length of time in words: 12 h, 1.5 h, 4 min, 23 s."""
    if hours >= 1:
        return f"{two_digits(float(hours))} h"
    minutes = 60 * float(hours)
    return f"{minutes:.2g} min" if minutes >= 1 else f"{60 * minutes:.0f} s"


Format = Literal["table", "json", "csv"]


class Output:
    """Prints a command's result to stdout; progress, details and questions to stderr."""

    def __init__(
        self,
        form: Format | None = None,
        *,
        quiet: bool = False,
        verbose: bool = False,
        no_color: bool = False,
    ) -> None:
        """`form` None: a table on a terminal, otherwise JSON. `quiet`: no progress."""
        is_terminal = sys.stdout.isatty()
        self.form: Final[Format] = form or ("table" if is_terminal else "json")
        self._is_surprise = not form and not is_terminal and sys.stderr.isatty()
        self._quiet, self._verbose = quiet, verbose
        self.is_watched: Final = is_terminal and sys.stderr.isatty() and not quiet
        """Whether one terminal shows both the progress and the result below it."""
        self._console = _console(is_terminal, stderr=False, no_color=no_color)
        self._progress = _console(sys.stderr.isatty(), stderr=True, no_color=no_color)

    @property
    def width(self) -> int:
        """How many columns a table may take."""
        return self._console.width

    def progress(self, text: str) -> None:
        """Print a line about the work in progress, at once."""
        if not self._quiet:
            self._progress.print(brief(text), soft_wrap=True)

    def detail(self, text: str) -> None:
        """Print a line for --verbose."""
        if self._verbose:
            self._progress.print(brief(text), soft_wrap=True)

    def result(
        self,
        value: Mapping[str, Any],
        table: Callable[[], RenderableType],
        csv: Callable[[], str] | None = None,
    ) -> None:
        """Print the result: the value as JSON, or what `table` or `csv` make of it."""
        if self._is_surprise:  # a person has piped it
            self.progress("JSON, since stdout is no terminal: --format table prints a table there")
        if self.form == "json":
            self._text(as_json(value))
        elif self.form == "csv" and csv is not None:
            self._text(csv())
        else:
            _print(self._console, table())

    def preview(self, table: RenderableType) -> None:
        """Print a table before a question."""
        _print(self._progress, table)

    def _text(self, text: str) -> None:
        """Print the result for programs, its lines cleaned."""
        sys.stdout.write(_cleaned_lines(text))
        sys.stdout.flush()

    def confirm(self, question: str, *, yes: bool) -> None:
        """Ask on the terminal; with `yes`, only show what would be asked.

        Raises RefusedError where stdin is no terminal, and typer's Abort after a no.
        """
        if yes:
            self.progress(f"{question} yes, by --yes")
        elif not (sys.stdin and sys.stdin.isatty()):  # None where it is closed
            raise RefusedError(
                f"stdin is not a terminal: cannot ask {question!r}", next_step="pass --yes"
            )
        else:
            # typer's own writes to stdout as well, into what a program reads.
            sys.stderr.write(f"{brief(question)} [y/N]: ")
            sys.stderr.flush()
            if sys.stdin.readline().strip().lower() not in ("y", "yes"):
                raise typer.Abort


def show_line(text: str) -> None:
    """Print a line to stdout."""
    sys.stdout.write(f"{clean(text)}\n")
    sys.stdout.flush()


def show_error(what: str, next_step: str) -> None:
    """Print an error to stderr, in two lines."""
    sys.stderr.write(f"error: {brief(what)}\nnext step: {brief(next_step)}\n")


def show_crash(error: Exception) -> None:
    """Print the traceback of an error that is a bug to stderr, without the values of variables."""
    sys.stderr.write(_cleaned_lines("".join(traceback.format_exception(error))))


def _print(console: Console, shown: RenderableType) -> None:
    console.print(_cleaned_lines(shown) if isinstance(shown, str) else shown)


def _cleaned_lines(text: str) -> str:
    return "\n".join(map(clean, text.split("\n")))


def _console(is_terminal: bool, *, stderr: bool, no_color: bool) -> Console:
    width = None if is_terminal else get_terminal_size((PIPE_WIDTH, 0)).columns  # by COLUMNS
    plain = no_color or None  # None: by NO_COLOR
    return Console(
        width=width, stderr=stderr, no_color=plain, highlight=False, markup=False, emoji=False
    )


def as_json(value: Mapping[str, Any]) -> str:
    """Return JSON text: Decimals as exact strings, times in ISO 8601, dataclasses by field.

    In ASCII: characters that a terminal obeys are escaped, and none is lost. Raises TypeError for a
    value of another kind.
    """
    text = json.dumps(value, indent=2, default=_plain)
    return text.replace("\x7f", r"\u007f") + "\n"  # the one control character that is left as it is


def table_of(
    title: str,
    columns: Sequence[str],
    lines: Iterable[Sequence[str | Text]],
    *,
    notes: Sequence[str] = (),
    has_figures: bool = False,
) -> RenderableType:
    """Return a table, with `notes` below it. `has_figures`: in all columns but the first."""
    table = Table(title=brief(title), title_justify="left")
    for number, column in enumerate(columns):
        justify: Literal["right", "left"] = "right" if has_figures and number else "left"
        table.add_column(brief(column), overflow="fold", justify=justify)
    for line in lines:
        table.add_row(*(brief(cell) if isinstance(cell, str) else cell for cell in line))
    return Group(table, *map(brief, notes))


def csv_of(columns: Sequence[str], lines: Iterable[Mapping[str, object]]) -> str:
    """Return CSV, every field quoted; other fields than those of `columns` are left out."""
    text = io.StringIO()
    writer = csv.DictWriter(
        text, columns, extrasaction="ignore", lineterminator="\n", quoting=csv.QUOTE_ALL
    )
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def no_formula(text: str) -> str:
    """Return the text with an apostrophe before what a spreadsheet would take for a formula."""
    return _FORMULA.sub(r"\1'\2", clean(text))


def csv_of_rows(rows: Iterable[Row]) -> str:
    """Return CSV of rows: part, state, found, next step."""
    plain = ({name: no_formula(text) for name, text in asdict(row).items()} for row in rows)
    return csv_of([field.name for field in fields(Row)], plain)


def table_of_rows(title: str, rows: Sequence[Row], *, notes: Sequence[str] = ()) -> RenderableType:
    """Return a table of rows; a next step stands below what was found, after an arrow."""
    lines = []
    for row in rows:
        colour, found = _COLOURS[row.state], Text(brief(row.found))
        if row.next_step:
            found.append(f"\n→ {brief(row.next_step)}", colour)
        lines.append((row.part, Text(row.state.value, colour), found))
    return table_of(title, ("part", "state", "found, and → what to do"), lines, notes=notes)


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
