"""`spotctl redrive`: invokes functions again with the events that they could not handle.

Two kinds of message are in the failure queue: what Lambda gave up on after its retries (a
destination record around the event), and what EventBridge could not deliver (the bare event, its
target in the message's attributes). A message is deleted only after its function has handled it:
handlers are idempotent, so handling an event twice does no harm, and losing one does.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from spotctl.context import LONGEST_INVOCATION_SECONDS, Context, find
from spotctl.errors import RefusedError
from spotctl.output import DEPLOY

MOST_AT_ONCE: Final = 10
"""How many messages SQS returns per request."""

_HELD_SECONDS: Final = LONGEST_INVOCATION_SECONDS + 60


@dataclass(frozen=True, slots=True)
class Message:
    """A message of the failure queue. `function` empty: its target is unknown.

    `reason`: why it was given up, as AWS says it. `subject`: what the event is about. `outcome`:
    what `redrive` did with it, in words; `done`: its function has handled it.
    """

    id: str
    receipt: str
    function: str
    event: Any = field(hash=False)
    reason: str = ""
    subject: str = ""
    outcome: str = ""
    done: bool = False

    def as_mapping(self) -> dict[str, object]:
        """Return what may be shown: never the event, which may contain secrets."""
        shown = ("id", "function", "subject", "reason", "outcome", "done")
        return {name: getattr(self, name) for name in shown}


def read_message(message: Mapping[str, Any]) -> Message:
    """Read an SQS message. Never raises: an unreadable one has no function."""
    ids: dict[str, Any] = {"id": message["MessageId"], "receipt": message["ReceiptHandle"]}
    try:
        body = json.loads(message["Body"])
    except ValueError:
        body = None
    if not isinstance(body, Mapping):
        return Message(**ids, function="", event=None, reason="it is not a JSON object")
    context = body.get("requestContext")
    if isinstance(context, Mapping) and "requestPayload" in body:
        event, error = body["requestPayload"], body.get("responsePayload")
        text = error.get("errorMessage") if isinstance(error, Mapping) else ""
        reason = f"{context.get('condition', 'failed')}: {text or 'no message'}"
        arn = str(context.get("functionArn", ""))
    else:
        attributes = message.get("MessageAttributes") or {}
        values = {name: a.get("StringValue", "") for name, a in attributes.items()}
        event = body
        reason = ": ".join(values[n] for n in ("ERROR_CODE", "ERROR_MESSAGE") if values.get(n))
        arn = values.get("TARGET_ARN", "")
    return Message(
        **ids, function=_name(arn), event=event, reason=reason, subject=_subject_of(event)
    )


def redrive(context: Context, *, dry_run: bool) -> Iterator[Message]:
    """Invoke each message's function once more; yield the message with its outcome.

    With `dry_run` nothing is invoked or deleted. Messages that are kept are visible again at the
    end. Raises RefusedError: there is no failure queue. Also botocore's errors.
    """
    sqs, name = context.aws.client("sqs"), context.project.failure_queue
    found = find(lambda: sqs.get_queue_url(QueueName=name), sqs.exceptions.QueueDoesNotExist)
    if found is None:
        raise RefusedError(f"there is no queue {name}", next_step=DEPLOY)
    url = found["QueueUrl"]
    kept: dict[str, str] = {}
    try:
        while messages := [m for m in _receive(sqs, url, dry_run=dry_run) if m.id not in kept]:
            for message in messages:
                kept[message.id] = message.receipt
                redriven = _redrive(context, message, dry_run=dry_run)
                if redriven.done:
                    sqs.delete_message(QueueUrl=url, ReceiptHandle=message.receipt)
                    del kept[message.id]
                yield redriven
    finally:
        for receipt in kept.values():
            sqs.change_message_visibility(QueueUrl=url, ReceiptHandle=receipt, VisibilityTimeout=0)


def _redrive(context: Context, message: Message, *, dry_run: bool) -> Message:
    if message.function not in map(context.project.function_name, context.project.functions):
        return replace(message, outcome="kept: its target is no function of this stage")
    if dry_run:
        return replace(message, outcome="would be redriven")
    answer = context.aws.invoke(message.function, message.event)
    if answer.error:
        return replace(message, outcome=f"kept: it failed again: {answer.error}")
    value = answer.value if isinstance(answer.value, Mapping) else {}
    if until := value.get("postponed_until"):
        return replace(message, outcome=f"kept: Prefect asked for no request before {until}")
    decision = value.get("decision")
    return replace(message, outcome=f"handled: {decision}" if decision else "handled", done=True)


def _receive(sqs: Any, url: str, *, dry_run: bool) -> list[Message]:
    answer = sqs.receive_message(
        QueueUrl=url,
        MaxNumberOfMessages=MOST_AT_ONCE,
        MessageAttributeNames=["All"],
        VisibilityTimeout=60 if dry_run else _HELD_SECONDS * MOST_AT_ONCE,
        WaitTimeSeconds=1,
    )
    return [read_message(message) for message in answer.get("Messages", ())]


def _name(function_arn: str) -> str:
    """The function's name in an ARN, with or without a version behind it."""
    _, found, rest = function_arn.partition(":function:")
    return rest.partition(":")[0] if found else ""


def _subject_of(event: object) -> str:
    """The event's task or type. Never another value: it may be secret."""
    if not isinstance(event, Mapping):
        return ""
    detail = event.get("detail")
    task = detail.get("taskArn") if isinstance(detail, Mapping) else None
    return str(task or event.get("detail-type") or "")
