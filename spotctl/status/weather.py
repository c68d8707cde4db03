"""The breaker, where one is set: how it stands, and what reruns come to because of it."""

from dataclasses import dataclass
from datetime import datetime

from botocore.exceptions import ClientError

from chalicelib.adapters.breaker import BreakerTable
from chalicelib.core.guards.breaker import (
    Breaker,
    BreakerPolicy,
    BreakerState,
    count,
    has_cooled,
    in_words,
)
from spotctl.rows import Row, ok, warning
from spotctl.world import World

PART = "breaker"
_WAIT = "nothing: it closes by itself; spotctl report tells what it costs"


@dataclass(frozen=True, slots=True)
class Found:
    """The breaker as the table has it; times are UTC."""

    policy: BreakerPolicy
    breaker: Breaker
    now: datetime


def look(world: World) -> Found | None:
    """Ask the table, if a breaker is set; None where none is. Raises botocore's errors."""
    settings = world.project.settings
    if settings.breaker is None:
        return None
    client = world.aws.client("dynamodb")
    try:
        breaker = BreakerTable(client, world.project.stack, settings.work_pool).read()
    except ClientError as error:
        if error.response["Error"]["Code"] != "ResourceNotFoundException":
            raise
        breaker = Breaker()  # the stack's row says that there is no table yet
    return Found(settings.breaker, breaker, world.now())


def rows(found: Found | None) -> list[Row]:
    """Judge it: no row where none is set."""
    if found is None:
        return []
    breaker, policy = found.breaker, found.policy
    until = breaker.open_until
    match breaker.state:
        case BreakerState.CLOSED:
            seen = count(breaker, policy, found.now)
            window = in_words(policy.window)
            return [ok(PART, f"closed: {seen} of {policy.limit} signals within {window}")]
        case BreakerState.OPEN if until is None or has_cooled(until, found.now):
            return [warning(PART, "open, its cool-down over: the next rerun is its probe", _WAIT)]
        case BreakerState.OPEN:
            told = f"open: until {until:%Y-%m-%d %H:%M:%S} UTC reruns go to FARGATE"
            return [warning(PART, told, _WAIT)]
        case BreakerState.HALF_OPEN:
            probe = breaker.probe.flow_run_id if breaker.probe else "?"
            return [
                warning(
                    PART,
                    f"half-open: reruns go to FARGATE while flow run {probe} tries Spot",
                    _WAIT,
                )
            ]
