"""Where a rerun stands, read from the run's own state history by deterministic transition ids.

Prefect rejects a transition id only when it repeats the present one, but its history keeps every
id. So a rerun that was begun by a handler that died, or made twice, can be told from the history.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final
from uuid import NAMESPACE_URL, UUID, uuid5

from chalicelib.core.model.flow_run import RunState, StateType

CONCURRENCY_CANCELLATION: Final = "concurrency limit"

MOST_AGAIN: Final = 20
"""How often a run is put back on its way after having been crashed or cancelled under our hands."""


class Stage(Enum):
    """How far a rerun has come."""

    UNTOUCHED = auto()
    PARKED = auto()
    THROWN_BACK = auto()
    HANDLED = auto()


@dataclass(frozen=True, slots=True)
class Standing:
    """The stage, and the transition id to park with (or that the run is parked with).

    A HANDLED rerun that was not `made_due` was undone, or taken over by somebody else.
    """

    stage: Stage
    park_id: UUID
    made_due: bool = False


def park_id_of_task(task_arn: str) -> UUID:
    """Transition id of the parked state that answers the interruption of a task."""
    return uuid5(NAMESPACE_URL, task_arn)


def park_id_of_state(state_id: UUID) -> UUID:
    """Transition id of the parked state that answers a state, where no task ever started."""
    return uuid5(NAMESPACE_URL, f"prefect-spot:{state_id}")


def due_id(park_id: UUID) -> UUID:
    """Transition id of the state that makes a parked run due."""
    return uuid5(park_id, "due")


def park_ids_of(task_arn: str, history: Sequence[RunState]) -> frozenset[UUID]:
    """Every transition id that a run may have been parked with because of a task.

    The first one is the task's; each further time, the state that undid it gives a fresh one.
    """
    first = park_id_of_task(task_arn)
    return frozenset({first, *(_again(first, state) for state in history)})


def was_made_due(task_arn: str, history: Sequence[RunState]) -> bool:
    """Whether the rerun for that task came to its end: then that task is not the run's latest."""
    dues = set(map(due_id, park_ids_of(task_arn, history)))
    return any(state.transition_id in dues for state in history)


def standing_of_task(task_arn: str, history: tuple[RunState, ...]) -> Standing:
    """Tell how far the rerun for an interrupted task has come.

    THROWN_BACK: it was made due, but before a new attempt began somebody crashed the run (a zombie
    automation, a late observer) or a concurrency limit cancelled it.
    """
    first, current = park_id_of_task(task_arn), history[-1]
    park_ids = park_ids_of(task_arn, history)
    if current.type is StateType.SCHEDULED and current.transition_id in park_ids:
        return Standing(Stage.PARKED, current.transition_id)
    dues = set(map(due_id, park_ids))
    touches = [i for i, s in enumerate(history) if s.transition_id in park_ids | dues]
    if not touches:
        return Standing(Stage.UNTOUCHED, first)
    made_due = history[touches[-1]].transition_id in dues
    moved_since = any(
        s.type in (StateType.RUNNING, StateType.CANCELLING) for s in history[touches[-1] + 1 :]
    )
    times = sum(s.transition_id in park_ids for s in history)
    thrown_back = made_due and not moved_since and _throws_back(current) and times <= MOST_AGAIN
    stage = Stage.THROWN_BACK if thrown_back else Stage.HANDLED
    return Standing(stage, _again(first, current), made_due)


def was_thrown_back(task_arn: str, history: tuple[RunState, ...], park_id: UUID) -> bool:
    """Whether a run parked with `park_id` is so in order to undo the state it was in before."""
    earlier = standing_of_task(task_arn, history[:-1])
    return earlier.stage is Stage.THROWN_BACK and earlier.park_id == park_id


def was_being_cancelled(task_arn: str, history: Sequence[RunState]) -> bool:
    """Whether a CRASHED run is one that a person was cancelling.

    An engine that is its container's main process says Crashed when it dies of SIGTERM, by force.
    """
    ours = park_ids_of(task_arn, history)
    for state in reversed(history):
        if state.type is not StateType.CRASHED and state.transition_id not in ours:
            return state.type is StateType.CANCELLING
    return False


def standing_of_refusal(history: tuple[RunState, ...]) -> Standing:
    """Tell how far the rerun for a refused placement (no Spot capacity) has come."""
    current = history[-1]
    park_ids = {park_id_of_state(state.id) for state in history}
    if current.type is StateType.SCHEDULED and current.transition_id in park_ids:
        return Standing(Stage.PARKED, current.transition_id)
    return Standing(Stage.UNTOUCHED, park_id_of_state(current.id))


def _again(first: UUID, state: RunState) -> UUID:
    return uuid5(first, str(state.id))


def _throws_back(state: RunState) -> bool:
    by_a_limit = CONCURRENCY_CANCELLATION in state.message.lower()
    return state.type is StateType.CRASHED or (state.type is StateType.CANCELLED and by_a_limit)
