"""Which task a drill may interrupt: a Spot task of one of our runs that is rescued, or nothing."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from chalicelib.adapters.ecs import EcsTasks
from chalicelib.core.model.ecs_task import FARGATE_SPOT, Task
from chalicelib.core.model.flow_run import FlowRun, StateType
from chalicelib.core.model.policy import Mode, reason_not_to_rerun
from spotctl.errors import RefusedError
from spotctl.world import World

_NEVER = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Target:
    """A running task and its flow run. `is_throw_away`: the drill itself started the run."""

    task: Task
    run: FlowRun
    is_throw_away: bool = False


def pick(world: World) -> Target:
    """Return the youngest task that may be interrupted: it has the least to lose.

    Raises:
        RefusedError: there is none, and why each was passed over; also botocore's errors, and
            PrefectSpotError.
    """
    refusals: list[str] = []
    mine = [task for task in tasks_of_ours(world) if task.flow_run_id and is_running(task)]
    for task in sorted(mine, key=lambda task: task.started_at or _NEVER, reverse=True):
        run = world.prefect.runs.read_run(task.flow_run_id) if task.flow_run_id else None
        if refusal := refusal_of(task, run, world.project.settings.mode):
            refusals.append(refusal)
        elif run is not None:
            return Target(task, run)
    clusters = ", ".join(world.project.settings.ecs_clusters)
    why = f"; passed over: {'; '.join(refusals[:3])}" if refusals else ""
    raise RefusedError(
        f"no task in {clusters} may be interrupted{why}",
        next_step="start a longer flow on Spot, or let the drill start one with"
        " --start FLOW/DEPLOYMENT",
    )


def named(world: World, id_or_arn: str) -> Target:
    """Return the task of that id or ARN.

    Raises:
        RefusedError: it is in none of our clusters, or may not be interrupted; also what `pick`
            raises.
    """
    tasks = tasks_of_ours(world)
    task = next((t for t in tasks if id_or_arn in (t.arn, t.arn.rpartition("/")[2])), None)
    if task is None:
        clusters = ", ".join(world.project.settings.ecs_clusters)
        raise RefusedError(
            f"task {id_or_arn} is not in {clusters}",
            next_step="name a task of that cluster, or correct ECS_CLUSTER",
        )
    run = world.prefect.runs.read_run(task.flow_run_id) if task.flow_run_id else None
    refusal = refusal_of(task, run, world.project.settings.mode, is_meant=True)
    if refusal or run is None:
        raise RefusedError(refusal, next_step="name another task, or start one with --start")
    return Target(task, run)


def refusal_of(task: Task, run: FlowRun | None, mode: Mode, *, is_meant: bool = False) -> str:
    """Say why a drill must leave this task alone; empty when it may interrupt it.

    `is_meant`: the operator named this very task or deployment. In observe mode its run is lost.
    """
    name = f"task {task.arn.rpartition('/')[2]}"
    if task.flow_run_id is None:
        return f"{name} runs no flow"
    if task.capacity != FARGATE_SPOT:
        return f"{name} runs on demand, where nobody is interrupted"
    if not is_running(task):
        return f"{name} is {task.last_status or 'unknown'}, not RUNNING"
    if run is None:
        return f"Prefect does not know the flow run {task.flow_run_id} of {name}"
    if run.state.type is not StateType.RUNNING:
        return f"flow run {run.name} is {run.state.name}, not Running"
    if mode is Mode.OBSERVE and not is_meant:
        return f"MODE is observe: flow run {run.name} would be lost, unless you name its --task"
    if why := reason_not_to_rerun(run, mode):
        return f"flow run {run.name} would not be rerun: {why}"
    return ""


def tasks_of_ours(world: World) -> Iterator[Task]:
    """Return every task of our clusters, with tags. Raises botocore's errors."""
    tasks = EcsTasks(world.aws.client("ecs"))
    for cluster in world.project.settings.ecs_clusters:
        yield from tasks.all_of(cluster)


def task_of_run(world: World, flow_run_id: UUID) -> Task | None:
    """Return the run's newest task in our clusters, None while it has none."""
    tasks = [task for task in tasks_of_ours(world) if task.flow_run_id == flow_run_id]
    return max(tasks, key=lambda task: task.created_at or _NEVER, default=None)


def is_running(task: Task) -> bool:
    """Whether the task runs and nobody has asked it to stop."""
    return task.last_status == "RUNNING" and task.desired_status == "RUNNING"
