"""A replay for a terminal: columns side by side, and what is not known."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from chalicelib.core.money.report import ASSUMED_MARK, in_usd
from spotctl.output import duration, table_of
from spotctl.replay.figures import MADE_WITH_SPOT_RATE, TITLES


def as_table(replay: Mapping[str, Any]) -> Any:
    """Return what `run_replay` returns, for a terminal: a line if there is nothing to show."""
    columns = {
        "as_recorded": "as recorded",
        "same_settings": f"replayed: {_words(replay['settings'])}",
    }
    if changes := _words(replay["changes"]):
        columns["other_settings"] = f"replayed: {changes}"
    period = f"{replay['since']} to {replay['until']} (UTC)"
    if why := replay["nothing_to_decide"]:
        return f"{changes} changes nothing for the runs that ended {period}: {why}"
    is_assumed = any(replay[column]["assumed_bills"] for column in columns)
    return table_of(
        f"Replay of the runs that ended {period}",
        ("", *columns.values()),
        [
            (title, *(_figure(replay[column], name) for column in columns))
            for name, title in TITLES.items()
            if title and (name != "assumed_bills" or is_assumed)
        ],
        notes=[f"Not known: {sentence}." for sentence in replay["not_known"]],
        has_figures=True,
    )


def _figure(figures: Mapping[str, Any], name: str) -> str:
    value, mark = figures[name], ASSUMED_MARK * bool(figures["assumed_bills"])
    if name.endswith("_usd"):
        return f"{in_usd(Decimal(value))}{mark * (name in MADE_WITH_SPOT_RATE)}"
    return duration(Decimal(value)) if "hours" in name else f"{value:,}"


def _words(settings: Mapping[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in settings.items())
