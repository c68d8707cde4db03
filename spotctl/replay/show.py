"""A replay for a terminal and for a pipe: three columns side by side, and what is not known."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Final

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from spotctl.replay.figures import Figures

_EIGHT: Final = Decimal("0.00000001")

_ROWS: Final[Mapping[str, str]] = {
    "runs": "runs",
    "attempts": "tasks",
    "interruptions": "interruptions",
    "spot_reruns": "reruns on Spot",
    "on_demand_reruns": "reruns on demand",
    "hours": "hours",
    "spot_hours": "of these on Spot",
    "cost_usd": "paid USD",
    "on_demand_usd": "on demand USD",
    "savings_usd": "saved USD",
    "wasted_usd": "wasted USD",
    "net_savings_usd": "net USD",
    "finished_runs": "runs that finished",
    "hours_to_finish": "their hours to finish",
}


@dataclass(frozen=True, slots=True)
class Replay:
    """The record, and what becomes of it: under the budget of now, and under a changed one."""

    since: date
    until: date
    settings: Mapping[str, str]
    changes: Mapping[str, str]
    recorded: Figures
    same: Figures
    other: Figures
    not_known: tuple[str, ...]


def as_json(replay: Replay) -> str:
    """Return it as JSON: USD and hours as strings, to 1e-8."""
    return json.dumps(
        {
            "since": replay.since.isoformat(),
            "until": replay.until.isoformat(),
            "settings": dict(replay.settings),
            "changes": dict(replay.changes),
            "as_recorded": _plain(replay.recorded),
            "same_settings": _plain(replay.same),
            "other_settings": _plain(replay.other),
            "not_known": list(replay.not_known),
        },
        indent=2,
    )


def as_table(replay: Replay) -> RenderableType:
    """Return it for a terminal."""
    table = Table(
        title=f"Replay of the runs that ended {replay.since} to {replay.until} (UTC)",
        title_justify="left",
    )
    table.add_column("")
    for column in ("as recorded", f"replayed: {_words(replay.settings)}", _others(replay)):
        table.add_column(escape(column), justify="right", overflow="fold")
    columns = [_plain(f) for f in (replay.recorded, replay.same, replay.other)]
    for name, title in _ROWS.items():
        table.add_row(title, *(str(column[name]) for column in columns))
    notes = [escape(f"Not known: {sentence}.") for sentence in replay.not_known]
    return Group(table, *notes)


def _others(replay: Replay) -> str:
    return f"replayed: {_words(replay.changes)}" if replay.changes else "replayed: nothing changed"


def _words(settings: Mapping[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in settings.items() if value)


def _plain(figures: Figures) -> Mapping[str, int | str]:
    return {
        name: f"{value.quantize(_EIGHT):f}" if isinstance(value, Decimal) else value
        for name, value in figures.as_mapping().items()
    }
