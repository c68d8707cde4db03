"""`spotctl` as a person or a pipeline meets it: output, errors in two lines, exit codes."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from chalicelib.core.model.policy import OPT_IN_TAG
from spotctl.cli import app
from tests.make import make_table
from tests.unit.prefect_bench import RUN_ID, make_answer, make_state
from tests.unit.spotctl_bench import KEY, POOL, STACK, Bench, bench

CONFIG = Path(".chalice") / "config.json"


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    with bench(tmp_path, monkeypatch) as made:
        yield made


def test_help_lists_every_command_with_a_line_about_it() -> None:
    lines = CliRunner().invoke(app, ["--help"]).stdout.splitlines()
    assert any("Exit codes" in line for line in lines)
    for command in ("deploy", "status", "drill", "report", "replay", "redrive", "teardown"):
        [line] = [line for line in lines if line.split()[1:2] == [command]]
        assert len(line.split()) > 5


@pytest.mark.parametrize(
    ("arrange", "options", "error", "next_step"),
    [
        pytest.param(
            lambda stage: (stage.folder / CONFIG).unlink(),
            [], "there is no ", "run spotctl in the project's folder", id="no project",
        ),
        pytest.param(
            lambda stage: (stage.folder / CONFIG).write_text("{"),
            [], "is not valid JSON", "fix it", id="no JSON",
        ),
        pytest.param(
            lambda _: None, ["--stage", "prod"], "known are dev", "pass --stage", id="no stage"
        ),
        pytest.param(
            lambda stage: stage.configure(MODE="perhaps"),
            [], "MODE is 'perhaps'; accepted: rescue, opt-in, observe",
            "correct MODE in .chalice/config.json, then run spotctl deploy", id="wrong setting",
        ),
        pytest.param(
            lambda _: None, ["--region"], "no AWS region is set", "set AWS_REGION", id="no region"
        ),
    ],
)  # fmt: skip
def test_what_cannot_run_is_an_error_with_its_next_step(
    stage: Bench,
    monkeypatch: pytest.MonkeyPatch,
    arrange: Callable[[Bench], object],
    options: list[str],
    error: str,
    next_step: str,
) -> None:
    arrange(stage)
    if "--region" in options:
        monkeypatch.delenv("AWS_DEFAULT_REGION")
        options = []
    assert stage.run("status", *options).is_refused(error, next_step)


def test_the_status_of_an_empty_account_names_what_is_missing(stage: Bench) -> None:
    result = stage.run("status")
    answer = result.answer
    assert (result.code, answer["stage"], answer["region"], answer["ok"]) == (
        1, "dev", "us-east-1", False,
    )  # fmt: skip
    missing = ["stack", f"cluster {STACK}", "worker service", "failure queue", "Prefect from here"]
    missing += [f"function {STACK}-{name}" for name in ("react", "meter", "sweep", "provision")]
    others = {"last sweep": "warning", "credential": "ok", "other observers": "ok"}
    assert {part: row["state"] for part, row in result.rows.items()} == {
        **dict.fromkeys(missing, "failed"), **others,
    }  # fmt: skip
    table = stage.run("status", "--table")
    assert table.code == 1
    for word in ("part", "what to do", "stack", "failed", "→ run spotctl deploy"):
        assert word in table.out


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


def test_an_observer_in_the_account_is_found_by_its_rule(stage: Bench) -> None:
    events = stage.client("events")
    about_tasks = {"source": ["aws.ecs"], "detail-type": ["ECS Task State Change"]}
    arn = "arn:aws:sqs:us-east-1:123456789012:{}"
    for rule, queue in (("etl-ecs-task-events", "etl-ecs-events"), ("audit", "audit-log")):
        events.put_rule(Name=rule, EventPattern=json.dumps(about_tasks))
        events.put_targets(Rule=rule, Targets=[{"Id": "1", "Arn": arn.format(queue)}])
    parts = stage.run("status").rows
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
    result = stage.run("status")
    rows = result.rows
    assert rows["credential"]["found"] == "PREFECT_API_KEY_PARAMETER: /key is a SecureString"
    assert rows["Prefect from here"]["state"] == "ok"
    assert rows["worker"]["found"].startswith("1 online, Prefect 3.8.8")
    assert rows[f"work pool {POOL}"]["state"] == "ok"
    assert {seen.headers["Authorization"] for seen in stage.requests} == {f"Bearer {KEY}"}
    assert KEY not in result.out + result.err


@pytest.mark.parametrize(
    ("arguments", "answers", "error"),
    [
        pytest.param("--task x --start a/b", {}, "exclude each other", id="two targets"),
        pytest.param("--throw-away --start a/b", {}, "exclude each other", id="two flows"),
        pytest.param("--start a/b", {}, "does not know the deployment 'a/b'", id="no deployment"),
        pytest.param("--task 0123", {}, "task 0123 is not in", id="no task"),
        pytest.param("", {}, "no task in", id="nothing runs"),
        pytest.param(
            "--start etl/x", deployment(work_pool_name="others"), "is of work pool others",
            id="another pool's deployment",
        ),
        pytest.param(
            "--throw-away", {f"GET /work_pools/{POOL}": None}, "does not know the work pool",
            id="no work pool",
        ),
    ],
)  # fmt: skip
def test_a_drill_that_cannot_be_is_refused(
    stage: Bench, arguments: str, answers: dict[str, object], error: str
) -> None:
    stage.answers = prefect(**answers)
    stage.client("ecs").create_cluster(clusterName=STACK)
    assert stage.run("drill", *arguments.split()).is_refused(error)
    assert not [seen for seen in stage.requests if seen.path.endswith("create_flow_run")]


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
    assert "Spot savings by deployment" in stage.run("report", "--table", "--since", "7d").out
    assert stage.run("report", "--csv", "--since", "4w").out.startswith("day,deployment,runs,")
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


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ("report --since tomorrow", "--since 'tomorrow' is not a period"),
        ("report --csv --json", "--csv excludes"),
        ("report", "the stage has no table yet"),
        ("replay --set MODE=x", "--set 'MODE=x' cannot be replayed: accepted is SPOT_"),
        ("replay --set SPOT_RETRIES=x", "SPOT_RETRIES is 'x'; accepted: whole numbers"),
        ("replay --since 91d", "--since '91d' is not a period"),
        ("replay", "the stage has no table yet"),
    ],
)
def test_a_report_or_replay_that_cannot_be_is_refused(
    stage: Bench, arguments: str, error: str
) -> None:
    assert stage.run(*arguments.split()).is_refused(error)
