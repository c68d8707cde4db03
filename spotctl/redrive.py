"""`spotctl redrive`: what could not be handled goes back to the function it was for.

Two kinds of message lie in the failure queue: what Lambda gave up on after its tries (a destination
record around the event), and what EventBridge could not deliver (the bare event, the target in the
message's attributes). A message is deleted only after its function has handled it: handlers are
idempotent, so an event that is handled twice does no harm, and one that is lost does.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from spotctl.context import LONGEST_INVOCATION_SECONDS, Context
from spotctl.errors import RefusedError
from spotctl.lambdas import invoke

MOST_AT_ONCE: Final = 10
"""How many messages SQS gives at once."""

_HELD_SECONDS: Final = LONGEST_INVOCATION_SECONDS + 60


@dataclass(frozen=True, slots=True)
class Letter:
    """A message of the failure queue. `function` empty: nobody can tell whom it was for.

    `reason`: why it was given up, as AWS says it. `subject`: what the event is about. `outcome`:
    what became of it, in words; `done`: its function has handled it.
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
        """What may be shown of it: never the event."""
        shown = ("id", "function", "subject", "reason", "outcome", "done")
        return {name: getattr(self, name) for name in shown}


def read_letter(message: Mapping[str, Any]) -> Letter:
    """Read an SQS message. Never raises: what cannot be read has no function."""
    about: dict[str, Any] = {"id": message["MessageId"], "receipt": message["ReceiptHandle"]}
    try:
        body = json.loads(message["Body"])
    except ValueError:
        return Letter(**about, function="", event=None, reason="it is not JSON")
    if not isinstance(body, Mapping):
        return Letter(**about, function="", event=body, reason="it is not an event")
    context = body.get("requestContext")
    if isinstance(context, Mapping) and "requestPayload" in body:
        event = body["requestPayload"]
        error = body.get("responsePayload")
        said = error.get("errorMessage") if isinstance(error, Mapping) else ""
        reason = f"{context.get('condition', 'failed')}: {said or 'no message'}"
        arn = str(context.get("functionArn", ""))
        return Letter(**about, function=_name(arn), event=event, reason=reason, subject=_of(event))
    attributes = message.get("MessageAttributes") or {}
    values = {name: a.get("StringValue", "") for name, a in attributes.items()}
    reason = ": ".join(values[n] for n in ("ERROR_CODE", "ERROR_MESSAGE") if values.get(n))
    arn = values.get("TARGET_ARN", "")
    return Letter(**about, function=_name(arn), event=body, reason=reason, subject=_of(body))


def redrive(context: Context, *, dry_run: bool) -> Iterator[Letter]:
    """Give each message of the queue back to its function, once; say what became of it.

    With `dry_run` nothing is invoked or deleted. What is not deleted can be had again at the end.

    Raises:
        RefusedError: there is no failure queue; also botocore's errors.
    """
    sqs = context.aws.client("sqs")
    name = context.project.failure_queue
    try:
        url = sqs.get_queue_url(QueueName=name)["QueueUrl"]
    except sqs.exceptions.QueueDoesNotExist:
        raise RefusedError(f"there is no queue {name}", next_step="run spotctl deploy") from None
    ours = {context.project.function_name(function) for function in context.project.functions}
    kept: dict[str, str] = {}
    try:
        while letters := [x for x in _received(sqs, url, dry_run=dry_run) if x.id not in kept]:
            for letter in letters:
                kept[letter.id] = letter.receipt
                redriven = _redrive(context, letter, ours, dry_run=dry_run)
                if redriven.done:
                    sqs.delete_message(QueueUrl=url, ReceiptHandle=letter.receipt)
                    del kept[letter.id]
                yield redriven
    finally:
        for receipt in kept.values():
            sqs.change_message_visibility(QueueUrl=url, ReceiptHandle=receipt, VisibilityTimeout=0)


def _redrive(context: Context, letter: Letter, ours: set[str], *, dry_run: bool) -> Letter:
    if letter.function not in ours:
        return replace(letter, outcome="kept: it is for no function of this stage")
    if dry_run:
        return replace(letter, outcome="would be redriven")
    answer = invoke(context, letter.function, json.dumps(letter.event).encode())
    if answer.error:
        return replace(letter, outcome=f"kept: it failed again: {answer.error}")
    told = answer.value.get("decision") if isinstance(answer.value, Mapping) else None
    return replace(letter, outcome=f"handled: {told}" if told else "handled", done=True)


def _received(sqs: Any, url: str, *, dry_run: bool) -> list[Letter]:
    answer = sqs.receive_message(
        QueueUrl=url,
        MaxNumberOfMessages=MOST_AT_ONCE,
        MessageAttributeNames=["All"],
        VisibilityTimeout=60 if dry_run else _HELD_SECONDS * MOST_AT_ONCE,
        WaitTimeSeconds=1,
    )
    return [read_letter(message) for message in answer.get("Messages", ())]


def _name(function_arn: str) -> str:
    """Return the function's name in an ARN, with or without a version behind it."""
    _, found, rest = function_arn.partition(":function:")
    return rest.partition(":")[0] if found else ""


def _of(event: object) -> str:
    """Say what an event is about: its task, or its kind. Never its values: they may be secret."""
    if not isinstance(event, Mapping):
        return ""
    detail = event.get("detail")
    task = detail.get("taskArn") if isinstance(detail, Mapping) else None
    return str(task or event.get("detail-type") or "")
