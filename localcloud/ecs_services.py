"""ECS services on the laptop: how the Prefect worker comes up, and comes up again.

One look at moto's services and tasks, and what is missing is run, what is too much is stopped.
"""

from __future__ import annotations

from typing import Any, Protocol

from moto.ecs.models import EC2ContainerServiceBackend, Service, Task

from localcloud.moto_additions import run_tasks


class StopsTasks(Protocol):
    """What is asked of Fargate here."""

    def __call__(self, task_arn: str, *, reason: str, stop_code: str) -> None:
        """Stop a task by its ARN."""


def reconcile_services(backend: EC2ContainerServiceBackend, stop: StopsTasks) -> None:
    """Bring every service one step nearer to `desiredCount` tasks of its present definition."""
    for service in list(backend.services.values()):
        desired = service.desired_count if service.status == "ACTIVE" else 0
        definition = str(backend.describe_task_definition(str(service.task_definition)).arn)
        deployment = str(_deployment(service).get("id", ""))
        tasks = _tasks_of(backend, service)
        current = [task for task in tasks if task.task_definition_arn == definition]
        outdated = [task for task in tasks if task.task_definition_arn != definition]
        for _ in range(desired - len(current)):
            placed, _refused = run_tasks(
                backend,
                cluster=service.cluster_name,
                task_definition=definition,
                launch_type="FARGATE",
                network=service.network_configuration or None,
                started_by=deployment,
                group=_group(service),
                tags=service.tags,
            )
            current += placed
        for task in [*outdated, *current[desired:]]:
            stop(
                task.task_arn,
                reason=f"Scaling activity initiated by (deployment {deployment})",
                stop_code="ServiceSchedulerInitiated",
            )
        _report(service, current[:desired])


def _tasks_of(backend: EC2ContainerServiceBackend, service: Service) -> list[Task]:
    return [
        task
        for task in list(backend.tasks.get(service.cluster_name, {}).values())
        if task.group == _group(service) and task.desired_status == "RUNNING"
    ]


def _group(service: Service) -> str:
    return f"service:{service.name}"


def _report(service: Service, tasks: list[Task]) -> None:
    """DescribeServices' counts; moto believes every service to run as soon as it is updated."""
    running = sum(task.last_status == "RUNNING" for task in tasks)
    service.running_count = running
    service.pending_count = len(tasks) - running
    settled = running == service.desired_count
    _deployment(service).update(
        runningCount=running,
        pendingCount=len(tasks) - running,
        rolloutState="COMPLETED" if settled else "IN_PROGRESS",
    )


def _deployment(service: Service) -> dict[str, Any]:
    return service.deployments[0] if service.deployments else {}
