"""Everything a function may touch in one invocation, gathered in one value."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from chalicelib.core.metrics import Measured
from chalicelib.core.model.policy import Policy
from chalicelib.core.ports import Bills, Log, Prefect, Records, Tasks

Outcome = tuple[Any, Exception | None]
"""What a call returned, or what it raised."""


def attempt(call: Callable[[], Any]) -> Outcome:
    """Call, and return what came of it; what is no Exception, such as the end, is not held up."""
    try:
        return call(), None
    except Exception as error:
        return None, error


def results(outcomes: Sequence[Outcome]) -> list[Any]:
    """Return what all calls returned. Raises what the first of those that failed raised."""
    for _, error in outcomes:
        if error is not None:
            raise error
    return [result for result, _ in outcomes]


def one_by_one(calls: Sequence[Callable[[], Any]]) -> list[Any]:
    """Make all the calls, one after another; return their results, or raise the first failure."""
    return results([attempt(call) for call in calls])


@dataclass(frozen=True, slots=True)
class Context:
    """The ports, the clock and the user's policy. `account` is ours; empty: not checked.

    `lease` is longer than the invocation can last, so that it never ends under a living handler;
    `seconds_left` of the invocation, for work that can be resumed; `pause` waits so many seconds.
    `together` makes calls that do not depend on each other, all of them whatever fails. `grace` is
    what the fast path is given before `sweep` repairs. `measure` hands on values for CloudWatch.
    `with_timeout` makes a Prefect that gives up after so many seconds.
    """

    prefect: Prefect
    records: Records
    bills: Bills
    tasks: Tasks
    log: Log
    now: Callable[[], datetime]
    lease: timedelta
    policy: Policy
    clusters: tuple[str, ...]
    account: str
    work_pool: str = ""
    grace: timedelta = timedelta(minutes=3)
    seconds_left: Callable[[], float] = lambda: 60.0
    pause: Callable[[float], None] = lambda _seconds: None
    gather: Callable[[Sequence[Callable[[], Any]]], list[Any]] = one_by_one
    measure: Callable[[Measured], None] = lambda _measured: None
    with_timeout: Callable[[float], Prefect] | None = None

    def prefect_within(self, seconds: float) -> Prefect:
        """Return Prefect for what may be had in so many seconds, and is not worth waiting for."""
        return self.with_timeout(seconds) if self.with_timeout else self.prefect
