"""ECS services on the laptop: how the Prefect worker is started, and started again.

Each pass over moto's services and tasks runs what is missing and stops what is surplus. A new task
definition is a new deployment; the tasks of the one before it go on until the new ones are healthy
(`minimumHealthyPercent` 100, as the stack has it).

The deployment circuit breaker counts as the ECS developer guide says ("How the Amazon ECS
deployment circuit breaker detects failures"), with its defaults, as the stack has it on:

- The deployment has failed when half of `desiredCount`, rounded up, at least 3 and at most 200,
  tasks have failed.
- Stage 1: a task that does not reach RUNNING counts, as long as no task of the deployment is
  RUNNING. Only consecutive ones do: one that reaches RUNNING sets the count to 0.
- Stage 2: a running task that is replaced because its health check failed counts. A healthy task
  sets the count to 0; where the container has no check, RUNNING is healthy.

So a container that starts and exits before its health check failed counts nowhere, and its
deployment stays IN_PROGRESS: the API reference counts the same way (Deployment, `failedTasks`).
That is disputed. In aws/containers-roadmap#1206 users saw such tasks never counted; AWS answered
there in 2021 that one which fails before its health is reported no longer sets the count to 0, and
that a service with health checks is given up; AWS's re:Post names tasks that stopped among the
causes of a broken circuit. The emulated ECS counts no such task, the worst case: no test may rely
on ECS to give up a worker that exits at once, as it does when Prefect answers with a 4xx.
"""

import math
import uuid
from collections.abc import Callable, Iterable
from typing import Any

from moto.ecs.models import EC2ContainerServiceBackend, Service, Task

from localcloud.containers import Description
from localcloud.moto_additions import run_tasks

UNHEALTHY = "Task failed container health checks"
"""ECS's reason for stopping a service's task (ECS developer guide, "stopped task errors")."""


def threshold(desired_count: int) -> int:
    """Return how many failed tasks make a deployment fail: the guide's BOUNDED_PERCENT of 50."""
    return min(200, max(3, math.ceil(desired_count / 2)))


def failures_of(tasks: Iterable[Description], *, is_checked: bool) -> int:
    """Return how many of a deployment's tasks count as failed now.

    `tasks`: as DescribeTasks has them, times as datetimes. `is_checked`: their container has a
    health check.
    """
    events = []
    for task in tasks:
        started, stopped = task.get("startedAt"), task.get("stoppedAt")
        if started:
            is_healthy = not is_checked or task["healthStatus"] == "HEALTHY"
            events.append((started, "healthy" if is_healthy else "running"))
        if stopped and started:
            is_unhealthy = task.get("stoppedReason") == UNHEALTHY
            events.append((stopped, "unhealthy" if is_unhealthy else "exited"))
        if stopped and task.get("stopCode") == "TaskFailedToStart":
            events.append((stopped, "not started"))
    running = not_started = unhealthy = 0
    for _, event in sorted(events):
        match event:
            case "running" | "healthy":
                running += 1
                not_started = 0
                unhealthy *= event == "running"
            case "unhealthy" | "exited":
                running -= 1
                unhealthy += event == "unhealthy"
            case "not started":
                not_started += not running
    return not_started + unhealthy


def reconcile_services(
    backend: EC2ContainerServiceBackend,
    stop: Callable[[str, str], None],
    describe: Callable[[Task], Description],
) -> None:
    """Bring every service one step nearer to `desiredCount` tasks of its present definition.

    `stop` stops a task by its ARN, with a reason; `describe` returns what DescribeTasks says of it.
    """
    for service in list(backend.services.values()):
        definition = str(backend.describe_task_definition(str(service.task_definition)).arn)
        deployment = _deployment_of(service, definition)
        given_up = deployment["rolloutState"] == "FAILED"
        is_active = service.status == "ACTIVE"
        desired = service.desired_count if is_active and not given_up else 0
        tasks = _tasks_of(backend, service, "RUNNING")
        for task in tasks:
            if describe(task)["healthStatus"] == "UNHEALTHY":
                stop(task.task_arn, UNHEALTHY)
        tasks = [task for task in tasks if task.desired_status == "RUNNING"]
        current = [task for task in tasks if task.task_definition_arn == definition]
        outdated = [task for task in tasks if task.task_definition_arn != definition]
        for _ in range(desired - len(current)):
            request = {
                "cluster": service.cluster_name,
                "taskDefinition": definition,
                "launchType": "FARGATE",
                "networkConfiguration": service.network_configuration,
                "startedBy": deployment["id"],
                "group": _group(service),
                "tags": service.tags,
            }
            placed, _refused = run_tasks(backend, request)
            current += placed
        is_replaced = _report(backend, service, current[:desired], outdated, describe)
        surplus = outdated if is_replaced or not is_active else []
        for task in [*surplus, *current[desired:]]:
            stop(task.task_arn, f"Scaling activity initiated by (deployment {deployment['id']})")


def _tasks_of(backend: EC2ContainerServiceBackend, service: Service, status: str) -> list[Task]:
    tasks = list(backend.tasks.get(service.cluster_name, {}).values())
    return [t for t in tasks if t.group == _group(service) and t.desired_status == status]


def _group(service: Service) -> str:
    return f"service:{service.name}"


def _deployment_of(service: Service, definition: str) -> dict[str, Any]:
    """Return the service's deployment; a new one when the task definition is another."""
    deployment: dict[str, Any] = service.deployments[0]
    if deployment["taskDefinition"] != definition:
        deployment.update(
            id=f"ecs-svc/{uuid.uuid4().int % 10**19}",
            taskDefinition=definition,
            rolloutState="IN_PROGRESS",
            failedTasks=0,
        )
    return deployment


def _report(
    backend: EC2ContainerServiceBackend,
    service: Service,
    tasks: list[Task],
    outdated: list[Task],
    describe: Callable[[Task], Description],
) -> bool:
    """Set DescribeServices' counts; for moto, every service runs as soon as it is updated.

    Return whether the deployment has all its tasks, and they are healthy.
    """
    running = sum(task.last_status == "RUNNING" for task in tasks)
    service.running_count = running + sum(task.last_status == "RUNNING" for task in outdated)
    service.pending_count = len(tasks) - running
    deployment: dict[str, Any] = service.deployments[0]
    definition = backend.describe_task_definition(deployment["taskDefinition"])
    is_checked = bool(definition.container_definitions[0].get("healthCheck"))
    stopped = [
        t for t in _tasks_of(backend, service, "STOPPED") if t.started_by == deployment["id"]
    ]
    failed = failures_of(map(describe, [*stopped, *tasks]), is_checked=is_checked)
    deployment.update(runningCount=running, pendingCount=len(tasks) - running, failedTasks=failed)
    healthy = [t for t in tasks if not is_checked or describe(t)["healthStatus"] == "HEALTHY"]
    is_whole = running == len(healthy) == service.desired_count
    if deployment["rolloutState"] == "IN_PROGRESS":
        if is_whole:
            deployment["rolloutState"] = "COMPLETED"
        elif failed >= threshold(service.desired_count):
            deployment["rolloutState"] = "FAILED"
    return is_whole
