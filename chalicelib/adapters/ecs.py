"""ECS's own word about tasks, for what an event does not carry: tags, and other tasks of a run."""

from typing import TYPE_CHECKING

from chalicelib.core.task import Ignored, Task, parse_task

if TYPE_CHECKING:
    from mypy_boto3_ecs import ECSClient


class EcsTasks:
    """Reads tasks through DescribeTasks."""

    def __init__(self, client: "ECSClient") -> None:
        self._client = client

    def describe(self, cluster_arn: str, task_arn: str) -> Task | None:
        """Return the task with its tags; None when ECS has forgotten it (after about an hour).

        Raises whatever botocore raises, throttling included, after botocore's own retries.
        """
        answer = self._client.describe_tasks(
            cluster=cluster_arn, tasks=[task_arn], include=["TAGS"]
        )
        for described in answer["tasks"]:
            task = parse_task(described)
            if not isinstance(task, Ignored):
                return task
        return None
