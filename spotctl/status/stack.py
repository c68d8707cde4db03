"""The CloudFormation stack, the ECS clusters, the worker's service, and the region's rates."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from botocore.exceptions import ClientError

import infra
from chalicelib.core.model.ecs_task import FARGATE, FARGATE_SPOT
from chalicelib.core.model.pricing import rates_of
from spotctl.context import Context
from spotctl.output import DEPLOY, Row, failed, ok, warning
from spotctl.project import Project
from spotctl.status import stopped
from spotctl.status.stopped import Stopped

WORKER_SERVICE: Final = "worker"

_COMPLETE: Final = ("CREATE_COMPLETE", "UPDATE_COMPLETE", "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS")


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster as ECS describes it; `status` is empty where ECS does not know it.

    `providers`: its capacity providers. `strategy`: its default strategy, in words.
    """

    name: str
    status: str = ""
    providers: tuple[str, ...] = ()
    strategy: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Service:
    """The worker's service, with its newest event."""

    running: int
    desired: int
    rollout: str = ""
    event: str = ""


@dataclass(frozen=True, slots=True)
class Found:
    """What AWS returned. `stack_status` empty: no stack. `service` None: none, or none expected.

    `stopped`: the worker's newest failed task.
    """

    stack_status: str
    stack_reason: str
    clusters: tuple[Cluster, ...]
    service: Service | None
    region: str
    stopped: Stopped | None = None


def read(context: Context) -> Found:
    """Read from CloudFormation and ECS. Raises botocore's errors."""
    project = context.project
    described = describe_stack(context) or {}
    ecs = context.aws.client("ecs")
    clusters = tuple(_cluster(ecs, name) for name in project.settings.ecs_clusters)
    service = None
    if not project.is_rescue_only and clusters[0].status == "ACTIVE":
        service = _service(ecs, clusters[0].name)
    return Found(
        stack_status=str(described.get("StackStatus", "")),
        stack_reason=str(described.get("StackStatusReason", "")),
        clusters=clusters,
        service=service,
        region=context.aws.region,
        stopped=None if project.is_rescue_only else stopped.read(context),
    )


def describe_stack(context: Context) -> Mapping[str, Any] | None:
    """Return the stage's stack as CloudFormation describes it, None where there is none.

    Raises botocore's errors.
    """
    client, name = context.aws.client("cloudformation"), context.project.stack
    try:
        stacks: list[Mapping[str, Any]] = client.describe_stacks(StackName=name)["Stacks"]
    except ClientError as error:
        # CloudFormation has no error code of its own for a missing stack.
        if "does not exist" in error.response["Error"].get("Message", ""):
            return None
        raise
    return stacks[0]


def rows(found: Found, project: Project) -> list[Row]:
    """Judge stack, clusters, service and rates."""
    judged = [_stack_row(found, project.stack)]
    judged += [_cluster_row(cluster, project) for cluster in found.clusters]
    if not project.is_rescue_only:
        judged += _worker_rows(found)
    return [*judged, _rates_row(found.region, project)]


def _rates_row(region: str, project: Project) -> Row:
    settings = project.settings
    try:
        rates = rates_of(
            infra.load("prices.json"), settings.rates, settings.assumed_spot_discount
        ).values()
    except ValueError as error:
        return failed("rates", f"RATES contradict the shipped rates: {error}", "correct RATES")
    spot = {r.architecture: r for r in rates if (r.region, r.capacity) == (region, FARGATE_SPOT)}
    known = "; ".join(f"{name}: {rate.source}" for name, rate in spot.items())
    what = f"Spot in {region}: {known or 'none'}"
    if settings.architecture not in spot:
        what += f"; none for {settings.architecture}, so tasks are counted without amounts"
    elif not any(rate.is_assumed for rate in spot.values()):
        return ok("rates", what)
    return warning("rates", what, "set RATES, or have `make prices` read the published ones")


def _stack_row(found: Found, name: str) -> Row:
    status = found.stack_status
    what = f"{name}: {status}" + (f" ({found.stack_reason})" if found.stack_reason else "")
    if not status:
        return failed("stack", f"there is no stack {name}", DEPLOY)
    if status in _COMPLETE:
        return ok("stack", what)
    if status == "UPDATE_ROLLBACK_COMPLETE":
        return warning("stack", f"{what}: the last update was rolled back", f"{DEPLOY} to see why")
    if status.endswith("_IN_PROGRESS"):
        return warning("stack", what, "wait, or follow it with spotctl deploy")
    return failed("stack", what, f"{DEPLOY} to see which resource failed, and to recover")


def _cluster_row(cluster: Cluster, project: Project) -> Row:
    part = f"cluster {cluster.name}"
    if not cluster.status:
        step = "correct ECS_CLUSTER" if project.is_rescue_only else DEPLOY
        return failed(part, "ECS does not know it in this region", step)
    if cluster.status != "ACTIVE":
        return failed(part, f"it is {cluster.status}", DEPLOY)
    wanted = (FARGATE, FARGATE_SPOT) if project.settings.use_spot else (FARGATE,)
    missing = [provider for provider in wanted if provider not in cluster.providers]
    if missing:
        return failed(
            part,
            f"it lacks the capacity provider {' and '.join(missing)}",
            "aws ecs put-cluster-capacity-providers, or spotctl deploy where the stack has it",
        )
    strategy = ", ".join(cluster.strategy) or "no default strategy"
    return ok(part, f"ACTIVE; {' and '.join(sorted(cluster.providers))}; {strategy}")


def _worker_rows(found: Found) -> list[Row]:
    service = found.service
    runs = service is not None and service.running > 0
    is_steady = (
        service is not None
        and service.running >= service.desired
        and service.rollout in ("", "COMPLETED")
    )
    shown = stopped.rows(found.stopped, runs=runs, is_steady=is_steady)
    row = _service_row(service)
    if service is None and not shown and found.stack_status.startswith("ROLLBACK_"):
        gone = "tasks and log group went with the rolled-back stack, whose events name the cause"
        row = replace(row, found=f"{row.found}: {gone}")
    return [row, *shown]


def _service_row(service: Service | None) -> Row:
    part = "worker service"
    if service is None:
        return failed(part, "there is no service for the Prefect worker", DEPLOY)
    what = f"{service.running} of {service.desired} running"
    if service.rollout == "FAILED":
        return failed(part, f"{what}; its rollout failed: {service.event}", DEPLOY)
    if service.desired == 0:
        return failed(part, "it is scaled to 0: no flow run starts", "set its count to 1")
    if service.running == 0:
        why = f"; ECS says: {service.event}" if service.event else ""
        return failed(part, what + why, "look at the stopped task's reason and the worker's log")
    if service.running != service.desired or service.rollout == "IN_PROGRESS":
        return warning(part, f"{what}; rollout {service.rollout.lower()}", "wait a minute")
    return ok(part, what)


def _cluster(ecs: Any, name: str) -> Cluster:
    described = ecs.describe_clusters(clusters=[name])["clusters"]
    cluster: Mapping[str, Any] = described[0] if described else {}
    return Cluster(
        name=name.rpartition("/")[2],
        status=str(cluster.get("status", "")),
        providers=tuple(cluster.get("capacityProviders", ())),
        strategy=tuple(map(_share, cluster.get("defaultCapacityProviderStrategy", ()))),
    )


def _share(item: Mapping[str, Any]) -> str:
    base = f" base {item['base']}" if item.get("base") else ""
    return f"{item['capacityProvider']} weight {item.get('weight', 0)}{base}"


def _service(ecs: Any, cluster: str) -> Service | None:
    answer = ecs.describe_services(cluster=cluster, services=[WORKER_SERVICE])
    service = next((s for s in answer["services"] if s["status"] == "ACTIVE"), None)
    if service is None:
        return None
    deployments = service.get("deployments") or [{}]
    events = service.get("events") or [{}]
    return Service(
        running=int(service["runningCount"]),
        desired=int(service["desiredCount"]),
        rollout=str(deployments[0].get("rolloutState", "")),
        event=str(events[0].get("message", "")),
    )
