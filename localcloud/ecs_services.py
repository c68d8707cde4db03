"""ECS services on the laptop: how the Prefect worker is started, and started again.

Each pass over moto's services and tasks runs what is missing and stops what is surplus. A new task
definition is a new deployment; one whose tasks fail is given up, as with a
DeploymentCircuitBreaker, which the stack's worker has.
"""

import uuid
from collections.abc import Callable
from typing import Any

from moto.ecs.models import EC2ContainerServiceBackend, Service, Task

from localcloud.moto_additions import run_tasks

FAILURES_THAT_BREAK_THE_CIRCUIT = 3
"""ECS's least, whatever the desired count."""


def reconcile_services(
    backend: EC2ContainerServiceBackend, stop: Callable[[str, str], None]
) -> None:
    """Bring every service one step nearer to `desiredCount` tasks of its present definition.

    `stop` stops a task by its ARN, with a reason.
    """
    for service in list(backend.services.values()):
        definition = str(backend.describe_task_definition(str(service.task_definition)).arn)
        deployment = _deployment_of(service, definition)
        given_up = deployment["rolloutState"] == "FAILED"
        desired = service.desired_count if service.status == "ACTIVE" and not given_up else 0
        tasks = _tasks_of(backend, service, "RUNNING")
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
        for task in [*outdated, *current[desired:]]:
            stop(task.task_arn, f"Scaling activity initiated by (deployment {deployment['id']})")
        _report(backend, service, current[:desired])


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


def _report(backend: EC2ContainerServiceBackend, service: Service, tasks: list[Task]) -> None:
    """Set DescribeServices' counts; for moto, every service runs as soon as it is updated."""
    running = sum(task.last_status == "RUNNING" for task in tasks)
    service.running_count = running
    service.pending_count = len(tasks) - running
    deployment: dict[str, Any] = service.deployments[0]
    failed = [
        task
        for task in _tasks_of(backend, service, "STOPPED")
        if (task.started_by, task.last_status) == (deployment["id"], "STOPPED")
    ]
    deployment.update(
        runningCount=running, pendingCount=len(tasks) - running, failedTasks=len(failed)
    )
    if deployment["rolloutState"] != "IN_PROGRESS":
        return
    definition = backend.describe_task_definition(deployment["taskDefinition"])
    is_checked = bool(definition.container_definitions[0].get("healthCheck"))
    healthy = [task for task in tasks if not is_checked or getattr(task, "is_healthy", False)]
    if running == len(healthy) == service.desired_count:
        deployment["rolloutState"] = "COMPLETED"
    elif len(failed) >= FAILURES_THAT_BREAK_THE_CIRCUIT:
        deployment["rolloutState"] = "FAILED"
