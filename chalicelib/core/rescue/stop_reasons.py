"""Why a task ended when Spot did not take it, each reason with what to do about it."""

from chalicelib.core.model.ecs_task import Task
from chalicelib.core.model.text import one_line
from chalicelib.core.rescue.snapshot import Gone, Subject

_BY_REASON = (
    ("OutOfMemory", "it ran out of memory", "raise the deployment's `memory` job variable"),
    (
        "CannotPullContainer",
        "its image could not be pulled",
        "check the image's name, the execution role's permissions in ECR, and the network access"
        " to the registry",
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
    "UserInitiated": ("a user stopped it", "retry the run if that was not intended"),
    "EssentialContainerExited": (
        "its container exited before Prefect had a final state",
        "look at the end of the container's log",
    ),
    "ServiceSchedulerInitiated": ("a service stopped it", "run flows outside of ECS services"),
    "InfrastructureHealth": ("AWS found its host unhealthy", "retry the run"),
}


def explain(subject: Subject) -> str:
    """Return why it ended and what to do, with ECS's own reason cut to a line."""
    match subject:
        case Task() as task:
            return _explain_task(task)
        case Gone(started=True):
            return (
                "no ECS task found for this run (ECS keeps stopped tasks for about an hour):"
                " retry the run"
            )
        case _:
            return (
                "a worker picked the run up, but ECS never showed a task for it: look at the"
                " worker's log, then retry the run"
            )


def _explain_task(task: Task) -> str:
    reasons = " ".join(filter(None, (task.stopped_reason, task.container_reason)))
    what, remedy = next(
        ((what, remedy) for sign, what, remedy in _BY_REASON if sign in reasons),
        _BY_STOP_CODE.get(task.stop_code, ("it stopped", "look at the stopped task in ECS")),
    )
    code = "" if task.exit_code is None else f", exit code {task.exit_code}"
    quoted = f" ({one_line(reasons)}{code})" if reasons or code else ""
    return f"the ECS task ended, not by Spot: {what}{quoted}. What to do: {remedy}"
