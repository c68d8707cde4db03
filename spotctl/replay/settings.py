"""Which settings a replay may change, and the policy that comes of them."""

from collections.abc import Iterable, Mapping
from typing import Final

from chalicelib.core.situation import Mode
from chalicelib.settings import Settings
from spotctl.errors import RefusedError

REPLAYABLE: Final = ("BREAKER", "GUARD_ECONOMICS", "MODE", "RERUN_DELAY_SECONDS", "SPOT_RETRIES")
"""The settings that can change a decision about an interruption."""


def read_changes(options: Iterable[str]) -> Mapping[str, str]:
    """Read the values of `--set`, each NAME=VALUE.

    Raises:
        RefusedError: says what is accepted.
    """
    changes: dict[str, str] = {}
    for option in options:
        name, equals, value = option.partition("=")
        if not equals or name not in REPLAYABLE:
            raise RefusedError(
                f"--set {option!r} cannot be replayed: accepted are"
                f" {', '.join(f'{known}=…' for known in REPLAYABLE)}",
                next_step="correct --set",
            )
        if name in changes:
            raise RefusedError(f"--set {name} is given twice", next_step="give it once")
        changes[name] = value
    return changes


def refuse_observe(settings: Settings) -> None:
    """Refuse a replay that could not show anything. Raises RefusedError."""
    if settings.mode is Mode.OBSERVE:
        raise RefusedError(
            "--set 'MODE=observe' reruns nothing, so there is nothing to replay: accepted are"
            f" MODE={Mode.RESCUE.value}, MODE={Mode.OPT_IN.value}",
            next_step="correct --set",
        )


def values_of(settings: Settings) -> Mapping[str, str]:
    """Return those settings as they are set."""
    return {
        "BREAKER": str(settings.breaker or ""),
        "GUARD_ECONOMICS": str(settings.guard_economics).lower(),
        "MODE": settings.mode.value,
        "RERUN_DELAY_SECONDS": str(settings.rerun_delay_seconds),
        "SPOT_RETRIES": str(settings.spot_retries),
    }
