"""The decision table: what has to happen to a run whose task ended, in a word.

The questions are in the order of the decision table in docs/how-it-works.md; the first that matches
wins. `core/rescue/decide.py` turns a ruling into actions.
"""

from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from typing import assert_never
from uuid import UUID

from chalicelib.core.model.ecs_task import Cause
from chalicelib.core.model.flow_run import RunState, StateType
from chalicelib.core.model.policy import other_pool
from chalicelib.core.model.text import one_line
from chalicelib.core.rescue.actions import End, Restore, Verdict
from chalicelib.core.rescue.failed_start import why_not_started_again
from chalicelib.core.rescue.orphans import explain
from chalicelib.core.rescue.rerun_state import Progress, end_id, ended_before_crash, restore_id
from chalicelib.core.rescue.snapshot import (
    CLOCKS_DIFFER,
    RESTART_MARGIN,
    FailedSubmission,
    Snapshot,
)


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


@dataclass(frozen=True, slots=True)
class Confirm:
    """We ended the run, and nothing came between; or it has moved on since."""


Ruling = Ignore | Repeat | Note | NotRerun | End | Rerun | Complete | Restore | Confirm


def judge(snapshot: Snapshot) -> Ruling:
    """Return what has to happen, before the capacity of a rerun is chosen."""
    if reason := other_pool(snapshot.run.work_pool_name, snapshot.policy.work_pools):
        return Ignore(reason)
    return _judge_our_end(snapshot) or _judge_rerun(snapshot)


def _judge_rerun(snapshot: Snapshot) -> Ruling:
    """Judge by how far the rerun has come."""
    rerun = snapshot.rerun_state
    match rerun.progress:
        case Progress.PARKED:
            return _judge_parked(snapshot)
        case Progress.DUE if not rerun.made_due:
            before = snapshot.history[-2]
            return _restore(snapshot, before, Verdict.UNDO_RERUN, "while it was made due")
        case Progress.REVERTED | Progress.HANDLED if snapshot.given_up:
            return Repeat(made_due=False)
        case Progress.REVERTED if rerun.picked_up and not snapshot.swept:
            return Repeat(rerun.made_due)  # it may be asking for a task: left to sweep
        case Progress.REVERTED if not snapshot.newer_task:
            return Rerun(rerun.park_id)
        case Progress.HANDLED if snapshot.swept and not (
            snapshot.newer_task or rerun.made_due or rerun.worn_out
        ):
            return _judge_end(snapshot)  # it was undone, and the run has moved on since
        case Progress.DUE | Progress.REVERTED | Progress.HANDLED:
            return Repeat(rerun.made_due)
        case Progress.NOT_STARTED:
            stale = _why_stale(snapshot)
            return Ignore(stale) if stale else _judge_end(snapshot)
    assert_never(rerun.progress)


def _judge_parked(snapshot: Snapshot) -> Ruling:
    """Judge the park by the state that it replaced: another client may have set that meanwhile."""
    if not snapshot.has_exited:
        return Ignore("a late warning: the run was parked when the container had exited")
    if why := snapshot.given_up or snapshot.rejection:
        return NotRerun(why)
    if snapshot.remains is not None and snapshot.remains.deployment is None:
        return NotRerun("its deployment is gone, so Prefect cannot run it again")
    before = snapshot.before_last_state
    match ruling := judge(before) if before else None:
        case None | Rerun() | Complete():
            return Complete(snapshot.rerun_state.park_id)
        case NotRerun() | Restore():
            return ruling
        case _:
            before_park = snapshot.history[-2]
            return _restore(snapshot, before_park, Verdict.UNDO_RERUN, "while it was being parked")


def _judge_our_end(snapshot: Snapshot) -> Ruling | None:
    """Return what to do about a state by which we ended or restored the run; None for others.

    Another client may have set a state between our look and that: then it is restored.
    """
    current, *earlier = reversed(snapshot.history)
    if not earlier:
        return None
    key, last = snapshot.subject.arn, earlier[0]
    ends = {end_id(key, state.id) for state in earlier}
    ours = ends | {restore_id(key, state.id) for state in earlier}
    if current.transition_id in ours - {end_id(key, last.id), restore_id(key, last.id)}:
        return _restore(snapshot, last, Verdict.RESTORE, "meanwhile")
    has_moved_on = any(state.is_final and state.transition_id in ours for state in earlier)
    return Confirm() if has_moved_on or current.transition_id in ends else None


def _restore(snapshot: Snapshot, state: RunState, verdict: Verdict, how: str) -> Restore:
    transition_id = restore_id(snapshot.subject.arn, snapshot.run.state.id)
    return Restore(
        state, verdict, f"the run had become {one_line(state.name)} {how}", transition_id
    )


def end(snapshot: Snapshot, state: StateType, message: str) -> End:
    """Return the action that ends the run out of the state that was judged."""
    return End(state, message, end_id(snapshot.subject.arn, snapshot.run.state.id))


def _judge_end(snapshot: Snapshot) -> Ruling:
    """Judge the end of the run's newest task, which no rerun has answered yet."""
    ended = ended_before_crash(snapshot.history)
    by_signal = ended is not None and ended.type is StateType.FAILED and snapshot.failed_by_signal
    is_rerun = snapshot.cause is not Cause.OTHER
    if ended is not None and not by_signal and (ended.is_final or is_rerun):
        return _restore(snapshot, ended, Verdict.RESTORE, "before an engine crashed it")
    match snapshot.cause:
        case Cause.SPOT_INTERRUPTION | Cause.DRILL if snapshot.has_exited:
            return _judge_interruption(snapshot)
        case Cause.SPOT_INTERRUPTION | Cause.DRILL:
            return _judge_warning(snapshot)
        case Cause.NO_SPOT_CAPACITY | Cause.FAILED_START:
            return _judge_failed_start(snapshot)
        case Cause.OTHER:
            return _judge_other_end(snapshot)
    assert_never(snapshot.cause)


def _judge_interruption(snapshot: Snapshot) -> Ruling:
    state, rerun = snapshot.run.state, snapshot.rerun_state
    if state.type is StateType.CANCELLING and snapshot.swept:
        why = "Cancelled: Spot took its task during the cancellation."
        return end(snapshot, StateType.CANCELLED, why)
    if state.is_over and not (state.type is StateType.FAILED and snapshot.failed_by_signal):
        why = f"the run is {one_line(state.name)} already"
        return Note(Verdict.ANNOTATE, why, Words(Phase.NO_RERUN, "nothing", why))
    if state.type is StateType.PAUSED:
        words = Words(Phase.WARNING, "a rerun once the run is resumed", "the run is paused")
        return Note(Verdict.AWAIT_RESUME, f"{words.why}: {words.next_step}", words)
    if state.type is StateType.CRASHED and rerun.was_cancelling:
        why = "the run was being cancelled when Spot took its task"
        words = Words(Phase.NO_RERUN, "nothing", why)
        ends = end(snapshot, StateType.CANCELLED, f"Cancelled: {why}.")
        return Note(Verdict.MARK_CANCELLED, why, words, ends)
    if why := snapshot.reason_not_to_rerun:
        if state.type is StateType.SCHEDULED and not snapshot.run.waits_in_process:
            words = Words(Phase.NO_RERUN, "the run starts as it is scheduled", why)
            return Note(Verdict.ANNOTATE, f"not rerun: {why}", words)
        return NotRerun(why)
    if state.type is StateType.UNKNOWN:
        return Ignore(f"the run is in an unknown state, {one_line(state.name)}")
    return Rerun(rerun.park_id)


def _judge_warning(snapshot: Snapshot) -> Ruling:
    """The container still runs: a rerun now would run the flow twice.

    The event may come after the signal, and that may have made the run fail or crash already.
    """
    state = snapshot.run.state
    if state.is_final and state.type not in (StateType.FAILED, StateType.CRASHED):
        return Ignore("Spot warning for a run that has ended")
    next_step = "the container gets its stop timeout to exit, then the rerun is decided"
    words = Words(Phase.WARNING, next_step, "ECS takes the task back")
    return Note(Verdict.WARNED, "Spot warning: the container still runs", words)


def _judge_failed_start(snapshot: Snapshot) -> Ruling:
    """No capacity: on demand, once. Else the same again, later, while tries are left."""
    state, rerun = snapshot.run.state, snapshot.rerun_state
    task, crashed = snapshot.task, state.type is StateType.CRASHED
    had_started = task is not None and task.started_at is not None
    is_alive = state.type is StateType.PENDING or (
        had_started and (state.type is StateType.RUNNING or snapshot.run.waits_in_process)
    )
    if not (is_alive or crashed) or not snapshot.has_exited:
        return _judge_other_end(snapshot)
    if crashed and rerun.was_cancelling:
        return end(snapshot, StateType.CANCELLED, "Cancelled: its task failed to start meanwhile.")
    why = snapshot.reason_not_to_rerun or why_not_started_again(snapshot)
    if not why:
        return Rerun(rerun.park_id)
    words = Words(Phase.NO_RERUN, "the run stays Crashed", why)
    message = f"{explain(snapshot.subject)}. Not started again: {why}."
    ends = None if crashed else end(snapshot, StateType.CRASHED, message)
    return Note(Verdict.MARK_CRASHED, why, words, ends)


def _judge_other_end(snapshot: Snapshot) -> Ruling:
    """Not an interruption, so never rerun; but a run without a task must not stay alive forever."""
    if not snapshot.has_exited:
        return Ignore("the task has not stopped")
    if not snapshot.swept:
        return Ignore("stopped for another reason: left to Prefect, then to sweep")
    is_pending = snapshot.run.state.type is StateType.PENDING
    message = explain(snapshot.subject, unheard=is_pending)
    match snapshot.run.state.type:
        case StateType.RUNNING | StateType.PENDING:
            return end(snapshot, StateType.CRASHED, message)
        case StateType.SCHEDULED if snapshot.run.waits_in_process:
            return end(snapshot, StateType.CRASHED, message)
        case StateType.CANCELLING if snapshot.task is None:
            message = "Cancelled: no task of this run is left to end by itself."
            return end(snapshot, StateType.CANCELLED, message)
        case StateType.CANCELLING:
            return end(snapshot, StateType.CANCELLED, message)
        case other:
            return Ignore(f"{message}; the run is {other.value}")


def _why_stale(snapshot: Snapshot) -> str:
    """Return why this end says nothing of the run as it is now; empty when it does."""
    if snapshot.newer_task or _restarted_since(snapshot):
        return "stale event: the run has a newer task"
    answered = snapshot.interruption is not None and snapshot.interruption.outcome_annotated
    is_waiting = snapshot.run.state.type in (StateType.SCHEDULED, StateType.PENDING)
    if answered and is_waiting and not (snapshot.swept or snapshot.run.waits_in_process):
        return "this interruption is answered, and the run was scheduled since"
    return ""


def _restarted_since(snapshot: Snapshot) -> bool:
    """Whether a new attempt began since the task's end, though no task id says so yet.

    A worker takes a run (SCHEDULED to PENDING) before it asks for a task, so a pick-up after our
    container's start is another attempt's; the worker notes its task only later, or never.
    """
    task, state = snapshot.task, snapshot.run.state
    if isinstance(snapshot.subject, FailedSubmission):
        return state.id != snapshot.subject.state_id
    if snapshot.swept or task is None:
        return False
    began_at, exited_at = task.started_at, task.exited_at
    if began_at is None and task.created_at is not None:  # right after its own pick-up
        began_at = task.created_at + CLOCKS_DIFFER
    picked_up = began_at is not None and any(
        (before.type, after.type) == (StateType.SCHEDULED, StateType.PENDING)
        for before, after in pairwise(snapshot.history)
        if after.timestamp > began_at
    )
    runs_since_long_after = (
        state.type is StateType.RUNNING
        and exited_at is not None
        and state.timestamp - exited_at > RESTART_MARGIN
    )
    return picked_up or runs_since_long_after
