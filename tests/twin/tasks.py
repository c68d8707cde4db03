"""ECS's tasks in memory; passes the adapter's own tests, beside ECS in moto."""

from collections.abc import Sequence
from dataclasses import dataclass

from chalicelib.core.model.ecs_task import Task


@dataclass
class InMemoryTasks:
    """`core.ports.Tasks` of one cluster. `shows_stopped`: whether stopped tasks are listed."""

    tasks: dict[str, Task]
    shows_stopped: bool = True

    def describe(self, cluster: str, task_arn: str) -> Task | None:
        return self.tasks.get(task_arn)

    def describe_many(self, cluster: str, task_arns: Sequence[str]) -> dict[str, Task]:
        return {arn: self.tasks[arn] for arn in task_arns if arn in self.tasks}

    def all_of(self, cluster: str) -> tuple[Task, ...]:
        return tuple(self.tasks.values())

    def stopped_of(self, cluster: str) -> tuple[Task, ...]:
        stopped = [task for task in self.tasks.values() if task.desired_status == "STOPPED"]
        return tuple(stopped if self.shows_stopped else ())
