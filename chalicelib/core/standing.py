"""Where a rerun stands, read from the run's own state history by deterministic transition ids.

Prefect rejects a transition id only when it repeats the present one, but its history keeps every
id. So a rerun that was begun by a handler that died, or made twice, can be told from the history.
"""

from dataclasses import dataclass
from enum import Enum, auto
from typing import Final
from uuid import NAMESPACE_URL, UUID, uuid5

from chalicelib.core.run import RunState, StateType

CONCURRENCY_CANCELLATION: Final = "concurrency limit"


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


def standing_of_task(task_arn: str, history: tuple[RunState, ...]) -> Standing:
    """Tell how far the rerun for an interrupted task has come.

    THROWN_BACK: it was made due, but before a new attempt began somebody crashed the run (a zombie
    automation, a late observer) or a concurrency limit cancelled it.
    """
    first = park_id_of_task(task_arn)
    park_ids = [first, *(uuid5(first, str(s.id)) for s in history if _throws_back(s))]
    current = history[-1]
    if _is_parked(current, park_ids):
        return Standing(Stage.PARKED, current.transition_id or first)
    ours = {*park_ids, *map(due_id, park_ids)}
    last_touch = max((i for i, s in enumerate(history) if s.transition_id in ours), default=None)
    if last_touch is None:
        return Standing(Stage.UNTOUCHED, first)
    started_since = any(s.type is StateType.RUNNING for s in history[last_touch + 1 :])
    made_due = history[last_touch].transition_id not in park_ids
    if _throws_back(current) and made_due and not started_since:
        return Standing(Stage.THROWN_BACK, uuid5(first, str(current.id)), made_due)
    return Standing(Stage.HANDLED, first, made_due)


def standing_of_refusal(history: tuple[RunState, ...]) -> Standing:
    """Tell how far the rerun for a refused placement (no Spot capacity) has come."""
    current = history[-1]
    if _is_parked(current, [park_id_of_state(s.id) for s in history]):
        return Standing(Stage.PARKED, current.transition_id or current.id)
    return Standing(Stage.UNTOUCHED, park_id_of_state(current.id))


def _is_parked(current: RunState, park_ids: list[UUID]) -> bool:
    return current.type is StateType.SCHEDULED and current.transition_id in park_ids


def _throws_back(state: RunState) -> bool:
    by_a_limit = CONCURRENCY_CANCELLATION in state.message.lower()
    return state.type is StateType.CRASHED or (state.type is StateType.CANCELLED and by_a_limit)
