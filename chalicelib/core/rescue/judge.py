"""The decision table: what has to happen to a run whose task ended, in a word.

The questions are in the order of the decision table in docs/how-it-works.md; the first that matches
wins. `core/rescue/decide.py` turns a ruling into actions.
"""

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from itertools import pairwise
from typing import Final, assert_never
from uuid import UUID

from chalicelib.core.model.ecs_task import NO_CAPACITY_REASON, Cause
from chalicelib.core.model.flow_run import StateType
from chalicelib.core.model.policy import is_on_demand
from chalicelib.core.model.text import one_line
from chalicelib.core.rescue.actions import End, Restore, Verdict
from chalicelib.core.rescue.orphans import explain
from chalicelib.core.rescue.snapshot import Progress, Snapshot

RESTART_MARGIN: Final = timedelta(seconds=60)
"""How far the clocks of ECS and Prefect may differ before a restart counts as a newer attempt."""


class Phase(StrEnum):
    """At which point of an interruption the run is annotated."""

    WARNING = "warning"
    RERUN = "rerun"
    NO_RERUN = "no rerun"


@dataclass(frozen=True, slots=True)
class Words:
    """What an annotation says: its phase, what happens next, and why."""

    phase: Phase
    next_step: str
    why: str


@dataclass(frozen=True, slots=True)
class Ignore:
    """Do nothing, and why."""

    reason: str


@dataclass(frozen=True, slots=True)
class Repeat:
    """Handled already: emit any annotation that a crashed handler left out."""

    made_due: bool


@dataclass(frozen=True, slots=True)
class Note:
    """Record the interruption and annotate the run; before that, `end` sets a final state."""

    verdict: Verdict
    reason: str
    words: Words
    end: End | None = None


@dataclass(frozen=True, slots=True)
class NotRerun:
    """Record and annotate the interruption, and leave or mark the run Crashed: why."""

    why: str


@dataclass(frozen=True, slots=True)
class Rerun:
    """Record the interruption, choose the capacity, park the run with this transition id."""

    park_id: UUID


@dataclass(frozen=True, slots=True)
class Complete:
    """The run is parked with this id: change what has to change, then make it due."""

    park_id: UUID


Ruling = Ignore | Repeat | Note | NotRerun | End | Rerun | Complete | Restore


def judge(snapshot: Snapshot) -> Ruling:
    """Return what has to happen, before the capacity of a rerun is chosen."""
    rerun, message = snapshot.rerun_state, snapshot.run.state.message
    # By the worker itself: a new attempt, which only looks like a revert.
    given_up = NO_CAPACITY_REASON in message or "could not be submitted" in message
    match rerun.progress:
        case Progress.PARKED if rerun.overwritten:
            return Restore(rerun.overwritten)
        case Progress.PARKED:
            return Complete(rerun.park_id)
        case Progress.REVERTED if not (snapshot.newer_task or given_up):
            return Rerun(rerun.park_id)
        case Progress.HANDLED if snapshot.swept and not rerun.made_due:
            return _judge_end(snapshot)  # it was undone, and the run has moved on since
        case Progress.REVERTED | Progress.HANDLED:
            return Repeat(rerun.made_due)
        case Progress.NOT_STARTED if snapshot.newer_task or _restarted_since(snapshot):
            return Ignore("stale event: the run has a newer task")
        case Progress.NOT_STARTED:
            return _judge_end(snapshot)
    assert_never(rerun.progress)


def _judge_end(snapshot: Snapshot) -> Ruling:
    """Judge the end of the run's newest task, which no rerun has answered yet."""
    match snapshot.cause:
        case Cause.SPOT_INTERRUPTION | Cause.DRILL if snapshot.has_exited:
            return _judge_interruption(snapshot)
        case Cause.SPOT_INTERRUPTION | Cause.DRILL:
            return _judge_warning(snapshot)
        case Cause.NO_SPOT_CAPACITY:
            return _judge_refusal(snapshot)
        case Cause.FAILED_START | Cause.OTHER:
            return _judge_other_end(snapshot)
    assert_never(snapshot.cause)


def _judge_interruption(snapshot: Snapshot) -> Ruling:
    state, rerun = snapshot.run.state, snapshot.rerun_state
    if state.type is StateType.CANCELLING and snapshot.swept:
        why = "Cancelled: Spot took its task during the cancellation."
        return End(StateType.CANCELLED, why)
    if state.is_over:
        why = f"the run is {one_line(state.name)} already"
        return Note(Verdict.ANNOTATE, why, Words(Phase.NO_RERUN, "nothing", why))
    if state.type is StateType.PAUSED:
        words = Words(Phase.WARNING, "a rerun once the run is resumed", "the run is paused")
        return Note(Verdict.AWAIT_RESUME, f"{words.why}: {words.next_step}", words)
    if state.type is StateType.CRASHED and rerun.was_cancelling:
        why = "the run was being cancelled when Spot took its task"
        words = Words(Phase.NO_RERUN, "nothing", why)
        end = End(StateType.CANCELLED, f"Cancelled: {why}.")
        return Note(Verdict.MARK_CANCELLED, why, words, end)
    if why := snapshot.reason_not_to_rerun:
        return NotRerun(why)
    if state.type is StateType.UNKNOWN:
        return Ignore(f"the run is in an unknown state, {one_line(state.name)}")
    return Rerun(rerun.park_id)


def _judge_warning(snapshot: Snapshot) -> Ruling:
    """The container still runs: a rerun now would run the flow twice."""
    if snapshot.run.state.is_final:
        return Ignore("Spot warning for a run that has ended")
    next_step = "the container gets its stop timeout to exit, then the rerun is decided"
    words = Words(Phase.WARNING, next_step, "ECS takes the task back")
    return Note(Verdict.WARNED, "Spot warning: the container still runs", words)


def _judge_refusal(snapshot: Snapshot) -> Ruling:
    """Spot had no capacity: on demand, once; a refusal on FARGATE is not retried.

    Which capacity refused is read from the run's variables, not from the record: that is ahead of
    the run when a handler died between the two.
    """
    run = snapshot.run
    if is_on_demand(run):
        return Ignore("on-demand capacity was refused as well")
    if why := snapshot.reason_not_to_rerun:
        return Ignore(f"no Spot capacity, not rerun: {why}")
    if run.state.type in (StateType.CRASHED, StateType.PENDING):
        return Rerun(snapshot.rerun_state.park_id)
    return Ignore(f"no Spot capacity, but the run is {run.state.type.value}")


def _judge_other_end(snapshot: Snapshot) -> Ruling:
    """Not an interruption, so never rerun; but a run without a task must not stay alive forever."""
    if not snapshot.has_exited:
        return Ignore("the task has not stopped")
    if not snapshot.swept:
        return Ignore("stopped for another reason: left to Prefect, then to sweep")
    message = explain(snapshot.subject)
    match snapshot.run.state.type:
        case StateType.RUNNING | StateType.PENDING:
            return End(StateType.CRASHED, message)
        case StateType.CANCELLING if snapshot.task is None:
            message = "Cancelled: no task of this run is left to end by itself."
            return End(StateType.CANCELLED, message)
        case StateType.CANCELLING:
            return End(StateType.CANCELLED, message)
        case other:
            return Ignore(f"{message}; the run is {other.value}")


def _restarted_since(snapshot: Snapshot) -> bool:
    """Whether a new attempt began since the task's end, though no task id says so yet.

    A worker takes a run (SCHEDULED to PENDING) before it asks for a task, so a pick-up after our
    container's start is another attempt's; the worker notes its task only later, or never.
    """
    task, state = snapshot.task, snapshot.run.state
    if snapshot.swept or task is None:
        return False
    started_at, exited_at = task.started_at, task.exited_at
    picked_up = started_at is not None and any(
        (before.type, after.type) == (StateType.SCHEDULED, StateType.PENDING)
        for before, after in pairwise(snapshot.history)
        if after.timestamp > started_at
    )
    runs_since_long_after = (
        state.type is StateType.RUNNING
        and exited_at is not None
        and state.timestamp - exited_at > RESTART_MARGIN
    )
    return picked_up or runs_since_long_after
