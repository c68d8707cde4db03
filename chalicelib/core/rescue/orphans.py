"""Orphaned runs, found from state instead of events: alive in Prefect, without a live task.

`sweep` asks here what to judge an orphaned run by; `core/rescue/judge.py` judges it, as it does an
event. What Spot did not end is explained here, each reason with what to do about it.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from chalicelib.core.model.ecs_task import FARGATE, FARGATE_SPOT, Cause, Task
from chalicelib.core.model.flow_run import FlowRun, Interruption, RunRecord, RunState, StateType
from chalicelib.core.model.policy import is_on_demand
from chalicelib.core.model.text import one_line
from chalicelib.core.rescue.rerun_state import (
    Progress,
    due_id,
    end_id,
    ended_before_crash,
    park_id_of_task,
    park_ids_of,
    rerun_state_of,
    was_made_due,
)
from chalicelib.core.rescue.snapshot import (
    CLOCKS_DIFFER,
    LONGEST_STOP,
    SUBMISSION,
    UNSEEN,
    FailedSubmission,
    Gone,
    Subject,
    cause_of,
    said_by,
    start_failure,
)
from chalicelib.core.rescue.start_failures import (
    ARCHITECTURE,
    UNRECOGNISED,
    is_submission_failure,
    start_failure_of,
)

FORGOTTEN_AFTER: Final = timedelta(hours=1)
"""How long ECS shows a stopped task."""
LONG_AGO: Final = datetime.min.replace(tzinfo=UTC)
MOST_NOTED: Final = 1024
"""Characters kept of a note: a longer one names no task, and would fill logs and the record."""


def noted_task(run: FlowRun) -> tuple[str, str]:
    """Return cluster and ARN of the task that the worker noted on the run; empty without one."""
    cluster, _, arn = (run.infrastructure_pid or "").rpartition("::")
    return cluster[:MOST_NOTED], arn[:MOST_NOTED]


def by_flow_run(tasks: Iterable[Task]) -> Mapping[UUID, tuple[Task, ...]]:
    """Return the tasks grouped by flow run, the newest of each first."""
    groups: dict[UUID, tuple[Task, ...]] = {}
    for task in sorted(tasks, key=lambda task: task.created_at or LONG_AGO, reverse=True):
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

    `known`: what `of_attempt` returns; all have exited. Of several, none of which was noted, one
    that calls for a rerun decides: `ecs:RunTask` is enough to add one that exits by itself.
    """
    known = sorted(known, key=lambda t: cause_of(t, warned=record.warned_of(t.arn)) is Cause.OTHER)
    match run.state.type:
        case StateType.RUNNING | StateType.PENDING | StateType.CANCELLING:
            return _of_a_live_run(run, history, known, record, now)
        case StateType.SCHEDULED if ours := _of_our_schedule(run, history, record):
            return ours
        case StateType.SCHEDULED if run.waits_in_process:
            return _of_a_live_run(run, history, known, record, now)
        case StateType.CRASHED | StateType.CANCELLED | StateType.FAILED:
            return _of_an_ended_run(run, history, known, record)
        case _:
            return None


def _of_a_live_run(
    run: FlowRun,
    history: Sequence[RunState],
    known: Sequence[Task],
    record: RunRecord,
    now: datetime,
) -> Subject | None:
    """Return this attempt's task; else what stands for one that is gone."""
    for task in known:
        if not was_made_due(task.arn, history):
            return task
    gone, age = _gone(run, history, record), now - history[-1].timestamp
    return None if gone.started and age <= FORGOTTEN_AFTER else gone


def _of_our_schedule(
    run: FlowRun, history: Sequence[RunState], record: RunRecord
) -> Subject | None:
    """Return what a parked rerun answers, or one that was made due and not looked at since."""
    current = run.state.transition_id
    for key in (*record.interruptions, *record.failed_starts):
        park_ids = park_ids_of(key, history)
        if current in park_ids or (
            current in set(map(due_id, park_ids)) and not is_annotated(record, key)
        ):
            return _recorded(run, record, key)
    submissions = (FailedSubmission(state.id, state.message) for state in history)
    return next((s for s in submissions if current == park_id_of_task(s.arn)), None)


def _of_an_ended_run(
    run: FlowRun, history: Sequence[RunState], known: Sequence[Task], record: RunRecord
) -> Subject | None:
    """Return an end that no handler has answered, or the task whose rerun was reverted.

    A worker of prefect-aws 0.5 calls the end of a task that it still waits for a failed submission;
    so that comes last, or one failure would count twice.
    """
    state, last, ended = run.state, _last_recorded(record), ended_before_crash(history)
    is_submission = state.type is StateType.CRASHED and is_submission_failure(state.message)
    newest = known[0] if known else None
    if newest is not None and not was_made_due(newest.arn, history):
        cause = cause_of(newest, warned=record.warned_of(newest.arn))
        if ended is not None:
            return newest
        says_why = is_submission and start_failure_of(state.message) is not UNRECOGNISED
        if cause is Cause.OTHER and newest.arn != last and not says_why:
            return None  # it died of something else, and Prefect says so
        if cause is not Cause.OTHER and not _is_settled(run, record, newest.arn):
            return newest
    if last and rerun_state_of(last, history).progress is Progress.REVERTED:
        return None if _has_newer_note(run, history, record) else _recorded(run, record, last)
    if is_submission:
        submission = FailedSubmission(state.id, state.message, _capacity_of(run))
        return None if is_annotated(record, submission.arn) else submission
    if last and (newest is None or newest.arn == last) and not _is_settled(run, record, last):
        return _recorded(run, record, last)
    if newest is None and ended and state.timestamp - ended.timestamp <= LONGEST_STOP:
        return _gone(
            run, history, record
        )  # no person is so quick: its engine crashed what had ended
    return None


def _is_settled(run: FlowRun, record: RunRecord, key: str) -> bool:
    """Whether that end is answered for good: a late warning may show that Spot made a run fail."""
    noted, state = record.interruptions.get(key), run.state
    if noted is None or noted.warned_at is None or state.type is not StateType.FAILED:
        return is_annotated(record, key)
    exited_at = noted.exited_at or noted.warned_at + LONGEST_STOP
    by_signal = noted.warned_at <= state.timestamp <= exited_at + CLOCKS_DIFFER
    return is_annotated(record, key) and bool(noted.rerun_on or not by_signal)


def _has_newer_note(run: FlowRun, history: Sequence[RunState], record: RunRecord) -> bool:
    """Whether a task is noted on the run that is not on record, and that no rerun has answered."""
    noted = noted_task(run)[1]
    is_known = noted in record.interruptions or noted in record.failed_starts
    return bool(noted) and not is_known and not was_made_due(noted, history)


def _capacity_of(run: FlowRun) -> str:
    return FARGATE if is_on_demand(run) else FARGATE_SPOT


def _gone(run: FlowRun, history: Sequence[RunState], record: RunRecord) -> Gone:
    """Return what stands for the run's newest task, which ECS shows no more, or never did.

    A worker that died may have left the note of an earlier attempt, whose end is answered.
    """
    cluster, arn = noted_task(run)
    ends = {end_id(arn, state.id) for state in history}
    is_ended = any(state.transition_id in ends for state in history)
    if not arn or is_ended or was_made_due(arn, history) or is_annotated(record, arn):
        arn = f"{UNSEEN}{run.state.id}"
    started = run.state.type not in (StateType.PENDING, StateType.CANCELLING)
    return Gone(arn, cluster, _capacity_of(run), started)


def _last_recorded(record: RunRecord) -> str:
    """Return the key of what was recorded last; empty for an empty record."""
    times = {key: each.recorded_at or LONG_AGO for key, each in record.interruptions.items()}
    times |= {key: each.recorded_at or LONG_AGO for key, each in record.failed_starts.items()}
    return max(times, key=lambda key: times[key], default="")


def is_annotated(record: RunRecord, key: str) -> bool:
    """Whether the outcome of that task, or of what stands for one, is annotated on the run."""
    interruption, failed = record.interruptions.get(key), record.failed_starts.get(key)
    return bool((interruption and interruption.outcome_annotated) or (failed and failed.annotated))


def _recorded(run: FlowRun, record: RunRecord, key: str) -> Subject:
    """Return the subject as the record keeps it: ECS may have forgotten it."""
    if interruption := record.interruptions.get(key):
        return _recorded_task(run, interruption)
    failed = record.failed_starts[key]
    with suppress(ValueError):
        if key.startswith(SUBMISSION):
            id_ = UUID(key.removeprefix(SUBMISSION))
            return FailedSubmission(id_, failed.reason, failed.capacity)
    if not key.startswith("arn:"):
        return Gone(key, "", failed.capacity, started=False)
    died = failed.lost_start > 0
    return Task(
        arn=key,
        cluster_arn="",
        last_status="STOPPED",
        stop_code="InfrastructureHealth" if died else "TaskFailedToStart",
        stopped_reason=failed.reason,
        capacity_provider=failed.capacity,
        flow_run_id=run.id,
        started_at=failed.recorded_at if died else None,
    )


def _recorded_task(run: FlowRun, interruption: Interruption) -> Task:
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
AT_ONCE: Final = timedelta(seconds=5)
"""In which a process ends that cannot be executed; Prefect's takes as long to be loaded."""


def exited_at_once(task: Task) -> bool:
    """Whether a task ended as of an image for another CPU architecture: ECS gives no reason then.

    Exit code 1 (re:Post, "exec format error"), or 255, as of newer container runtimes.
    """
    since, until = task.started_at, task.exited_at
    took = until - since if since and until else timedelta()
    is_code = task.stop_code == "EssentialContainerExited" and task.exit_code in (1, 255)
    return is_code and took <= AT_ONCE


def explain(subject: Subject, *, unheard: bool = False) -> str:
    """Return why it ended and what to do, with ECS's or the worker's own reason cut to a line.

    `unheard`: Prefect never heard of the flow's process.
    """
    said = said_by(subject)
    if (failure := start_failure(subject)) is not None:
        quoted = f" ({one_line(said)})" if said else ""
        return f"the start failed: {failure.what}{quoted}. What to do: {failure.remedy}"
    if not isinstance(subject, Task):
        return (
            "no ECS task found for this run (ECS keeps stopped tasks for about an hour): retry the"
            " run"
        )
    signs = f"{subject.stop_code} {said}"
    what, remedy = next((found for sign, found in _BY_SIGN.items() if sign in signs), _UNKNOWN)
    if (start := start_failure_of(signs)) is not UNRECOGNISED:
        what, remedy = start.what, start.remedy
    elif unheard and exited_at_once(subject):
        what = "its container exited at once, before its flow reported to Prefect: most likely"
        what += f" {ARCHITECTURE.what}, {subject.architecture}"
        remedy = f"where the container's log has 'exec format error', {ARCHITECTURE.remedy}"
    code = "" if subject.exit_code is None else f", exit code {subject.exit_code}"
    quoted = f" ({one_line(said)}{code})" if said or code else ""
    return f"the ECS task ended, not by Spot: {what}{quoted}. What to do: {remedy}"
