"""The breaker of a work pool's weather: closed, open, half-open. Pure; the clock is passed in.

Closed, it counts interruptions and refused placements, each by its task, so that one counts once
however often it is told. So many of them within the window open it, for the cool-down. After that
the next rerun that its budget would put on Spot goes there as the probe, and half-open all others
go to FARGATE. What becomes of the probe decides:

- taken by Spot, or refused: open, for another cool-down;
- it came to its own end, or has lived for longer than the window: closed, and counting from zero;
- it told nothing (cancelled, crashed of something else, moved, a drill), or neither in the time of
  a window and a cool-down: the next rerun is the probe. So it is never half-open for ever.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import Enum, StrEnum, auto
from typing import Final, assert_never
from uuid import UUID

BREAKER_FORM: Final = (
    "SIGNALS/WINDOW/COOL-DOWN, such as 2/30m/60m: a number from 1 to 999, and two times of a day at"
    " most, in s, m or h"
)
LONGEST_TIME: Final = timedelta(days=1)

_BREAKER: Final = re.compile(r"([0-9]{1,3})/([0-9]{1,5})([smh])/([0-9]{1,5})([smh])")
_UNITS: Final = {"h": timedelta(hours=1), "m": timedelta(minutes=1), "s": timedelta(seconds=1)}


@dataclass(frozen=True, slots=True)
class BreakerPolicy:
    """The setting `BREAKER`: so many signals within the window open it for the cool-down."""

    limit: int
    window: timedelta
    cool_down: timedelta

    def __str__(self) -> str:
        return f"{self.limit}/{in_words(self.window)}/{in_words(self.cool_down)}"


class BreakerState(StrEnum):
    """As it stands in the table, in `status` and in events."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


@dataclass(frozen=True, slots=True)
class Probe:
    """The run whose rerun tries Spot: the one after the end of `after_task`, decided at `since`."""

    flow_run_id: UUID
    after_task: str
    since: datetime


@dataclass(frozen=True, slots=True)
class Breaker:
    """What the table holds. `signals`: when each of the tasks was taken or refused, by its key.

    `version` counts the changes of all but the signals, which are only ever added. `open_until` is
    there while it is open, `probe` while it is half-open; `closed_at` once it was closed again.
    """

    state: BreakerState = BreakerState.CLOSED
    version: int = 0
    signals: Mapping[str, datetime] = field(default_factory=dict, hash=False)
    open_until: datetime | None = None
    closed_at: datetime | None = None
    probe: Probe | None = None


class Permit(Enum):
    """Whether a rerun may go to Spot."""

    GRANTED = auto()
    PROBE = auto()
    REFUSED = auto()


@dataclass(frozen=True, slots=True)
class Weather:
    """What a rerun was told when it asked, and the breaker as it was then."""

    permit: Permit
    breaker: Breaker


class ProbeSeen(Enum):
    """What a look at the probe finds: not on Spot yet, alive there, ended by itself, or no use."""

    NOT_YET = auto()
    LIVES = auto()
    ENDED = auto()
    TELLS_NOTHING = auto()


def count(breaker: Breaker, policy: BreakerPolicy, now: datetime) -> int:
    """Return how many signals count: within the window, and since it was closed."""
    return sum(
        is_within(now - at, policy.window) and (not breaker.closed_at or at > breaker.closed_at)
        for at in breaker.signals.values()
    )


def stale(breaker: Breaker, policy: BreakerPolicy, now: datetime) -> list[str]:
    """Return the keys of signals that have left the window: they can count no more."""
    return [key for key, at in breaker.signals.items() if not is_within(now - at, policy.window)]


def is_within(age: timedelta, window: timedelta) -> bool:
    """Whether a signal of this age still counts; at the window's very end, it does."""
    return age <= window


def is_enough(signals: int, limit: int) -> bool:
    """Whether so many signals open it."""
    return signals >= limit


def has_cooled(open_until: datetime, now: datetime) -> bool:
    """Whether the cool-down is over."""
    return now >= open_until


def has_proved(lived: timedelta, window: timedelta) -> bool:
    """Whether a probe has lived on Spot for longer than the window."""
    return lived > window


def is_overdue(probe: Probe, policy: BreakerPolicy, now: datetime) -> bool:
    """Whether nothing more is awaited of a probe: a window and a cool-down have passed."""
    return now - probe.since > policy.window + policy.cool_down


def signalled(
    breaker: Breaker, policy: BreakerPolicy, flow_run_id: UUID, task: str, now: datetime
) -> Breaker:
    """Return the breaker after a signal, which is among its `signals` already.

    `task` is the one that was taken or refused, of the run `flow_run_id`.
    """
    match breaker.state:
        case BreakerState.CLOSED if is_enough(count(breaker, policy, now), policy.limit):
            return _opened(breaker, now + policy.cool_down)
        case BreakerState.HALF_OPEN if _is_the_probes(breaker.probe, flow_run_id, task):
            return _opened(breaker, now + policy.cool_down)
        case BreakerState.CLOSED | BreakerState.OPEN | BreakerState.HALF_OPEN:
            return breaker
    assert_never(breaker.state)


def asked(
    breaker: Breaker,
    policy: BreakerPolicy,
    asker: Probe,
    *,
    may_probe: bool = True,
) -> tuple[Breaker, Permit]:
    """Return the breaker after a rerun has asked to go to Spot, and whether it may.

    `asker` is the probe that it would be; `may_probe` is False where nothing is really rerun: then
    a cool-down that is over closes the breaker. Asking twice gives the same answer.
    """
    now = asker.since
    match breaker.state:
        case BreakerState.CLOSED if is_enough(count(breaker, policy, now), policy.limit):
            return _opened(breaker, now + policy.cool_down), Permit.REFUSED
        case BreakerState.CLOSED:
            return breaker, Permit.GRANTED
        case BreakerState.OPEN if not has_cooled(breaker.open_until or now, now):
            return breaker, Permit.REFUSED
        case BreakerState.OPEN | BreakerState.HALF_OPEN if not may_probe:
            return _closed(breaker, now), Permit.GRANTED
        case BreakerState.OPEN:
            return _half_open(breaker, asker), Permit.PROBE
        case BreakerState.HALF_OPEN:
            return _asked_half_open(breaker, policy, asker)
    assert_never(breaker.state)


def judged(
    breaker: Breaker, policy: BreakerPolicy, seen: ProbeSeen, lived: timedelta, now: datetime
) -> Breaker:
    """Return the breaker after a look at its probe, which has `lived` on Spot for so long."""
    if breaker.state is not BreakerState.HALF_OPEN or breaker.probe is None:
        return breaker
    match seen:
        case ProbeSeen.ENDED:
            return _closed(breaker, now)
        case ProbeSeen.LIVES if has_proved(lived, policy.window):
            return _closed(breaker, now)
        case ProbeSeen.TELLS_NOTHING:
            return _opened(breaker, now)
        case ProbeSeen.NOT_YET | ProbeSeen.LIVES:
            return _opened(breaker, now) if is_overdue(breaker.probe, policy, now) else breaker
    assert_never(seen)


def read_breaker(text: str) -> BreakerPolicy:
    """Read the setting `BREAKER`, see `BREAKER_FORM`. Raises ValueError for anything else."""
    parts = _BREAKER.fullmatch(text)
    if parts is None:
        raise ValueError(f"{text!r} is not of the form {BREAKER_FORM}")
    limit = int(parts[1])
    window, cool_down = (int(n) * _UNITS[u] for n, u in (parts.group(2, 3), parts.group(4, 5)))
    if limit < 1 or not all(timedelta() < time <= LONGEST_TIME for time in (window, cool_down)):
        raise ValueError(f"{text!r} has a number that is zero, or a time of more than a day")
    return BreakerPolicy(limit, window, cool_down)


def in_words(time: timedelta) -> str:
    """Return a time as the setting has it: 30m, 2h, 45s."""
    unit = next(u for u, length in _UNITS.items() if u == "s" or (time and not time % length))
    return f"{time // _UNITS[unit]}{unit}"


def _asked_half_open(
    breaker: Breaker, policy: BreakerPolicy, asker: Probe
) -> tuple[Breaker, Permit]:
    probe = breaker.probe
    if probe is None or is_overdue(probe, policy, asker.since):
        return _half_open(breaker, asker), Permit.PROBE
    if probe.flow_run_id != asker.flow_run_id:
        return breaker, Permit.REFUSED
    if probe.after_task == asker.after_task:
        return breaker, Permit.PROBE
    return _half_open(breaker, asker), Permit.PROBE  # a drill has ended its attempt: once more


def _is_the_probes(probe: Probe | None, flow_run_id: UUID, task: str) -> bool:
    """Whether the task is the probe's attempt, and not the one whose rerun that is."""
    return probe is not None and probe.flow_run_id == flow_run_id and probe.after_task != task


def _opened(breaker: Breaker, until: datetime) -> Breaker:
    return replace(
        breaker, state=BreakerState.OPEN, signals={}, open_until=until, closed_at=None, probe=None
    )


def _half_open(breaker: Breaker, probe: Probe) -> Breaker:
    return replace(breaker, state=BreakerState.HALF_OPEN, signals={}, open_until=None, probe=probe)


def _closed(breaker: Breaker, now: datetime) -> Breaker:
    return replace(
        breaker,
        state=BreakerState.CLOSED,
        signals={},
        open_until=None,
        closed_at=now,
        probe=None,
    )
