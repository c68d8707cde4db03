"""The operator's command against the deployed cloud: what it says is true, what it does is done."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from localcloud.bootstrap import CLUSTER, STACK
from localcloud.cloud import REACT, wait_for
from tests.e2e.command import Said, spotctl, states
from tests.e2e.scenario import Stage
from tests.make import make_event

DRILL_STEPS = [
    "stop asked", "SIGTERM", "container exit", "event", "decision", "parked", "due", "picked up",
    "running", "capacity",
]  # fmt: skip


@pytest.fixture
def failure_queue(stage: Stage) -> Iterator[str]:
    sqs = stage.cloud.aws.client("sqs")
    url = sqs.get_queue_url(QueueName=f"{STACK}-failures")["QueueUrl"]
    yield str(url)
    while left := sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages"):
        for message in left:
            sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])


def found(said: Said, part: str) -> str:
    return str(next(row["found"] for row in said.answer["rows"] if row["part"] == part))


def test_row_agent_is_seen_in_prefect_and_status_is_all_ok(
    stage: Stage, failure_queue: str
) -> None:
    stage.cloud.lambdas.invoke(f"{STACK}-sweep", {})
    said = spotctl(stage.cloud, "status", PREFECT_API_AUTH_STRING="")
    assert said.code == 0, said
    seen = states(said)
    assert set(seen.values()) == {"ok"}, said
    assert {"stack", "provision", "worker service", "worker", "credential", "last sweep"} <= set(
        seen
    )
    assert f"Prefect {stage.cloud.server.version}" in found(said, "worker")
    assert found(said, "worker service") == "1 of 1 running"


@pytest.mark.parametrize(
    "what", [("--start", "idles/e2e"), ("--throw-away",)], ids=["a deployment", "a throw-away flow"]
)
def test_a_drill_interrupts_a_run_that_it_started_and_sees_it_come_back(
    stage: Stage, what: tuple[str, ...]
) -> None:
    said = spotctl(stage.cloud, "drill", *what, "--timeout", "120")
    assert said.code == 0, said
    answer = said.answer
    assert answer["passed"]
    assert [step["step"] for step in answer["steps"]] == DRILL_STEPS
    assert {step["state"] for step in answer["steps"]} == {"done"}
    assert all(step["at"] for step in answer["steps"])
    assert 0 <= answer["reaction_seconds"] < 30
    run_id = answer["flow_run"]["id"]
    wait_for("the run's end", 120, lambda: stage.cloud.prefect.is_final(run_id))
    assert stage.cloud.prefect.run(run_id)["state_type"] == "COMPLETED"
    assert len(stage.cloud.tasks(run_id)) == 2


def test_a_drill_of_a_run_whose_budget_is_spent_ends_on_demand(stage: Stage) -> None:
    run = stage.start("waits", tags=("spot-retries:0",), interruptions=1, seconds=8)
    run.wait_for_start(1)
    task = run.containers()[-1].task_arn
    tried = spotctl(stage.cloud, "drill", "--task", task, "--dry-run")
    assert tried.answer == {"dry_run": True, "task": task, "flow_run": run.id}
    assert stage.cloud.fargate.running(run.id) == [task], "a dry run touched the task"
    said = spotctl(stage.cloud, "drill", "--task", task.rpartition("/")[2], "--timeout", "120")
    assert said.code == 0, said
    assert "FARGATE, task" in said.answer["steps"][-1]["found"]
    assert run.wait_for_end()["state_type"] == "COMPLETED"
    assert not run.verdict(budget=0).findings


def test_a_drill_touches_nothing_but_rescued_runs_of_our_cluster(stage: Stage) -> None:
    cloud = stage.cloud
    worker = next(life.task_arn for life in cloud.fargate.ledger() if not life.flow_run_id)
    strange = worker.replace(f"task/{CLUSTER}", "task/somebody-elses")
    run = stage.start("waits", tags=("spot:never-rerun",), interruptions=0, seconds=25)
    run.wait_for_start(1)
    protected = run.containers()[-1].task_arn
    for task, why in (
        (worker, "runs no flow"),
        (strange, "is not in prefect-spot-dev"),
        (protected, "it is tagged spot:never-rerun"),
    ):
        said = spotctl(cloud, "drill", "--task", task)
        assert (said.code, said.out) == (2, ""), said
        assert said.err.startswith("error: ")
        assert why in said.err
    assert run.wait_for_end()["state_type"] == "COMPLETED"
    assert len(run.containers()) == 1


def test_redrive_gives_events_back_and_keeps_what_is_not_handled(
    stage: Stage, failure_queue: str
) -> None:
    sqs, arn = stage.cloud.aws.client("sqs"), "arn:aws:lambda:us-east-1:123456789012:function:"
    event = make_event(
        {
            "taskArn": "arn:aws:ecs:us-east-1:123456789012:task/prefect-spot-dev/0123456789abcdef",
            "clusterArn": "arn:aws:ecs:us-east-1:123456789012:cluster/prefect-spot-dev",
        }
    )

    def record(function: str) -> dict[str, Any]:
        return {
            "requestContext": {
                "functionArn": f"{arn}{function}:$LATEST",
                "condition": "RetriesExhausted",
            },
            "requestPayload": event,
            "responsePayload": {"errorMessage": "Prefect cannot be had now"},
        }

    def of_eventbridge(name: str, value: str) -> dict[str, Any]:
        return {name: {"DataType": "String", "StringValue": value}}

    sqs.send_message(QueueUrl=failure_queue, MessageBody=json.dumps(record(REACT)))
    sqs.send_message(QueueUrl=failure_queue, MessageBody=json.dumps(record("somebody-elses")))
    sqs.send_message(
        QueueUrl=failure_queue,
        MessageBody=json.dumps(event),
        MessageAttributes={
            **of_eventbridge("TARGET_ARN", f"{arn}{REACT}"),
            **of_eventbridge("ERROR_CODE", "NO_PERMISSIONS"),
        },
    )

    def given_to_react() -> int:
        """How often: events of other tests may still be on their way."""
        return sum(i.event == event for i in stage.cloud.lambdas.invocations)

    tried = spotctl(stage.cloud, "redrive", "--dry-run")
    assert (tried.code, tried.answer["found"], tried.answer["handled"]) == (0, 3, 0), tried
    assert given_to_react() == 0

    said = spotctl(stage.cloud, "redrive")
    assert (said.code, said.answer["found"], said.answer["handled"]) == (1, 3, 2), said
    assert given_to_react() == 2
    kept = sqs.receive_message(QueueUrl=failure_queue, MaxNumberOfMessages=10, VisibilityTimeout=0)[
        "Messages"
    ]
    assert ["somebody-elses" in message["Body"] for message in kept] == [True]
