"""Orphaned runs, found from state instead of events: alive in Prefect, without a live task.

`sweep` asks here what to judge an orphaned run by; `core/rescue/judge.py` judges it, as it does an
event. What Spot did not end is explained here, each reason with what to do about it.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from chalicelib.core.model.ecs_task import (
    FARGATE,
    FARGATE_SPOT,
    NO_CAPACITY_REASON,
    Task,
    classify,
    was_interrupted,
)
from chalicelib.core.model.flow_run import FlowRun, Interruption, RunRecord, RunState, StateType
from chalicelib.core.model.policy import is_on_demand
from chalicelib.core.model.text import one_line
from chalicelib.core.rescue.snapshot import (
    Gone,
    Refusal,
    Subject,
    park_id_of_state,
    park_ids_of,
    was_made_due,
)
from chalicelib.core.rescue.start_failures import UNRECOGNISED, WORKER_DIED, start_failure_of

FORGOTTEN_AFTER: Final = timedelta(hours=1)
"""How long ECS shows a stopped task."""
MOST_NOTED: Final = 1024
"""Characters kept of a note: a longer one names no task, and would fill logs and the record."""


def noted_task(run: FlowRun) -> tuple[str, str]:
    """Return cluster and ARN of the task that the worker noted on the run; empty without one."""
    cluster, _, arn = (run.infrastructure_pid or "").rpartition("::")
    return cluster[:MOST_NOTED], arn[:MOST_NOTED]


def by_flow_run(tasks: Iterable[Task]) -> Mapping[UUID, tuple[Task, ...]]:
    """Return the tasks grouped by flow run, the newest of each first."""
    groups: dict[UUID, tuple[Task, ...]] = {}
    unknown = datetime.min.replace(tzinfo=UTC)
    for task in sorted(tasks, key=lambda task: task.created_at or unknown, reverse=True):
        if task.flow_run_id is not None:
            groups[task.flow_run_id] = (*groups.get(task.flow_run_id, ()), task)
    return groups


def subject_of(
    run: FlowRun,
    history: Sequence[RunState],
    known: Sequence[Task],
    record: RunRecord,
    now: datetime,
) -> Subject | None:
    """Return what to judge a run without a live task by; None when there is nothing to do.

    `known`: the run's tasks that ECS still shows, newest first; all have exited.
    """
    match run.state.type:
        case StateType.RUNNING | StateType.PENDING | StateType.CANCELLING:
            return _of_a_live_run(run, history, known, now)
        case StateType.SCHEDULED:
            return _of_a_parked_run(run, history, record)
        case StateType.CRASHED | StateType.CANCELLED:
            return _of_an_ended_run(run, history, known, record)
        case _:
            return None


def _of_a_live_run(
    run: FlowRun, history: Sequence[RunState], known: Sequence[Task], now: datetime
) -> Subject | None:
    """Return the newest task that no rerun has answered; else what stands for one that is gone."""
    for task in known:
        if not was_made_due(task.arn, history):
            return task
    cluster, arn = noted_task(run)
    if not arn or was_made_due(arn, history):
        arn = f"prefect-spot:unseen-task-of:{run.state.id}"
    started = run.state.type is StateType.RUNNING
    if started and now - history[-1].timestamp <= FORGOTTEN_AFTER:
        return None
    return Gone(arn, cluster, FARGATE if is_on_demand(run) else FARGATE_SPOT, started)


def _of_a_parked_run(
    run: FlowRun, history: Sequence[RunState], record: RunRecord
) -> Subject | None:
    """Return the task, or the refusal, whose rerun was begun and not completed."""
    parked_with = run.state.transition_id
    for interruption in record.interruptions.values():
        if parked_with in park_ids_of(interruption.task_arn, history):
            return _recorded_task(run, interruption)
    return Refusal() if parked_with in {park_id_of_state(s.id) for s in history} else None


def _of_an_ended_run(
    run: FlowRun, history: Sequence[RunState], known: Sequence[Task], record: RunRecord
) -> Subject | None:
    """Return a refusal, an interruption that no handler answered, or a reverted rerun's task."""
    if run.state.type is StateType.CRASHED and NO_CAPACITY_REASON in run.state.message:
        return None if is_on_demand(run) else Refusal()
    newest = known[0] if known else None
    if newest is not None and not was_made_due(newest.arn, history):
        warned = record.warned_of(newest.arn)
        return newest if was_interrupted(classify(newest, warned=warned)) else None
    last = max(record.interruptions.values(), key=lambda i: i.number, default=None)
    if last is None or (newest is not None and newest.arn != last.task_arn):
        return None
    return _recorded_task(run, last)


def _recorded_task(run: FlowRun, interruption: Interruption) -> Task:
    """Return the task as the record keeps it: ECS may have forgotten it."""
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


_BY_SIGN = {
    "OutOfMemory": ("it ran out of memory", "raise the deployment's `memory` job variable"),
    "Task failed ELB health checks": (
        "a load balancer found it unhealthy",
        "take flow runs out of the target group",
    ),
    "EssentialContainerExited": (
        "its container exited before Prefect had a final state",
        "look at the end of the container's log",
    ),
    "ServiceSchedulerInitiated": ("a service stopped it", "run flows outside of ECS services"),
    "TaskFailedToStart": (UNRECOGNISED.what, UNRECOGNISED.remedy),
}
"""What ends a task that has started, by a reason or a stop code; start_failures has the others."""
_UNKNOWN = ("it stopped", "look at the stopped task in ECS")


def explain(subject: Subject) -> str:
    """Return why it ended and what to do, with ECS's own reason cut to a line."""
    if isinstance(subject, Gone) and subject.started:
        return (
            "no ECS task found for this run (ECS keeps stopped tasks for about an hour): retry the"
            " run"
        )
    if not isinstance(subject, Task):
        return f"{WORKER_DIED.what}: {WORKER_DIED.remedy}"
    reasons = " ".join(filter(None, (subject.stopped_reason, subject.container_reason)))
    signs = f"{subject.stop_code} {reasons}"
    what, remedy = next((found for sign, found in _BY_SIGN.items() if sign in signs), _UNKNOWN)
    if (start := start_failure_of(signs)) is not UNRECOGNISED:
        what, remedy = start.what, start.remedy
    code = "" if subject.exit_code is None else f", exit code {subject.exit_code}"
    quoted = f" ({one_line(reasons)}{code})" if reasons or code else ""
    return f"the ECS task ended, not by Spot: {what}{quoted}. What to do: {remedy}"
