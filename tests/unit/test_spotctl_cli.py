"""`spotctl` as a person or a pipeline meets it: output, errors in two lines, exit codes."""

import json
import os
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from chalicelib.core.model.policy import OPT_IN_TAG
from spotctl.cli import app
from tests.make import make_table
from tests.unit.prefect_bench import RUN_ID, make_answer, make_state
from tests.unit.spotctl_bench import KEY, POOL, STACK, Bench, stage

__all__ = ["stage"]  # the fixture

CONFIG = Path(".chalice") / "config.json"
REGION = "AWS_DEFAULT_REGION"


def test_help_lists_every_command_with_a_line_about_it() -> None:
    lines = CliRunner().invoke(app, ["--help"]).stdout.splitlines()
    assert any("Exit codes" in line for line in lines)
    for command in (
        *("deploy", "status", "drill", "report", "replay", "redrive", "teardown"),
        *("pause", "resume", "explain"),
    ):
        [line] = [line for line in lines if line.split()[1:2] == [command]]
        assert len(line.split()) > 5


def test_the_status_of_an_empty_account_names_what_is_missing(stage: Bench) -> None:
    result = stage.run("status")
    answer = result.answer
    assert (result.code, answer["stage"], answer["region"], answer["ok"]) == (
        1, "dev", "us-east-1", False,
    )  # fmt: skip
    missing = ["stack", f"cluster {STACK}", "worker service", "failure queue", "Prefect from here"]
    missing += [f"function {STACK}-{name}" for name in ("react", "meter", "sweep", "provision")]
    others = {"last sweep": "warning", "credential": "ok", "other observers": "ok"}
    others["rates"] = "ok"
    assert {part: row["state"] for part, row in result.rows.items()} == {
        **dict.fromkeys(missing, "failed"), **others,
    }  # fmt: skip
    table = stage.run("status", "--table")
    assert table.code == 1
    for word in ("part", "what to do", "stack", "failed", "→ run spotctl deploy"):
        assert word in table.out


def test_a_pause_holds_whoever_pauses_again_until_it_is_resumed(stage: Bench) -> None:
    assert stage.run("pause").is_refused("no table yet")
    make_table(stage.client("dynamodb"), STACK)
    paused = stage.run("pause", "--reason", "a storm\nof AWS").answer["paused"]
    caller = stage.client("sts").get_caller_identity()["Arn"]
    assert (paused["paused_by"], paused["reason"]) == (caller, "a storm of AWS")
    assert stage.run("pause", "--reason", "another").answer["paused"] == paused
    row = stage.run("status").rows["pause"]
    since = datetime.fromisoformat(paused["paused_at"]).strftime("%Y-%m-%d %H:%M UTC")
    assert (row["state"], row["next_step"]) == (
        "warning", "when the incident is over: spotctl resume",
    )  # fmt: skip
    assert row["found"] == f"paused since {since} by {caller}: a storm of AWS: no run is rescued"
    for command in (("drill", "--yes"), ("redrive",)):
        assert stage.run(*command).is_refused(f"the stage is paused since {since} by {caller}")
    assert stage.run("resume").answer["was_paused"] == paused
    assert stage.run("resume").answer["was_paused"] is None
    assert "pause" not in stage.run("status").rows
    assert "it was not paused" in stage.run("resume", "--table").out


def test_a_disabled_rule_and_a_held_function_are_found(stage: Bench) -> None:
    """What works is read in `tests/e2e/test_spotctl.py`."""
    events, arns = stage.client("events"), stage.deploy_functions()
    for name, state in (("react", "DISABLED"), ("meter", "ENABLED")):
        events.put_rule(Name=name, ScheduleExpression="rate(5 minutes)", State=state)
        events.put_targets(Rule=name, Targets=[{"Id": "1", "Arn": arns[name]}])
    stage.client("lambda").put_function_concurrency(
        FunctionName=f"{STACK}-sweep", ReservedConcurrentExecutions=0
    )
    rows = stage.run("status").rows
    assert rows["rule react"]["state"] == "failed"
    assert rows["rule meter"]["state"] == "warning"
    assert "reserved concurrency of 0" in rows[f"function {STACK}-sweep"]["found"]


def test_an_observer_in_the_account_is_found_by_its_rule_and_its_queues_name(stage: Bench) -> None:
    events = stage.client("events")
    about_tasks = {"source": ["aws.ecs"], "detail-type": ["ECS Task State Change"]}
    for queue in ("etl-ecs-events", "prefect-ecs-tasks-events", "etl-ecs-events-dlq", "audit-log"):
        rule, arn = f"rule-of-{queue}", f"arn:aws:sqs:us-east-1:123456789012:{queue}"
        events.put_rule(Name=rule, EventPattern=json.dumps(about_tasks))
        events.put_targets(Rule=rule, Targets=[{"Id": "1", "Arn": arn}])
    rows = {part: row for part, row in stage.run("status").rows.items() if "observer" in part}
    observed = ("etl-ecs-events", "prefect-ecs-tasks-events")
    assert set(rows) == {f"observer rule-of-{queue}" for queue in observed}
    row = rows["observer rule-of-etl-ecs-events"]
    assert row["state"] == "warning"
    assert "aws events disable-rule --name rule-of-etl-ecs-events" in row["next_step"]


def prefect(**changes: Any) -> dict[str, object]:
    """Prefect's answers about an empty pool with a worker."""
    pool = {"name": POOL, "type": "ecs", "status": "READY", "is_paused": False}
    worker = {"name": "ECSWorker 1", "status": "ONLINE"}
    started = {"prefect.resource.name": "ECSWorker 1", "prefect.version": "3.8.8"}
    heartbeat = {"last_heartbeat_time": "2026-11-23T12:00:00Z"}
    return {
        "GET /admin/version": "3.8.8",
        "POST /work_pools/filter": [],
        f"GET /work_pools/{POOL}": {**pool, "base_job_template": {}},
        f"POST /work_pools/{POOL}/workers/filter": [{**worker, **heartbeat}],
        "POST /events/filter": {"events": [{"resource": started}]},
        "POST /deployments/filter": [],
        **changes,
    }


def template(containers: object, **job: object) -> dict[str, object]:
    """A base job template, edited by somebody who may, with a reason or without one."""
    return {"job_configuration": {"task_definition": {"containerDefinitions": containers}, **job}}


def listed(**fields: object) -> dict[str, object]:
    """Prefect's answers about one deployment in the pool."""
    found = {"id": str(RUN_ID), "name": "x", "flow_id": str(RUN_ID), **fields}
    return {"POST /deployments/filter": [found], "POST /flows/filter": []}


TEMPLATES: dict[str, object] = {
    "text": "x",
    "a text for the job": {"job_configuration": "x"},
    "a text for a variable": {"variables": {"properties": {"launch_type": "FARGATE"}}},
    "containers by a variable": template("{{ containers }}"),
    "a number for a container": template([5]),
    "a container for the list of them": template({"name": "prefect"}),
    "a number for the environment": template([{"environment": 5}]),
    "a list for the request": template([], task_run_request=[1]),
}
ODD: dict[str, dict[str, object]] = {
    **{
        f"template: {what}": {
            f"GET /work_pools/{POOL}": {"name": POOL, "type": "ecs", "base_job_template": each}
        }
        for what, each in TEMPLATES.items()
    },
    "an event": {"POST /events/filter": {"events": [{"resource": "x"}]}},
    "a deployment's variables": listed(job_variables=[1]),
    "a deployment's environment": listed(job_variables={"env": "x"}),
    "a deployment's tags": listed(tags=5),
    "a deployment's id": listed(id="x"),
}


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
def test_what_prefect_has_in_an_odd_form_fails_its_own_part_of_the_status(
    stage: Bench, odd: dict[str, object]
) -> None:
    stage.answers = prefect(**odd)
    result = stage.run("status")
    assert result.code == 1
    assert "Traceback" not in result.err
    rows = result.rows
    assert {"stack", "failure queue", "other observers"} <= rows.keys()
    [failed] = [row for row in rows.values() if "odd form" in row["found"]]
    assert failed["next_step"]


def deployment(**changes: Any) -> dict[str, object]:
    """Prefect's answers about the deployment etl/x, and how a run of it was started and failed."""
    fields = {"id": str(RUN_ID), "name": "x", "flow_id": str(RUN_ID), "work_pool_name": POOL}
    return {
        "GET /deployments/name/etl/x": {**fields, **changes},
        "POST /flows/filter": [{"id": str(RUN_ID), "name": "etl"}],
        f"POST /deployments/{RUN_ID}/create_flow_run": {"id": str(RUN_ID)},
        f"GET /flow_runs/{RUN_ID}": make_answer(state=make_state(type="FAILED")),
    }


@pytest.mark.parametrize(
    ("own", "the_lambdas"), [(KEY, "the-lambdas"), ("", KEY)], ids=["own", "the Lambdas'"]
)
def test_the_operators_own_key_goes_before_the_lambdas(
    stage: Bench, own: str, the_lambdas: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.answers = prefect()
    stage.configure(PREFECT_API_KEY_PARAMETER="/key")
    stage.client("ssm").put_parameter(Name="/key", Value=the_lambdas, Type="SecureString")
    monkeypatch.setenv("PREFECT_API_KEY", own)
    monkeypatch.setenv("PREFECT_API_URL", f"{stage.server.url}/api/" if own else "")
    result = stage.run("status")
    rows = result.rows
    assert rows["credential"]["found"] == "PREFECT_API_KEY_PARAMETER: /key is a SecureString"
    assert rows["Prefect from here"]["state"] == "ok"
    assert rows["worker"]["found"].startswith("1 online, Prefect 3.8.8")
    assert rows[f"work pool {POOL}"]["state"] == "ok"
    assert {seen.headers["Authorization"] for seen in stage.requests} == {f"Bearer {KEY}"}
    assert KEY not in result.out + result.err


def test_in_opt_in_mode_a_drill_starts_a_run_that_is_opted_in(stage: Bench) -> None:
    stage.configure(MODE="opt-in")
    stage.answers = prefect(**deployment(tags=["nightly"]))
    result = stage.run("drill", "--start", "etl/x")
    assert result.is_refused("before it could be interrupted")
    [started] = [seen for seen in stage.requests if seen.path.endswith("create_flow_run")]
    assert started.body["tags"] == ["nightly", OPT_IN_TAG]


@pytest.mark.parametrize(
    ("option", "would_start"),
    [("--start etl/x", "etl/x"), ("--throw-away", "spot-drill/throw-away")],
    ids=["a deployment", "the smoke test"],
)
def test_a_dry_run_of_a_drill_starts_and_saves_nothing(
    stage: Bench, option: str, would_start: str
) -> None:
    stage.answers = prefect()
    result = stage.run("drill", *option.split(), "--dry-run")
    assert (result.code, result.answer) == (0, {"dry_run": True, "would_start": would_start})
    assert [seen for seen in stage.requests if seen.method == "POST"] == []


def test_a_report_is_a_table_json_or_csv(stage: Bench) -> None:
    make_table(stage.client("dynamodb"), STACK)
    assert stage.run("report").answer["recommendations"] == []
    assert "Spot savings by deployment" in stage.run("report", "--table", "--since", "7d").out
    assert stage.run("report", "--csv", "--since", "4w").out.startswith(
        '"day","deployment","runs",'
    )
    chart = stage.folder / "savings.png"
    assert stage.run("report", "--chart", str(chart)).answer["deployments"] == []
    assert chart.read_bytes().startswith(b"\x89PNG")
    assert "<svg" in chart.with_suffix(".svg").read_text()


def test_a_replay_is_a_table_or_json_with_three_columns(stage: Bench) -> None:
    make_table(stage.client("dynamodb"), STACK)
    stage.configure(SPOT_RETRIES="2")
    answer = stage.run("replay", "--set", "SPOT_RETRIES=1").answer
    assert (answer["settings"], answer["changes"]) == ({"SPOT_RETRIES": "2"}, {"SPOT_RETRIES": "1"})
    for column in ("as_recorded", "same_settings", "other_settings"):
        assert (answer[column]["runs"], answer[column]["cost_usd"]) == (0, "0.00000000")
    table = stage.run("replay", "--table", "--set", "SPOT_RETRIES=1").out
    for words in ("as recorded", "SPOT_RETRIES=2", "SPOT_RETRIES=1", "net USD", "Not known: "):
        assert words in table


def before(**answers: Any) -> Callable[[Bench], object]:
    """A Prefect that answers so, and a cluster without tasks."""

    def arrange(stage: Bench) -> None:
        stage.answers = prefect(**answers)
        stage.client("ecs").create_cluster(clusterName=STACK)

    return arrange


def nothing(_stage: Bench) -> None:
    """Arrange nothing."""


OTHERS_POOL = before(**deployment(work_pool_name="others"))
NO_POOL = before(**{f"GET /work_pools/{POOL}": None})


@pytest.mark.parametrize(
    ("command", "arrange", "error", "next_step"),
    [
        ("status", lambda at: (at.folder / CONFIG).unlink(), "there is no ", "project's folder"),
        ("status", lambda at: (at.folder / CONFIG).write_text("{"), "is not valid JSON", "fix it"),
        ("status --stage prod", nothing, "known are dev", "pass --stage"),
        (
            "status",
            lambda at: at.configure(MODE="perhaps"),
            "MODE is 'perhaps'; accepted: rescue, opt-in, observe",
            "correct MODE in .chalice/config.json, then run spotctl deploy",
        ),
        (
            "status",
            lambda _: os.environ.pop(REGION),
            "no AWS region is set",
            "set AWS_DEFAULT_REGION",
        ),
        ("drill --task x --start a/b", before(), "exclude each other", ""),
        ("drill --throw-away --start a/b", before(), "exclude each other", ""),
        ("drill --start a/b", before(), "does not know the deployment 'a/b'", ""),
        ("drill --task 0123", before(), "task 0123 is not in", ""),
        ("drill", before(), "no task in", ""),
        ("drill --start etl/x", OTHERS_POOL, "is of work pool others", ""),
        ("drill --throw-away", NO_POOL, "does not know the work pool", ""),
        ("report --since tomorrow", nothing, "--since 'tomorrow' is not a period", ""),
        ("report --csv --json", nothing, "--csv excludes", ""),
        ("report", nothing, "the stage has no table yet", ""),
        ("replay --set MODE=x", nothing, "--set 'MODE=x' cannot be replayed: accepted is SPOT", ""),
        ("replay --set SPOT_RETRIES=x", nothing, "SPOT_RETRIES is 'x'; accepted: whole", ""),
        ("replay --since 91d", nothing, "--since '91d' is not a period", ""),
        ("replay", nothing, "the stage has no table yet", ""),
    ],
)
def test_what_cannot_be_done_is_an_error_with_its_next_step_and_starts_no_run(
    stage: Bench, command: str, arrange: Callable[[Bench], object], error: str, next_step: str
) -> None:
    arrange(stage)
    assert stage.run(*command.split()).is_refused(error, next_step)
    assert not [seen for seen in stage.requests if seen.path.endswith("create_flow_run")]
