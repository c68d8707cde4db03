"""The `react` Lambda: one ECS task state change, as EventBridge delivers it.

Most events are no interruption; these are ignored here, at the cost of at most one read of the
table and no request to Prefect.
"""

from chalicelib.core.model.ecs_task import (
    Ignored,
    Task,
    classify,
    completed_by,
    in_clusters,
    parse_event,
    was_interrupted,
)
from chalicelib.core.ports import Context
from chalicelib.core.rescue.actions import Decision, Verdict
from chalicelib.functions.rescue import rescue


def react(context: Context, event: object) -> Decision:
    """Handle one event; return the decision.

    Raises:
        PrefectSpotError: retryable; also botocore's errors, from the table or ECS.
    """
    parsed = parse_event(event)
    if isinstance(parsed, Ignored):
        return _ignored(context, parsed.reason)
    if not in_clusters(parsed, context.clusters, context.account):
        return _ignored(context, "the task is in none of our clusters", parsed)
    task = _completed(context, parsed)
    if task.flow_run_id is None:
        return _ignored(context, "the task belongs to no flow run", task)
    if not was_interrupted(classify(task, warned=False)):
        record = context.records.read(task.flow_run_id)
        if not record.warned_of(task.arn):
            return _ignored(context, "a stop without a Spot warning is left to Prefect", task)
    return rescue(context, task.flow_run_id, task)


def _completed(context: Context, task: Task) -> Task:
    """Ask ECS for what the event lacks: always the tags, and in the guide's example nearly all."""
    if task.flow_run_id is not None and task.created_at is not None:
        return task
    described = context.tasks.describe(task.cluster_arn, task.arn)
    return completed_by(task, described) if described else task


def _ignored(context: Context, reason: str, task: Task | None = None) -> Decision:
    context.log.info(
        "decided",
        decision=Verdict.IGNORE.value,
        reason=reason,
        task_arn=task.arn if task else None,
        flow_run_id=str(task.flow_run_id) if task and task.flow_run_id else None,
    )
    return Decision(Verdict.IGNORE, reason)
