"""The `react` Lambda: one ECS task state change, as EventBridge delivers it.

Most events are no interruption; these are ignored here, at the cost of at most one read of the
table and no request to Prefect.
"""

from chalicelib.core.model.ecs_task import (
    Cause,
    Ignored,
    Task,
    completed_by,
    parse_event,
    reason_to_ignore,
)
from chalicelib.core.ports import Context
from chalicelib.core.rescue.actions import Decision, Verdict
from chalicelib.core.rescue.snapshot import cause_of
from chalicelib.errors import PrefectNotNowError
from chalicelib.functions.rescue import rescue


def react(context: Context, event: object) -> Decision:
    """Handle one event; return the decision. Raises PrefectSpotError and botocore's errors.

    While the stage is paused it does nothing; `sweep` repairs the run once that has ended.
    """
    task = parse_event(event)
    if isinstance(task, Ignored):
        return _ignored(context, task.reason)
    if reason := reason_to_ignore(task, *context.scope):
        return _ignored(context, reason, task)
    if task.flow_run_id is None or task.created_at is None:  # ECS has the tags, events never
        described = context.tasks.describe(task.cluster_arn, task.arn)
        task = completed_by(task, described) if described else task
        if reason := reason_to_ignore(task, *context.scope):
            return _ignored(context, reason, task)
    if task.flow_run_id is None:
        return _ignored(context, "the task belongs to no flow run", task)
    is_ours = cause_of(task, warned=False) is not Cause.OTHER
    if not is_ours and not context.records.read(task.flow_run_id).warned_of(task.arn):
        return _ignored(context, "a stop without a Spot warning is left to Prefect", task)
    if pause := context.paused():
        return _ignored(context, str(pause), task, Verdict.PAUSED)
    try:
        decision = rescue(context, task.flow_run_id, task)
    except PrefectNotNowError as error:
        # No sweep finds the warning of a task that exits by itself: Lambda keeps its event.
        error.lasts = error.lasts or not task.exited
        raise
    if not task.exited and (ended := _ended_meanwhile(context, task)):
        return rescue(context, task.flow_run_id, ended)
    return decision


def _ended_meanwhile(context: Context, task: Task) -> Task | None:
    """Return the task of a warning, now on record, if it has ended; None if not, or if unknown.

    The event about its end may have been ignored: a container that exits by itself ends without a
    word of Spot, and its handler reads the record. The one that comes second sees the other.
    """
    try:
        described = context.tasks.describe(task.cluster_arn, task.arn)
    except Exception:  # the warning is on record, and the next sweep looks at the task
        context.log.exception("describing a warned task failed", task_arn=task.arn)
        return None
    return completed_by(task, described) if described and described.exited else None


def _ignored(
    context: Context, reason: str, task: Task | None = None, verdict: Verdict = Verdict.IGNORE
) -> Decision:
    decision, run_id = Decision(verdict, reason), task.flow_run_id if task else None
    context.log.info(
        "decided",
        **decision.summary,
        task_arn=task.arn if task else None,
        flow_run_id=str(run_id) if run_id else None,
    )
    return decision
