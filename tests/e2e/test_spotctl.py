"""The operator's command against the deployed cloud: what it says is true, what it does is done."""

import json
from dataclasses import dataclass
from typing import Any

from localcloud.bootstrap import STACK
from localcloud.cloud import REACT, SWEEP
from tests.e2e.command import Said, spotctl, states
from tests.e2e.scenario import Run, Stage, story
from tests.make import make_event

DRILL_STEPS = [
    "stop asked", "SIGTERM", "container exit", "event", "decision", "parked", "due", "picked up",
    "running", "capacity",
]  # fmt: skip
ARN = "arn:aws:lambda:us-east-1:123456789012:function:"


def found(said: Said, part: str) -> str:
    return str(next(row["found"] for row in said.answer["rows"] if row["part"] == part))


def test_row_agent_is_seen_in_prefect_and_status_is_all_ok(
    stage: Stage, everything_is_over: None
) -> None:
    """No event was given up either: one that was would wait in the failure queue."""
    stage.cloud.lambdas.invoke(SWEEP, {})
    said = spotctl(stage.cloud, "status", PREFECT_API_AUTH_STRING="")
    assert said.code == 0, said
    seen = states(said)
    assert set(seen.values()) == {"ok"}, said
    assert {"stack", "provision", "worker service", "worker", "credential", "last sweep"} <= set(
        seen
    )
    assert f"Prefect {stage.cloud.server.version}" in found(said, "worker")
    assert found(said, "worker service") == "1 of 1 running"


@dataclass(frozen=True)
class Drilled:
    """What a drill said, and the run that it started, in the end."""

    said: Said
    run: Run
    ended: dict[str, Any]


@story
def drilled(stage: Stage) -> Drilled:
    said = spotctl(stage.cloud, "drill", "--start", "idles/e2e", "--timeout", "500")
    assert said.out, said
    run = stage.watch(said.answer["flow_run"]["id"], stage.folder / "idles-take-no-notes")
    return Drilled(said, run, run.wait_for_end())


def test_a_drill_interrupts_a_run_that_it_started_and_sees_it_come_back(drilled: Drilled) -> None:
    said = drilled.said
    assert said.code == 0, said
    assert said.answer["passed"]
    assert [step["step"] for step in said.answer["steps"]] == DRILL_STEPS
    assert {step["state"] for step in said.answer["steps"]} == {"done"}
    assert all(step["at"] for step in said.answer["steps"])
    assert said.answer["reaction_seconds"] >= 0
    assert drilled.ended["state_type"] == "COMPLETED"
    assert len(drilled.run.containers()) == 2


@dataclass(frozen=True)
class Redriven:
    """What `redrive` said, without and with effect, what that was, and what it kept."""

    tried: Said
    given_when_tried: int
    said: Said
    given: int
    kept: list[str]


@story
def redriven(stage: Stage) -> Redriven:
    """Of three messages in the failure queue, one is of a function that is not ours."""
    sqs = stage.cloud.aws.client("sqs")
    queue = sqs.get_queue_url(QueueName=f"{STACK}-failures")["QueueUrl"]
    event = make_event(
        {
            "taskArn": "arn:aws:ecs:us-east-1:123456789012:task/prefect-spot-dev/0123456789abcdef",
            "clusterArn": "arn:aws:ecs:us-east-1:123456789012:cluster/prefect-spot-dev",
        }
    )

    def given_to_react() -> int:
        """How often: other stories' events are on their way meanwhile."""
        return sum(i.event == event for i in list(stage.cloud.lambdas.invocations))

    sqs.send_message(QueueUrl=queue, MessageBody=json.dumps(destination_record(REACT, event)))
    strange = destination_record("somebody-elses", event)
    sqs.send_message(QueueUrl=queue, MessageBody=json.dumps(strange))
    sqs.send_message(
        QueueUrl=queue,
        MessageBody=json.dumps(event),
        MessageAttributes={
            "TARGET_ARN": {"DataType": "String", "StringValue": f"{ARN}{REACT}"},
            "ERROR_CODE": {"DataType": "String", "StringValue": "NO_PERMISSIONS"},
        },
    )
    tried = spotctl(stage.cloud, "redrive", "--dry-run")
    given_when_tried = given_to_react()
    said = spotctl(stage.cloud, "redrive")
    given = given_to_react()
    received = sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10, VisibilityTimeout=0)
    kept = [message["Body"] for message in received.get("Messages", [])]
    sqs.purge_queue(QueueUrl=queue)
    return Redriven(tried, given_when_tried, said, given, kept)


def destination_record(function: str, event: dict[str, Any]) -> dict[str, Any]:
    return {
        "requestContext": {
            "functionArn": f"{ARN}{function}:$LATEST",
            "condition": "RetriesExhausted",
        },
        "requestPayload": event,
        "responsePayload": {"errorMessage": "Prefect is unavailable"},
    }


def test_redrive_gives_events_back_and_keeps_what_is_not_handled(redriven: Redriven) -> None:
    tried, said = redriven.tried, redriven.said
    assert (tried.code, tried.answer["found"], tried.answer["handled"]) == (0, 3, 0), tried
    assert redriven.given_when_tried == 0
    assert (said.code, said.answer["found"], said.answer["handled"]) == (1, 3, 2), said
    assert redriven.given == 2
    assert ["somebody-elses" in body for body in redriven.kept] == [True]
