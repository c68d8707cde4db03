"""Whether a message of the failure queue is what AWS put there, or forged. No I/O.

A principal that may send to the queue may send anything, and `redrive` would hand it to the
functions. AWS itself vouches for a message's `SenderId`; the rest is compared with the stage, with
itself and with ECS.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any, Final
from uuid import UUID

from chalicelib.core.model.ecs_task import (
    Ignored,
    Task,
    parse_event,
    reason_to_ignore,
)

OLDEST: Final = timedelta(days=90)
"""Run records are kept so long; an older event would count as a new interruption."""

_AHEAD: Final = timedelta(minutes=5)
"""By how much AWS's clocks, and this machine's, may differ."""

_ROUNDED: Final = timedelta(seconds=10)
"""ECS rounds some of its times to seconds, and takes them from two clocks."""

_ON_EVENT: Final = ("react", "meter")
_ENVELOPE: Final = frozenset(
    ("version", "id", "detail-type", "source", "account", "time", "region", "resources", "detail")
)
_TASK_ID: Final = re.compile("[0-9a-f]{32}|[0-9a-f-]{36}")
_IN_ORDER: Final = (
    ("createdAt", "startedAt", "executionStoppedAt", "stoppedAt"),
    ("createdAt", "stoppingAt", "stoppedAt"),
)
_ROLE_SESSION: Final = re.compile("(AROA[A-Z0-9]+):.*")


@dataclass(frozen=True, slots=True)
class Stage:
    """What the messages must be of. `functions`: short names by name; `clusters`: names or ARNs."""

    partition: str
    account: str
    region: str
    functions: Mapping[str, str]
    clusters: Sequence[str]

    def function_of(self, arn: object) -> str:
        """Return the name of the stage's function with that ARN, qualified or not; or empty."""
        kind, name = self._of(arn, "lambda")
        found = name.partition(":")[0] if kind == "function" else ""
        return found if found in self.functions else ""

    def has_rule(self, arn: object) -> bool:
        """Whether it is the ARN of a rule in the stage's account and region."""
        return self._of(arn, "events")[0] == "rule"

    def _of(self, arn: object, service: str) -> tuple[str, str]:
        begin = f"arn:{self.partition}:{service}:{self.region}:{self.account}:"
        if not isinstance(arn, str) or not arn.startswith(begin):
            return "", ""
        kind, _, name = arn.removeprefix(begin).replace("/", ":", 1).partition(":")
        return kind, name


def doubt_about_record(context: Mapping[str, Any]) -> str:
    """Return why Lambda did not write this record of a failed invocation; empty if it may have.

    Source: Lambda's developer guide, "Capturing records of asynchronous invocations".
    """
    condition, count = context.get("condition"), context.get("approximateInvokeCount", 1)
    if not isinstance(condition, str) or not re.fullmatch("[A-Za-z]+", condition):
        return "its record names no condition"
    if condition == "Success":
        return "its record is about a success"
    if type(count) is not int or count < 0:
        return "its record counts no invocations"
    return "" if _is_uuid(context.get("requestId", str(UUID(int=0)))) else "its request id is none"


def doubt_about_sender(sender: str, role_id: str) -> str:
    """Return why a record of Lambda's is of another sender; empty if it may be Lambda's.

    Lambda sends it as the function's role: `sender`, SQS's SenderId, is then the role's id and a
    session's name. `role_id`: that role's; empty: unknown.
    """
    session = _ROLE_SESSION.fullmatch(sender)
    if session and role_id and session[1] != role_id:
        return "another role than the function's sent it"
    return ""


def doubt_about_event(event: object, function: str, stage: Stage, now: datetime) -> str:
    """Return why EventBridge did not send this event to that function; empty if it may have.

    `now` is in UTC.
    """
    if not isinstance(event, Mapping):
        return "it is no event: no JSON object"
    if not _is_uuid(event.get("id")):
        return "its id is none of EventBridge's"
    if (event.get("account"), event.get("region")) != (stage.account, stage.region):
        return "it is of another account or region"
    at = time_of(event.get("time"))
    if at is None:
        return "it has no time"
    if not now - OLDEST < at < now + _AHEAD:
        return f"its time, {at:%Y-%m-%d %H:%M}, is in the future, or {OLDEST.days} days ago"
    if stage.functions[function] in _ON_EVENT:
        return _doubt_about_task_event(event, stage, at)
    return _doubt_about_schedule(event, stage)


def doubt_about_claims(event: Mapping[str, Any], described: Task) -> str:
    """Return where an event contradicts what ECS says about its task; empty for nowhere."""
    task = parse_event(event)
    if isinstance(task, Ignored):
        return task.reason
    if task.flow_run_id != described.flow_run_id:
        return f"ECS names the flow run {described.flow_run_id or 'none'} for its task"
    if task.exited and not described.exited:
        return f"ECS says that its task is {described.last_status}"
    if (task.stop_code or task.stopped_reason) and described.desired_status == "RUNNING":
        return "ECS says that its task was not stopped"
    if task.version > described.version > 0:
        return "ECS knows an older version of its task"
    for name, claimed, found in (
        ("stop code", task.stop_code, described.stop_code),
        ("stop reason", task.stopped_reason, described.stopped_reason),
        ("capacity", task.capacity_provider, described.capacity_provider),
    ):
        if claimed and claimed != found:
            return f"ECS has another {name}: {found or 'none'}"
    return ""


def time_of(value: object) -> datetime | None:
    """Return a time of an event, in UTC; None for what is no time with an offset."""
    try:
        at = datetime.fromisoformat(value) if isinstance(value, str) else None
        return at.astimezone(UTC) if at is not None and at.tzinfo else None
    except (ValueError, OverflowError):
        return None


def _doubt_about_task_event(event: Mapping[str, Any], stage: Stage, at: datetime) -> str:
    task = parse_event(event)
    if isinstance(task, Ignored):
        return task.reason
    if why := reason_to_ignore(task, stage.clusters, stage.account, stage.region):
        return why
    cluster, (place, _, id_) = task.cluster_arn, task.arn.rpartition("/")
    begin = f"arn:{stage.partition}:ecs:"
    if not cluster.startswith(begin) or place != cluster.replace(":cluster/", ":task/", 1):
        return "its task's ARN and its cluster's do not agree"
    if not _TASK_ID.fullmatch(id_):
        return "its task's id is none of ECS's"
    if event.get("resources", [task.arn]) != [task.arn]:
        return "its resources are not its task"
    if (task.stop_code or task.exited) and task.desired_status == "RUNNING":
        return "its task has stopped, but is to run"
    for names in _IN_ORDER:
        texts = [event["detail"][name] for name in names if name in event["detail"]]
        times = [each for each in map(time_of, texts) if each is not None]
        in_order = all(a <= b + _ROUNDED for a, b in pairwise([*times, at]))
        if len(times) < len(texts) or not in_order:
            return "its times contradict each other"
    return ""


def _doubt_about_schedule(event: Mapping[str, Any], stage: Stage) -> str:
    if (event.get("source"), event.get("detail-type")) != ("aws.events", "Scheduled Event"):
        return "it is no schedule's event"
    if event.get("detail") or event.keys() - _ENVELOPE:
        return "it has more in it than a schedule's event"
    resources = event.get("resources")
    is_rule = isinstance(resources, list) and len(resources) == 1 and stage.has_rule(resources[0])
    return "" if is_rule else "it names no rule of this account and region"


def _is_uuid(value: object) -> bool:
    try:
        return isinstance(value, str) and str(UUID(value)) == value.lower()
    except ValueError:
        return False
