"""An ECS task as an event or DescribeTasks reports it, and why it stopped.

First step of every rescue: `parse_event` turns any event into a Task or an Ignored, and `classify`
names the cause of the stop. Sources: ECS developer guide, "Amazon ECS task state change
events" and "fargate-capacity-providers".
"""

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final, assert_never
from uuid import UUID

from chalicelib.core.model.text import kept, one_line

FARGATE: Final = "FARGATE"
FARGATE_SPOT: Final = "FARGATE_SPOT"
FLOW_RUN_ID_VARIABLE: Final = "PREFECT__FLOW_RUN_ID"
FLOW_RUN_ID_TAG: Final = "prefect.io/flow-run-id"
DEPLOYMENT_ID_TAG: Final = "prefect.io/deployment-id"
WORK_POOL_TAG: Final = "prefect.io/work-pool-name"
SPOT_STOP_CODES: Final = ("SpotInterruption", "TerminationNotice")
SPOT_STOP_REASON: Final = "Your Spot Task was interrupted"
DRILL_STOP_REASON: Final = "prefect-spot drill"
_ARN: Final = re.compile(r"arn:[!-~]{1,400}")


class Cause(StrEnum):
    """Why a task stopped, as far as a rerun is concerned."""

    SPOT_INTERRUPTION = "Spot interruption"
    DRILL = "drill"
    NO_SPOT_CAPACITY = "no Spot capacity"
    FAILED_START = "failed start"
    OTHER = "another reason"


@dataclass(frozen=True, slots=True)
class Ignored:
    """Nothing to do, and why."""

    reason: str


@dataclass(frozen=True, slots=True)
class Task:
    """One task. `cpu_units` are 1/1024 vCPU, `memory_mib` MiB; times are UTC.

    `flow_container_stopped`, `exit_code` and `container_reason` are about the container that runs
    the flow, not about sidecars. `sent_from`: account and region in the envelope of the event,
    empty where it names none. `work_pool`: its tag, in which the worker replaces some characters.
    """

    arn: str
    cluster_arn: str
    last_status: str = ""
    desired_status: str = ""
    stop_code: str = ""
    stopped_reason: str = ""
    launch_type: str = ""
    capacity_provider: str = ""
    availability_zone: str = ""
    flow_run_id: UUID | None = None
    deployment_id: UUID | None = None
    flow_container_stopped: bool = False
    version: int = 0
    cpu_units: int | None = None
    memory_mib: int | None = None
    storage_gib: int | None = None
    architecture: str = "x86_64"
    created_at: datetime | None = None
    pull_started_at: datetime | None = None
    started_at: datetime | None = None
    execution_stopped_at: datetime | None = None
    stopped_at: datetime | None = None
    updated_at: datetime | None = None
    exit_code: int | None = None
    container_reason: str = ""
    work_pool: str = ""
    sent_from: tuple[str, str] = ("", "")

    @property
    def region(self) -> str:
        """AWS region, out of the task's ARN; empty when the ARN has none."""
        return _arn_part(self.arn, 3)

    @property
    def account(self) -> str:
        """AWS account id, out of the task's ARN; empty when the ARN has none."""
        return _arn_part(self.arn, 4)

    @property
    def capacity(self) -> str:
        """FARGATE_SPOT or FARGATE. ECS names no provider when RunTask gave a launch type."""
        return FARGATE_SPOT if self.capacity_provider == FARGATE_SPOT else FARGATE

    @property
    def exited(self) -> bool:
        """Whether the flow's process surely ended: in STOPPING, ECS has sent SIGTERM and waits."""
        return self.flow_container_stopped or self.last_status in ("DEPROVISIONING", "STOPPED")

    @property
    def exited_at(self) -> datetime | None:
        """When the flow's process ended (UTC), by what ECS reported so far; None while it runs."""
        if not self.exited:
            return None
        return self.execution_stopped_at or self.stopped_at or self.updated_at

    @property
    def ended_by(self) -> str:
        """What ECS says of its end, in a line: stop code, exit code, reasons."""
        code = "" if self.exit_code is None else f"exit code {self.exit_code}"
        said = (self.stop_code, code, self.stopped_reason, self.container_reason)
        return one_line(", ".join(dict.fromkeys(filter(None, said))))

    @property
    def billed_from(self) -> datetime | None:
        """When AWS starts to charge (UTC): at the image pull; None where ECS did not report it."""
        return self.pull_started_at or self.started_at


def parse_event(event: object) -> Task | Ignored:
    """Read an EventBridge event; anything that is no ECS task change is Ignored. Never raises.

    The envelope's `time`, `account` and `region` are not needed: the guide's own example has none.
    """
    if not isinstance(event, Mapping):
        return Ignored("not an event: no JSON object")
    if event.get("source") != "aws.ecs" or event.get("detail-type") != "ECS Task State Change":
        return Ignored("not an ECS task state change")
    detail = event.get("detail")
    if not isinstance(detail, Mapping):
        return Ignored("malformed event: no detail")
    task = parse_task(detail, seen_at=_instant(event, "time"))
    if isinstance(task, Ignored):
        return task
    return replace(task, sent_from=(_text(event, "account"), _text(event, "region")))


def parse_task(detail: Mapping[str, object], seen_at: datetime | None = None) -> Task | Ignored:
    """Read a task from an event's `detail` or from DescribeTasks. Never raises.

    `seen_at` stands in for `updatedAt`, which DescribeTasks does not have.
    """
    arn, cluster_arn = _text(detail, "taskArn"), _text(detail, "clusterArn")
    if not (_ARN.fullmatch(arn) and _ARN.fullmatch(cluster_arn)):
        return Ignored("malformed event: no task or cluster ARN")
    tags = _pairs(detail.get("tags"), "key")
    container_name, flow_run_id = _flow_container(detail)
    # The flow's; all of them where none is known to be.
    containers = _objects(detail.get("containers"))
    if container_name:
        containers = [c for c in containers if c.get("name") == container_name]
    container = containers[0] if containers else {}
    return Task(
        arn=arn,
        cluster_arn=cluster_arn,
        last_status=_text(detail, "lastStatus"),
        desired_status=_text(detail, "desiredStatus"),
        stop_code=_text(detail, "stopCode"),
        stopped_reason=_text(detail, "stoppedReason"),
        launch_type=_text(detail, "launchType"),
        capacity_provider=_text(detail, "capacityProviderName"),
        availability_zone=_text(detail, "availabilityZone"),
        flow_run_id=flow_run_id or _uuid(tags.get(FLOW_RUN_ID_TAG)),
        deployment_id=_uuid(tags.get(DEPLOYMENT_ID_TAG)),
        flow_container_stopped=bool(containers)
        and all(container.get("lastStatus") == "STOPPED" for container in containers),
        version=_whole_number(detail, "version") or 0,
        cpu_units=_whole_number(detail, "cpu"),
        memory_mib=_whole_number(detail, "memory"),
        storage_gib=_whole_number(_object(detail.get("ephemeralStorage")), "sizeInGiB"),
        architecture=_architecture(detail),
        created_at=_instant(detail, "createdAt"),
        pull_started_at=_instant(detail, "pullStartedAt"),
        started_at=_instant(detail, "startedAt"),
        execution_stopped_at=_instant(detail, "executionStoppedAt"),
        stopped_at=_instant(detail, "stoppedAt"),
        updated_at=_instant(detail, "updatedAt") or seen_at,
        exit_code=_whole_number(container, "exitCode"),
        container_reason=_text(container, "reason"),
        work_pool=_text(tags, WORK_POOL_TAG),
    )


def completed_by(event_task: Task, described: Task) -> Task:
    """Return the task as DescribeTasks shows it, keeping an interruption that the event reported.

    A task that exits by itself after the warning may show another stop code by now.
    """
    if not is_interruption(event_task) or is_interruption(described):
        return described
    stop_code, reason = event_task.stop_code, event_task.stopped_reason
    return replace(described, stop_code=stop_code, stopped_reason=reason)


def classify(task: Task, *, warned: bool) -> Cause:
    """Return whether Spot or a drill stopped the task, or something else: then OTHER.

    `warned`: a Spot warning for this task is on record. What else it may be, and what a start
    that failed is: `core/rescue/snapshot.py`.

    Never by exit code: 143, 137, 1, 2, 0 and none at all occur on interruption.
    """
    is_spot = task.capacity == FARGATE_SPOT
    if task.stopped_reason.startswith(DRILL_STOP_REASON):
        return Cause.DRILL
    if is_interruption(task) or (is_spot and warned):
        return Cause.SPOT_INTERRUPTION
    return Cause.OTHER


def was_interrupted(cause: Cause) -> bool:
    """Whether the cause counts as an interruption, against the budget."""
    match cause:
        case Cause.SPOT_INTERRUPTION | Cause.DRILL:
            return True
        case Cause.NO_SPOT_CAPACITY | Cause.FAILED_START | Cause.OTHER:
            return False
    assert_never(cause)


def is_interruption(task: Task) -> bool:
    """Whether ECS itself says so: by stop code, or by the reason alone, as older accounts get."""
    return task.stop_code in SPOT_STOP_CODES or task.stopped_reason.startswith(SPOT_STOP_REASON)


def reason_to_ignore(task: Task, clusters: Sequence[str], account: str, region: str) -> str:
    """Return why a task is not ours; empty for a Fargate task in one of our clusters.

    `clusters`: names or ARNs. `account` and `region`: ours, empty: not checked. Clusters of other
    accounts and regions may have the same names, and their events may be forwarded to our bus.
    Whatever its stop code, a task on EC2, EXTERNAL or Managed Instances is none of Fargate's, and
    so is one on a capacity provider of the user's (ECS API: `launchType`, `capacityProviderName`).
    """
    on_other_capacity = task.capacity_provider not in ("", FARGATE, FARGATE_SPOT)
    if task.launch_type not in ("", FARGATE) or on_other_capacity:
        return "the task is not on Fargate"
    of_arns = [(_arn_part(arn, 4), _arn_part(arn, 3)) for arn in (task.arn, task.cluster_arn)]
    sender = (task.sent_from[0] or account, task.sent_from[1] or region)
    for its_account, its_region in (*of_arns, sender):
        if account and its_account != account:
            return f"the task is of another account, {one_line(its_account)}"
        if region and its_region != region:
            return f"the task is in another region, {one_line(its_region)}"
    name = task.cluster_arn.rpartition("cluster/")[2]
    if task.cluster_arn in clusters or name in clusters:
        return ""
    return "the task is in none of our clusters"


def _flow_container(detail: Mapping[str, object]) -> tuple[str, UUID | None]:
    """Return name and flow run id of the container whose override carries the flow run's id."""
    for container in _objects(_object(detail.get("overrides")).get("containerOverrides")):
        environment = _pairs(container.get("environment"), "name")
        if flow_run_id := _uuid(environment.get(FLOW_RUN_ID_VARIABLE)):
            return _text(container, "name"), flow_run_id
    return "", None


def _architecture(detail: Mapping[str, object]) -> str:
    """As ECS names it; Windows has prices of its own, and we know none."""
    if _text(detail, "platformFamily").startswith("Windows"):
        return "windows"
    attributes = _pairs(detail.get("attributes"), "name")
    return _text(attributes, "ecs.cpu-architecture") or "x86_64"


def _object(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}


def _objects(value: object) -> list[Mapping[str, object]]:
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


def _pairs(value: object, key: str) -> Mapping[str, object]:
    """Return the values of a list of objects, each of which has a key (or name) and a value."""
    return {_text(item, key): item.get("value") for item in _objects(value)}


def _text(source: Mapping[str, object], key: str) -> str:
    value = source.get(key)
    return kept(value) if isinstance(value, str) else ""


def _whole_number(source: Mapping[str, object], key: str) -> int | None:
    value = source.get(key)
    if isinstance(value, str) and len(value) < 16 and value.isascii() and value.isdigit():
        return int(value)
    return value if type(value) is int and 0 <= value < 10**15 else None


def _instant(source: Mapping[str, object], key: str) -> datetime | None:
    value = source.get(key)
    with suppress(OverflowError, ValueError):
        at = datetime.fromisoformat(value) if isinstance(value, str) else value
        if isinstance(at, datetime):
            return (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC)
    return None


def _uuid(value: object) -> UUID | None:
    with suppress(ValueError):
        return UUID(value) if isinstance(value, str) else None
    return None


def _arn_part(arn: str, position: int) -> str:
    return dict(enumerate(arn.split(":"))).get(position, "")
