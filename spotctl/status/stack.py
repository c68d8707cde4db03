"""The stack, the clusters and the worker's service."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from botocore.exceptions import ClientError

from chalicelib.core.model.ecs_task import FARGATE, FARGATE_SPOT
from spotctl.rows import DEPLOY, Row, failed, ok, warning
from spotctl.world import World

WORKER_SERVICE: Final = "worker"

_STANDS: Final = ("CREATE_COMPLETE", "UPDATE_COMPLETE", "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS")


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster as ECS describes it; `status` is empty when ECS does not know it."""

    name: str
    status: str = ""
    providers: tuple[str, ...] = ()
    strategy: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Service:
    """The worker's service; `event` is the newest thing that ECS has to say about it."""

    running: int
    desired: int
    rollout: str = ""
    event: str = ""


@dataclass(frozen=True, slots=True)
class Found:
    """What there is. `stack_status` empty: no stack. `service` None: none, or not ours to have."""

    stack: str
    stack_status: str
    stack_reason: str
    clusters: tuple[Cluster, ...]
    service: Service | None
    is_rescue_only: bool
    use_spot: bool = True


def look(world: World) -> Found:
    """Ask CloudFormation and ECS. Raises botocore's errors."""
    project = world.project
    described = describe_stack(world) or {}
    ecs = world.aws.client("ecs")
    clusters = tuple(_clusters(ecs, project.settings.ecs_clusters))
    service = None
    if not project.is_rescue_only and clusters[0].status == "ACTIVE":
        service = _service(ecs, clusters[0].name)
    return Found(
        stack=project.stack,
        stack_status=str(described.get("StackStatus", "")),
        stack_reason=str(described.get("StackStatusReason", "")),
        clusters=clusters,
        service=service,
        is_rescue_only=project.is_rescue_only,
        use_spot=project.settings.use_spot,
    )


def describe_stack(world: World) -> Mapping[str, Any] | None:
    """Return the stage's stack as CloudFormation describes it, None for none."""
    client = world.aws.client("cloudformation")
    try:
        stack: Mapping[str, Any] = client.describe_stacks(StackName=world.project.stack)["Stacks"][
            0
        ]
    except ClientError as error:
        # CloudFormation has no error of its own for a stack that is not there.
        if "does not exist" in error.response["Error"].get("Message", ""):
            return None
        raise
    return stack


def rows(found: Found) -> list[Row]:
    """Judge stack, clusters and service."""
    judged = [_stack_row(found)]
    judged += [_cluster_row(cluster, found) for cluster in found.clusters]
    if not found.is_rescue_only:
        judged.append(_service_row(found.service))
    return judged


def _stack_row(found: Found) -> Row:
    status = found.stack_status
    told = f"{found.stack}: {status}" + (f" ({found.stack_reason})" if found.stack_reason else "")
    if not status:
        return failed("stack", f"there is no stack {found.stack}", DEPLOY)
    if status in _STANDS:
        return ok("stack", told)
    if status == "UPDATE_ROLLBACK_COMPLETE":
        return warning("stack", f"{told}: the last update was undone", f"{DEPLOY} to see why")
    if status.endswith("_IN_PROGRESS"):
        return warning("stack", told, "wait, or follow it with spotctl deploy")
    return failed("stack", told, f"{DEPLOY} to see which resource failed, and to recover")


def _cluster_row(cluster: Cluster, found: Found) -> Row:
    part = f"cluster {cluster.name}"
    if not cluster.status:
        step = "correct ECS_CLUSTER" if found.is_rescue_only else DEPLOY
        return failed(part, "ECS does not know it in this region", step)
    if cluster.status != "ACTIVE":
        return failed(part, f"it is {cluster.status}", DEPLOY)
    wanted = (FARGATE, FARGATE_SPOT) if found.use_spot else (FARGATE,)
    missing = [provider for provider in wanted if provider not in cluster.providers]
    if missing:
        return failed(
            part,
            f"it lacks the capacity provider {' and '.join(missing)}",
            "aws ecs put-cluster-capacity-providers, or spotctl deploy where the stack has it",
        )
    strategy = ", ".join(cluster.strategy) or "no default strategy"
    return ok(part, f"ACTIVE; {' and '.join(sorted(cluster.providers))}; {strategy}")


def _service_row(service: Service | None) -> Row:
    part = "worker service"
    if service is None:
        return failed(part, "there is no service for the Prefect worker", DEPLOY)
    told = f"{service.running} of {service.desired} running"
    if service.rollout == "FAILED":
        return failed(part, f"{told}; its rollout failed: {service.event}", DEPLOY)
    if service.desired == 0:
        return failed(part, "it is scaled to 0: nobody starts flow runs", "set its count to 1")
    if service.running == 0:
        why = f"; ECS says: {service.event}" if service.event else ""
        return failed(part, told + why, "look at the stopped task's reason and the worker's log")
    if service.running != service.desired or service.rollout == "IN_PROGRESS":
        return warning(part, f"{told}; rollout {service.rollout.lower()}", "wait a minute")
    return ok(part, told)


def _clusters(ecs: Any, names: Iterable[str]) -> Iterable[Cluster]:
    wanted = list(names)
    answer = ecs.describe_clusters(clusters=wanted)
    described: dict[str, Mapping[str, Any]] = {}
    for cluster in answer["clusters"]:
        described[cluster["clusterName"]] = described[cluster["clusterArn"]] = cluster
    for name in wanted:
        cluster = described.get(name, {})
        yield Cluster(
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
    active = [service for service in answer["services"] if service["status"] == "ACTIVE"]
    if not active:
        return None
    [service] = active
    deployments = service.get("deployments") or [{}]
    events = service.get("events") or [{}]
    return Service(
        running=int(service["runningCount"]),
        desired=int(service["desiredCount"]),
        rollout=str(deployments[0].get("rolloutState", "")),
        event=str(events[0].get("message", "")),
    )
