"""Tasks as ECS describes them, for what an event does not carry: tags, and a run's other tasks."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final, Literal

from chalicelib.core.model.ecs_task import Ignored, Task, parse_task
from chalicelib.errors import RETRY_LATER, PrefectSpotError

if TYPE_CHECKING:
    from mypy_boto3_ecs import ECSClient

MOST_TASKS: Final = 100
"""How many tasks ECS describes, and lists, per call."""


class EcsTasks:
    """Reads tasks through DescribeTasks and ListTasks.

    Every method raises whatever botocore raises, throttling and an unknown cluster included, after
    botocore's own retries; and PrefectSpotError when ECS says neither what a task is like nor that
    it is MISSING: a task that counted as forgotten by mistake would have its run started twice.
    """

    def __init__(self, client: "ECSClient") -> None:
        self._client = client

    def describe(self, cluster: str, task_arn: str) -> Task | None:
        """Return the task with its tags; None when ECS has forgotten it (after about an hour)."""
        return self.describe_many(cluster, [task_arn]).get(task_arn)

    def describe_many(self, cluster: str, task_arns: Sequence[str]) -> Mapping[str, Task]:
        """Return the tasks that ECS still knows, with tags, by ARN: one call per hundred."""
        wanted = list(dict.fromkeys(task_arns))
        tasks: dict[str, Task] = {}
        for start in range(0, len(wanted), MOST_TASKS):
            tasks.update(self._describe_hundred(cluster, wanted[start : start + MOST_TASKS]))
        return tasks

    def all_of(self, cluster: str) -> tuple[Task, ...]:
        """Return every task of the cluster, those stopped in the last hour included, with tags.

        At most two calls per hundred tasks, and two more.
        """
        # In this order a task that stops meanwhile is listed twice; in the other, not at all. ECS
        # gives no task a third desired status.
        arns = [*self._list(cluster, "RUNNING"), *self._list(cluster, "STOPPED")]
        return tuple(self.describe_many(cluster, arns).values())

    def stopped_of(self, cluster: str) -> tuple[Task, ...]:
        """Return the tasks of the cluster that were stopped in the last hour, with tags.

        At most two calls per hundred tasks, and one more. A task that is being stopped is among
        them.
        """
        return tuple(self.describe_many(cluster, [*self._list(cluster, "STOPPED")]).values())

    def _list(self, cluster: str, desired: Literal["RUNNING", "STOPPED"]) -> Iterator[str]:
        pages = self._client.get_paginator("list_tasks").paginate(
            cluster=cluster, desiredStatus=desired, PaginationConfig={"PageSize": MOST_TASKS}
        )
        for page in pages:
            yield from page["taskArns"]

    def _describe_hundred(self, cluster: str, arns: Sequence[str]) -> Mapping[str, Task]:
        answer = self._client.describe_tasks(cluster=cluster, tasks=arns, include=["TAGS"])
        parsed = map(parse_task, answer["tasks"])
        tasks = {task.arn: task for task in parsed if not isinstance(task, Ignored)}
        reasons = {failure.get("arn"): failure.get("reason") for failure in answer["failures"]}
        for arn in arns:
            if arn not in tasks and reasons.get(arn) != "MISSING":
                raise PrefectSpotError(
                    f"ECS did not describe task {arn}: {reasons.get(arn) or 'no reason given'}",
                    next_step=RETRY_LATER,
                )
        return tasks
