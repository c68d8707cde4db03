"""The handler: its functions, their rules, the failure queue and the last sweep."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from chalicelib.core.model.sweeping import SweepNotes, Unjudged
from chalicelib.core.provision.model import is_scheduled
from spotctl.context import Context
from spotctl.errors import find
from spotctl.output import DEPLOY, Row, failed, ok, warning
from spotctl.pause import records
from spotctl.project import Project

LATE_SWEEP: Final = timedelta(minutes=20)
"""A sweep runs every five minutes: three in a row may fail before that is a failure."""

MOST_NAMED: Final = 5
"""How many runs are named for each reason that a sweep could not judge them; tasks likewise."""
_UNJUDGED: Final = (
    "look at each in Prefect, and cancel or retry it if its task is gone; a cluster whose runs are"
    " to be watched belongs in ECS_CLUSTER"
)
_UNBILLED: Final = (
    "none, if it is billed within the hour for which ECS shows it; the log of the sweep function"
    " says more"
)
_RESTORE: Final = "wait a few minutes for provision to restore it, or run spotctl deploy"


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule that invokes a function. `dead_letter_arn` is empty where the target has no queue."""

    name: str
    is_enabled: bool
    dead_letter_arn: str = ""


@dataclass(frozen=True, slots=True)
class Function:
    """A Lambda function. `status` is empty where it is not deployed.

    `failures_to`: the ARN of the on-failure destination, empty for none.
    `is_held`: a reserved concurrency of 0 keeps it from running.
    """

    name: str
    status: str = ""
    rules: tuple[Rule, ...] = ()
    failures_to: str = ""
    is_held: bool = False


@dataclass(frozen=True, slots=True)
class Queue:
    """The failure queue: how many messages are visible (`waiting`) and in flight (`taken`)."""

    arn: str
    waiting: int
    taken: int


@dataclass(frozen=True, slots=True)
class Found:
    """What AWS returned. `queue` None: there is none. `swept`: what the last sweep left."""

    functions: tuple[Function, ...]
    queue: Queue | None
    swept: SweepNotes
    now: datetime


def read(context: Context) -> Found:
    """Read from Lambda, EventBridge, SQS and DynamoDB. Raises botocore's errors."""
    project = context.project
    names = [project.function_name(function) for function in project.functions]
    dynamodb = context.aws.client("dynamodb")
    missing = dynamodb.exceptions.ResourceNotFoundException
    swept = find(records(context).read_sweep, missing) or SweepNotes()
    return Found(
        functions=tuple(_function(context, name) for name in names),
        queue=_queue(context.aws.client("sqs"), project.failure_queue),
        swept=swept,
        now=context.now(),
    )


def rows(found: Found, project: Project) -> list[Row]:
    """Judge functions, rules, failure queue and sweep."""
    queue_arn = found.queue.arn if found.queue else ""
    judged = [row for function in found.functions for row in _function_rows(function, queue_arn)]
    queue = _queue_row(found.queue, project.failure_queue)
    unjudged = _rows_of("runs that sweep could not judge", found.swept.unjudged, _UNJUDGED)
    unbilled = _rows_of("tasks that sweep could not bill", found.swept.unbilled, _UNBILLED)
    return [*judged, queue, _sweep_row(found.swept, found.now), *unjudged, *unbilled]


def _function_rows(function: Function, queue_arn: str) -> list[Row]:
    part = f"function {function.name}"
    if function.status != "Active":
        return [failed(part, f"it is {function.status or 'not deployed'}", DEPLOY)]
    if function.is_held:
        step = "remove its reserved concurrency; a spotctl teardown that stopped half-way set it"
        return [failed(part, "its reserved concurrency of 0 keeps it from running", step)]
    judged = [_destination_row(part, function, queue_arn)]
    if not function.rules:
        return [*judged, failed(part, "no rule invokes it", DEPLOY)]
    return [*judged, *(_rule_row(rule, function, queue_arn) for rule in function.rules)]


def _destination_row(part: str, function: Function, queue_arn: str) -> Row:
    if is_scheduled(function.name):
        if not function.failures_to:
            return ok(part, "Active; its schedule calls it again")
        return warning(part, f"Active, but its failures fill {function.failures_to}", _RESTORE)
    if function.failures_to and function.failures_to == queue_arn:
        return ok(part, "Active; failures are kept")
    found = "Active, but what fails three times is lost: no on-failure destination"
    if function.failures_to:
        found = f"Active, but what fails three times goes to {function.failures_to}"
    return warning(part, found, _RESTORE)


def _rule_row(rule: Rule, function: Function, queue_arn: str) -> Row:
    part = f"rule {rule.name}"
    if not rule.is_enabled:
        step = f"aws events enable-rule --name {rule.name}"
        return failed(part, f"it is disabled: {function.name} receives no events", step)
    if is_scheduled(function.name) and not rule.dead_letter_arn:
        return ok(part, "enabled")
    if is_scheduled(function.name):
        return warning(part, f"enabled, but its failures fill {rule.dead_letter_arn}", _RESTORE)
    if rule.dead_letter_arn and rule.dead_letter_arn == queue_arn:
        return ok(part, "enabled; failures are kept")
    lost = "enabled, but what it cannot deliver is lost: no dead-letter queue"
    return warning(part, lost, _RESTORE)


def _queue_row(queue: Queue | None, name: str) -> Row:
    if queue is None:
        return failed("failure queue", f"there is no queue {name}", DEPLOY)
    if queue.waiting + queue.taken == 0:
        return ok("failure queue", "empty")
    taken = f", {queue.taken} more are being redriven" if queue.taken else ""
    return warning(
        "failure queue",
        f"{queue.waiting} events could not be handled{taken}",
        "find the cause in the function's log, then run spotctl redrive",
    )


def _sweep_row(swept: SweepNotes, now: datetime) -> Row:
    if swept.pause:
        found = f"{swept.pause}: no run is rescued"
        return warning("pause", found, "when the incident is over: spotctl resume")
    part = "last sweep"
    logs = "look at the log and the errors of the sweep function"
    if swept.swept_at is None:
        return warning(part, "none has finished yet", f"wait five minutes, then {logs}")
    age = now - swept.swept_at
    ago = f"{age // timedelta(minutes=1)} min ago"
    if age > LATE_SWEEP:
        return failed(part, f"{ago}: runs that no event reports are not repaired", logs)
    if swept.bookmark:
        return warning(part, f"{ago}; it timed out", "none: the next sweep continues")
    return ok(part, f"{ago}, it read all runs")


def _rows_of(part: str, left: Mapping[Any, Unjudged], next_step: str) -> Iterator[Row]:
    """Name what sweeps could not judge or bill, by reason; a few of each."""
    by_reason: dict[str, list[str]] = {}
    for key, unjudged in left.items():
        by_reason.setdefault(unjudged.reason, []).append(str(key))
    for reason, keys in by_reason.items():
        more = f" and {len(keys) - MOST_NAMED} more" if len(keys) > MOST_NAMED else ""
        yield warning(part, f"{reason}: {', '.join(keys[:MOST_NAMED])}{more}", next_step)


def _function(context: Context, name: str) -> Function:
    client = context.aws.client("lambda")
    missing = client.exceptions.ResourceNotFoundException
    configuration = find(lambda: client.get_function_configuration(FunctionName=name), missing)
    if configuration is None:
        return Function(name)
    kept = find(lambda: client.get_function_event_invoke_config(FunctionName=name), missing)
    destinations: Mapping[str, Any] = (kept or {}).get("DestinationConfig") or {}
    reserved = client.get_function_concurrency(FunctionName=name)
    return Function(
        name=name,
        status=str(configuration.get("State") or "Active"),
        rules=tuple(_rules(context.aws.client("events"), configuration["FunctionArn"])),
        failures_to=str((destinations.get("OnFailure") or {}).get("Destination", "")),
        is_held=reserved.get("ReservedConcurrentExecutions") == 0,
    )


def _rules(events: Any, function_arn: str) -> Iterator[Rule]:
    pages = events.get_paginator("list_rule_names_by_target").paginate(TargetArn=function_arn)
    for name in sorted(name for page in pages for name in page["RuleNames"]):
        targets = events.list_targets_by_rule(Rule=name)["Targets"]
        queues = [t.get("DeadLetterConfig") or {} for t in targets if t["Arn"] == function_arn]
        yield Rule(
            name=name,
            is_enabled=events.describe_rule(Name=name).get("State") == "ENABLED",
            dead_letter_arn=str(queues[0].get("Arn", "")) if queues else "",
        )


def _queue(sqs: Any, name: str) -> Queue | None:
    found = find(lambda: sqs.get_queue_url(QueueName=name), sqs.exceptions.QueueDoesNotExist)
    if found is None:
        return None
    url = found["QueueUrl"]
    depth = ("ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible")
    attributes = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn", *depth])
    values = attributes["Attributes"]
    return Queue(values["QueueArn"], *(int(values[count]) for count in depth))
