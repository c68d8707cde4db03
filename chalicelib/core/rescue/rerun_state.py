"""How far the rerun of a run has come, read from the run's own state history.

By transition ids. Prefect rejects a transition id only when it repeats the current one, but its
history keeps every id. Ours derive from the task, or from what stands for one, so a rerun that
another handler began, or one that was made twice, is recognised.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum, auto
from functools import lru_cache
from typing import Final
from uuid import NAMESPACE_URL, UUID, uuid5

from chalicelib.core.model.flow_run import RunState, StateType
from chalicelib.core.rescue.start_failures import is_submission_failure

CONCURRENCY_CANCELLATION: Final = "deployment concurrency limit"
MOST_PARKS: Final = 20
"""How often a run is rerun for one task, when its rerun is crashed or cancelled before it began."""


class Progress(Enum):
    """How far a rerun has come."""

    NOT_STARTED = auto()
    PARKED = auto()
    DUE = auto()
    """It was made due, and nothing has happened since."""
    REVERTED = auto()
    """Before a new attempt began, an automation or a late observer crashed the run, or a
    concurrency limit cancelled it."""
    HANDLED = auto()


@dataclass(frozen=True, slots=True)
class RerunState:
    """The progress, and the transition id to park with (or that the run is parked with).

    `made_due`: the run was made due, and no state of another client came between that and its park:
    a DUE rerun that was not has replaced such a state, a HANDLED one was undone or left behind.
    `due_at`: for when (UTC). `picked_up`: a worker took the run since; it may be asking for a task.
    `worn_out`: it was parked as often as it may be.
    `was_cancelling`: a CRASHED run was being cancelled before. An engine that is its container's
    main process sets Crashed, by force, when it dies of SIGTERM.
    """

    progress: Progress
    park_id: UUID
    made_due: bool = False
    was_cancelling: bool = False
    due_at: datetime | None = None
    picked_up: bool = False
    worn_out: bool = False


def park_id_of_task(key: str) -> UUID:
    """Return the transition id of the parked state that answers a task's end.

    `key`: the task's ARN, or the `arn` of a subject that never had a task.
    """
    return _derived(NAMESPACE_URL, key)


def due_id(park_id: UUID) -> UUID:
    """Return the transition id of the state that makes a parked run due."""
    return _derived(park_id, "due")


def end_id(key: str, state_id: UUID) -> UUID:
    """Return the transition id of the state that ends a run which is in that state."""
    return uuid5(park_id_of_task(key), f"end {state_id}")


def restore_id(key: str, state_id: UUID) -> UUID:
    """Return the transition id of a state that is restored over that state."""
    return uuid5(park_id_of_task(key), f"restore {state_id}")


def park_ids_of(key: str, history: Sequence[RunState]) -> frozenset[UUID]:
    """Return every transition id that a run may have been parked with because of a task.

    The first is the task's; after each state that reverted the rerun, that state gives a new one.
    """
    first = park_id_of_task(key)
    return frozenset({first, *(_derived(first, str(state.id)) for state in history)})


def was_made_due(key: str, history: Sequence[RunState]) -> bool:
    """Whether the rerun for that task was completed: then it is not the run's latest task."""
    return _made_due(history, park_ids_of(key, history))


def rerun_state_of(key: str, history: Sequence[RunState]) -> RerunState:
    """Return how far the rerun for a task has come; `history` is not empty, oldest first."""
    park_ids, current = park_ids_of(key, history), history[-1]
    dues, first = set(map(due_id, park_ids)), park_id_of_task(key)
    if current.type is StateType.SCHEDULED and current.transition_id in park_ids:
        return RerunState(Progress.PARKED, current.transition_id)
    if current.type is StateType.SCHEDULED and current.transition_id in dues:
        is_on_park = _is_on_park(history, park_ids)
        return RerunState(Progress.DUE, first, is_on_park, due_at=current.scheduled_time)
    was_cancelling = _was_cancelling(history, park_ids)
    touched = [i for i, s in enumerate(history) if s.transition_id in park_ids | dues]
    if not touched:
        return RerunState(Progress.NOT_STARTED, first, was_cancelling=was_cancelling)
    since = history[touched[-1] + 1 :]
    worn_out = sum(state.transition_id in park_ids for state in history) > MOST_PARKS
    is_reverted = _is_reverted(since) and not worn_out
    progress = Progress.REVERTED if is_reverted else Progress.HANDLED
    next_id, made_due = uuid5(first, str(current.id)), _made_due(history, park_ids)
    due_at = next((s.scheduled_time for s in reversed(history) if s.transition_id in dues), None)
    picked_up = any(state.type is StateType.PENDING for state in since)
    return RerunState(progress, next_id, made_due, was_cancelling, due_at, picked_up, worn_out)


def starts_not_before(key: str, history: Sequence[RunState]) -> datetime | None:
    """Return when the run would start by itself (UTC); None where nothing says so.

    That is the time of the latest state that scheduled it: an own retry's, a person's, or ours;
    parks do not count, nor does the AwaitingRetry without a message by which an engine may answer
    SIGTERM, and what was scheduled before the run last ran is past.
    """
    park_ids = park_ids_of(key, history)
    for state in reversed(history):
        if state.type is StateType.RUNNING:
            return None
        is_park = state.transition_id in park_ids
        if state.type is StateType.SCHEDULED and not (is_park or state.is_rescheduled_by_engine):
            return state.scheduled_time
    return None


def ended_before_crash(history: Sequence[RunState]) -> RunState | None:
    """Return the state that an engine set CRASHED over: one in which the run had ended, or PAUSED.

    Prefect's orchestration refuses CRASHED over a final state; engines up to 3.8.4 force it when
    SIGTERM arrives just then (PrefectHQ/prefect#23025).
    """
    if history[-1].type is not StateType.CRASHED:
        return None
    before = next((s for s in reversed(history) if s.type is not StateType.CRASHED), None)
    if before is None or not (before.is_final or before.type is StateType.PAUSED):
        return None
    return None if _by_a_limit(before) else before


@lru_cache(1024)
def _derived(namespace: UUID, name: str) -> UUID:
    """Return `uuid5`, which a rescue asks for some 400 times, and for few ids."""
    return uuid5(namespace, name)


def _is_reverted(since: Sequence[RunState]) -> bool:
    """Whether the run was crashed, or cancelled by a limit, before its new attempt began.

    `since`: the states after our last one. A submission that failed was an attempt of its own.
    """
    if not since:
        return False
    has_begun = any(s.type in (StateType.RUNNING, StateType.CANCELLING) for s in since)
    was_submitted = any(state.type is StateType.PENDING for state in since)
    current = since[-1]
    if has_begun or (was_submitted and is_submission_failure(current.message)):
        return False
    return current.type is StateType.CRASHED or _by_a_limit(current)


def _by_a_limit(state: RunState) -> bool:
    is_cancelled = state.type is StateType.CANCELLED
    return is_cancelled and state.message.lower().startswith(CONCURRENCY_CANCELLATION)


def _made_due(history: Sequence[RunState], park_ids: frozenset[UUID]) -> bool:
    dues = set(map(due_id, park_ids))
    made = (i for i, state in enumerate(history, start=1) if state.transition_id in dues)
    return any(_is_on_park(history[:end], park_ids) for end in made)


def _is_on_park(history: Sequence[RunState], park_ids: frozenset[UUID]) -> bool:
    """Whether the last state followed a park.

    A crash in between calls for the rerun as well; and no worker takes what is parked, so a PENDING
    state of another name than theirs is a late observer's.
    """
    before = next((s for s in reversed(history[:-1]) if not _is_passed_over(s)), None)
    return before is None or before.transition_id in park_ids


def _is_passed_over(state: RunState) -> bool:
    by_observer = state.type is StateType.PENDING and state.name != "Pending"
    return state.type is StateType.CRASHED or by_observer


def _was_cancelling(history: Sequence[RunState], park_ids: frozenset[UUID]) -> bool:
    by_others = (s.type for s in reversed(history) if s.transition_id not in park_ids)
    return next((t for t in by_others if t is not StateType.CRASHED), None) is StateType.CANCELLING
