"""What every command comes to: rows that say how something stands, and what to do about it."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Final

DEPLOY: Final = "run spotctl deploy"
"""The next step where something of ours is missing."""


class State(StrEnum):
    """How a part stands. A warning costs something or may become a failure; it fails nothing."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


class Exit(IntEnum):
    """Exit codes of every command; `spotctl --help` shows them."""

    OK = 0
    FAILED = 1
    """Something is not as it should be; the output says what."""
    NOT_DONE = 2
    """The command could not be carried out: a wrong setting or option, no credentials."""


@dataclass(frozen=True, slots=True)
class Row:
    """One part. `found` is what there is, `next_step` what to do; empty when there is nothing."""

    part: str
    state: State
    found: str
    next_step: str = ""


def ok(part: str, found: str) -> Row:
    """Return the row of a part that is as it should be."""
    return Row(part, State.OK, found)


def warning(part: str, found: str, next_step: str) -> Row:
    """Return the row of a part that works, but not as well as it could."""
    return Row(part, State.WARNING, found, next_step)


def failed(part: str, found: str, next_step: str) -> Row:
    """Return the row of a part that does not work."""
    return Row(part, State.FAILED, found, next_step)


def exit_of(rows: Iterable[Row]) -> Exit:
    """Return FAILED when a row is failed."""
    return Exit.FAILED if any(row.state is State.FAILED for row in rows) else Exit.OK
