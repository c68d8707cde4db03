"""The operator's command against the deployed cloud: what it says is true, what it does is done."""

import json
from datetime import UTC, datetime

from localcloud.bootstrap import STACK
from localcloud.cloud import REACT, SWEEP
from tests.e2e.command import CommandResult, spotctl, states
from tests.e2e.scenario import Run, Stage, event_of_no_run
from tests.e2e.stories import story

DRILL_STEPS = [
    "stop asked", "SIGTERM", "container exit", "event", "decision", "parked", "due", "picked up",
    "running", "capacity",
]  # fmt: skip


def found(result: CommandResult, part: str) -> str:
    return str(next(row["found"] for row in result.answer["rows"] if row["part"] == part))


def test_row_agent_is_seen_in_prefect_and_status_is_all_ok(
    stage: Stage, everything_is_over: None
) -> None:
    """No event was given up either: one that was would wait in the failure queue."""
    stage.cloud.lambdas.invoke(SWEEP, {})
    result = spotctl(stage.cloud, "status", PREFECT_API_AUTH_STRING="")
    assert result.code == 0, result
    seen = states(result)
    assert set(seen.values()) == {"ok"}, result
    assert {"stack", "provision", "worker service", "worker", "credential", "last sweep"} <= set(
        seen
    )
    assert f"Prefect {stage.cloud.server.version}" in found(result, "worker")
    assert found(result, "worker service") == "1 of 1 running"


@story
def drilled(stage: Stage) -> tuple[CommandResult, Run, CommandResult]:
    """A finished drill, the run that it started, which has ended, and its story before it had."""
    result = spotctl(stage.cloud, "drill", "--start", "idles/e2e", "--yes", "--timeout", "500")
    assert result.out, result
    run = stage.watch(result.answer["flow_run"]["id"], stage.folder / "idles-take-no-notes")
    under_way = spotctl(
        stage.cloud, "explain", f"{stage.cloud.server.ui_url}/runs/flow-run/{run.id}"
    )
    run.wait_for_end()
    return result, run, under_way


def test_a_drill_interrupts_a_run_that_it_started_and_sees_it_come_back(
    drilled: tuple[CommandResult, Run, CommandResult],
) -> None:
    result, run, _ = drilled
    assert result.code == 0, result
    assert result.answer["passed"]
    assert [step["step"] for step in result.answer["steps"]] == DRILL_STEPS
    assert {step["state"] for step in result.answer["steps"]} == {"done"}
    assert all(step["at"] for step in result.answer["steps"])
    assert result.answer["reaction_seconds"] >= 0
    assert run.state_type() == "COMPLETED"
    assert len(run.containers()) == 2


def test_explain_tells_the_story_of_a_run_under_way_and_of_one_that_has_ended(
    drilled: tuple[CommandResult, Run, CommandResult],
) -> None:
    _, run, under_way = drilled
    ended = spotctl(run.cloud, "explain", run.fields()["name"])
    for told in (under_way, ended):
        assert told.code == 0, told
        first, second = told.answer["attempts"]
        assert (first["cause"], first["interruption"]) == ("drill", 1)
        assert first["decided"]["what"] == "rerun on FARGATE_SPOT"
        assert "interruptions on Spot" in first["decided"]["why"]
        assert first["decided"]["at"]
        assert first["again_seconds"] > 0
        assert told.answer["missing"] == []
        assert second["is_live"] == told.answer["is_under_way"] == (told is under_way)
        assert float(told.answer["money"]["cost_usd"]) > 0
    assert ended.answer["headline"] == "Completed on FARGATE_SPOT after 1 drill, in 2 ECS tasks"


@story
def redriven(stage: Stage) -> tuple[CommandResult, int]:
    """What `redrive` says with one message in the queue, and how often `react` got its event."""
    sqs = stage.cloud.aws.client("sqs")
    queue = sqs.get_queue_url(QueueName=f"{STACK}-failures")["QueueUrl"]
    event = {**event_of_no_run(), "time": datetime.now(UTC).isoformat()}
    destination_record = {
        "requestContext": {
            "functionArn": f"arn:aws:lambda:us-east-1:123456789012:function:{REACT}:$LATEST",
            "condition": "RetriesExhausted",
        },
        "requestPayload": event,
        "responsePayload": {"errorMessage": "Prefect is unavailable"},
    }
    sqs.send_message(QueueUrl=queue, MessageBody=json.dumps(destination_record))
    result = spotctl(stage.cloud, "redrive", "--yes")
    return result, sum(i.event == event for i in list(stage.cloud.lambdas.invocations))


def test_redrive_invokes_the_function_with_the_event_of_the_failure_queue(
    redriven: tuple[CommandResult, int],
) -> None:
    """The dry run, and what is kept in the queue: `tests/unit/test_spotctl_redrive.py`."""
    result, received = redriven
    assert (result.code, result.answer["found"], result.answer["handled"]) == (0, 1, 1), result
    assert received == 1
