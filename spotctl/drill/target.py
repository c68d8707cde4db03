"""What a drill interrupts: a running Spot task of a flow run that will be rerun, or nothing.

It is chosen among the running ones, named, or started. The sample flow only waits: its code is
in its deployment, as a pull step that writes it to a file. So it runs in any image that the work
pool starts, and the first drill needs nothing built, pushed or stored.
"""

from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from chalicelib.adapters.aws import EcsTasks
from chalicelib.adapters.records import RunTable
from chalicelib.core.model.ecs_task import FARGATE_SPOT, Task
from chalicelib.core.model.flow_run import FlowRun, StateType
from chalicelib.core.model.policy import (
    OPT_IN_TAG,
    Mode,
    Policy,
    budget_of,
    other_pool,
    reason_not_to_rerun,
)
from chalicelib.core.money.bill import SAMPLE_OF_DRILLS
from chalicelib.settings import policy_of
from spotctl.context import Context
from spotctl.errors import RefusedError
from spotctl.output import DEPLOY
from spotctl.prefect import Deployment

POLL_SECONDS: Final = 1.0

SAMPLE_FLOW, SAMPLE_DEPLOYMENT = SAMPLE_OF_DRILLS.split("/")

_FILE: Final = "spot_drill.py"
_SOURCE: Final = f'''\
from time import sleep

from prefect import flow


@flow(name="{SAMPLE_FLOW}", retries=0)
def wait(seconds: float = 60) -> None:
    """Only waits: `spotctl drill` started it, and interrupts it."""
    sleep(seconds)
'''
_NEVER = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Target:
    """A running task and its flow run. `is_own_run`: the drill itself started the run."""

    task: Task
    run: FlowRun
    is_own_run: bool = False


def pick(context: Context) -> Target:
    """Return the youngest task that may be interrupted: it has the least work to lose.

    Raises RefusedError: there is none; says why up to three were passed over. Also botocore's
    errors and PrefectSpotError.
    """
    refusals: list[str] = []
    candidates = [task for task in _tasks(context) if task.flow_run_id and is_running(task)]
    for task in sorted(candidates, key=lambda task: task.started_at or _NEVER, reverse=True):
        run = _run_of(context, task)
        if refusal := refusal_of(task, run, _policy(context)):
            refusals.append(refusal)
        elif run is not None:
            return Target(task, run)
    why = f" that a drill can interrupt: {'; '.join(refusals[:3])}" if refusals else ""
    raise RefusedError(
        f"no Spot task of a flow run is running in {_clusters(context)}{why}",
        next_step="start a longer flow on Spot, or let the drill start one: --sample-flow, or"
        " --start FLOW/DEPLOYMENT",
    )


def named(context: Context, id_or_arn: str) -> Target:
    """Return the task of that id or ARN.

    Raises RefusedError: it is in none of the stage's clusters, or may not be interrupted. Also
    botocore's errors and PrefectSpotError.
    """
    tasks = _tasks(context)
    task = next((t for t in tasks if id_or_arn in (t.arn, t.arn.rpartition("/")[2])), None)
    if task is None:
        raise RefusedError(
            f"task {id_or_arn} is not in {_clusters(context)}",
            next_step="name a task of that cluster, or correct ECS_CLUSTER",
        )
    run = _run_of(context, task)
    refusal = refusal_of(task, run, _policy(context), is_named=True)
    if refusal or run is None:
        raise RefusedError(refusal, next_step="name another task, or start one with --start")
    return Target(task, run)


def about(context: Context, target: Target) -> dict[str, object]:
    """Return what a drill would interrupt, and what it would count as, for JSON.

    Raises botocore's errors and PrefectSpotError.
    """
    run = target.run
    deployment = context.prefect.deployment(str(run.deployment_id)) if run.deployment_id else None
    table = RunTable(context.aws.client("dynamodb"), context.project.stack, owner="spotctl")
    record = table.read(run.id)
    retries = run.policy.retries if record.own_retries is None else record.own_retries
    budget = budget_of(run.tags, retries, _policy(context))
    return {
        "task": target.task.arn,
        "flow_run": run.id,
        "flow_run_name": run.name,
        "deployment": deployment.name if deployment else "",
        "attempt": run.run_count,
        "counts_as": f"interruption {record.interrupted + 1} of the run ({budget.source}); in the"
        " report a drill, which is in no total",
    }


def read_deployment(context: Context, name: str) -> Deployment:
    """Return the deployment FLOW/DEPLOYMENT.

    Raises RefusedError: there is none, or it is of another work pool. Also PrefectSpotError.
    """
    deployment, pools = context.prefect.deployment(name), context.project.settings.work_pools
    if deployment is None:
        raise RefusedError(
            f"Prefect does not know the deployment {name!r}",
            next_step="pass FLOW/DEPLOYMENT, as prefect deployment ls shows it",
        )
    if deployment.work_pool not in pools:
        raise RefusedError(
            f"deployment {deployment.name} is of work pool {deployment.work_pool}, not of"
            f" {' or '.join(pools)}",
            next_step="name a deployment of that work pool, or correct WORK_POOL",
        )
    return deployment


def save_sample_flow(context: Context) -> Deployment:
    """Create or replace the sample flow's deployment in the stage's work pool, on Spot; return it.

    Of several pools, in the first. It stays in Prefect, so that its runs can be read there. Raises
    RefusedError: the work pool does not exist. Also PrefectSpotError.
    """
    pool = context.project.settings.work_pools[0]
    if context.prefect.work_pool(pool) is None:
        raise RefusedError(f"Prefect does not know the work pool {pool}", next_step=DEPLOY)
    # One command without a shell: encoded, the text needs no quotes.
    text = b64encode(_SOURCE.encode()).decode()
    script = (
        'python -c "import base64, pathlib;'
        f" pathlib.Path('{_FILE}').write_bytes(base64.b64decode('{text}'))\""
    )
    return context.prefect.save_deployment(
        SAMPLE_FLOW,
        SAMPLE_DEPLOYMENT,
        pool,
        entrypoint=f"{_FILE}:wait",
        pull_steps=[{"prefect.deployments.steps.run_shell_script": {"script": script}}],
        job_variables={"launch_type": FARGATE_SPOT},
    )


def start(context: Context, deployment: Deployment, timeout: timedelta) -> Target:
    """Start a run of the deployment, and return it once it runs in a Spot task of the stage.

    Raises RefusedError: not on Spot, finished too soon, or not running in time. Also botocore's
    errors and PrefectSpotError.
    """
    mode = context.project.settings.mode
    run_id = context.prefect.start(deployment, [OPT_IN_TAG] if mode is Mode.OPT_IN else [])
    context.progress(f"started a run of {deployment.name}: {run_id}")
    ends_at = context.now() + timeout
    while context.now() < ends_at:
        run = context.prefect.runs.read_run(run_id)
        if run is not None and run.state.is_final:
            raise RefusedError(
                f"flow run {run.name} is {run.state.name} already, before it could be interrupted"
                f" ({run.state.message or 'no message'})",
                next_step="drill a flow that runs for at least a minute",
            )
        is_started = run is not None and run.state.type is StateType.RUNNING
        task = newest_task(context, run_id) if is_started else None
        if run is not None and task is not None and is_running(task):
            if refusal := refusal_of(task, run, _policy(context), is_named=True):
                raise RefusedError(refusal, next_step="start another deployment")
            context.progress(f"flow run {run.name} runs on {FARGATE_SPOT}")
            return Target(task, run, is_own_run=True)
        context.pause(POLL_SECONDS)
    raise RefusedError(
        f"flow run {run_id} did not run within {timeout.total_seconds():.0f} s",
        next_step="run spotctl status",
    )


def refusal_of(task: Task, run: FlowRun | None, policy: Policy, *, is_named: bool = False) -> str:
    """Return why a drill must not interrupt this task; empty where it may.

    `is_named`: the operator named this task or deployment. In observe mode its run is lost.
    """
    name = f"task {task.arn.rpartition('/')[2]}"
    if task.flow_run_id is None:
        return f"{name} runs no flow"
    if task.capacity != FARGATE_SPOT:
        return f"{name} runs on demand, which is never interrupted"
    if not is_running(task):
        return f"{name} is {task.last_status or 'unknown'}, not RUNNING"
    if run is None:
        return f"Prefect does not know the flow run {task.flow_run_id} of {name}"
    if run.state.type is not StateType.RUNNING:
        return f"flow run {run.name} is {run.state.name}, not Running"
    if policy.mode is Mode.OBSERVE and not is_named:
        return f"MODE is observe: flow run {run.name} would be lost, unless you name its --task"
    another = other_pool(run.work_pool_name, policy.work_pools)
    if why := another or reason_not_to_rerun(run, policy.mode):
        return f"flow run {run.name} would not be rerun: {why}"
    return ""


def newest_task(context: Context, flow_run_id: UUID) -> Task | None:
    """Return the run's newest task in the stage's clusters, None while it has none.

    Raises botocore's errors.
    """
    tasks = [task for task in _tasks(context) if task.flow_run_id == flow_run_id]
    return max(tasks, key=lambda task: task.created_at or _NEVER, default=None)


def is_running(task: Task) -> bool:
    """Whether the task runs and was not asked to stop."""
    return task.last_status == "RUNNING" and task.desired_status == "RUNNING"


def _tasks(context: Context) -> Iterator[Task]:
    tasks = EcsTasks(context.aws.client("ecs"))
    for cluster in context.project.settings.ecs_clusters:
        yield from tasks.all_of(cluster)


def _run_of(context: Context, task: Task) -> FlowRun | None:
    return context.prefect.runs.read_run(task.flow_run_id) if task.flow_run_id else None


def _policy(context: Context) -> Policy:
    return policy_of(context.project.settings, {})


def _clusters(context: Context) -> str:
    return ", ".join(context.project.settings.ecs_clusters)
