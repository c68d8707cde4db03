"""A replay for a terminal: three columns side by side, and what is not known."""

from collections.abc import Mapping
from typing import Any

from chalicelib.core.money.report import ASSUMED_MARK
from spotctl.output import table_of
from spotctl.replay.figures import MADE_WITH_SPOT_RATE, TITLES


def as_table(replay: Mapping[str, Any]) -> Any:
    """Return what `run_replay` returns, for a terminal."""
    columns = {
        "as_recorded": "as recorded",
        "same_settings": f"replayed: {_words(replay['settings'])}",
        "other_settings": f"replayed: {_words(replay['changes']) or 'nothing changed'}",
    }
    return table_of(
        f"Replay of the runs that ended {replay['since']} to {replay['until']} (UTC)",
        ("", *columns.values()),
        [
            (title, *(_figure(replay[column], name) for column in columns))
            for name, title in TITLES.items()
        ],
        notes=[f"Not known: {sentence}." for sentence in replay["not_known"]],
        has_figures=True,
    )


def _figure(figures: Mapping[str, Any], name: str) -> str:
    is_assumed = name in MADE_WITH_SPOT_RATE and figures["assumed_bills"]
    return f"{figures[name]}{ASSUMED_MARK * bool(is_assumed)}"


def _words(settings: Mapping[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in settings.items() if value)
