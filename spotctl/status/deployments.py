"""Deployments that would not be rescued well, and why: each can go past the pool's template."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from botocore.exceptions import ClientError

from chalicelib.core.model.ecs_task import FARGATE, FARGATE_SPOT
from chalicelib.core.model.policy import NEVER_RERUN_TAG, OPT_IN_TAG, Mode
from spotctl.prefect import Deployment
from spotctl.rows import Row, ok, warning
from spotctl.status.prefect_side import (
    RELINQUISH,
    SIGTERM_BEHAVIOR,
    STOP_TIMEOUT_SECONDS,
    FlowContainer,
    container_of,
    default_of,
)
from spotctl.world import World

Flaw = tuple[str, str]
"""What is wrong, and the next step."""

CLEAN_STOP_SINCE: Final = (3, 8, 1)
"""The first Prefect that knows how to relinquish a run on SIGTERM."""

_PREFECT_IMAGE: Final = re.compile(r"(?:^|/)prefecthq/prefect(?:-aws)?:(?P<tag>[\w.-]+)$")
_TAG_VERSION: Final = re.compile(r"^(\d+)(?:\.(\d+))?(?:\.(\d+))?(?=$|-)")
_MOVING_TAG: Final = re.compile(r"^\d+(?:\.\d+)?-latest")


@dataclass(frozen=True, slots=True)
class Found:
    """A pool's deployments, and the containers of the task definitions they bring themselves.

    `definitions`: by the name a deployment gives; None where ECS does not know it.
    """

    deployments: tuple[Deployment, ...]
    template: Mapping[str, Any] = field(hash=False)
    definitions: Mapping[str, FlowContainer | None] = field(hash=False)
    clusters: tuple[str, ...]
    mode: Mode


def look(world: World, template: Mapping[str, Any]) -> Found:
    """Ask Prefect for the deployments, and ECS for their own task definitions.

    Raises botocore's errors, and PrefectSpotError.
    """
    settings = world.project.settings
    deployments = world.prefect.deployments(settings.work_pool)
    effective = [effective_variables(deployment, template) for deployment in deployments]
    own = {str(v["task_definition_arn"]) for v in effective if v.get("task_definition_arn")}
    ecs = world.aws.client("ecs")
    return Found(
        deployments=deployments,
        template=template,
        definitions={name: _definition(ecs, name) for name in sorted(own)},
        clusters=settings.ecs_clusters,
        mode=settings.mode,
    )


def rows(found: Found) -> list[Row]:
    """Return a warning per deployment that would not be rescued well, and how many would."""
    if not found.deployments:
        return [ok("deployments", "there are none in the work pool")]
    flaws = {d.name: flaws_of(d, found) for d in found.deployments}
    flawed = {name: told for name, told in flaws.items() if told}
    good = len(flaws) - len(flawed)
    judged = [ok("deployments", f"{good} of {len(flaws)} would be rescued as well as can be")]
    for name, told in sorted(flawed.items()):
        found_flaws = "; ".join(flaw for flaw, _ in told)
        steps = "; ".join(dict.fromkeys(step for _, step in told))
        judged.append(warning(f"deployment {name}", found_flaws, steps))
    return judged


def flaws_of(deployment: Deployment, found: Found) -> list[Flaw]:
    """Return what keeps a deployment's runs from being rescued well, each with its next step."""
    variables = effective_variables(deployment, found.template)
    return [
        *_capacity_flaws(variables, found.clusters),
        *_container_flaws(variables, found.definitions),
        *_image_flaws(str(variables.get("image") or "")),
        *_tag_flaws(deployment.tags, found.mode),
    ]


def effective_variables(deployment: Deployment, template: Mapping[str, Any]) -> dict[str, Any]:
    """Return the job variables that a run of the deployment gets: its own over the pool's."""
    properties = (template.get("variables") or {}).get("properties") or {}
    defaults = {name: default_of(template, name) for name in properties}
    return {**defaults, **deployment.job_variables}


def _capacity_flaws(variables: Mapping[str, Any], clusters: Sequence[str]) -> Iterator[Flaw]:
    cluster = str(variables.get("cluster") or "default")
    if cluster.rpartition("/")[2] not in {name.rpartition("/")[2] for name in clusters}:
        what = f"it runs in cluster {cluster}, which nobody watches"
        yield what, "take out its cluster, or add that to ECS_CLUSTER"
    strategy = variables.get("capacity_provider_strategy") or []
    providers = [s.get("capacityProvider") or s.get("capacity_provider") or "?" for s in strategy]
    launch_type = variables.get("launch_type") or FARGATE
    if providers:
        if set(providers) != {FARGATE_SPOT}:
            what = f"its capacity_provider_strategy ({', '.join(providers)}) wins over launch_type"
            yield what, "take out the strategy, and set launch_type FARGATE_SPOT"
    elif launch_type == FARGATE:
        yield "it runs on demand: Spot saves nothing here", "launch_type FARGATE_SPOT"
    elif launch_type != FARGATE_SPOT:
        yield f"launch type {launch_type} is never rescued", "launch_type FARGATE_SPOT"


def _container_flaws(
    variables: Mapping[str, Any], definitions: Mapping[str, FlowContainer | None]
) -> Iterator[Flaw]:
    behavior = (variables.get("env") or {}).get(SIGTERM_BEHAVIOR)
    if behavior not in (None, RELINQUISH):
        yield f"its env sets {SIGTERM_BEHAVIOR}={behavior}", f"take out {SIGTERM_BEHAVIOR}"
    name = variables.get("task_definition_arn")
    if not name:
        return
    container = definitions.get(str(name))
    if container is None:
        yield f"ECS does not know its own task definition {name}", "register it"
        return
    if container.stop_timeout != STOP_TIMEOUT_SECONDS:
        what = f"its own task definition gives {container.stop_timeout or 30} s to stop"
        yield what, f"stopTimeout {STOP_TIMEOUT_SECONDS} in {name}"
    if behavior is None and not container.relinquishes:
        what = f"its own task definition does not set {SIGTERM_BEHAVIOR}"
        yield what, f"{SIGTERM_BEHAVIOR}={RELINQUISH} in {name}"


def _image_flaws(image: str) -> Iterator[Flaw]:
    version, since = version_of(image), ".".join(map(str, CLEAN_STOP_SINCE))
    if version is not None and version < CLEAN_STOP_SINCE[: len(version)]:
        what = f"its image {image} is older than Prefect {since}: rescued from Running or Crashed"
        yield what, f"an image with Prefect {since} or newer"


def version_of(image: str) -> tuple[int, ...] | None:
    """Return Prefect's version as far as an image's tag tells it; None when it does not.

    Only Prefect's own images are read: in others a version may be anybody's.
    """
    named = _PREFECT_IMAGE.search(image)
    if named is None:
        return None
    tag = named["tag"]
    version = _TAG_VERSION.match(tag)
    if version is None or (_MOVING_TAG.match(tag) and int(version[1]) >= CLEAN_STOP_SINCE[0]):
        return None
    return tuple(int(part) for part in version.groups() if part)


def _tag_flaws(tags: Sequence[str], mode: Mode) -> Iterator[Flaw]:
    if NEVER_RERUN_TAG in tags:
        yield f"it is tagged {NEVER_RERUN_TAG}", "take out the tag if that is not meant"
    elif mode is Mode.OPT_IN and OPT_IN_TAG not in tags:
        yield f"MODE is opt-in and it is not tagged {OPT_IN_TAG}", f"tag it {OPT_IN_TAG}"


def _definition(ecs: Any, name: str) -> FlowContainer | None:
    """Read the container that runs the flow: Prefect's worker takes the one of that name."""
    try:
        answer = ecs.describe_task_definition(taskDefinition=name)
    except ClientError as error:
        if error.response["Error"]["Code"] in ("ClientException", "InvalidParameterException"):
            return None
        raise
    containers = answer["taskDefinition"]["containerDefinitions"]
    named = [container for container in containers if container.get("name") == "prefect"]
    return container_of((named or containers)[0])
