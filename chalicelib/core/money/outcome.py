"""What became of an interruption, for the bill: rerun where, or not at all, or not known yet."""

from collections.abc import Sequence
from enum import StrEnum

from chalicelib.core.model.ecs_task import FARGATE, Task
from chalicelib.core.model.flow_run import RunState, StateType
from chalicelib.core.model.policy import Mode
from chalicelib.core.model.run_record import RunRecord
from chalicelib.core.rescue.rerun_state import was_made_due


class Outcome(StrEnum):
    """The answer to an attempt's end; WOULD_ is what observe mode left undone."""

    NONE = "none"
    UNDECIDED = "undecided"
    SPOT_RERUN = "spot-rerun"
    ON_DEMAND_RERUN = "on-demand-rerun"
    WOULD_SPOT_RERUN = "would-spot-rerun"
    WOULD_ON_DEMAND_RERUN = "would-on-demand-rerun"


def outcome_of_interruption(
    task: Task, history: Sequence[RunState], record: RunRecord, mode: Mode
) -> Outcome:
    """Tell what was done about a task that was interrupted.

    `history`: the run's states, oldest first, empty for a run that Prefect does not know. UNDECIDED
    means that `react` or `sweep` may still be at it.
    """
    interruption = record.interruptions.get(task.arn)
    if not history or history[-1].type is StateType.PAUSED:
        return Outcome.NONE
    if interruption is None:
        return Outcome.UNDECIDED
    on_demand = interruption.rerun_on == FARGATE
    if interruption.rerun_on and mode is Mode.OBSERVE:
        return Outcome.WOULD_ON_DEMAND_RERUN if on_demand else Outcome.WOULD_SPOT_RERUN
    if interruption.rerun_on and was_made_due(task.arn, history):
        return Outcome.ON_DEMAND_RERUN if on_demand else Outcome.SPOT_RERUN
    return Outcome.NONE if interruption.outcome_annotated else Outcome.UNDECIDED


def guards_of(task: Task, record: RunRecord, mode: Mode) -> tuple[str, str]:
    """Return the guards that put the rerun, and the run's first start, on demand; or would have.

    Each is empty for none; what is left undone in observe mode is told like what was done.
    """
    interruption, moved = record.interruptions.get(task.arn), record.moved
    took_effect = moved is not None and (task.capacity == FARGATE or mode is Mode.OBSERVE)
    return (
        interruption.guard if interruption else "",
        moved.guard if moved and took_effect else "",
    )


def outcome_of_other_stop(task: Task, record: RunRecord, mode: Mode) -> Outcome:
    """Tell whether this attempt itself is the rerun of one that Spot had no capacity for.

    Such an attempt never had a task, so it has no bill of its own to count its rerun by. A run that
    was moved before its start is on demand, and no rerun.
    """
    by_interruption = any(i.rerun_on == FARGATE for i in record.interruptions.values())
    for_another_reason = by_interruption or record.moved is not None
    after_refusal = record.next_capacity == FARGATE and not for_another_reason
    if after_refusal and task.capacity == FARGATE and mode is not Mode.OBSERVE:
        return Outcome.ON_DEMAND_RERUN
    return Outcome.NONE
