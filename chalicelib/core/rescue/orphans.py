"""From state instead of events: which runs look alive with no task, and which task tells why.

`sweep` asks here what to judge a run by; the judging is `core/rescue/decide.py`'s, as for an event.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from chalicelib.core.model.ecs_task import (
    FARGATE_SPOT,
    NO_CAPACITY_REASON,
    Task,
    classify,
    was_interrupted,
)
from chalicelib.core.model.flow_run import FlowRun, RunState, StateType
from chalicelib.core.model.run_record import Interruption, RunRecord
from chalicelib.core.rescue.rerun_state import park_id_of_state, park_ids_of, was_made_due
from chalicelib.core.rescue.snapshot import is_on_demand

FORGOTTEN_AFTER: Final = timedelta(hours=1)
"""How long ECS remembers a stopped task."""


def noted_task(run: FlowRun) -> tuple[str, str]:
    """Return cluster and ARN of the task that the worker noted on the run; empty without one."""
    cluster, _, arn = (run.infrastructure_pid or "").rpartition("::")
    return cluster, arn


def by_flow_run(tasks: Iterable[Task]) -> Mapping[UUID, tuple[Task, ...]]:
    """Group tasks by flow run, the newest of each first."""
    groups: dict[UUID, list[Task]] = {}
    for task in tasks:
        if task.flow_run_id is not None:
            groups.setdefault(task.flow_run_id, []).append(task)
    return {run: tuple(sorted(group, key=_age, reverse=True)) for run, group in groups.items()}


def lives(task: Task) -> bool:
    """Whether the task's flow may still be at work."""
    return not task.exited


def evidence(
    run: FlowRun,
    history: Sequence[RunState],
    known: Sequence[Task],
    record: RunRecord,
    now: datetime,
) -> Task | None:
    """Return the task to judge a run by that no live task runs; None when it is to be let alone.

    `known`: the tasks of the run that ECS still knows, newest first; none of them lives.
    """
    match run.state.type:
        case StateType.RUNNING | StateType.PENDING | StateType.CANCELLING:
            return _of_an_abandoned_run(run, history, known, now)
        case StateType.SCHEDULED:
            return _of_a_parked_run(run, history, record)
        case StateType.CRASHED | StateType.CANCELLED:
            return _of_a_run_that_was_ended(run, history, known, record)
        case _:
            return None


def _of_an_abandoned_run(
    run: FlowRun,
    history: Sequence[RunState],
    known: Sequence[Task],
    now: datetime,
) -> Task | None:
    """The newest task that has not been answered yet; else one that stands for what is gone."""
    unanswered = [task for task in known if not was_made_due(task.arn, history)]
    if unanswered:
        return unanswered[0]
    cluster, arn = noted_task(run)
    if not arn or was_made_due(arn, history):
        arn = f"prefect-spot:unseen-task-of:{run.state.id}"
    since = history[-1].timestamp
    gone = Task(
        arn=arn,
        cluster_arn=cluster,
        last_status="STOPPED",
        capacity_provider="" if is_on_demand(run) else FARGATE_SPOT,
        flow_run_id=run.id,
        updated_at=since,
    )
    if run.state.type in (StateType.PENDING, StateType.CANCELLING):
        return replace(gone, never_seen=True)
    return replace(gone, forgotten=True) if now - since > FORGOTTEN_AFTER else None


def _of_a_parked_run(run: FlowRun, history: Sequence[RunState], record: RunRecord) -> Task | None:
    """The task, or the refused placement, whose rerun somebody began and did not finish."""
    parked_with = run.state.transition_id
    for interruption in record.interruptions.values():
        if parked_with in park_ids_of(interruption.task_arn, history):
            return _as_task(run, interruption)
    refused = [state for state in history if park_id_of_state(state.id) == parked_with]
    return _refused_task(run, refused[0]) if refused else None


def _of_a_run_that_was_ended(
    run: FlowRun, history: Sequence[RunState], known: Sequence[Task], record: RunRecord
) -> Task | None:
    """A refusal of Spot; an interruption nobody answered; a rerun that was thrown back."""
    if run.state.type is StateType.CRASHED and NO_CAPACITY_REASON in run.state.message:
        return None if is_on_demand(run) else _refused_task(run, run.state)
    newest = known[0] if known else None
    if newest is not None and not was_made_due(newest.arn, history):
        warned = record.warned_of(newest.arn)
        return newest if was_interrupted(classify(newest, warned=warned)) else None
    last = max(record.interruptions.values(), key=lambda i: i.number, default=None)
    if last is None or (newest is not None and newest.arn != last.task_arn):
        return None
    return _as_task(run, last)


def _as_task(run: FlowRun, interruption: Interruption) -> Task:
    return Task(
        arn=interruption.task_arn,
        cluster_arn=interruption.cluster_arn,
        last_status="STOPPED",
        stop_code=interruption.stop_code,
        stopped_reason=interruption.reason,
        capacity_provider=interruption.capacity,
        availability_zone=interruption.availability_zone,
        flow_run_id=run.id,
        execution_stopped_at=interruption.exited_at,
    )


def _refused_task(run: FlowRun, state: RunState) -> Task:
    """Stand for the task that RunTask refused: there never was one."""
    return Task(
        arn=f"prefect-spot:refused-task-of:{state.id}",
        cluster_arn="",
        last_status="STOPPED",
        stop_code="TaskFailedToStart",
        stopped_reason=NO_CAPACITY_REASON,
        capacity_provider=FARGATE_SPOT,
        flow_run_id=run.id,
        updated_at=state.timestamp,
    )


def _age(task: Task) -> datetime:
    return task.created_at or datetime.min.replace(tzinfo=UTC)
