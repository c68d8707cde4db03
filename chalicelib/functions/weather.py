"""The breaker at work: told of each signal, asked by each rerun, and its probe seen to by `sweep`.

Each change is proposed on the condition that nobody else made one meanwhile; who was overtaken
looks again. So exactly one run becomes the probe, and each opening is told by the one who made it.
Off, which it is unless `BREAKER` is set, nothing here is called.
"""

from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Final
from uuid import NAMESPACE_URL, uuid5

from chalicelib.core.actions import Verdict
from chalicelib.core.guards.breaker import (
    Breaker,
    BreakerPolicy,
    BreakerState,
    Permit,
    Probe,
    ProbeSeen,
    Weather,
    asked,
    judged,
    signalled,
    stale,
)
from chalicelib.core.guards.facts import Missing
from chalicelib.core.metrics import Measured, Metric
from chalicelib.core.ports import PoolEvent
from chalicelib.core.run import StateType
from chalicelib.core.situation import Mode, Situation
from chalicelib.core.stranded import lives, noted_task
from chalicelib.core.task import FARGATE_SPOT, Cause
from chalicelib.core.world import World
from chalicelib.errors import LAMBDA_RETRIES, ThrottledError

OPENED_EVENT: Final = "prefect-spot.breaker-opened"
CLOSED_EVENT: Final = "prefect-spot.breaker-closed"

MOST_TRIES: Final = 20
"""Against others that change it: as many handlers as are let to run at once, and again."""

PAUSE_SECONDS: Final = 0.05

_ANSWERS: Final = frozenset(
    {
        Verdict.ANNOTATE,
        Verdict.AWAIT_RESUME,
        Verdict.MARK_CRASHED,
        Verdict.MARK_CANCELLED,
        Verdict.RERUN_ON_SPOT,
        Verdict.RERUN_ON_DEMAND,
    }
)
_WEATHER: Final = frozenset({Cause.SPOT_INTERRUPTION, Cause.NO_SPOT_CAPACITY})
"""A drill says nothing about it."""

Step = Callable[[Breaker], tuple[Breaker, Permit]]


def is_signal(s: Situation, verdict: Verdict) -> bool:
    """Whether this is the answer to a task that Spot has taken, or refused."""
    return s.cause in _WEATHER and s.task.exited and verdict in _ANSWERS


def consult(world: World, s: Situation, *, signals: bool, asks: bool) -> Weather | Missing:
    """Tell the breaker of a task that was taken or refused, ask it for its rerun, or both.

    Never raises: the rescue comes first, and without an answer the budget alone decides.
    """
    policy = s.policy.guards.breaker
    if policy is None:
        return Missing("the breaker", "none is set")
    try:
        return _consult(world, s, policy, signals=signals, asks=asks)
    except Exception as error:  # whatever it is, the run is to be rescued
        world.log.exception("the breaker cannot be had", flow_run_id=str(s.run.id))
        return Missing("the breaker", f"it could not be read ({type(error).__name__})")


def see_to_the_probe(world: World) -> None:
    """Tell CloudWatch how the breaker stands; where it waits for a probe, look what that came to.

    Signals that count no more are forgotten, so that the item stays small.

    Raises what Prefect, ECS and the table raise.
    """
    policy = world.policy.guards.breaker
    if policy is None:
        return
    breaker = world.breakers.read()
    _measure(world, breaker)
    world.breakers.forget(stale(breaker, policy, world.now()))
    if breaker.state is not BreakerState.HALF_OPEN or breaker.probe is None:
        return
    seen, lived = _look_at(world, breaker.probe)
    after = judged(breaker, policy, seen, lived, world.now())
    if after is not breaker and world.breakers.change(breaker, after):
        _tell(world, policy, breaker, after)


def _consult(
    world: World, s: Situation, policy: BreakerPolicy, *, signals: bool, asks: bool
) -> Weather:
    may_probe = s.policy.mode is not Mode.OBSERVE
    asker = Probe(s.run.id, s.task.arn, s.now)

    def step(breaker: Breaker) -> tuple[Breaker, Permit]:
        after = signalled(breaker, policy, s.run.id, s.task.arn, s.now) if signals else breaker
        return asked(after, policy, asker, may_probe=may_probe) if asks else (after, Permit.GRANTED)

    at = s.task.exited_at or s.now
    breaker = world.breakers.signal(s.task.arn, at) if signals else world.breakers.read()
    for _ in range(MOST_TRIES):
        after, permit = step(breaker)
        if after is breaker:
            return Weather(permit, breaker)
        if world.breakers.change(breaker, after):
            _tell(world, policy, breaker, after)
            return Weather(permit, after)
        world.pause(PAUSE_SECONDS)
        breaker = world.breakers.read()
    raise ThrottledError("the breaker changed concurrently", next_step=LAMBDA_RETRIES)


def _look_at(world: World, probe: Probe) -> tuple[ProbeSeen, timedelta]:
    """See what became of the probe's attempt, and for how long it has lived on Spot."""
    nothing = timedelta()
    run = world.prefect.read_run(probe.flow_run_id)
    if run is None:
        return ProbeSeen.TELLS_NOTHING, nothing
    cluster, arn = noted_task(run)
    started = bool(arn) and arn != probe.after_task
    task = world.tasks.describe(cluster, arn) if started else None
    if task is not None and task.capacity != FARGATE_SPOT:
        return ProbeSeen.TELLS_NOTHING, nothing
    if run.state.is_final:
        # Had Spot taken it, the breaker would have been told, and would be open.
        by_itself = started and run.state.type in (StateType.COMPLETED, StateType.FAILED)
        return ProbeSeen.ENDED if by_itself else ProbeSeen.TELLS_NOTHING, nothing
    if task is None or not lives(task):
        return ProbeSeen.NOT_YET, nothing
    return ProbeSeen.LIVES, world.now() - (task.started_at or world.now())


def _tell(world: World, policy: BreakerPolicy, before: Breaker, after: Breaker) -> None:
    """Say that it has opened or closed. It has happened: no failure here may undo it."""
    world.log.info(
        "breaker",
        before=before.state.value,
        after=after.state.value,
        open_until=after.open_until.isoformat() if after.open_until else "",
        probe=str(after.probe.flow_run_id) if after.probe else "",
    )
    _measure(world, after)
    names = {BreakerState.OPEN: OPENED_EVENT, BreakerState.CLOSED: CLOSED_EVENT}
    if after.state not in names:
        return
    event = PoolEvent(
        id=uuid5(NAMESPACE_URL, f"prefect-spot:{world.work_pool}:breaker:{before.version + 1}"),
        work_pool=world.work_pool,
        name=names[after.state],
        at=world.now(),
        payload={
            "breaker": str(policy),
            "before": before.state.value,
            "open_until": after.open_until.isoformat() if after.open_until else None,
            "probe": str(before.probe.flow_run_id) if before.probe else None,
        },
    )
    try:
        world.prefect.emit_pool_event(event)
    except Exception:
        world.log.exception("the breaker's event could not be emitted")


def _measure(world: World, breaker: Breaker) -> None:
    is_open = breaker.state is not BreakerState.CLOSED
    world.measure(Measured("", {Metric.BREAKER_OPEN: Decimal(int(is_open))}))
