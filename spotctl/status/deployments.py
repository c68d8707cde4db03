"""Deployments whose runs would not be rescued well, and why: each may override the template."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from botocore.exceptions import ClientError

from chalicelib.core.model.ecs_task import FARGATE, FARGATE_SPOT
from chalicelib.core.model.policy import (
    DEADLINE_TAG,
    NEVER_RERUN_TAG,
    OPT_IN_TAG,
    SPOT_RETRIES_TAG,
    Mode,
    providers_of,
    unread_budgets,
)
from chalicelib.core.policies.deadline import deadline_of
from chalicelib.core.policies.facts import Missing
from chalicelib.core.provision import pool_template
from chalicelib.core.provision.images import (
    CLEAN_STOP_SINCE,
    Version,
    is_newer,
    prefect_in,
    said,
    version_of,
)
from chalicelib.settings import Settings
from spotctl.context import Context
from spotctl.output import Row, ok, warning
from spotctl.prefect import Deployment, WorkPool
from spotctl.project import Project
from spotctl.status.prefect_side import (
    RELINQUISH,
    SIGTERM_BEHAVIOR,
    STAYS_RUNNING,
    STOP_TIMEOUT_SECONDS,
    FlowContainer,
    container_of,
    defaults_of,
)

Flaw = tuple[str, str]
"""What is wrong, and the next step."""


@dataclass(frozen=True, slots=True)
class Found:
    """A pool's deployments, its base job template, and the task definitions they name themselves.

    `definitions`: the flow's container by the name in a deployment; None where ECS has no such
    task definition. `server`: Prefect's version, () where it is unknown.
    """

    deployments: tuple[Deployment, ...]
    template: Mapping[str, Any] = field(hash=False)
    definitions: Mapping[str, FlowContainer | None] = field(hash=False)
    server: Version = ()


def read(context: Context, pool: WorkPool, server: str) -> Found:
    """Read the pool's deployments from Prefect, and their own task definitions from ECS.

    `server`: Prefect's version, empty for an unknown one.
    Raises botocore's errors and PrefectSpotError.
    """
    deployments, template = context.prefect.deployments(pool.name), pool.template
    effective = [_effective_variables(deployment, template) for deployment in deployments]
    own = {str(v["task_definition_arn"]) for v in effective if v.get("task_definition_arn")}
    ecs = context.aws.client("ecs")
    return Found(
        deployments=deployments,
        template=template,
        definitions={name: _definition(ecs, name) for name in sorted(own)},
        server=version_of(server),
    )


def rows(found: Found, project: Project) -> list[Row]:
    """Return how many deployments would be rescued well, and a warning for each other one."""
    if not found.deployments:
        return [ok("deployments", "there are none in the work pool")]
    judged = []
    for deployment in sorted(found.deployments, key=lambda deployment: deployment.name):
        flaws = _flaws_of(deployment, found, project.settings)
        if not project.is_rescue_only:
            flaws += _architecture_flaws(deployment, found, project.settings.architecture)
        if flaws:
            what = "; ".join(flaw for flaw, _ in flaws)
            steps = "; ".join(dict.fromkeys(step for _, step in flaws))
            judged.append(warning(f"deployment {deployment.name}", what, steps))
    number = len(found.deployments)
    good = f"{number - len(judged)} of {number} would be rescued as well as possible"
    return [ok("deployments", good), *judged]


def _flaws_of(deployment: Deployment, found: Found, settings: Settings) -> list[Flaw]:
    variables = _effective_variables(deployment, found.template)
    return [
        *_capacity_flaws(variables, settings.ecs_clusters),
        *_container_flaws(variables, found.definitions, settings.mode),
        *_image_flaws(str(variables.get("image") or ""), found.server),
        *_tag_flaws(deployment.tags, settings.mode),
    ]


def _effective_variables(deployment: Deployment, template: Mapping[str, Any]) -> dict[str, Any]:
    """The job variables of the deployment's runs: its own, over the pool's defaults."""
    return {**defaults_of(template), **deployment.job_variables}


def _capacity_flaws(variables: Mapping[str, Any], clusters: Sequence[str]) -> Iterator[Flaw]:
    cluster = str(variables.get("cluster") or "default")
    if cluster.rpartition("/")[2] not in {name.rpartition("/")[2] for name in clusters}:
        what = f"it runs in cluster {cluster}, which is not in ECS_CLUSTER"
        yield what, "remove its cluster, or add that to ECS_CLUSTER"
    providers = providers_of(variables)
    launch_type = variables.get("launch_type") or FARGATE
    if providers:
        if set(providers) != {FARGATE_SPOT}:
            what = f"its capacity_provider_strategy ({', '.join(providers)}) overrides launch_type"
            yield what, "remove the strategy, and set launch_type FARGATE_SPOT"
    elif launch_type == FARGATE:
        yield "it runs on demand: Spot saves nothing here", "set launch_type FARGATE_SPOT"
    elif launch_type != FARGATE_SPOT:
        yield f"launch type {launch_type} is never rescued", "set launch_type FARGATE_SPOT"


def _container_flaws(
    variables: Mapping[str, Any], definitions: Mapping[str, FlowContainer | None], mode: Mode
) -> Iterator[Flaw]:
    behavior = (variables.get("env") or {}).get(SIGTERM_BEHAVIOR)
    if behavior == RELINQUISH and not mode.ends_runs:
        yield f"MODE is observe, but in its env {STAYS_RUNNING}", f"remove {SIGTERM_BEHAVIOR}"
    elif behavior not in (None, RELINQUISH) and mode.ends_runs:
        yield f"its env sets {SIGTERM_BEHAVIOR}={behavior}", f"remove {SIGTERM_BEHAVIOR}"
    name = variables.get("task_definition_arn")
    if not name:
        return
    container = definitions.get(str(name))
    if container is None:
        yield f"ECS does not know its own task definition {name}", "register it"
        return
    if container.stop_timeout != STOP_TIMEOUT_SECONDS:
        what = f"its own task definition gives {container.stop_timeout or 30} s to stop"
        yield what, f"set stopTimeout {STOP_TIMEOUT_SECONDS} in {name}"
    if behavior is None and container.relinquishes and not mode.ends_runs:
        what = f"MODE is observe, but in its own task definition {STAYS_RUNNING}"
        yield what, f"remove {SIGTERM_BEHAVIOR} from {name}"
    elif behavior is None and mode.ends_runs and not container.relinquishes:
        what = f"its own task definition does not set {SIGTERM_BEHAVIOR}"
        yield what, f"set {SIGTERM_BEHAVIOR}={RELINQUISH} in {name}"


def _architecture_flaws(deployment: Deployment, found: Found, wanted: str) -> Iterator[Flaw]:
    variables = _effective_variables(deployment, found.template)
    architecture = pool_template.architecture_of(found.template, variables)
    step = "remove its cpu_architecture, unless its image is built for that"
    if name := variables.get("task_definition_arn"):
        own = found.definitions.get(str(name))
        architecture = own.architecture if own else wanted
        step = f"correct runtimePlatform in {name}, unless its image is built for that"
    if architecture != wanted:
        yield f"it runs on {architecture}, and ARCHITECTURE is {wanted}", step


def _image_flaws(image: str, server: Version) -> Iterator[Flaw]:
    version = prefect_in(image)
    if is_newer(CLEAN_STOP_SINCE, version):
        since = said(CLEAN_STOP_SINCE)
        what = f"its image {image} is older than Prefect {since}: rescued from Running or Crashed"
        yield what, f"use an image with Prefect {since} or newer"
    if is_newer(version, server):
        what = f"its image {image} has a newer Prefect than the server's {said(server)}"
        yield what, "use an image with the server's version, or upgrade the server"


def _tag_flaws(tags: Sequence[str], mode: Mode) -> Iterator[Flaw]:
    for tag in unread_budgets(tags):
        kind, auto = tag.partition(":")[0], tag.startswith(SPOT_RETRIES_TAG)
        step = f"write {kind}:N, N a whole number" + f", or {kind}:auto" * auto
        yield f"its tag {tag} is ignored: it cannot be read", step
    for tag in tags:
        if tag.startswith(DEADLINE_TAG) and isinstance(deadline_of([tag]), Missing):
            yield f"its tag {tag} is ignored: it cannot be read", "write 90m, 1h30m or 2d"
    if NEVER_RERUN_TAG in tags:
        yield f"it is tagged {NEVER_RERUN_TAG}", "remove the tag if that is not intended"
    elif mode is Mode.OPT_IN and OPT_IN_TAG not in tags:
        yield f"MODE is opt-in and it is not tagged {OPT_IN_TAG}", f"tag it {OPT_IN_TAG}"


def _definition(ecs: Any, name: str) -> FlowContainer | None:
    """Read the container that runs the flow: for Prefect's worker, the one named `prefect`."""
    try:
        answer = ecs.describe_task_definition(taskDefinition=name)
    except ClientError as error:
        if error.response["Error"]["Code"] in ("ClientException", "InvalidParameterException"):
            return None
        raise
    definition = answer["taskDefinition"]
    containers = definition["containerDefinitions"]
    named = [container for container in containers if container.get("name") == "prefect"]
    platform = definition.get("runtimePlatform") or {}
    architecture = str(platform.get("cpuArchitecture") or "X86_64").lower()
    return replace(container_of((named or containers)[0]), architecture=architecture)
