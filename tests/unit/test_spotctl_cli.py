"""`spotctl` as a person or a pipeline meets it: help, output, errors in one line, exit codes."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from chalicelib.core.model.policy import OPT_IN_TAG
from spotctl.cli import app
from tests.unit.prefect_bench import RUN_ID, make_answer, make_state
from tests.unit.spotctl_bench import KEY, STACK, Bench, bench

POOL = "fargate-spot-dev"
COMMANDS = ("deploy", "status", "drill", "report", "replay", "redrive", "teardown")


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    with bench(tmp_path, monkeypatch) as made:
        yield made


def test_help_lists_every_command_and_each_explains_itself() -> None:
    said = CliRunner().invoke(app, ["--help"])
    assert said.exit_code == 0
    assert "Exit codes" in said.stdout
    for command in COMMANDS:
        assert command in said.stdout
        explained = CliRunner().invoke(app, [command, "--help"])
        assert explained.exit_code == 0
        assert "--stage" in explained.stdout
        assert "--json" in explained.stdout


def test_without_a_project_the_error_says_where_to_go(tmp_path: Path) -> None:
    said = CliRunner().invoke(app, ["status", "--project-dir", str(tmp_path)])
    assert said.exit_code == 2
    assert said.stdout == ""
    assert said.stderr.startswith("error: there is no")
    assert "\nnext step: run spotctl in the project's folder" in said.stderr
    assert said.stderr.count("\n") == 2


def test_an_unknown_stage_is_named_with_the_known_ones(stage: Bench) -> None:
    said = stage.run("status", "--stage", "prod")
    assert (said.code, said.out) == (2, "")
    assert "stage 'prod' is not in" in said.err
    assert "known are dev" in said.err


def test_a_wrong_setting_is_an_error_with_its_next_step(stage: Bench) -> None:
    stage.configure(MODE="perhaps")
    said = stage.run("status")
    assert (said.code, said.out) == (2, "")
    assert said.err == (
        "error: MODE is 'perhaps': accepted are rescue, opt-in, observe\n"
        "next step: correct MODE in .chalice/config.json, then run spotctl deploy\n"
    )


def test_a_config_that_is_no_json_is_refused(stage: Bench) -> None:
    (stage.folder / ".chalice" / "config.json").write_text("{")
    said = stage.run("status")
    assert said.code == 2
    assert "is not valid JSON" in said.err


def test_without_a_region_nothing_is_asked(stage: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    said = stage.run("status")
    assert (said.code, said.out) == (2, "")
    assert said.err == (
        "error: no AWS region is set\nnext step: set AWS_REGION, or a region in your AWS profile\n"
    )


def test_the_status_of_an_empty_account_says_what_is_missing(stage: Bench) -> None:
    said = stage.run("status")
    assert said.code == 1
    answer = said.answer
    assert (answer["stage"], answer["region"], answer["ok"]) == ("dev", "us-east-1", False)
    parts = {row["part"]: row["state"] for row in answer["rows"]}
    assert parts == {
        "stack": "failed",
        f"cluster {STACK}": "failed",
        "worker service": "failed",
        f"function {STACK}-react": "failed",
        f"function {STACK}-meter": "failed",
        f"function {STACK}-sweep": "failed",
        f"function {STACK}-provision": "failed",
        "failure queue": "failed",
        "last sweep": "warning",
        "credential": "ok",
        "Prefect from here": "failed",
        "other observers": "ok",
    }
    assert all(row["next_step"] for row in answer["rows"] if row["state"] != "ok")
    table = stage.run("status", "--table")
    assert table.code == 1
    for word in ("part", "what to do", "stack", "failed", "→ run spotctl deploy"):
        assert word in table.out


def test_what_a_stage_has_is_read_as_it_is(stage: Bench) -> None:
    arns, url = stage.deploy_functions(), stage.create_failure_queue()
    stage.create_table()
    attributes = stage.client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])
    queue_arn = attributes["Attributes"]["QueueArn"]
    events, functions = stage.client("events"), stage.client("lambda")
    for name, arn in arns.items():
        events.put_rule(Name=f"{name}-event", ScheduleExpression="rate(5 minutes)")
        target = {"Id": "1", "Arn": arn, "DeadLetterConfig": {"Arn": queue_arn}}
        events.put_targets(Rule=f"{name}-event", Targets=[target])
        functions.put_function_event_invoke_config(
            FunctionName=f"{STACK}-{name}",
            DestinationConfig={"OnFailure": {"Destination": queue_arn}},
        )
    stage.client("ecs").create_cluster(
        clusterName=STACK, capacityProviders=["FARGATE", "FARGATE_SPOT"]
    )
    events.disable_rule(Name="react-event")
    functions.put_function_concurrency(
        FunctionName=f"{STACK}-sweep", ReservedConcurrentExecutions=0
    )
    parts = {row["part"]: row for row in stage.run("status").answer["rows"]}
    wanted = [f"cluster {STACK}", "failure queue", "rule meter-event", f"function {STACK}-meter"]
    assert {parts[part]["state"] for part in wanted} == {"ok"}
    assert parts["rule react-event"]["state"] == "failed"
    assert parts[f"function {STACK}-sweep"]["found"] == "it is kept from running"


def test_an_observer_in_the_account_is_found_by_its_rule(stage: Bench) -> None:
    events = stage.client("events")
    about_tasks = {"source": ["aws.ecs"], "detail-type": ["ECS Task State Change"]}
    arn = "arn:aws:sqs:us-east-1:123456789012:{}"
    for rule, queue in (("etl-ecs-task-events", "etl-ecs-events"), ("audit", "audit-log")):
        events.put_rule(Name=rule, EventPattern=json.dumps(about_tasks))
        events.put_targets(Rule=rule, Targets=[{"Id": "1", "Arn": arn.format(queue)}])
    parts = {row["part"] for row in stage.run("status").answer["rows"]}
    assert "observer etl-ecs-task-events" in parts
    assert "observer audit" not in parts


def prefect(**changes: Any) -> dict[str, object]:
    """Prefect's answers about an empty pool with a worker."""
    pool = {"name": POOL, "type": "ecs", "status": "READY", "is_paused": False}
    worker = {"name": "ECSWorker 1", "status": "ONLINE"}
    started = {"prefect.resource.name": "ECSWorker 1", "prefect.version": "3.8.8"}
    heartbeat = {"last_heartbeat_time": "2026-11-23T12:00:00Z"}
    return {
        "GET /admin/version": "3.8.8",
        f"GET /work_pools/{POOL}": {**pool, "base_job_template": {}},
        f"POST /work_pools/{POOL}/workers/filter": [{**worker, **heartbeat}],
        "POST /events/filter": {"events": [{"resource": started}]},
        "POST /deployments/filter": [],
        **changes,
    }


@pytest.mark.parametrize(
    ("own", "the_lambdas"), [(KEY, "the-lambdas"), ("", KEY)], ids=["own", "the Lambdas'"]
)
def test_prefect_is_asked_with_the_operators_own_key_or_else_with_the_lambdas(
    stage: Bench, own: str, the_lambdas: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.answers = prefect()
    stage.configure(PREFECT_API_KEY_PARAMETER="/key")
    stage.client("ssm").put_parameter(Name="/key", Value=the_lambdas, Type="SecureString")
    monkeypatch.setenv("PREFECT_API_KEY", own)
    said = stage.run("status")
    parts = {row["part"]: row for row in said.answer["rows"]}
    assert parts["credential"]["found"] == "PREFECT_API_KEY_PARAMETER: /key is a SecureString"
    assert parts["Prefect from here"]["state"] == "ok"
    assert parts["worker"]["found"].startswith("1 online, Prefect 3.8.8")
    assert parts[f"work pool {POOL}"]["state"] == "ok"
    assert {seen.headers["Authorization"] for seen in stage.requests} == {f"Bearer {KEY}"}
    assert KEY not in said.out + said.err


@pytest.mark.parametrize(
    "arguments",
    [
        ("--task", "x", "--start", "a/b"),
        ("--throw-away", "--start", "a/b"),
        ("--start", "unknown/deployment"),
        ("--task", "0123"),
        (),
    ],
    ids=["task and start", "throw-away and start", "no deployment", "no task", "nothing runs"],
)
def test_a_drill_that_cannot_be_is_refused(stage: Bench, arguments: tuple[str, ...]) -> None:
    stage.answers = prefect()
    stage.client("ecs").create_cluster(clusterName=STACK)
    said = stage.run("drill", *arguments)
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith("error: ")
    assert said.err.count("\n") == 2


def test_a_deployment_of_another_pool_is_not_started(stage: Bench) -> None:
    flow = "0b0b0b0b-0000-4000-8000-000000000001"
    deployment = {"id": flow, "name": "x", "flow_id": flow, "work_pool_name": "others"}
    stage.answers = prefect() | {
        "GET /deployments/name/etl/x": deployment,
        "POST /flows/filter": [{"id": flow, "name": "etl"}],
    }
    said = stage.run("drill", "--start", "etl/x")
    assert said.code == 2
    assert "is of work pool others" in said.err
    assert not [seen for seen in stage.requests if seen.path.endswith("create_flow_run")]


def test_in_opt_in_mode_a_drill_starts_a_run_that_is_opted_in(stage: Bench) -> None:
    deployment = {"id": str(RUN_ID), "name": "x", "flow_id": str(RUN_ID), "work_pool_name": POOL}
    stage.configure(MODE="opt-in")
    stage.answers = prefect() | {
        "GET /deployments/name/etl/x": {**deployment, "tags": ["nightly"]},
        "POST /flows/filter": [{"id": str(RUN_ID), "name": "etl"}],
        f"POST /deployments/{RUN_ID}/create_flow_run": {"id": str(RUN_ID)},
        f"GET /flow_runs/{RUN_ID}": make_answer(state=make_state(type="FAILED")),
    }
    said = stage.run("drill", "--start", "etl/x")
    assert (said.code, said.out) == (2, "")
    assert "before it could be interrupted" in said.err
    [started] = [seen for seen in stage.requests if seen.path.endswith("create_flow_run")]
    assert started.body["tags"] == ["nightly", OPT_IN_TAG]


@pytest.mark.parametrize(
    ("option", "would_start"),
    [(("--start", "etl/x"), "etl/x"), (("--throw-away",), "spot-drill/throw-away")],
    ids=["a deployment", "a throw-away flow"],
)
def test_a_dry_run_of_a_drill_starts_and_saves_nothing(
    stage: Bench, option: tuple[str, ...], would_start: str
) -> None:
    stage.answers = prefect()
    said = stage.run("drill", *option, "--dry-run")
    assert said.code == 0
    assert said.answer == {"dry_run": True, "would_start": would_start}
    assert [seen for seen in stage.requests if seen.method == "POST"] == []


def test_without_a_work_pool_no_throw_away_flow_is_made(stage: Bench) -> None:
    stage.answers = {"GET /admin/version": "3.8.8"}
    said = stage.run("drill", "--throw-away")
    assert (said.code, said.out) == (2, "")
    assert (
        said.err
        == f"error: Prefect does not know the work pool {POOL}\nnext step: run spotctl deploy\n"
    )


def test_a_report_is_a_table_json_or_csv(stage: Bench) -> None:
    stage.create_table()
    assert stage.run("report").answer["deployments"] == []
    assert "Spot savings by deployment" in stage.run("report", "--table", "--since", "7d").out
    said = stage.run("report", "--csv", "--since", "4w")
    assert said.code == 0
    assert said.out.startswith("day,deployment,runs,")


def test_a_replay_is_a_table_or_json_with_three_columns(stage: Bench) -> None:
    stage.create_table()
    stage.configure(SPOT_RETRIES="2")
    said = stage.run("replay", "--set", "SPOT_RETRIES=1")
    assert said.code == 0
    assert said.answer["settings"] == {"SPOT_RETRIES": "2"}
    assert said.answer["changes"] == {"SPOT_RETRIES": "1"}
    for column in ("as_recorded", "same_settings", "other_settings"):
        assert said.answer[column]["runs"] == 0
        assert said.answer[column]["cost_usd"] == "0.00000000"
    table = stage.run("replay", "--table", "--set", "SPOT_RETRIES=1").out
    for words in ("as recorded", "SPOT_RETRIES=2", "SPOT_RETRIES=1", "net USD", "Not known: "):
        assert words in table


def test_a_chart_is_drawn_into_two_files(stage: Bench) -> None:
    stage.create_table()
    chart = stage.folder / "savings.png"
    said = stage.run("report", "--chart", str(chart))
    assert said.code == 0
    assert chart.read_bytes().startswith(b"\x89PNG")
    assert "<svg" in chart.with_suffix(".svg").read_text()
    assert said.answer["deployments"] == [], "the chart is no reason to leave out the answer"


NO_TABLE = "the stage has no table yet\nnext step: run spotctl deploy"


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("report", "--since", "tomorrow"), "--since 'tomorrow' is not a period"),
        (("report", "--csv", "--json"), "--csv goes with neither"),
        (("report",), NO_TABLE),
        (("replay", "--set", "MODE=x"), "--set 'MODE=x' cannot be replayed: accepted is SPOT_"),
        (("replay", "--set", "SPOT_RETRIES=x"), "SPOT_RETRIES is 'x': accepted are whole numbers"),
        (("replay", "--since", "91d"), "--since '91d' is not a period"),
        (("replay",), NO_TABLE),
    ],
    ids=[
        "no period", "two forms", "report without a table",
        "another setting", "a wrong value", "longer than bills are kept", "replay without a table",
    ],
)  # fmt: skip
def test_a_report_or_replay_that_cannot_be_is_refused(
    stage: Bench, arguments: tuple[str, ...], why: str
) -> None:
    said = stage.run(*arguments)
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith(f"error: {why}")
    assert said.err.count("\n") == 2
