"""What a Fargate container runs, and what ECS says about its task: pure, but for the secrets."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from botocore.exceptions import ClientError
from moto.ecs.models import Task, TaskDefinition

from localcloud.aws import EmulatedAws

DEFAULT_STOP_TIMEOUT_SECONDS = 30.0

Description = dict[str, Any]


@dataclass(frozen=True)
class ContainerPlan:
    """One container, as task definition and overrides together want it."""

    name: str
    image: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    secrets: Mapping[str, str]
    """From the variable's name to the SSM parameter's name or ARN."""
    stop_timeout_seconds: float
    cpu: str
    """Of the task, in CPU units, as ECS writes it."""
    memory: str
    """Of the task, in MiB, as ECS writes it."""
    role: str = ""
    """Name of the task role, whose credentials the container's AWS clients have."""
    health_check: Mapping[str, Any] | None = None
    """As in the task definition, seconds; its command is one by CMD."""
    architecture: str = "x86_64"
    log_options: Mapping[str, str] = field(default_factory=dict)
    """Of the awslogs driver; empty for another, or none."""

    def log_stream_of(self, task_id: str) -> str:
        """Return the log stream's name, as the awslogs driver makes it; empty for none."""
        prefix = self.log_options.get("awslogs-stream-prefix")
        return f"{prefix}/{self.name}/{task_id}" if prefix else ""


class SecretUnavailableError(Exception):
    """A secret cannot be read; ECS does not start the task then."""


def plan_container(definition: TaskDefinition, overrides: Mapping[str, Any]) -> ContainerPlan:
    """Plan the first container of the definition: the only one this emulation runs."""
    container: dict[str, Any] = definition.container_definitions[0]
    all_overrides = overrides.get("containerOverrides") or []
    own = [o for o in all_overrides if o.get("name", container["name"]) == container["name"]]
    override: dict[str, Any] = own[0] if own else {}
    log: dict[str, Any] = container.get("logConfiguration") or {}
    arguments = override.get("command") or container.get("command") or []
    role = str(overrides.get("taskRoleArn") or getattr(definition, "task_role_arn", ""))
    return ContainerPlan(
        name=container["name"],
        image=container.get("image", ""),
        command=tuple(container.get("entryPoint") or []) + tuple(arguments),
        environment=_named(container.get("environment")) | _named(override.get("environment")),
        secrets=_named(container.get("secrets"), "valueFrom"),
        stop_timeout_seconds=float(container.get("stopTimeout") or DEFAULT_STOP_TIMEOUT_SECONDS),
        cpu=str(overrides.get("cpu") or definition.cpu or container.get("cpu") or 256),
        memory=str(overrides.get("memory") or definition.memory or container.get("memory") or 512),
        role=role.rpartition("/")[2],
        health_check=container.get("healthCheck"),
        architecture=(definition.runtime_platform or {}).get("cpuArchitecture", "X86_64").lower(),
        log_options=log["options"] if log.get("logDriver") == "awslogs" else {},
    )


def overridden_environment(overrides: Mapping[str, Any]) -> dict[str, str]:
    """Return the variables that a task's overrides give to its containers."""
    containers = overrides.get("containerOverrides") or []
    return {n: v for o in containers for n, v in _named(o.get("environment")).items()}


def resolve_secrets(aws: EmulatedAws, secrets: Mapping[str, str]) -> dict[str, str]:
    """Return the decrypted values, or raise SecretUnavailableError with ECS's message.

    A source is an SSM parameter's name, or the ARN of one whose name begins with a slash.
    """
    return {name: _parameter(aws, source) for name, source in secrets.items()}


def new_description(task: Task, plan: ContainerPlan, capacity: str, now: datetime) -> Description:
    """Return what DescribeTasks says of a task just placed, times as datetimes."""
    prefix = task.task_arn.split(":task/")[0]
    container = {
        "containerArn": f"{prefix}:container/{task.cluster_name}/{task.id}/{uuid.uuid4()}",
        "taskArn": task.task_arn,
        "name": plan.name,
        "image": plan.image,
        "lastStatus": "PENDING",
        "networkInterfaces": [],
        "healthStatus": "UNKNOWN",
        "cpu": "0",
    }
    description: Description = {
        "attachments": task.attachments,
        "attributes": [{"name": "ecs.cpu-architecture", "value": plan.architecture}],
        "availabilityZone": f"{task.region_name}a",
        "clusterArn": task.cluster_arn,
        "containers": [container],
        "cpu": plan.cpu,
        "createdAt": now,
        "desiredStatus": "RUNNING",
        "enableExecuteCommand": False,
        "ephemeralStorage": {"sizeInGiB": 20},
        "group": task.group,
        "healthStatus": "UNKNOWN",
        "lastStatus": "PROVISIONING",
        "launchType": "FARGATE",  # on Spot too
        "memory": plan.memory,
        "overrides": {"containerOverrides": [{"name": plan.name}], **task.overrides},
        "platformFamily": "Linux",
        "platformVersion": "1.4.0",
        "tags": task.tags,
        "taskArn": task.task_arn,
        "taskDefinitionArn": task.task_definition_arn,
        "version": 1,
    }
    if task.started_by:
        description["startedBy"] = task.started_by
    if task.capacity_provider_name:  # absent when RunTask named a launch type
        description["capacityProviderName"] = capacity
    return description


def state_change_event(description: Description, aws: EmulatedAws) -> dict[str, Any]:
    """Make the `ECS Task State Change` of a description, as EventBridge carries it: no tags."""
    now = datetime.now(UTC)
    detail = {name: value for name, value in description.items() if name != "tags"}
    return {
        "version": "0",
        "id": str(uuid.uuid4()),
        "detail-type": "ECS Task State Change",
        "source": "aws.ecs",
        "account": aws.account,
        "time": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "region": aws.region,
        "resources": [description["taskArn"]],
        "detail": _as_json({**detail, "updatedAt": now}),
    }


def _as_json(value: Any) -> Any:
    match value:
        case datetime():
            return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        case dict():
            return {name: _as_json(inner) for name, inner in value.items()}
        case list():
            return [_as_json(inner) for inner in value]
        case _:
            return value


def _named(entries: list[dict[str, str]] | None, key: str = "value") -> dict[str, str]:
    return {entry["name"]: entry[key] for entry in entries or []}


def _parameter(aws: EmulatedAws, source: str) -> str:
    if source.startswith("arn:") and ":ssm:" not in source:
        raise SecretUnavailableError(f"{source} is not an SSM parameter: only those are emulated")
    try:
        name = source.split(":parameter", 1)[-1]
        answer = aws.client("ssm").get_parameter(Name=name, WithDecryption=True)
        return str(answer["Parameter"]["Value"])
    except ClientError as error:
        if error.response["Error"]["Code"] != "ParameterNotFound":
            raise
    raise SecretUnavailableError(
        "ResourceInitializationError: unable to pull secrets or registry auth: unable to retrieve "
        f"secrets from ssm: Invalid parameters: {source}"
    )
