"""Redrive: to whom a message goes, and that none is lost on the way."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from moto.core.models import DEFAULT_ACCOUNT_ID as ACCOUNT
from moto.sqs.models import sqs_backends

from localcloud.moto_additions import LambdaAnswer
from spotctl.redrive import read_letter
from tests.make import TASK_ARN, make_event
from tests.unit.spotctl_bench import REGION, STACK, Bench, bench

ARN = f"arn:aws:lambda:us-east-1:123456789012:function:{STACK}-react"


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    with bench(tmp_path, monkeypatch) as made:
        made.deploy_functions()
        made.create_failure_queue()
        yield made


def given_up(function_arn: str = f"{ARN}:$LATEST", **changes: Any) -> dict[str, Any]:
    """What Lambda sends to a destination after its last try."""
    ordinary = {
        "requestContext": {"functionArn": function_arn, "condition": "RetriesExhausted"},
        "requestPayload": make_event(),
        "responsePayload": {"errorType": "X", "errorMessage": "Prefect cannot be had now"},
    }
    return {**ordinary, **changes}


def message(body: str, **attributes: str) -> dict[str, Any]:
    return {
        "MessageId": "m",
        "ReceiptHandle": "r",
        "Body": body,
        "MessageAttributes": {n: {"StringValue": v} for n, v in attributes.items()},
    }


def test_a_destination_record_names_its_function_and_reason() -> None:
    letter = read_letter(message(json.dumps(given_up())))
    assert letter.function == f"{STACK}-react"
    assert letter.event == make_event()
    assert letter.reason == "RetriesExhausted: Prefect cannot be had now"
    assert letter.subject == TASK_ARN


def test_an_event_that_could_not_be_delivered_names_its_target_in_its_attributes() -> None:
    attributes = {"TARGET_ARN": ARN, "ERROR_CODE": "THROTTLING", "ERROR_MESSAGE": "Rate exceeded"}
    letter = read_letter(message(json.dumps(make_event()), **attributes))
    assert (letter.function, letter.event) == (f"{STACK}-react", make_event())
    assert letter.reason == "THROTTLING: Rate exceeded"


@pytest.mark.parametrize(
    "body",
    ["", "{", "[]", "null", '{"requestContext": 1}', '{"requestContext": {}, "requestPayload": 0}'],
)
def test_what_cannot_be_read_is_for_nobody(body: str) -> None:
    assert read_letter(message(body)).function == ""


def send(stage: Bench, *bodies: object) -> None:
    sqs = stage.client("sqs")
    url = sqs.get_queue_url(QueueName=f"{STACK}-failures")["QueueUrl"]
    for body in bodies:
        sqs.send_message(QueueUrl=url, MessageBody=json.dumps(body))


def left(stage: Bench) -> list[Any]:
    sqs = stage.client("sqs")
    url = sqs.get_queue_url(QueueName=f"{STACK}-failures")["QueueUrl"]
    answer = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10)
    return [json.loads(found["Body"]) for found in answer.get("Messages", [])]


def test_an_empty_queue_is_said_to_be_empty(stage: Bench) -> None:
    assert stage.run("redrive").answer["found"] == 0
    assert "the failure queue is empty" in stage.run("redrive", "--table").out


def test_without_a_queue_the_error_says_so(stage: Bench) -> None:
    sqs = stage.client("sqs")
    sqs.delete_queue(QueueUrl=sqs.get_queue_url(QueueName=f"{STACK}-failures")["QueueUrl"])
    said = stage.run("redrive")
    assert (said.code, said.err) == (
        2,
        f"error: there is no queue {STACK}-failures\nnext step: run spotctl deploy\n",
    )


def test_what_is_handled_is_deleted_and_more_than_a_page_comes_through(stage: Bench) -> None:
    send(stage, *[given_up(requestPayload={"n": n}) for n in range(23)])
    said = stage.run("redrive")
    assert (said.code, said.answer["found"], said.answer["handled"]) == (0, 23, 23)
    assert sorted(event["n"] for _, event in stage.invoked) == list(range(23))
    assert left(stage) == []


def test_a_function_that_fails_again_keeps_its_message(stage: Bench) -> None:
    def reply(_name: str, event: Any) -> LambdaAnswer:
        error = {"errorType": "PrefectUnavailableError", "errorMessage": "no answer"}
        return LambdaAnswer(error, failed=True) if event == {"n": 1} else LambdaAnswer({})

    stage.reply = reply
    bad = given_up(requestPayload={"n": 1})
    send(stage, bad, given_up(requestPayload={"n": 2}))
    said = stage.run("redrive")
    assert (said.code, said.answer["found"], said.answer["handled"]) == (1, 2, 1)
    outcomes = [told["outcome"] for told in said.answer["messages"]]
    assert "kept: it failed again: PrefectUnavailableError: no answer" in outcomes
    assert left(stage) == [bad], "what was not handled has to be there, and at once"


def test_a_message_that_shows_up_again_is_not_redriven_again(stage: Bench) -> None:
    [queue] = sqs_backends[ACCOUNT][REGION].queues.values()

    def reply(_name: str, _event: Any) -> LambdaAnswer:
        for held in queue._messages:  # as when its time of being hidden is over
            held.change_visibility(0)
        return LambdaAnswer({"errorMessage": "no answer"}, failed=True)

    stage.reply = reply
    send(stage, given_up())
    assert stage.run("redrive").answer["found"] == 1
    assert len(stage.invoked) == 1


def test_a_dry_run_invokes_and_deletes_nothing_and_prints_no_value_of_an_event(
    stage: Bench,
) -> None:
    secret = {"environment": [{"name": "TOKEN", "value": "canary-4711"}]}
    event = make_event({"overrides": {"containerOverrides": [secret]}})
    send(stage, given_up(requestPayload=event))
    said = stage.run("redrive", "--dry-run")
    assert said.code == 0
    assert "canary-4711" not in said.out + said.err
    assert [told["outcome"] for told in said.answer["messages"]] == ["would be redriven"]
    assert stage.invoked == []
    assert left(stage) == [given_up(requestPayload=event)]


def test_only_functions_of_the_stage_are_invoked(stage: Bench) -> None:
    others = given_up(ARN.replace("prefect-spot-dev", "prefect-spot-prod"))
    send(stage, others, {"detail-type": "no target"})
    said = stage.run("redrive")
    assert (said.code, said.answer["handled"]) == (1, 0)
    assert stage.invoked == []
    assert len(left(stage)) == 2
