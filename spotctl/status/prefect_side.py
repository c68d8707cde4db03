"""Prefect: what lets us in, in SSM, the server, the work pool and its workers."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from shlex import quote
from typing import Any, Final

from chalicelib.core.model.ecs_task import FARGATE_SPOT
from chalicelib.core.provision.images import (
    CLEAN_STOP_SINCE,
    is_moving,
    is_newer,
    prefect_in,
    said,
    version_of,
    worker_flaw,
)
from chalicelib.core.provision.pool_template import (
    PUSH_TYPE,
    architecture_of,
    fixed_capacity,
    wrong_type,
)
from chalicelib.errors import PrefectSpotError
from spotctl.context import Context
from spotctl.output import DEPLOY, Row, failed, ok, warning
from spotctl.prefect import OperatorPrefect, Worker, WorkPool
from spotctl.project import Project

STOP_TIMEOUT_SECONDS: Final = 120
"""Fargate's longest time between SIGTERM and SIGKILL."""

SIGTERM_BEHAVIOR: Final = "PREFECT_FLOW_RUN_EXECUTE_SIGTERM_BEHAVIOR"
RELINQUISH: Final = "relinquish"
STAYS_RUNNING: Final = (
    f"{SIGTERM_BEHAVIOR}={RELINQUISH} is set: an interrupted run stays Running, and none ends it"
)

_PARTS: Final = {
    "PREFECT_CUSTOM_HEADERS_PARAMETER": "custom headers",
    "PREFECT_CA_CERTIFICATE_PARAMETER": "CA certificate",
}


@dataclass(frozen=True, slots=True)
class Parameter:
    """An SSM parameter that lets us in. `type` is empty where it does not exist."""

    name: str
    setting: str
    type: str = ""


@dataclass(frozen=True, slots=True)
class Pool:
    """A pool of WORK_POOL as Prefect has it, None where it does not know it, and its workers."""

    name: str
    found: WorkPool | None
    workers: tuple[Worker, ...] = ()


@dataclass(frozen=True, slots=True)
class Found:
    """What SSM and Prefect returned.

    `error`: why Prefect could not be read from here; then version and pools are empty.
    `version`: empty where the server does not report one. `now` is in UTC.
    """

    parameters: tuple[Parameter, ...]
    now: datetime
    error: PrefectSpotError | None = None
    version: str = ""
    pools: tuple[Pool, ...] = ()


@dataclass(frozen=True, slots=True)
class FlowContainer:
    """The container that runs a flow. `stop_timeout` is in seconds, None where it is not set.

    `relinquishes`: its environment makes Prefect relinquish the run on SIGTERM. `architecture`: of
    its task, x86_64 or arm64.
    """

    stop_timeout: int | None
    relinquishes: bool
    architecture: str = "x86_64"


def read(context: Context) -> Found:
    """Read from SSM and Prefect. Raises botocore's errors; Prefect's become `error`."""
    found = Found(_parameters(context), context.now())
    try:
        version = context.prefect.version()
        pools = tuple(_pool(context.prefect, n) for n in context.project.settings.work_pools)
    except PrefectSpotError as error:
        return replace(found, error=error)
    return replace(found, version=version, pools=pools)


def _pool(prefect: OperatorPrefect, name: str) -> Pool:
    found = prefect.work_pool(name)
    has_workers = found is not None and found.type != PUSH_TYPE
    return Pool(name, found, prefect.workers(name) if has_workers else ())


def container_of(container: Mapping[str, Any]) -> FlowContainer:
    """Read a container definition, from a template or from ECS."""
    environment = container.get("environment") or []
    pairs = {str(v.get("name")): v.get("value") for v in environment if isinstance(v, Mapping)}
    timeout = container.get("stopTimeout")
    return FlowContainer(
        timeout if isinstance(timeout, int) else None, pairs.get(SIGTERM_BEHAVIOR) == RELINQUISH
    )


def defaults_of(template: Mapping[str, Any]) -> dict[str, Any]:
    """Return the defaults of all variables of a base job template, by name."""
    properties = (template.get("variables") or {}).get("properties") or {}
    return {name: default_of(template, name) for name in properties}


def default_of(template: Mapping[str, Any], variable: str) -> Any:
    """Return a variable's default in a base job template, None where it has none."""
    properties = (template.get("variables") or {}).get("properties") or {}
    return (properties.get(variable) or {}).get("default")


def rows(found: Found, project: Project) -> list[Row]:
    """Judge credential, server, pool and workers."""
    judged = list(map(_parameter_row, found.parameters))
    if not any("_API_" in each.setting for each in found.parameters):
        judged.insert(0, ok("credential", "none is set: Prefect is called without one"))
    if found.error:
        what = f"{found.error.what}; pool, worker and deployments were not read"
        return [*judged, failed("Prefect from here", what, found.error.next_step)]
    version = found.version or "version unknown (not reported; Prefect Cloud does not)"
    judged.append(ok("Prefect from here", f"{version} at {project.settings.prefect_api_url}"))
    for pool in found.pools:
        of_pool, name = _rows_of_pool(pool, found, project), pool.name
        many = len(found.pools) > 1
        judged += [_pool_row(pool, project), *(of_one_of_several(r, name, many) for r in of_pool)]
    return judged


def of_one_of_several(row: Row, pool: str, many: bool) -> Row:
    """Return the row with the pool's name in its part, where there are several pools."""
    return replace(row, part=f"{row.part} ({pool})") if many else row


def _rows_of_pool(pool: Pool, found: Found, project: Project) -> list[Row]:
    if pool.found is None:
        return []
    template = pool.found.template
    fits = f"{architecture_of(template, defaults_of(template))}; Spot, stopTimeout and SIGTERM"
    complete = ok("pool: template", f"{fits} behaviour fit MODE")
    judged = list(_template_rows(template, project)) or [complete]
    if pool.found.type != PUSH_TYPE:
        judged.append(_worker_row(pool.workers, found.now))
    return [*judged, *_version_rows(pool, found.version, project)]


def _parameter_row(parameter: Parameter) -> Row:
    part = _PARTS.get(parameter.setting, "credential")
    name = f"{parameter.setting}: {parameter.name}"
    if parameter.type == "SecureString":
        return ok(part, f"{name} is a SecureString")
    if parameter.type == "String" and part == "CA certificate":
        return ok(part, f"{name} is a String")
    put = f"aws ssm put-parameter --type SecureString --name {parameter.name} --value …"
    if not parameter.type:
        return failed(part, f"{name} does not exist in this region", put)
    found = f"{name} is a plain {parameter.type}, not a SecureString"
    return failed(part, found, f"delete it, then {put}")


def _pool_row(named: Pool, project: Project) -> Row:
    part, pool = f"work pool {named.name}", named.found
    if pool is None:
        step = "correct WORK_POOL, or create the pool" if project.is_rescue_only else DEPLOY
        return failed(part, "Prefect does not know it", step)
    if wrong := wrong_type(pool.type, is_full=not project.is_rescue_only):
        return failed(part, f"it {wrong[0]}", wrong[1])
    if pool.is_paused:
        step = f"prefect work-pool resume {quote(pool.name)}"
        return failed(part, "it is paused: neither runs nor reruns start", step)
    if pool.type == PUSH_TYPE:
        return ok(part, f"{PUSH_TYPE}: Prefect Cloud starts its tasks, no worker")
    if pool.status == "NOT_READY":
        return warning(part, "ecs, but none of its workers is online", "see worker below")
    return ok(part, f"ecs, {pool.status or 'READY'}")


def _template_rows(template: Mapping[str, Any], project: Project) -> Iterator[Row]:
    """A row per thing that a rescue needs, and the pool's base job template lacks."""
    fix = "edit the pool's base job template" if project.is_rescue_only else DEPLOY
    job = template.get("job_configuration") or {}
    fixed, request = fixed_capacity(template), job.get("task_run_request") or {}
    definitions = (job.get("task_definition") or {}).get("containerDefinitions") or [{}]
    container, default = container_of(definitions[0]), default_of(template, "launch_type")
    if "launchType" in fixed or request.get("launchType") is None:
        what = "its template does not use the variable launch_type: runs cannot be moved"
        step = f"{fix}: set launchType to {{{{ launch_type }}}} in task_run_request"
        yield failed("pool: launch type", what, step)
    if placeholder := fixed.get("capacityProviderStrategy"):
        what = "its template sets capacityProviderStrategy itself, which wins over launch_type"
        step = f"{fix}: set capacityProviderStrategy to {placeholder} in task_run_request"
        yield failed("pool: strategy", f"{what}: runs cannot be moved", step)
    if container.stop_timeout != STOP_TIMEOUT_SECONDS:
        given = container.stop_timeout or "none, so 30 s"
        what = f"{given}: a flow gets less time to stop than Spot allows"
        step = f"{fix}: set stopTimeout {STOP_TIMEOUT_SECONDS} in the container definition"
        yield warning("pool: stopTimeout", what, step)
    ends_runs = project.settings.mode.ends_runs
    if container.relinquishes and not ends_runs:
        what = f"MODE is observe, but {STAYS_RUNNING}"
        step = f"{fix}: remove {SIGTERM_BEHAVIOR} from the container's environment"
        yield warning("pool: SIGTERM behaviour", what, step)
    if ends_runs and not container.relinquishes:
        what = "interrupted flows are rescued from Running or Crashed, not from a clean stop"
        step = f"{fix}: set {SIGTERM_BEHAVIOR}={RELINQUISH} in the container's environment"
        yield warning("pool: SIGTERM behaviour", what, step)
    wanted, found = project.settings.architecture, architecture_of(template, defaults_of(template))
    if found != wanted and not project.is_rescue_only:
        what = f"flows run on {found}, and ARCHITECTURE is {wanted}: an image for one fails there"
        step = "remove runtimePlatform from the template's task definition, then spotctl deploy"
        yield warning("pool: architecture", what, step)
    if project.settings.use_spot and default != FARGATE_SPOT:
        what = f"flows run on {default or 'no launch type'} by default"
        step = f"{fix}: set {FARGATE_SPOT} as the default of launch_type"
        yield warning("pool: capacity", what, step)


def _worker_row(workers: Sequence[Worker], now: datetime) -> Row:
    online = [worker for worker in workers if worker.is_online]
    if not online:
        last = max((w.last_heartbeat for w in workers if w.last_heartbeat), default=None)
        heartbeat = f"last heartbeat {_ago(last, now)}" if last else "the pool never had one"
        step = "look at the worker service above, and at its log"
        return failed("worker", f"no worker is online; {heartbeat}", step)
    newest = online[0]
    version = f", Prefect {newest.version}" if newest.version else ""
    heartbeat = _ago(newest.last_heartbeat, now) if newest.last_heartbeat else "unknown"
    return ok("worker", f"{len(online)} online{version}; last heartbeat {heartbeat}")


def _version_rows(pool: Pool, version: str, project: Project) -> Iterator[Row]:
    """Compare server, worker and the pool's image: a worker must not be newer than its server."""
    image = "" if project.is_rescue_only else project.settings.worker_image
    flow_image = str(default_of(pool.found.template, "image") or "") if pool.found else ""
    running = next((w.version for w in pool.workers if w.is_online and w.version), "")
    server, worker = version_of(version), version_of(running) or prefect_in(image)
    flow = prefect_in(flow_image) if flow_image else worker  # prefect-aws takes the worker's
    if flaw := worker_flaw(image, version):
        yield failed("worker: image", *flaw)
    elif is_newer(worker, server):
        what = f"the worker runs Prefect {running}, newer than the server's {version}"
        yield failed("worker: version", what, "give the worker the server's version")
    if image and is_moving(image):
        what = f"WORKER_IMAGE {image} is another image at each start, a nightly build at times"
        yield warning("worker: image", what, "remove WORKER_IMAGE, or name a released version")
    known = f"server {said(server)}, worker {said(worker)}, pool's image {said(flow)}"
    if is_newer(CLEAN_STOP_SINCE, flow):
        what = f"{known}: flows older than {said(CLEAN_STOP_SINCE)} cannot relinquish their run"
        yield warning(
            "versions", what, f"use an image with Prefect {said(CLEAN_STOP_SINCE)} or newer"
        )
    elif is_newer(flow, server):
        step = "use an image with the server's version, or upgrade the server"
        yield warning("versions", f"{known}: flows are newer than the server", step)
    else:
        yield ok("versions", known)


def _ago(at: datetime, now: datetime) -> str:
    seconds = max(0, int((now - at).total_seconds()))
    return f"{seconds} s ago" if seconds < 120 else f"{seconds // 60} min ago"


def _parameters(context: Context) -> tuple[Parameter, ...]:
    # Described, not read: the status needs no secret.
    found = []
    for setting, name in context.project.settings.secrets.items():
        chosen = [{"Key": "Name", "Option": "Equals", "Values": [name]}]
        ssm = context.aws.client("ssm")
        described = ssm.describe_parameters(ParameterFilters=chosen)["Parameters"]
        found.append(Parameter(name, setting, str(described[0]["Type"]) if described else ""))
    return tuple(found)
