"""ECS's tasks in memory; passes the adapter's own tests, beside ECS in moto."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from chalicelib.core.model.ecs_task import Task
from chalicelib.core.ports import Undescribed
from chalicelib.errors import PrefectSpotError
from tests.make import TASK_ARN

IDENTIFIER = re.compile(re.escape(TASK_ARN.rpartition(":")[0]) + r":task/[\w-]+/[\w-]+", re.ASCII)
"""The ARNs that ECS takes: those of its own partition, region and account."""


@dataclass
class InMemoryTasks:
    """`core.ports.Tasks` of one cluster. `shows_stopped`: whether stopped tasks are listed."""

    tasks: dict[str, Task]
    shows_stopped: bool = True

    def describe(self, cluster: str, task_arn: str) -> Task | None:
        task = self.describe_many(cluster, [task_arn]).get(task_arn)
        if isinstance(task, Undescribed):
            raise PrefectSpotError(task.reason, next_step="none")
        return task

    def describe_many(
        self, cluster: str, task_arns: Sequence[str]
    ) -> dict[str, Task | Undescribed]:
        odd = Undescribed("ECS refuses to describe its task: InvalidParameterException")
        wanted = dict.fromkeys(task_arns)
        known = [arn for arn in wanted if arn in self.tasks or not IDENTIFIER.fullmatch(arn)]
        return {arn: self.tasks.get(arn, odd) for arn in known}

    def all_of(self, cluster: str) -> tuple[Task, ...]:
        return tuple(self.tasks.values())

    def stopped_of(self, cluster: str) -> tuple[Task | Undescribed, ...]:
        stopped = [task for task in self.tasks.values() if task.desired_status == "STOPPED"]
        return tuple(stopped if self.shows_stopped else ())
