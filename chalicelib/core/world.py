"""Everything a function may touch in one invocation, gathered in one value."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from chalicelib.core.metrics import Measured
from chalicelib.core.ports import Bills, Log, Prefect, Records, Tasks
from chalicelib.core.situation import Policy


@dataclass(frozen=True, slots=True)
class World:
    """The ports, the clock and the user's policy. `account` is ours; empty: not checked.

    `lease` is longer than the invocation can last, so that it never ends under a living handler;
    `seconds_left` of the invocation, for work that can be resumed. `grace` is what the fast path is
    given before `sweep` repairs. `measure` hands on values for CloudWatch.
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
    measure: Callable[[Measured], None] = lambda _measured: None
