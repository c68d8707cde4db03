"""Which ECS tasks may be those of a run's present attempt: from its last pick-up by a worker on."""

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import dropwhile, takewhile
from typing import Final

from chalicelib.core.model.ecs_task import Task
from chalicelib.core.model.flow_run import FlowRun, RunState, StateType
from chalicelib.core.rescue.rerun_state import rerun_state_of
from chalicelib.core.rescue.snapshot import CLOCKS_DIFFER, RESTART_MARGIN

_LONG_AGO: Final = datetime.min.replace(tzinfo=UTC)


def picked_up_at(history: Sequence[RunState]) -> datetime:
    """Return when a worker last took the run; it may give it several PENDING states in a row."""
    pick_up = _pick_up(history)
    return pick_up.timestamp if pick_up else _LONG_AGO


def is_with_a_worker(history: Sequence[RunState]) -> bool:
    """Whether a worker made the run PENDING: an observer does, too, by a state of another name."""
    pick_up = _pick_up(history)
    return pick_up is not None and pick_up.name == "Pending"


def _pick_up(history: Sequence[RunState]) -> RunState | None:
    """Return the first of the last PENDING states in a row."""
    after = dropwhile(lambda state: state.type is not StateType.PENDING, reversed(history))
    pending = [*takewhile(lambda state: state.type is StateType.PENDING, after)]
    return pending[-1] if pending else None


def is_of_attempt(noted: Task, run: FlowRun, history: Sequence[RunState]) -> bool:
    """Whether the task noted on a run is this attempt's: a note of an earlier one stays.

    Then it is the run's, and no other that carries the run's id: a note takes the right to write in
    Prefect, an id in a tag or the environment no more than `ecs:RunTask`.
    """
    is_own = noted.flow_run_id in (None, run.id) and noted.created_at is not None
    is_later = is_own and _is_since(noted, picked_up_at(history))
    return is_later and not rerun_state_of(noted.arn, history).picked_up


def of_attempt(tagged: Sequence[Task], history: Sequence[RunState]) -> list[Task]:
    """Return those of a run's tagged tasks that may be this attempt's, where none is noted."""
    since = picked_up_at(history)
    return [t for t in tagged if _is_since(t, since) and not is_late(t, history)]


def is_late(task: Task, history: Sequence[RunState]) -> bool:
    """Whether the task was created after this attempt's engine had begun, so none of its worker's.

    Its worker asks for one between PENDING and RUNNING.
    """
    pick_up = _pick_up(history)
    attempt = history[history.index(pick_up) :] if pick_up else history
    began_at = next((s.timestamp for s in attempt if s.type is StateType.RUNNING), None)
    if began_at is None or task.created_at is None:
        return False
    return task.created_at - began_at > RESTART_MARGIN


def _is_since(task: Task, picked_up: datetime) -> bool:
    """Whether the task was created after a worker took the run: then it asks for one."""
    return task.created_at is None or picked_up - task.created_at < CLOCKS_DIFFER
