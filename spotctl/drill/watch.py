"""Starts a drill, and asks again and again how far it has come."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from chalicelib.adapters.ecs import EcsTasks
from chalicelib.adapters.records import RunTable
from chalicelib.core.model.ecs_task import (
    DRILL_STOP_REASON,
    FARGATE_SPOT,
    Ignored,
    Task,
    parse_task,
)
from chalicelib.core.model.flow_run import StateType
from chalicelib.core.model.policy import OPT_IN_TAG, Mode
from chalicelib.core.rescue.orphans import noted_task
from chalicelib.errors import PrefectUnavailableError
from spotctl.drill.target import Target, is_running, refusal_of, task_of_run
from spotctl.drill.timeline import (
    Progress,
    Seen,
    Step,
    failure,
    is_passed,
    reaction_seconds,
    timeline,
)
from spotctl.errors import RefusedError
from spotctl.prefect import Deployment
from spotctl.world import World

POLL_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class Drilled:
    """What came of a drill."""

    target: Target
    steps: tuple[Step, ...] = field(hash=False)
    reaction_seconds: float | None

    @property
    def passed(self) -> bool:
        """Whether all of its steps are done."""
        return is_passed(self.steps)


def known(world: World, deployment_name: str) -> Deployment:
    """Return the deployment of that name.

    Raises:
        RefusedError: no such deployment; also PrefectSpotError.
    """
    deployment = world.prefect.deployment(deployment_name)
    if deployment is None:
        raise RefusedError(
            f"Prefect does not know the deployment {deployment_name!r}",
            next_step="give FLOW/DEPLOYMENT, as prefect deployment ls shows it",
        )
    return deployment


def start(
    world: World, deployment: Deployment, timeout: timedelta, tell: Callable[[str], None]
) -> Target:
    """Start a run of the deployment, and return it once it runs in a Spot task of ours.

    Raises:
        RefusedError: not of our work pool, not on Spot, over too soon, or not running in time; also
            botocore's errors, and PrefectSpotError.
    """
    settings = world.project.settings
    if deployment.work_pool != settings.work_pool:
        raise RefusedError(
            f"deployment {deployment.name} is of work pool {deployment.work_pool}, not of"
            f" {settings.work_pool}",
            next_step="name a deployment of that work pool, or correct WORK_POOL",
        )
    tags = [OPT_IN_TAG] if settings.mode is Mode.OPT_IN else []
    run_id = world.prefect.start(deployment, tags)
    tell(f"started a run of {deployment.name}: {run_id}")
    ends_at = world.now() + timeout
    while world.now() < ends_at:
        run = world.prefect.runs.read_run(run_id)
        if run is not None and run.state.is_final:
            raise RefusedError(
                f"flow run {run.name} is {run.state.name} already, before it could be interrupted"
                f" ({run.state.message or 'no message'})",
                next_step="drill a flow that runs for a minute at least",
            )
        task = None
        if run is not None and run.state.type is StateType.RUNNING:
            task = task_of_run(world, run_id)
        if run is not None and task is not None and is_running(task):
            if refusal := refusal_of(task, run, settings.mode, is_meant=True):
                raise RefusedError(refusal, next_step="start another deployment")
            tell(f"flow run {run.name} runs on {FARGATE_SPOT}")
            return Target(task, run, is_throw_away=True)
        world.pause(POLL_SECONDS)
    raise RefusedError(
        f"flow run {run_id} did not run within {timeout.total_seconds():.0f} s",
        next_step="run spotctl status",
    )


def drill(
    world: World, target: Target, timeout: timedelta, tell: Callable[[Step], None]
) -> Drilled:
    """Interrupt the task, and follow it until the run runs again, failed, or time is over.

    `tell` hears of each step once it is done.

    Raises botocore's errors, and PrefectSpotError.
    """
    ecs = world.aws.client("ecs")
    asked_at = world.now()
    ecs.stop_task(cluster=target.task.cluster_arn, task=target.task.arn, reason=DRILL_STOP_REASON)
    told: set[str] = set()
    for seen in _looks(world, target, asked_at, asked_at + timeout):
        steps = timeline(seen)
        for step in steps:
            if step.progress is not Progress.WAITING and step.name not in told:
                told.add(step.name)
                tell(step)
        if is_passed(steps) or failure(steps):
            break
    if target.is_throw_away and seen.is_observing:
        # Nobody else ends the run that the drill started and interrupted.
        world.prefect.cancel(target.run.id, "Ended by spotctl drill, which had started it.")
    return Drilled(target, steps, reaction_seconds(seen))


def _looks(world: World, target: Target, asked_at: datetime, ends_at: datetime) -> Iterator[Seen]:
    """Look at least once, then until the time is over; a moment without Prefect is skipped."""
    seen = Seen(asked_at, target.task, is_observing=world.project.settings.mode is Mode.OBSERVE)
    while True:
        try:
            seen = _look(world, seen)
        except PrefectUnavailableError:
            if world.now() >= ends_at:
                raise
        yield seen
        if world.now() >= ends_at:
            return
        world.pause(POLL_SECONDS)


def _look(world: World, before: Seen) -> Seen:
    ecs = world.aws.client("ecs")
    task, run_id = before.task, before.task.flow_run_id
    assert run_id is not None  # noqa: S101  # a target has one
    described = ecs.describe_tasks(cluster=task.cluster_arn, tasks=[task.arn], include=["TAGS"])
    stopping_at = before.stopping_at
    for raw in described["tasks"]:
        parsed = parse_task(raw)
        task = task if isinstance(parsed, Ignored) else parsed
        stopping_at = raw.get("stoppingAt") or stopping_at
    records = RunTable(world.aws.client("dynamodb"), world.project.stack, owner="spotctl")
    return Seen(
        asked_at=before.asked_at,
        task=task,
        stopping_at=stopping_at,
        interruption=records.read(run_id).interruptions.get(task.arn),
        history=world.prefect.runs.read_history(run_id),
        newer=before.newer if before.newer and before.newer.started_at else _newer(world, task),
        is_observing=before.is_observing,
    )


def _newer(world: World, task: Task) -> Task | None:
    """The run's next task, by what the worker noted on the run; where it did not, by its tag."""
    assert task.flow_run_id is not None  # noqa: S101  # as above
    run = world.prefect.runs.read_run(task.flow_run_id)
    cluster, arn = noted_task(run) if run else ("", "")
    if arn and arn != task.arn:
        return EcsTasks(world.aws.client("ecs")).describe(cluster or task.cluster_arn, arn)
    if run is None or run.state.type is not StateType.RUNNING:
        return None
    newest = task_of_run(world, run.id)
    return newest if newest and newest.arn != task.arn else None
