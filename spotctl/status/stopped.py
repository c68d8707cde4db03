"""Why the Prefect worker does not run: its newest stopped task, and the last lines of its log.

Also flows' tasks whose image is for another CPU architecture, which ECS itself does not say.

ECS keeps a stopped task for about an hour (ECS API reference, ListTasks). Its lines are in the
stack's log group, which goes with the stack when a creation is rolled back.
"""

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from botocore.exceptions import BotoCoreError, ClientError

from chalicelib.core.model.ecs_task import Task, parse_task
from chalicelib.core.model.text import one_line
from chalicelib.core.rescue.orphans import exited_at_once
from chalicelib.core.rescue.start_failures import ARCHITECTURE, UNRECOGNISED, start_failure_of
from spotctl.context import Context
from spotctl.errors import explain
from spotctl.output import Row, failed, warning

LINES: Final = 5
"""Lines of the log that are shown: a traceback's end says what was raised."""
LATELY: Final = timedelta(minutes=10)
"""A task that stopped so short a time ago is shown, even where another runs by now."""

_LINE_LENGTH: Final = 400
_LOG_LENGTH: Final = 900
"""Characters of all lines together: the oldest are left out first."""
_READ: Final = 25
"""Events of the log that are read: some say nothing, such as a traceback's markers."""
_DESCRIBED_AT_ONCE: Final = 100
"""Tasks that DescribeTasks takes."""
_LOOKED_AT: Final = 5
"""Logs of flows' tasks that are read, of those that exited at once."""
_CORRECT: Final = "correct what it names: ECS starts the worker again by itself"

_ESCAPE: Final = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")
_SECRETS: Final = (
    (re.compile(r"(pn[ub]_)\w{6,}", re.IGNORECASE), r"\1***"),
    (re.compile(r"(://)[^/\s]+@"), r"\1***@"),
    (re.compile(r"\b(bearer|basic)\s+[\w+/=.~:-]{8,}", re.IGNORECASE), r"\1 ***"),
    (
        re.compile(
            r"(\w*(?:passw(?:or)?d|passphrase|pwd|secret|token|credential|api[-_ ]?key|auth_?string"
            r"|authorization)\w*"
            r"[\\'\"]*\s*[=:]\s*)(?:\\*'[^']*'|\\*\"[^\"]*\"|[^\s,;&)}\]]+)",
            re.IGNORECASE,
        ),
        r"\1***",
    ),
)
"""What a log line may hold of a credential, and how it is shown."""


@dataclass(frozen=True, slots=True)
class Stopped:
    """The worker's newest task that failed, in words: ECS's reason, the container's exit code.

    `age`: since its end; None where ECS's tasks could not be read, and `reason` says why. `log`:
    the last lines, fit to be shown, the latest last; where there is none, `reason` says why.
    """

    reason: str
    next_step: str
    age: timedelta | None = None
    log: tuple[str, ...] = ()


def read(context: Context) -> Stopped | None:
    """Return the worker's newest failed task; None where ECS has none, or no such cluster.

    What was scaled in, replaced or stopped by a user has not failed. Raises nothing of botocore's:
    what AWS refuses is in the result.
    """
    ecs = context.aws.client("ecs")
    try:
        found = _newest(ecs, context)
    except ecs.exceptions.ClusterNotFoundException:
        return None
    except (BotoCoreError, ClientError) as error:
        what, next_step = explain(error)
        return Stopped(f"the worker's stopped tasks were not read: {what}", next_step)
    if found is None:
        return None
    task, definition = found
    age = context.now() - (task.exited_at or context.now())
    reason = _reason(task)
    known = start_failure_of(f"{task.stopped_reason} {task.container_reason}")
    next_step = _CORRECT if known is UNRECOGNISED else known.remedy
    if task.started_at is None:
        return Stopped(f"{reason}; no log, since its container never started", next_step, age)
    try:
        log, missing = _log(context, task, definition)
        if exited_at_once(task) and _is_of_another_architecture(log):
            next_step = ARCHITECTURE.remedy
    except (BotoCoreError, ClientError) as error:
        what, next_step = explain(error)
        log, missing = (), f"its log was not read: {what}"
    return Stopped("; ".join(filter(None, (reason, missing))), next_step, age, log)


def rows(found: Stopped | None, *, runs: bool, is_steady: bool) -> list[Row]:
    """Return a row for the stopped task and one for its log; none where all has been well.

    `runs`: a worker runs all the same. `is_steady`: all that are wanted run, and the rollout ended.
    """
    if found is None or (is_steady and (found.age is None or found.age > LATELY)):
        return []
    if found.age is None:
        return [warning("worker: stopped task", found.reason, found.next_step)]
    row = warning if runs else failed
    ago = f"{max(found.age, timedelta()) // timedelta(minutes=1)} min ago"
    judged = [row("worker: stopped task", f"{ago}: {found.reason}", found.next_step)]
    if found.log:
        judged.append(row("worker: log", " | ".join(found.log), _CORRECT))
    return judged


def rows_of_flows(context: Context) -> list[Row]:
    """Return a row for the newest flow's task whose image is for another CPU architecture.

    Raises nothing of botocore's: what AWS refuses is a row.
    """
    part = "flows: image"
    try:
        for task, described in _suspects(context):
            said = f"{task.stopped_reason} {task.container_reason}"
            if start_failure_of(said).what == ARCHITECTURE.what or _is_of_another_architecture(
                _log(context, task, described["taskDefinitionArn"])[0]
            ):
                what = f"of run {task.flow_run_id}: {ARCHITECTURE.what}, {task.architecture}"
                return [warning(part, what, ARCHITECTURE.remedy)]
    except (BotoCoreError, ClientError) as error:
        what, next_step = explain(error)
        return [warning(part, f"flows' stopped tasks were not read: {what}", next_step)]
    return []


def last_lines(messages: Iterable[str]) -> tuple[str, ...]:
    """Return the last lines of a log, fit to be shown.

    Each on one line, cut, without what a terminal obeys, credentials masked; none without a word.
    """
    lines: list[str] = []
    for message in reversed(list(messages)):
        line = one_line(_ESCAPE.sub("", message), 2 * _LINE_LENGTH)
        for pattern, mask in _SECRETS:
            line = pattern.sub(mask, line)
        if any(map(str.isalnum, line)):
            lines.append(line[:_LINE_LENGTH])
        if len(lines) == LINES:
            break
    while sum(map(len, lines)) > _LOG_LENGTH:
        lines.pop()
    return tuple(reversed(lines))


def _newest(ecs: Any, context: Context) -> tuple[Task, str] | None:
    """The newest failed task, and its task definition's ARN."""
    project = context.project
    cluster, family = project.settings.ecs_clusters[0], f"{project.stack}-worker"
    for task, described in _stopped(ecs, cluster, family=family):
        if _has_failed(task):
            return task, described["taskDefinitionArn"]
    return None


def _suspects(context: Context) -> list[tuple[Task, Mapping[str, Any]]]:
    """Flows' tasks, a few, the newest first, whose image may be for another architecture."""
    ecs, found = context.aws.client("ecs"), []
    for cluster in context.project.settings.ecs_clusters:
        with suppress(ecs.exceptions.ClusterNotFoundException):
            found += _stopped(ecs, cluster)
    return [
        (task, described)
        for task, described in found
        if task.flow_run_id and (exited_at_once(task) or task.started_at is None)
    ][:_LOOKED_AT]


def _stopped(ecs: Any, cluster: str, **of: str) -> list[tuple[Task, Mapping[str, Any]]]:
    """A cluster's stopped tasks, the newest first. Raises botocore's errors."""
    pages = ecs.get_paginator("list_tasks").paginate(cluster=cluster, desiredStatus="STOPPED", **of)
    arns = [arn for page in pages for arn in page["taskArns"]]
    found = []
    for first in range(0, len(arns), _DESCRIBED_AT_ONCE):
        chunk = arns[first : first + _DESCRIBED_AT_ONCE]
        for described in ecs.describe_tasks(cluster=cluster, tasks=chunk)["tasks"]:
            task = parse_task(described)
            if isinstance(task, Task) and task.created_at:
                found.append((task.created_at, task, described))
    return [each[1:] for each in sorted(found, key=lambda each: each[0], reverse=True)]


def _is_of_another_architecture(log: Iterable[str]) -> bool:
    return any(re.search(ARCHITECTURE.signs, line) for line in log)


def _has_failed(task: Task) -> bool:
    if task.stop_code == "ServiceSchedulerInitiated":  # scaled in, replaced, its service deleted
        return "health check" in task.stopped_reason
    return task.stop_code != "UserInitiated"


def _reason(task: Task) -> str:
    parts = [f"{one_line(task.stopped_reason, _LINE_LENGTH)} ({task.stop_code or 'no stop code'})"]
    if task.exit_code is not None:
        parts.append(f"its container's exit code is {task.exit_code}")
    if task.container_reason not in ("", task.stopped_reason):
        parts.append(f"its container: {one_line(task.container_reason, _LINE_LENGTH)}")
    return "; ".join(parts)


def _log(context: Context, task: Task, definition: str) -> tuple[tuple[str, ...], str]:
    """The last lines, and why there are none. Raises botocore's errors."""
    described = context.aws.client("ecs").describe_task_definition(taskDefinition=definition)
    containers = described["taskDefinition"]["containerDefinitions"]
    container = next((c for c in containers if c["name"] == "prefect"), containers[0])
    options: Mapping[str, str] = (container.get("logConfiguration") or {}).get("options") or {}
    group, prefix = options.get("awslogs-group"), options.get("awslogs-stream-prefix")
    if not (group and prefix):
        return (), "no log, since its task definition names no awslogs group and prefix"
    stream = f"{prefix}/{container['name']}/{task.arn.rpartition('/')[2]}"
    logs = context.aws.client("logs")
    try:
        answer = logs.get_log_events(
            logGroupName=group, logStreamName=stream, limit=_READ, startFromHead=False
        )
    except logs.exceptions.ResourceNotFoundException:
        return (), f"no log, since {group} has no stream {stream}"
    lines = last_lines(event["message"] for event in answer["events"])
    return lines, "" if lines else f"the stream {stream} of {group} is empty"
