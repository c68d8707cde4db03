"""Prefect as the operator and the Lambdas reach it: credential, server, work pool, worker."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final

from chalicelib.core.model.ecs_task import FARGATE_SPOT
from chalicelib.errors import PrefectSpotError
from spotctl.prefect import Worker, WorkPool
from spotctl.rows import DEPLOY, Row, failed, ok, warning
from spotctl.world import World

STOP_TIMEOUT_SECONDS: Final = 120
"""The longest that Fargate gives a container between SIGTERM and SIGKILL."""

SIGTERM_BEHAVIOR: Final = "PREFECT_FLOW_RUN_EXECUTE_SIGTERM_BEHAVIOR"
RELINQUISH: Final = "relinquish"


@dataclass(frozen=True, slots=True)
class Parameter:
    """The SSM parameter with Prefect's credential. `type` is empty when there is none."""

    name: str
    setting: str
    type: str = ""


@dataclass(frozen=True, slots=True)
class Found:
    """What there is. `problem`: why Prefect could not be asked from here; then the rest is None.

    `next_step`: what to do about the problem. `parameter` None: Prefect is asked without one.
    """

    parameter: Parameter | None
    api_url: str
    pool_name: str
    now: datetime
    is_rescue_only: bool
    use_spot: bool = True
    problem: str = ""
    next_step: str = ""
    version: str = ""
    pool: WorkPool | None = None
    workers: tuple[Worker, ...] = ()


@dataclass(frozen=True, slots=True)
class FlowContainer:
    """What a base job template says about the container that runs a flow."""

    stop_timeout: int | None
    environment: Mapping[str, Any] = field(hash=False)

    @property
    def relinquishes(self) -> bool:
        """Whether Prefect leaves the run to us when SIGTERM comes."""
        return self.environment.get(SIGTERM_BEHAVIOR) == RELINQUISH


def look(world: World) -> Found:
    """Ask SSM and Prefect. Raises botocore's errors; Prefect's become `problem`."""
    settings = world.project.settings
    found = Found(
        parameter=_parameter(world),
        api_url=settings.prefect_api_url,
        pool_name=settings.work_pool,
        now=world.now(),
        is_rescue_only=world.project.is_rescue_only,
        use_spot=world.project.settings.use_spot,
    )
    try:
        version = world.prefect.version()
        pool = world.prefect.work_pool(settings.work_pool)
        workers = world.prefect.workers(settings.work_pool) if pool else ()
    except PrefectSpotError as error:
        return replace(found, problem=error.what, next_step=error.next_step)
    return replace(found, version=version, pool=pool, workers=workers)


def flow_container(template: Mapping[str, Any]) -> FlowContainer:
    """Return what the template's task definition says; nothing of it when it says nothing."""
    definition = (template.get("job_configuration") or {}).get("task_definition") or {}
    container: Mapping[str, Any] = (definition.get("containerDefinitions") or [{}])[0]
    return container_of(container)


def container_of(container: Mapping[str, Any]) -> FlowContainer:
    """Read a container definition, out of a template or out of ECS."""
    environment = container.get("environment") or []
    pairs = {str(v.get("name")): v.get("value") for v in environment if isinstance(v, Mapping)}
    timeout = container.get("stopTimeout")
    return FlowContainer(timeout if isinstance(timeout, int) else None, pairs)


def default_of(template: Mapping[str, Any], variable: str) -> Any:
    """Return a variable's default in a base job template, None for none."""
    properties = (template.get("variables") or {}).get("properties") or {}
    return (properties.get(variable) or {}).get("default")


def rows(found: Found) -> list[Row]:
    """Judge credential, server, pool and worker."""
    judged = [_parameter_row(found.parameter)]
    if found.problem:
        what = f"{found.problem}; pool, worker and deployments were not looked at"
        return [*judged, failed("Prefect from here", what, found.next_step)]
    judged.append(ok("Prefect from here", f"{found.version} at {found.api_url}"))
    judged.append(_pool_row(found))
    if found.pool is not None:
        complete = ok("pool: template", "Spot, stopTimeout and SIGTERM behaviour are set")
        judged += list(_template_rows(found.pool.template, found)) or [complete]
        judged.append(_worker_row(found))
    return judged


def _parameter_row(parameter: Parameter | None) -> Row:
    part = "credential"
    if parameter is None:
        return ok(part, "none is set: Prefect is asked without one")
    told = f"{parameter.setting}: {parameter.name}"
    if parameter.type == "SecureString":
        return ok(part, f"{told} is a SecureString")
    put = f"aws ssm put-parameter --type SecureString --name {parameter.name} --value …"
    if not parameter.type:
        return failed(part, f"{told} does not exist in this region", put)
    return failed(
        part, f"{told} is a plain {parameter.type}, not a SecureString", f"delete it, then {put}"
    )


def _pool_row(found: Found) -> Row:
    part, pool = f"work pool {found.pool_name}", found.pool
    if pool is None:
        step = "correct WORK_POOL, or create the pool" if found.is_rescue_only else DEPLOY
        return failed(part, "Prefect does not know it", step)
    if pool.type != "ecs":
        step = "create an ecs pool, or set WORK_POOL to one"
        return failed(part, f"it is of type {pool.type}, not ecs", step)
    if pool.is_paused:
        step = f"prefect work-pool resume {pool.name}"
        return failed(part, "it is paused: nothing starts, reruns neither", step)
    if pool.status == "NOT_READY":
        return warning(part, "ecs, but no worker of it was heard of lately", "see worker below")
    return ok(part, f"ecs, {pool.status or 'READY'}")


def _template_rows(template: Mapping[str, Any], found: Found) -> Iterator[Row]:
    """What a rescue needs of the pool's base job template, where it lacks it."""
    fix = "edit the pool's base job template" if found.is_rescue_only else DEPLOY
    request = (template.get("job_configuration") or {}).get("task_run_request") or {}
    if not _refers_to(request.get("launchType"), "launch_type"):
        yield failed(
            "pool: launch type",
            "its template does not use the variable launch_type: runs cannot be moved",
            f"{fix}: launchType is to be {{{{ launch_type }}}} in task_run_request",
        )
    container = flow_container(template)
    if container.stop_timeout != STOP_TIMEOUT_SECONDS:
        given = container.stop_timeout or "none, so 30 s"
        yield warning(
            "pool: stopTimeout",
            f"{given}: a flow has less time to stop than Spot would give it",
            f"{fix}: stopTimeout {STOP_TIMEOUT_SECONDS} in the container definition",
        )
    if not container.relinquishes:
        yield warning(
            "pool: SIGTERM behaviour",
            "an interrupted flow is rescued from Running or Crashed, not from a clean stop",
            f"{fix}: {SIGTERM_BEHAVIOR}={RELINQUISH} in the container's environment",
        )
    launch_type = default_of(template, "launch_type")
    if found.use_spot and launch_type != FARGATE_SPOT:
        yield warning(
            "pool: capacity",
            f"flows run on {launch_type or 'no launch type'} unless they say otherwise",
            f"{fix}: {FARGATE_SPOT} as the default of launch_type",
        )


def _refers_to(value: object, variable: str) -> bool:
    return isinstance(value, str) and bool(re.search(rf"\{{\{{\s*{variable}\s*\}}\}}", value))


def _worker_row(found: Found) -> Row:
    online = [worker for worker in found.workers if worker.is_online]
    if not online:
        last = max((w.last_heartbeat for w in found.workers if w.last_heartbeat), default=None)
        heard = f"last heartbeat {_ago(last, found.now)}" if last else "none was ever heard of"
        step = "look at the worker service above, and at its log"
        return failed("worker", f"no worker is online; {heard}", step)
    newest = online[0]
    version = f", Prefect {newest.version}" if newest.version else ""
    heard = _ago(newest.last_heartbeat, found.now) if newest.last_heartbeat else "unknown"
    return ok("worker", f"{len(online)} online{version}; last heartbeat {heard}")


def _ago(at: datetime, now: datetime) -> str:
    seconds = max(0, int((now - at).total_seconds()))
    return f"{seconds} s ago" if seconds < 120 else f"{seconds // 60} min ago"


def _parameter(world: World) -> Parameter | None:
    settings = world.project.settings
    named = {
        "PREFECT_API_KEY_PARAMETER": settings.prefect_api_key_parameter,
        "PREFECT_API_AUTH_STRING_PARAMETER": settings.prefect_api_auth_string_parameter,
    }
    [(setting, name)] = [(s, n) for s, n in named.items() if n][:1] or [("", "")]
    if not name:
        return None
    # Described, not read: the value has no business here.
    answer = world.aws.client("ssm").describe_parameters(
        ParameterFilters=[{"Key": "Name", "Option": "Equals", "Values": [name]}]
    )
    described = answer["Parameters"]
    return Parameter(name, setting, str(described[0]["Type"]) if described else "")
