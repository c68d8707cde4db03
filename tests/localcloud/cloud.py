"""What the tests of the embedded cloud say often: run a task, look at it, wait for it."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from localcloud.aws import EmulatedAws
from localcloud.fargate import Fargate


def wait_until(condition: Callable[[], Any], seconds: float = 15.0) -> Any:
    """Return the condition's first true value; fail when there is none in time."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {condition}"
        time.sleep(0.02)
    return value


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")  # on Linux, a zombie nobody waited for is no life
    return not (stat.exists() and stat.read_text().rsplit(")", 1)[1].split()[0] == "Z")


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
        definition = {
            "name": "prefect",
            "image": "prefecthq/prefect",
            "memory": 512,
            "command": ["python", "-u", "-c", code],
            **container,
        }
        answer = self.aws.client("ecs").register_task_definition(
            family="flow",
            requiresCompatibilities=["FARGATE"],
            networkMode="awsvpc",
            cpu="512",
            memory="1024",
            containerDefinitions=[definition],
        )
        return str(answer["taskDefinition"]["taskDefinitionArn"])

    def run_task(self, definition: str, **request: Any) -> dict[str, Any]:
        """RunTask, on Spot unless the request says otherwise."""
        if "launchType" not in request:
            request.setdefault(
                "capacityProviderStrategy", [{"capacityProvider": "FARGATE_SPOT", "weight": 1}]
            )
        request = {"cluster": self.cluster, "networkConfiguration": self.network, **request}
        return dict(self.aws.client("ecs").run_task(taskDefinition=definition, **request))

    def run(self, definition: str, **request: Any) -> str:
        """RunTask; return the one task's ARN."""
        answer = self.run_task(definition, **request)
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
