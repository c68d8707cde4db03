"""The contest on a terminal: a table for each list of rows."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from rich.console import Console
from rich.table import Table

_WIDTH_OF_A_PIPE: Final = 160


def show(figures: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Print all tables; shares in percent, with half the width of their 95 % intervals."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_WIDTH_OF_A_PIPE)
    for title, rows in figures.items():
        table = Table(*rows[0], title=title, title_justify="left")
        for row in rows:
            table.add_row(*map(_text, row.values()))
        console.print(table)


def _text(value: Any) -> str:
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case {"value": share, "low": low, "high": high}:
            return f"{100 * share:.0f} ± {50 * (high - low):.0f} %"
        case float():
            return f"{value:.3g}"
    return f"{value}"
