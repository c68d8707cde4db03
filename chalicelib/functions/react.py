"""The `react` Lambda: one ECS task state change, as EventBridge delivers it.

Most of what wakes it is no interruption; that is settled here, at the cost of one read of the
table at most, and nothing of Prefect.
"""

from chalicelib.core.context import Context
from chalicelib.core.model.ecs_task import (
    Ignored,
    Task,
    classify,
    completed_by,
    in_clusters,
    parse_event,
    was_interrupted,
)
from chalicelib.core.rescue.actions import Decision, Verdict
from chalicelib.functions.rescue import rescue


def react(context: Context, event: object) -> Decision:
    """Answer one event; return what was decided.

    Raises:
        PrefectSpotError: retryable; also botocore's errors, from the table or ECS.
    """
    told = parse_event(event)
    if isinstance(told, Ignored):
        return _ignored(context, told.reason)
    if not in_clusters(told, context.clusters, context.account):
        return _ignored(context, "the task is in none of our clusters", told)
    task = _completed(context, told)
    if task.flow_run_id is None:
        return _ignored(context, "the task belongs to no flow run", task)
    if not was_interrupted(classify(task, warned=False)):
        record = context.records.read(task.flow_run_id)
        if not record.warned_of(task.arn):
            return _ignored(context, "a stop without a Spot warning is left to Prefect", task)
    return rescue(context, task.flow_run_id, task)


def _completed(context: Context, told: Task) -> Task:
    """Ask ECS for what the event lacks: tags, always; in the guide's example nearly all."""
    if told.flow_run_id is not None and told.created_at is not None:
        return told
    described = context.tasks.describe(told.cluster_arn, told.arn)
    return completed_by(told, described) if described else told


def _ignored(context: Context, reason: str, task: Task | None = None) -> Decision:
    context.log.info(
        "decided",
        decision=Verdict.IGNORE.value,
        reason=reason,
        task_arn=task.arn if task else None,
        flow_run_id=str(task.flow_run_id) if task and task.flow_run_id else None,
    )
    return Decision(Verdict.IGNORE, reason)
