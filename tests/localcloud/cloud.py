"""What the tests of the embedded cloud do often: run a task, read about it, wait for it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import psutil

from localcloud.aws import EmulatedAws
from localcloud.cloud import wait_for
from localcloud.fargate import Fargate


def wait_until(condition: Callable[[], Any], seconds: float = 15.0) -> Any:
    """Return the condition's first true value; fail when there is none in time."""
    return wait_for(str(condition), seconds, condition, 0.02)


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@dataclass
class Cloud:
    """A Fargate with its cluster, and all the events it sent."""

    aws: EmulatedAws
    fargate: Fargate
    cluster: str
    network: dict[str, Any]
    events: list[dict[str, Any]] = field(default_factory=list)

    def define(self, code: str = "", **container: Any) -> str:
        """Register a task definition that runs Python code; return its ARN."""
        command = ["python", "-u", "-c", code]
        definition = {
            "name": "prefect",
            "image": "x",
            "memory": 512,
            "command": command,
            **container,
        }
        answer = self.aws.client("ecs").register_task_definition(
            family="flow",
            requiresCompatibilities=["FARGATE"],
            networkMode="awsvpc",
            cpu="512",
            memory="1024",
            containerDefinitions=[definition],
            runtimePlatform={"cpuArchitecture": "ARM64"},
        )
        return str(answer["taskDefinition"]["taskDefinitionArn"])

    def run(self, definition: str, **request: Any) -> str:
        """RunTask on Spot; return the task's ARN."""
        strategy = [{"capacityProvider": "FARGATE_SPOT", "weight": 1}]
        answer = self.aws.client("ecs").run_task(
            cluster=self.cluster,
            taskDefinition=definition,
            networkConfiguration=self.network,
            capacityProviderStrategy=strategy,
            **request,
        )
        assert answer["failures"] == []
        return str(answer["tasks"][0]["taskArn"])

    def describe(self, task_arn: str) -> dict[str, Any]:
        answer = self.aws.client("ecs").describe_tasks(cluster=self.cluster, tasks=[task_arn])
        return dict(answer["tasks"][0])

    def await_status(self, task_arn: str, status: str) -> dict[str, Any]:
        wait_until(lambda: self.describe(task_arn)["lastStatus"] == status)
        return self.describe(task_arn)

    def await_output(self, task_arn: str, text: str) -> str:
        log = self.fargate.log_of(task_arn)
        wait_until(lambda: log.exists() and text in log.read_text())
        return log.read_text()

    def details(self, task_arn: str) -> list[dict[str, Any]]:
        """The details of the task's events, in the order of their sending."""
        return [e["detail"] for e in self.events if e["detail"]["taskArn"] == task_arn]
