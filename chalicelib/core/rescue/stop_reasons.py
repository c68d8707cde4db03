"""Why a task died when Spot was not to blame, in words, each with what to do about it."""

from chalicelib.core.model.ecs_task import Task
from chalicelib.core.model.text import one_line

_SIGNS = (
    ("OutOfMemory", "it ran out of memory", "raise the deployment's `memory` job variable"),
    (
        "CannotPullContainer",
        "its image could not be pulled",
        "check the image's name, the execution role's rights in ECR, and the way to the registry",
    ),
    (
        "ResourceInitialization",
        "ECS could not prepare it",
        "check the secrets its task definition names, the execution role and the network",
    ),
    (
        "CannotStartContainer",
        "its container could not be started",
        "check the command and the entry point",
    ),
    (
        "Task failed ELB health checks",
        "a load balancer found it unhealthy",
        "take flow runs out of the target group",
    ),
)

_BY_STOP_CODE = {
    "TaskFailedToStart": ("it never started", "look at the stopped task in the ECS console"),
    "UserInitiated": ("somebody stopped it", "retry the run if that was not meant for good"),
    "EssentialContainerExited": (
        "its container ended without telling Prefect",
        "look at the end of the container's log",
    ),
    "ServiceSchedulerInitiated": ("a service stopped it", "run flows outside of ECS services"),
    "InfrastructureHealth": ("AWS found its host unhealthy", "retry the run"),
}


def explain(task: Task) -> str:
    """Say why the task died and what to do, with ECS's own reason cut to a line."""
    told = " ".join(filter(None, (task.stopped_reason, task.container_reason)))
    if task.forgotten:
        return "ECS knows no task of this run any more: retry it"
    if task.never_seen:
        return (
            "a worker picked the run up, but no ECS task was ever seen: look at the worker's log,"
            " then retry the run"
        )
    what, remedy = next(
        ((what, remedy) for sign, what, remedy in _SIGNS if sign in told),
        _BY_STOP_CODE.get(task.stop_code, ("it stopped", "look at the stopped task in ECS")),
    )
    code = "" if task.exit_code is None else f", exit code {task.exit_code}"
    said = f" ({one_line(told)}{code})" if told or code else ""
    return f"the ECS task died, not by Spot: {what}{said}. What to do: {remedy}"
