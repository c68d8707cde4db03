"""Redrive: which function a message goes to, and that none is lost on the way."""

import json
from typing import Any

import pytest
from moto.core.models import DEFAULT_ACCOUNT_ID as ACCOUNT
from moto.sqs.models import sqs_backends

from localcloud.moto_additions import LambdaAnswer
from spotctl.redrive import read_message
from tests.make import TASK_ARN, make_event
from tests.unit.spotctl_bench import REGION, STACK, Bench, stage

__all__ = ["stage"]  # the fixture

ARN = f"arn:aws:lambda:us-east-1:123456789012:function:{STACK}-react"


@pytest.fixture(autouse=True)
def _functions_and_queue(stage: Bench) -> None:
    stage.deploy_functions()
    stage.client("sqs").create_queue(QueueName=f"{STACK}-failures")


def given_up(event: object) -> dict[str, Any]:
    """What Lambda sends to a destination after its last retry."""
    return {
        "requestContext": {"functionArn": f"{ARN}:$LATEST", "condition": "RetriesExhausted"},
        "requestPayload": event,
        "responsePayload": {"errorType": "X", "errorMessage": "Prefect is unavailable"},
    }


def message(body: str, **attributes: str) -> dict[str, Any]:
    return {
        "MessageId": "m",
        "ReceiptHandle": "r",
        "Body": body,
        "MessageAttributes": {n: {"StringValue": v} for n, v in attributes.items()},
    }


UNDELIVERED = {"TARGET_ARN": ARN, "ERROR_CODE": "THROTTLING", "ERROR_MESSAGE": "Rate exceeded"}


@pytest.mark.parametrize(
    ("body", "attributes", "reason"),
    [
        (given_up(make_event()), {}, "RetriesExhausted: Prefect is unavailable"),
        (make_event(), UNDELIVERED, "THROTTLING: Rate exceeded"),
    ],
    ids=["Lambda gave it up", "EventBridge could not deliver it"],
)
def test_a_message_names_function_event_task_and_reason(
    body: dict[str, Any], attributes: dict[str, str], reason: str
) -> None:
    read = read_message(message(json.dumps(body), **attributes))
    assert (read.function, read.event, read.subject) == (f"{STACK}-react", make_event(), TASK_ARN)
    assert read.reason == reason


@pytest.mark.parametrize(
    "body",
    ["", "{", "[]", "null", '{"requestContext": 1}', '{"requestContext": {}, "requestPayload": 0}'],
)
def test_an_unreadable_message_has_no_function(body: str) -> None:
    assert read_message(message(body)).function == ""


def queue_url(stage: Bench) -> str:
    return str(stage.client("sqs").get_queue_url(QueueName=f"{STACK}-failures")["QueueUrl"])


def send(stage: Bench, *events: object) -> None:
    for event in events:
        body = json.dumps(given_up(event))
        stage.client("sqs").send_message(QueueUrl=queue_url(stage), MessageBody=body)


def left(stage: Bench) -> list[Any]:
    """The events that are still in the queue, and visible."""
    received = stage.client("sqs").receive_message(
        QueueUrl=queue_url(stage), MaxNumberOfMessages=10
    )
    return [json.loads(found["Body"])["requestPayload"] for found in received.get("Messages", [])]


def test_an_empty_queue_is_ok_and_a_missing_one_is_an_error(stage: Bench) -> None:
    assert stage.run("redrive").answer["found"] == 0
    assert "the failure queue is empty" in stage.run("redrive", "--table").out
    stage.client("sqs").delete_queue(QueueUrl=queue_url(stage))
    assert stage.run("redrive").is_refused(f"no queue {STACK}-failures", "run spotctl deploy")


def test_what_is_handled_is_deleted_on_every_page(stage: Bench) -> None:
    send(stage, *({"n": n} for n in range(23)))
    result = stage.run("redrive")
    assert (result.code, result.answer["found"], result.answer["handled"]) == (0, 23, 23)
    assert sorted(event["n"] for _, event in stage.invoked) == list(range(23))
    assert left(stage) == []


def test_a_message_whose_function_fails_again_is_kept_and_visible_at_once(stage: Bench) -> None:
    error = {"errorType": "PrefectUnavailableError", "errorMessage": "no answer"}
    stage.reply = lambda event: LambdaAnswer(error, failed=event == {"n": 1})
    send(stage, {"n": 1}, {"n": 2})
    result = stage.run("redrive")
    assert (result.code, result.answer["found"], result.answer["handled"]) == (1, 2, 1)
    outcomes = [message["outcome"] for message in result.answer["messages"]]
    assert "kept: it failed again: PrefectUnavailableError: no answer" in outcomes
    assert left(stage) == [{"n": 1}]


def test_a_message_that_prefect_postpones_is_kept(stage: Bench) -> None:
    stage.reply = lambda _event: LambdaAnswer({"postponed_until": "2026-11-23T12:01:40+00:00"})
    send(stage, {"n": 1})
    result = stage.run("redrive")
    assert (result.code, result.answer["handled"]) == (1, 0)
    said = "kept: Prefect asked for no request before 2026-11-23T12:01:40+00:00"
    assert [message["outcome"] for message in result.answer["messages"]] == [said]
    assert left(stage) == [{"n": 1}]


def test_a_message_that_is_received_twice_is_redriven_once(stage: Bench) -> None:
    [queue] = sqs_backends[ACCOUNT][REGION].queues.values()

    def reply(_event: Any) -> LambdaAnswer:
        for held in queue._messages:  # as when its visibility timeout has passed
            held.change_visibility(0)
        return LambdaAnswer({"errorMessage": "no answer"}, failed=True)

    stage.reply = reply
    send(stage, {"n": 1})
    assert stage.run("redrive").answer["found"] == 1
    assert len(stage.invoked) == 1


def test_no_value_of_an_event_is_printed(stage: Bench) -> None:
    secret = {"environment": [{"name": "TOKEN", "value": "canary-4711"}]}
    send(stage, make_event({"overrides": {"containerOverrides": [secret]}}))
    for command in (["redrive", "--dry-run"], ["redrive"]):
        result = stage.run(*command)
        assert result.code == 0
        assert TASK_ARN in result.out
        assert "canary-4711" not in result.out + result.err
