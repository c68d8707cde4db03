"""Redrive: which function a message goes to, and that none is lost on the way."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import typer
from moto.core.models import DEFAULT_ACCOUNT_ID as ACCOUNT
from moto.core.responses import ActionResult
from moto.ecs.responses import EC2ContainerServiceResponse
from moto.sqs.models import sqs_backends

from localcloud.moto_additions import LambdaAnswer
from spotctl.context import open_context
from spotctl.project import read_project
from spotctl.redrive import open_queue, read_message
from tests.make import RUN_ID, TASK_ARN, make_event
from tests.unit.spotctl_bench import REGION, STACK, Bench, stage

__all__ = ["stage"]  # the fixture

AT = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)
DAY, MINUTE = timedelta(days=1), timedelta(minutes=1)
ARN = f"arn:aws:lambda:us-east-1:123456789012:function:{STACK}-react"


@pytest.fixture(autouse=True)
def _functions_and_queue(stage: Bench) -> None:
    stage.deploy_functions()
    stage.client("sqs").create_queue(QueueName=f"{STACK}-failures")


CLUSTER = f"arn:aws:ecs:us-east-1:{ACCOUNT}:cluster/{STACK}"
TASK = f"arn:aws:ecs:us-east-1:{ACCOUNT}:task/{STACK}/{'0123456789abcdef' * 2}"


def event(number: int = 0, **detail: Any) -> dict[str, Any]:
    """An event of the stage's own task, with `number` at its id's end; None removes a field."""
    arn = f"{TASK[:-4]}{number:04x}"
    times = {"createdAt": -3, "pullStartedAt": -2, "startedAt": -2, "executionStoppedAt": -1}
    ours = {name: later(minutes * MINUTE) for name, minutes in times.items()}
    ours |= {"taskArn": arn, "clusterArn": CLUSTER, "updatedAt": later(0 * MINUTE)}
    made = make_event({**ours, **detail}, account=ACCOUNT)
    return {**made, "resources": [arn], "time": AT.isoformat()}


def later(than_the_event: timedelta) -> str:
    return (AT + than_the_event).isoformat()


def given_up(event: object, **context: Any) -> dict[str, Any]:
    """What Lambda sends to a destination after its last retry."""
    of_lambda = {"functionArn": f"{ARN}:$LATEST", "condition": "RetriesExhausted", **context}
    return {
        "requestContext": of_lambda,
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
    assert (read.function, read.event) == (f"{STACK}-react", make_event())
    assert read.about["subject"] == TASK_ARN
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
    sent = [event(n) for n in range(23)]
    send(stage, *sent)
    result = stage.run("redrive", "--yes")
    assert (result.code, result.answer["found"], result.answer["handled"]) == (0, 23, 23)
    assert sorted(e["resources"] for _, e in stage.invoked) == [e["resources"] for e in sent]
    assert left(stage) == []


def test_nothing_is_invoked_before_it_was_shown_and_confirmed(stage: Bench) -> None:
    send(stage, event())
    refused = stage.run("redrive")
    assert refused.is_refused("cannot ask", "pass --yes")
    about = ("-react", str(RUN_ID), "SpotInterruption", "Task State Change", "RetriesExhausted")
    assert [text for text in about if text not in refused.err] == []
    assert (stage.invoked, left(stage)) == ([], [event()])


def test_after_a_no_every_message_is_visible_again(stage: Bench) -> None:
    send(stage, event())
    context = open_context(read_project(stage.folder, "dev"), print)

    def decline() -> None:
        with open_queue(context, dry_run=False) as queue:
            assert (len(queue.read()), left(stage)) == (1, [])
            raise typer.Abort

    with pytest.raises(typer.Abort):
        decline()
    assert (stage.invoked, left(stage)) == ([], [event()])


def test_a_message_whose_function_fails_again_is_kept_and_visible_at_once(stage: Bench) -> None:
    error = {"errorType": "PrefectUnavailableError", "errorMessage": "no answer"}
    stage.reply = lambda given: LambdaAnswer(error, failed=given == event(1))
    send(stage, event(1), event(2))
    result = stage.run("redrive", "--yes")
    assert (result.code, result.answer["found"], result.answer["handled"]) == (1, 2, 1)
    outcomes = [message["outcome"] for message in result.answer["messages"]]
    assert "kept: it failed again: PrefectUnavailableError: no answer" in outcomes
    assert left(stage) == [event(1)]


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ({"decision": "paused", "reason": "paused since noon"}, "paused since noon"),
        ({"state": "not provisioned", "reason": "no table"}, "no table"),
        ({"postponed_until": "12:01"}, "Prefect asked for no request before 12:01"),
    ],
    ids=["paused", "not provisioned", "postponed"],
)
def test_a_message_whose_function_did_nothing_is_kept(stage: Bench, answer: Any, why: str) -> None:
    stage.reply = lambda _event: LambdaAnswer(answer)
    send(stage, event(1))
    result = stage.run("redrive", "--yes")
    assert (result.code, result.answer["handled"]) == (1, 0)
    assert [message["outcome"] for message in result.answer["messages"]] == [f"kept: {why}"]
    assert left(stage) == [event(1)]


def test_a_message_that_is_received_twice_is_redriven_once(stage: Bench) -> None:
    [queue] = sqs_backends[ACCOUNT][REGION].queues.values()

    def reply(_event: Any) -> LambdaAnswer:
        for held in queue._messages:  # as when its visibility timeout has passed
            held.change_visibility(0)
        return LambdaAnswer({"errorMessage": "no answer"}, failed=True)

    stage.reply = reply
    send(stage, event())
    assert stage.run("redrive", "--yes").answer["found"] == 1
    assert len(stage.invoked) == 1


def test_no_value_of_an_event_is_printed(stage: Bench) -> None:
    secret = {"environment": [{"name": "TOKEN", "value": "canary-4711"}]}
    send(stage, event(overrides={"containerOverrides": [secret]}))
    for command in (["redrive", "--dry-run"], ["redrive", "--yes"]):
        result = stage.run(*command)
        assert result.code == 0
        assert event()["resources"][0] in result.out
        assert "canary-4711" not in result.out + result.err


# Whether AWS put a message there.

OTHERS = {"the account": ("123456789012", "999988887777"), "the region": ("us-east-1", "eu-west-1")}
SCHEDULED: dict[str, Any] = {
    "version": "0",
    "id": "53dc4d37-cffa-4f76-80c9-8b7d4a4d2eaa",
    "detail-type": "Scheduled Event",
    "source": "aws.events",
    "account": ACCOUNT,
    "time": AT.isoformat(),
    "region": REGION,
    "resources": [f"arn:aws:events:us-east-1:{ACCOUNT}:rule/{STACK}-sweep-event"],
    "detail": {},
}


def swapped(value: object, what: str) -> Any:
    """The same with another account or region, all over."""
    return json.loads(json.dumps(value).replace(*OTHERS[what]))


OTHER_CLUSTER = CLUSTER.replace("prefect-spot-dev", "others")
SWEEP = ARN.replace("-react", "-sweep")
PROVISION = ARN.replace("-react", "-provision")

FORGED = {
    "another source": ({**event(), "source": "my.ecs"}, {}),
    "another type": ({**event(), "detail-type": "ECS Service Action"}, {}),
    "another account": (swapped(event(), "the account"), {}),
    "another region": (swapped(event(), "the region"), {}),
    "the envelope's account": ({**event(), "account": "999988887777"}, {}),
    "the envelope's region": ({**event(), "region": "eu-west-1"}, {}),
    "no account": ({k: v for k, v in event().items() if k != "account"}, {}),
    "the task's account": (event(taskArn=swapped(TASK, "the account")), {}),
    "the task's region": (event(taskArn=swapped(TASK, "the region")), {}),
    "the cluster's account": (event(clusterArn=swapped(CLUSTER, "the account")), {}),
    "another partition": (json.loads(json.dumps(event()).replace("arn:aws:", "arn:aws-cn:")), {}),
    "another cluster": (json.loads(json.dumps(event()).replace(f"/{STACK}", "/others")), {}),
    "the task's cluster": (event(taskArn=TASK.replace(STACK, "others")), {}),
    "the cluster": (event(clusterArn=OTHER_CLUSTER), {}),
    "other resources": ({**event(), "resources": [f"{TASK[:-4]}ffff"]}, {}),
    "a task id": (event(taskArn=f"arn:aws:ecs:us-east-1:{ACCOUNT}:task/{STACK}/mine"), {}),
    "an event id": ({**event(), "id": "1"}, {}),
    "no event id": ({k: v for k, v in event().items() if k != "id"}, {}),
    "no time": ({k: v for k, v in event().items() if k != "time"}, {}),
    "the future": ({**event(), "time": later(2 * DAY)}, {}),
    "long ago": ({**event(), "time": later(-400 * DAY)}, {}),
    "stopped before it was created": (event(executionStoppedAt=later(-5 * MINUTE)), {}),
    "stopped after the event": (event(stoppedAt=later(MINUTE)), {}),
    "a time that is none": (event(createdAt="soon"), {}),
    "stopped, but to run": (event(desiredStatus="RUNNING"), {}),
    "on EC2": (event(launchType="EC2"), {}),
    "no event": ({"n": 1}, {}),
    "no object": ("x", {}),
    "another stage's function": (event(), {"functionArn": ARN.replace("-dev-", "-prod-")}),
    "a function elsewhere": (event(), {"functionArn": swapped(ARN, "the region")}),
    "another account's function": (event(), {"functionArn": swapped(ARN, "the account")}),
    "no ARN": (event(), {"functionArn": f":function:{STACK}-react"}),
    "no condition": (event(), {"condition": None}),
    "a success": (event(), {"condition": "Success"}),
    "a request id": (event(), {"requestId": "mine"}),
    "a schedule for react": (SCHEDULED, {}),
    "a task for sweep": (event(), {"functionArn": SWEEP}),
    "a schedule with more": ({**SCHEDULED, "dry_run": False}, {"functionArn": PROVISION}),
    "a schedule's detail": ({**SCHEDULED, "detail": {"n": 1}}, {"functionArn": SWEEP}),
    "a schedule elsewhere": (swapped(SCHEDULED, "the account"), {"functionArn": SWEEP}),
    "a schedule of no rule": ({**SCHEDULED, "resources": [TASK]}, {"functionArn": SWEEP}),
}  # fmt: skip


@pytest.mark.parametrize(("forged", "context"), FORGED.values(), ids=FORGED)
def test_what_does_not_fit_is_shown_with_the_reason_and_kept(
    stage: Bench, forged: object, context: dict[str, Any]
) -> None:
    stage.client("sqs").send_message(
        QueueUrl=queue_url(stage), MessageBody=json.dumps(given_up(forged, **context))
    )
    result = stage.run("redrive", "--yes")
    [shown] = result.answer["messages"]
    assert (result.code, stage.invoked, left(stage)) == (1, [], [forged])
    assert shown["outcome"] == f"kept: {shown['doubt']}"
    assert len(shown["doubt"]) > 10


@pytest.mark.parametrize(
    ("genuine", "arn"),
    [
        (event(), ARN),
        (event(lastStatus="RUNNING", containers=None, executionStoppedAt=None), ARN),
        (event(stopCode="EssentialContainerExited"), ARN.replace("-react", "-meter")),
        (event(overrides=None), f"{ARN}:$LATEST"),
        (SCHEDULED, SWEEP),
        (SCHEDULED, PROVISION),
    ],
    ids=["a stop", "a warning", "a bill", "of no run", "sweep", "provision"],
)
def test_what_aws_put_there_is_redriven(stage: Bench, genuine: object, arn: str) -> None:
    record = given_up(genuine, functionArn=arn, approximateInvokeCount=3, requestId=SCHEDULED["id"])
    sqs, url = stage.client("sqs"), queue_url(stage)
    sqs.send_message(QueueUrl=url, MessageBody=json.dumps(record))
    values = {"TARGET_ARN": arn, "RULE_ARN": SCHEDULED["resources"][0]}
    attributes = {n: {"StringValue": v, "DataType": "String"} for n, v in values.items()}
    sqs.send_message(QueueUrl=url, MessageBody=json.dumps(genuine), MessageAttributes=attributes)
    result = stage.run("redrive", "--yes")
    assert [m["doubt"] for m in result.answer["messages"]] == ["", ""]
    assert ([e for _, e in stage.invoked], result.code) == ([genuine, genuine], 0)


@pytest.mark.parametrize(
    ("ours", "sender", "handled"),
    [(True, "AROA{}:prefect-spot-dev-react", 1), (False, "AROAX{}:flow", 0), (True, "AIDAX", 1)],
    ids=["the function's role", "another role", "unknown"],
)
def test_a_record_that_another_role_sent_is_kept(
    stage: Bench, ours: bool, sender: str, handled: int
) -> None:
    send(stage, event())
    [queue] = sqs_backends[ACCOUNT][REGION].queues.values()
    role = stage.client("iam").get_role(RoleName="lambda")["Role"]["RoleId"]
    queue._messages[0].sender_id = sender.format(role.removeprefix("AROA") if ours else "X")
    result = stage.run("redrive", "--yes")
    assert (result.answer["handled"], len(stage.invoked)) == (handled, handled)
    assert sender[:4] in result.answer["messages"][0]["sender"]


@pytest.mark.parametrize(
    ("found", "doubt"),
    [
        ({}, ""),
        ({"stopCode": "EssentialContainerExited"}, "another stop code"),
        ({"stoppedReason": "Essential container in task exited"}, "another stop reason"),
        ({"overrides": {}}, "names the flow run none"),
        ({"lastStatus": "RUNNING", "containers": []}, "its task is RUNNING"),
        ({"lastStatus": "RUNNING", "desiredStatus": "RUNNING", "containers": []}, "is RUNNING"),
        ({"capacityProviderName": "FARGATE"}, "another capacity"),
        ({"version": 4}, "an older version"),
    ],
    ids=["it agrees", "code", "reason", "run", "status", "not stopped", "capacity", "version"],
)
def test_an_event_that_contradicts_ecs_is_kept(
    stage: Bench, monkeypatch: pytest.MonkeyPatch, found: dict[str, Any], doubt: str
) -> None:
    described = {**event()["detail"], **found}
    plain = {name: value for name, value in described.items() if not name.endswith("At")}
    answer = ActionResult({"tasks": [plain], "failures": []})
    monkeypatch.setattr(EC2ContainerServiceResponse, "describe_tasks", lambda _: answer)
    send(stage, event())
    [shown] = stage.run("redrive", "--yes").answer["messages"]
    assert doubt in shown["doubt"]
    assert len(stage.invoked) == (not doubt)
