"""`spotctl redrive`: invokes functions again with the events that they could not handle.

Two kinds of message are in the failure queue: what Lambda gave up on after its retries (a
destination record around the event), and what EventBridge could not deliver (the bare event, its
target in the message's attributes). A message is deleted only after its function has handled it:
handlers are idempotent, so handling an event twice does no harm, and losing one does.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, Final

import boto3
from botocore.exceptions import ClientError

from chalicelib.adapters.aws import EcsTasks
from chalicelib.core.model.ecs_task import Ignored, Task, parse_event
from chalicelib.core.rescue.actions import Verdict
from chalicelib.errors import NOT_PROVISIONED
from spotctl.context import LONGEST_INVOCATION_SECONDS, Context
from spotctl.errors import RefusedError, find
from spotctl.origin import (
    Stage,
    doubt_about_claims,
    doubt_about_event,
    doubt_about_record,
    doubt_about_sender,
    time_of,
)
from spotctl.output import DEPLOY, Exit, Output, table_of

MOST_AT_ONCE: Final = 10
"""How many messages SQS returns per request."""

_HELD_SECONDS: Final = LONGEST_INVOCATION_SECONDS + 60


@dataclass(frozen=True, slots=True)
class Message:
    """A message of the failure queue. `function` empty: its target is unknown.

    `reason`: why it was given up, as its sender says. `sender`: SQS's SenderId, from AWS. `times`:
    how often the function was invoked with it, or the delivery retried. `record`: Lambda's, empty
    where EventBridge sent the event. `doubt`: why it may be forged. `outcome`: what `redrive` did
    with it, in words; `done`: its function has handled it.
    """

    id: str
    receipt: str
    function: str
    event: Any = field(hash=False)
    function_arn: str = ""
    record: Mapping[str, Any] = field(default_factory=dict, hash=False)
    rule_arn: str = ""
    reason: str = ""
    sender: str = ""
    times: str = ""
    doubt: str = ""
    outcome: str = ""
    done: bool = False

    @property
    def about(self) -> dict[str, str]:
        """What the event claims to be about. Never another value of it: that may be secret."""
        event = self.event if isinstance(self.event, Mapping) else {}
        detail, task = event.get("detail"), parse_event(event)
        claimed = detail.get("taskArn") if isinstance(detail, Mapping) else None
        kind, at = event.get("detail-type"), time_of(event.get("time"))
        known = None if isinstance(task, Ignored) else task
        return {
            "event": kind if isinstance(kind, str) else "",
            "subject": next((t for t in (claimed, kind) if isinstance(t, str)), ""),
            "flow_run": str((known and known.flow_run_id) or ""),
            "stop_code": known.stop_code if known else "",
            "at": at.isoformat() if at else "",
        }

    def as_mapping(self) -> dict[str, object]:
        """Return what may be shown: never the event, which may contain secrets."""
        shown = ("id", "function", "reason", "outcome", "done", "times", "sender", "doubt")
        return {**{name: getattr(self, name) for name in shown}, **self.about}


def read_message(message: Mapping[str, Any]) -> Message:
    """Read an SQS message. Never raises: an unreadable one has no function."""
    ids: dict[str, Any] = {
        "id": message["MessageId"],
        "receipt": message["ReceiptHandle"],
        "sender": str((message.get("Attributes") or {}).get("SenderId", "")),
    }
    try:
        body = json.loads(message["Body"])
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, Mapping):
        return Message(**ids, function="", event=None, reason="it is not a JSON object")
    context = body.get("requestContext")
    if isinstance(context, Mapping) and "requestPayload" in body:
        event, error = body["requestPayload"], body.get("responsePayload")
        text = error.get("errorMessage") if isinstance(error, Mapping) else ""
        reason = f"{context.get('condition', 'failed')}: {text or 'no message'}"
        arn, times = str(context.get("functionArn", "")), context.get("approximateInvokeCount", "")
        ids |= {"record": context}
    else:
        attributes = message.get("MessageAttributes") or {}
        values = {name: a.get("StringValue", "") for name, a in attributes.items()}
        event = body
        reason = ": ".join(values[n] for n in ("ERROR_CODE", "ERROR_MESSAGE") if values.get(n))
        arn, times = values.get("TARGET_ARN", ""), values.get("RETRY_ATTEMPTS", "")
        ids |= {"rule_arn": values.get("RULE_ARN", "")}
    return Message(
        **ids,
        function=_name(arn),
        function_arn=arn,
        event=event,
        reason=reason,
        times=str(times),
    )


class FailureQueue:
    """The stage's failure queue. What was received is held: nothing else receives it meanwhile."""

    def __init__(self, context: Context, *, dry_run: bool) -> None:
        """Raises RefusedError: there is no failure queue. Also botocore's errors."""
        self._context, self._dry_run = context, dry_run
        self._sqs, name = context.aws.client("sqs"), context.project.failure_queue
        missing = self._sqs.exceptions.QueueDoesNotExist
        found = find(lambda: self._sqs.get_queue_url(QueueName=name), missing)
        if found is None:
            raise RefusedError(f"there is no queue {name}", next_step=DEPLOY)
        self._url: str = found["QueueUrl"]
        self._held: dict[str, str] = {}
        self._role_id = cache(self._read_role_id)

    def read(self) -> list[Message]:
        """Receive all messages; return each with a doubt, or an outcome that it may be redriven."""
        project, aws = self._context.project, self._context.aws
        stage = Stage(
            partition=boto3.Session().get_partition_for_region(aws.region),
            account=aws.account,
            region=aws.region,
            functions={project.function_name(name): name for name in project.functions},
            clusters=project.settings.ecs_clusters,
        )
        found: list[Message] = []
        while messages := [m for m in self._receive() if m.id not in self._held]:
            self._held |= {message.id: message.receipt for message in messages}
            found += messages
        return [self._judged(message, stage) for message in found]

    def redrive(self, messages: Sequence[Message]) -> Iterator[Message]:
        """Invoke the function of each without a doubt; yield all, with their outcomes."""
        for message in messages:
            redriven = message if message.doubt else self._redriven(message)
            if redriven.done:
                self._sqs.delete_message(QueueUrl=self._url, ReceiptHandle=message.receipt)
                del self._held[message.id]
            yield redriven

    def release(self) -> None:
        """Make what was kept visible again."""
        for receipt in self._held.values():
            self._sqs.change_message_visibility(
                QueueUrl=self._url, ReceiptHandle=receipt, VisibilityTimeout=0
            )

    def _redriven(self, message: Message) -> Message:
        answer = self._context.aws.invoke(message.function, message.event)
        if answer.error:
            return replace(message, outcome=f"kept: it failed again: {answer.error}")
        value = answer.value if isinstance(answer.value, Mapping) else {}
        decision = value.get("decision")
        if decision == Verdict.PAUSED or value.get("state") == NOT_PROVISIONED:
            return replace(message, outcome=f"kept: {value.get('reason')}")
        if until := value.get("postponed_until"):
            return replace(message, outcome=f"kept: Prefect asked for no request before {until}")
        return replace(
            message, outcome=f"handled: {decision}" if decision else "handled", done=True
        )

    def _judged(self, message: Message, stage: Stage) -> Message:
        if doubt := self._doubt(message, stage):
            return replace(message, doubt=doubt, outcome=f"kept: {doubt}")
        return replace(message, outcome="would be redriven")

    def _doubt(self, message: Message, stage: Stage) -> str:
        if stage.function_of(message.function_arn) != message.function or not message.function:
            return "its target is no function of this stage"
        if message.rule_arn and not stage.has_rule(message.rule_arn):
            return "it is of a rule of another account or region"
        event, now = message.event, self._context.now()
        return (
            (doubt_about_record(message.record) if message.record else "")
            or (self._doubt_about_sender(message) if message.record else "")
            or doubt_about_event(event, message.function, stage, now)
            or self._doubt_by_ecs(event)
        )

    def _doubt_about_sender(self, message: Message) -> str:
        return doubt_about_sender(message.sender, self._role_id(message.function))

    def _doubt_by_ecs(self, event: Mapping[str, Any]) -> str:
        task = parse_event(event)
        if isinstance(task, Ignored):
            return ""  # a schedule's
        tasks = EcsTasks(self._context.aws.client("ecs"))
        described = tasks.describe_many(task.cluster_arn, [task.arn]).get(task.arn)
        return doubt_about_claims(event, described) if isinstance(described, Task) else ""

    def _read_role_id(self, function: str) -> str:
        """The id of the function's role; empty where it cannot be read."""
        aws = self._context.aws
        try:
            arn = aws.client("lambda").get_function_configuration(FunctionName=function)["Role"]
            role = aws.client("iam").get_role(RoleName=arn.rpartition("/")[2])
        except ClientError:
            return ""
        return str(role["Role"].get("RoleId", ""))

    def _receive(self) -> list[Message]:
        answer = self._sqs.receive_message(
            QueueUrl=self._url,
            MaxNumberOfMessages=MOST_AT_ONCE,
            AttributeNames=["SenderId"],
            MessageAttributeNames=["All"],
            VisibilityTimeout=60 if self._dry_run else _HELD_SECONDS * MOST_AT_ONCE,
            WaitTimeSeconds=1,
        )
        return [read_message(message) for message in answer.get("Messages", ())]


@contextmanager
def open_queue(context: Context, *, dry_run: bool) -> Iterator[FailureQueue]:
    """Yield the stage's failure queue; what was kept is visible again at the end.

    Raises RefusedError: there is none. Also botocore's errors.
    """
    queue = FailureQueue(context, dry_run=dry_run)
    try:
        yield queue
    finally:
        queue.release()


def show_redriven(messages: Sequence[Message], output: Output, *, dry_run: bool) -> Exit:
    """Print what became of the messages; return FAILED where one was kept."""
    handled = sum(message.done for message in messages)
    title = f"{len(messages)} messages, {handled} handled"
    output.result(
        {
            "dry_run": dry_run,
            "found": len(messages),
            "handled": handled,
            "messages": [message.as_mapping() for message in messages],
        },
        lambda: as_table(title, messages) if messages else "the failure queue is empty",
    )
    return Exit.FAILED if handled < len(messages) and not dry_run else Exit.OK


def as_table(title: str, messages: Sequence[Message]) -> Any:
    """Return the messages for a terminal."""
    columns = ("function", "event", "sender", "given up because", "outcome")
    lines = []
    for message in messages:
        about = message.about
        parts = (
            about["event"],
            about["at"],
            about["stop_code"] and f"stop code {about['stop_code']}",
            f"about {about['subject'].rpartition('/')[2]}",
            about["flow_run"] and f"of flow run {about['flow_run']}",
            message.times and f"tried {message.times} times",
        )
        event = ", ".join(filter(None, parts)) if about["event"] else "unreadable"
        lines.append((message.function, event, message.sender, message.reason, message.outcome))
    return table_of(title, columns, lines)


def _name(function_arn: str) -> str:
    """The function's name in an ARN, with or without a version behind it."""
    _, found, rest = function_arn.partition(":function:")
    return rest.partition(":")[0] if found else ""
