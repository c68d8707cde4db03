"""`spotctl` as a person or a pipeline meets it: output, errors in two lines, exit codes."""

import csv
import io
import json
import os
import re
import shlex
import subprocess
import tomllib
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_group
from typer.testing import CliRunner

from chalicelib.core.model.policy import OPT_IN_TAG
from spotctl.cli import app
from spotctl.context import Aws, open_context
from spotctl.drill import target
from spotctl.project import CHECKOUT, folder_of, read_project
from tests.make import TASK_ARN, make_run, make_table, make_task
from tests.unit.prefect_bench import RUN_ID, make_answer, make_state
from tests.unit.spotctl_bench import FUNCTIONS, KEY, POOL, STACK, Bench, stage

__all__ = ["stage"]  # the fixture

CONFIG = Path(".chalice") / "config.json"
REGION = "AWS_DEFAULT_REGION"


def help_of(*arguments: str) -> str:
    """What it prints, without the frames."""
    shown = CliRunner().invoke(app, [*arguments])
    assert shown.exit_code == 0
    return re.sub("[╭╮╰╯│─]", " ", shown.stdout)


COMMANDS = get_group(app).commands
PANELS = {
    "Set up": ["init", "policies", "plan", "deploy", "status", "teardown"],
    "Test": ["drill"],
    "Money": ["report", "replay"],
    "Repair": ["explain", "redrive", "pause", "resume"],
}


def test_help_lists_every_command_in_its_group_with_a_line_about_it() -> None:
    lines = [line.split() for line in help_of("--help").splitlines() if line.split()]
    for panel, commands in PANELS.items():
        after = lines[lines.index(panel.split()) + 1 :]
        named = [words[0] for words in after if words[0] in COMMANDS][: len(commands)]
        assert named == commands
    for command in COMMANDS:
        [line] = [words for words in lines if words[0] == command]
        assert len(line) > 5
    text = " ".join(help_of("--help").split())
    for told in (
        *("Exit codes: 0 success, warnings included", "docs/index.md", "Problems: the issues"),
        *("table on a terminal and JSON in a pipe", "NO_COLOR", "--install-completion"),
    ):
        assert told in text


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_help_shows_no_type_for_a_flag_and_no_old_name_however_it_is_asked_for(name: str) -> None:
    command = name.split()
    shown = help_of(*command, "--help")
    assert help_of(*command, "-h") == help_of("help", *command) == shown
    assert not re.search(r"<bool>|--(json|table|csv|throw-away|work-pool)\b", shown)


@pytest.mark.parametrize("name", COMMANDS)
def test_each_help_has_examples_that_can_be_parsed_and_its_exit_codes(name: str) -> None:
    shown = help_of(name, "--help")
    examples = re.findall(r"^ +spotctl (.+?) *$", shown, re.MULTILINE)
    assert examples
    for example in examples:
        command, *options = shlex.split(example)
        assert command == name
        COMMANDS[name].make_context(name, options).close()
    codes = re.search(
        r"Exit codes: 0 success, warnings included(; 1 \w.+)?; 2 it", " ".join(shown.split())
    )
    assert codes
    assert bool(codes[1]) == (name in {"plan", "deploy", "status", "teardown", "drill", "redrive"})


def test_the_version_is_that_of_the_project() -> None:
    version = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]["version"]
    assert CliRunner().invoke(app, ["--version"]).stdout == f"spotctl {version}\n"


def spotctl_from(folder: Path, *arguments: str, **environment: str) -> str:
    """What `tools/spotctl`, which `make` links into .venv/bin, prints there."""
    link = folder / "spotctl"
    link.symlink_to(CHECKOUT / "tools" / "spotctl")
    host = {name: text for name, text in os.environ.items() if not name.startswith("SPOTCTL_")}
    return subprocess.run(
        [link, *arguments], cwd=folder, env={**host, **environment}, check=True, text=True,
        capture_output=True,
    ).stdout  # fmt: skip


@pytest.mark.parametrize("command", ["plan --offline", "policies", "status -h", "--version"])
def test_a_reader_that_has_enough_gets_no_error(command: str) -> None:
    readable, writable = os.pipe()
    os.close(readable)
    done = subprocess.run(
        [CHECKOUT / "tools" / "spotctl", *command.split()], check=False,
        stdout=writable, stderr=subprocess.PIPE,
        env={name: text for name, text in os.environ.items() if name != "PYTHONUNBUFFERED"},
    )  # fmt: skip
    os.close(writable)
    assert (done.returncode, done.stderr) == (1, b"")


def test_spotctl_runs_from_any_directory_by_a_link_and_finds_its_own_checkout(
    tmp_path: Path,
) -> None:
    (tmp_path / "typer.py").write_text("raise SystemExit('another folder's module')")
    rows = json.loads(spotctl_from(tmp_path, "plan", "--offline"))["rows"]
    assert "stack prefect-spot-dev" in rows[0]["found"]


def test_make_links_spotctl_into_the_environment(tmp_path: Path) -> None:
    (tmp_path / "requirements").mkdir()
    (tmp_path / "requirements" / "uv.txt").touch()
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "uv").touch()
    (tmp_path / "tools").symlink_to(CHECKOUT / "tools")
    make = ["make", "-f", str(CHECKOUT / "Makefile"), ".venv/bin/spotctl"]
    subprocess.run(make, cwd=tmp_path, check=True, capture_output=True)
    link = tmp_path / ".venv" / "bin" / "spotctl"
    assert link.resolve() == CHECKOUT / "tools" / "spotctl"
    assert os.access(link, os.X_OK)


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("tear", {"teardown"}),
        ("drill --sam", {"--sample-flow"}),
        ("status --stage d", {"dev"}),
        ("status --jso", set()),
    ],
)
def test_a_shell_completes_commands_options_and_stages(
    tmp_path: Path, typed: str, completed: set[str]
) -> None:
    asked = {"COMP_WORDS": f"spotctl {typed}", "COMP_CWORD": str(len(typed.split()))}
    shown = spotctl_from(tmp_path, **asked, _SPOTCTL_COMPLETE="complete_bash")
    assert set(shown.split()) == completed


def test_the_settings_are_those_of_this_folder_or_else_of_the_checkout(
    stage: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    assert (folder_of(None), folder_of(stage.folder)) == (CHECKOUT, stage.folder)
    monkeypatch.chdir(stage.folder)
    assert folder_of(None) == Path()
    monkeypatch.setenv("SPOTCTL_PROJECT_DIR", str(stage.folder / "none"))
    shown = CliRunner().invoke(app, ["plan", "--offline"])
    assert (shown.exit_code, "there is no " in shown.stderr) == (2, True)


def test_each_way_to_name_a_format_gives_the_same(stage: Bench) -> None:
    as_json, as_table = stage.run("status"), stage.run("status", "--format", "table")
    assert as_json.answer["stage"] == "dev"
    assert "what to do" in as_table.out
    for way, result in (("--json --format json", as_json), ("--table", as_table)):
        assert stage.run("status", *way.split()).out == result.out
    lines = list(csv.DictReader(io.StringIO(stage.run("status", "--format", "csv").out)))
    assert {line["part"]: line["state"] for line in lines} == {
        part: row["state"] for part, row in as_json.rows.items()
    }
    for command in ("replay", "pause", "drill"):
        refused = stage.run(command, "--format", "csv")
        assert (refused.code, "'csv' is not one of" in refused.err) == (2, True)


def test_progress_is_told_less_with_q_and_more_with_v(stage: Bench) -> None:
    stage.answers = prefect()
    plain, quiet, verbose = (stage.run("status", *way) for way in ((), ("-q",), ("-v",)))
    results = {re.sub(r"\d+ min ago", "", each.out) for each in (plain, quiet, verbose)}
    assert len(results) == 1
    assert (plain.err, quiet.err) == ("", "")
    for line in ("AWS: sts GetCallerIdentity", "Prefect: GET /admin/version"):
        assert line in verbose.err.splitlines()


ELSEWHERE = (
    "[profile other]\nregion = eu-west-1\naws_access_key_id = OTHERS\naws_secret_access_key = B\n"
)


def test_profile_and_region_go_before_those_of_the_environment(
    stage: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    (stage.folder / "aws").write_text(ELSEWHERE)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(stage.folder / "aws"))
    for options, region in (
        ("", "us-east-1"),
        ("--profile other --region eu-north-1", "eu-north-1"),
        ("--region eu-north-1", "eu-north-1"),
    ):
        assert stage.run("status", *options.split()).answer["region"] == region
    monkeypatch.delenv(REGION)
    assert stage.run("status", "--profile", "other").answer["region"] == "eu-west-1"
    signed = Aws("other").client("sts").generate_presigned_url("get_caller_identity")
    assert "Credential=OTHERS%2F" in signed, "the environment's keys would win over its profile"
    refused = stage.run("status", "--profile", "nobody")
    assert refused.is_refused("profile (nobody) could not be found", "correct --profile")


def test_chalice_works_with_the_same_profile_and_region(
    stage: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    (stage.folder / "aws").write_text(ELSEWHERE)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(stage.folder / "aws"))
    chalice = stage.folder / "chalice"
    chalice.write_text('#!/bin/sh\necho "$@ in $AWS_DEFAULT_REGION"')
    chalice.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(stage.folder / "python"))
    lines: list[str] = []
    project = read_project(stage.folder, "dev")
    for options in (("other", "eu-north-1"), ("other", ""), ("", "")):
        context = open_context(project, lines.append, "", *options)
        assert context.chalice("delete") == 0
    assert lines == [
        "delete --stage dev --profile other in eu-north-1",
        "delete --stage dev --profile other in us-east-1",
        "delete --stage dev in us-east-1",
    ]


def test_init_writes_a_stage_that_can_be_planned_and_leaves_the_others(stage: Bench) -> None:
    dev = json.loads((stage.folder / CONFIG).read_text())["stages"]["dev"]
    url = f"PREFECT_API_URL={stage.server.url}/api"
    for name, given, provision in (
        ("eu", (), "full"),
        ("etl", ("ECS_CLUSTER=etl", "WORK_POOL=fargate", "MODE=opt-in"), "rescue-only"),
    ):
        options = [word for each in (url, *given) for word in ("--set", each)]
        assert stage.run("init", "--stage", name, *options).answer["stage"] == name
        project = read_project(stage.folder, name)
        assert (project.settings.provision, project.functions) == (provision, FUNCTIONS)
        assert project.settings.mode == ("opt-in" if given else "observe")
        planned = stage.run("plan", "--stage", name, "--offline")
        assert f"policy-react-{name}.json" in planned.rows["policies"]["found"]
    assert json.loads((stage.folder / CONFIG).read_text())["stages"]["dev"] == dev


def test_policies_are_printed_for_every_role_without_an_account(
    stage: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(REGION)
    printed = stage.run("policies")
    assert printed.answer.keys() == {*FUNCTIONS, "deployer", "teardown"}
    assert all(policy["Statement"] for policy in printed.answer.values())
    assert stage.run("policies", "--format", "table").out.strip() == printed.out.strip()


ABOUT = "stage dev in account 123456789012, us-east-1"


def running(_: object, task: str = "") -> target.Target:
    return target.Target(make_task(arn=task or TASK_ARN), make_run())


@pytest.mark.parametrize(
    ("command", "question"),
    [
        ("deploy", f"Deploy {ABOUT}?"),
        ("teardown --stage dev", f"Delete {ABOUT}, with its table and all results in its bucket?"),
        ("drill --start etl/x", f"Start a run of etl/x, {ABOUT}, and interrupt it?"),
        (
            "drill --task 0123",
            f"Interrupt task 0123 of flow run {make_run().name} ({RUN_ID}), {ABOUT}?",
        ),
        ("drill", f"Interrupt task {TASK_ARN} of flow run {make_run().name} ({RUN_ID}), {ABOUT}?"),
    ],
)
@pytest.mark.parametrize("form", ["json", "table"])
def test_what_deploys_deletes_or_interrupts_shows_where_and_asks(
    stage: Bench, command: str, question: str, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.answers = prefect(**deployment())
    stage.deploy_functions()
    monkeypatch.setattr("spotctl.drill.target.named", running)
    monkeypatch.setattr("spotctl.drill.target.pick", running)
    refused = stage.run(*command.split(), "--format", form)
    assert refused.is_refused(f"cannot ask {question!r}", "pass --yes")
    changes = [seen for seen in stage.requests if seen.body and not seen.path.endswith("/filter")]
    assert (stage.invoked, changes) == ([], [])


def test_the_sample_flow_is_the_drills_own_so_that_it_asks_nothing(stage: Bench) -> None:
    stage.answers = prefect(**{f"GET /work_pools/{POOL}": None})
    result = stage.run("drill", "--sample-flow")
    assert result.is_refused("does not know the work pool")
    assert f"start a run of spot-drill/throw-away, {ABOUT}, and interrupt it" in result.err


def test_teardown_wants_its_stage_named(stage: Bench) -> None:
    result = stage.run("teardown", "--yes")
    assert (result.code, "Missing option '--stage'" in result.err) == (2, True)


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


def test_the_stages_key_is_not_read_where_only_the_own_one_may_be_used(stage: Bench) -> None:
    stage.answers = prefect()
    stage.configure(PREFECT_API_KEY_PARAMETER="/key")
    stage.client("ssm").put_parameter(Name="/key", Value=KEY, Type="SecureString")
    for options, sent in (([], {f"Bearer {KEY}"}), (["--own-key"], {None})):
        stage.requests.clear()
        stage.run("status", *options)
        assert {seen.headers.get("Authorization") for seen in stage.requests} == sent


def test_in_opt_in_mode_a_drill_starts_a_run_that_is_opted_in(stage: Bench) -> None:
    stage.configure(MODE="opt-in")
    stage.answers = prefect(**deployment(tags=["nightly"]))
    result = stage.run("drill", "--start", "etl/x", "--yes")
    assert result.is_refused("before it could be interrupted")
    [started] = [seen for seen in stage.requests if seen.path.endswith("create_flow_run")]
    assert started.body["tags"] == ["nightly", OPT_IN_TAG]


@pytest.mark.parametrize(
    ("option", "would_start"),
    [
        ("--start etl/x", "etl/x"),
        ("--sample-flow", "spot-drill/throw-away"),
        ("--throw-away", "spot-drill/throw-away"),
    ],
    ids=["a deployment", "the sample flow", "its old name"],
)
def test_a_dry_run_of_a_drill_starts_and_saves_nothing(
    stage: Bench, option: str, would_start: str
) -> None:
    stage.answers = prefect()
    result = stage.run("drill", *option.split(), "--dry-run")
    assert (result.code, result.answer) == (0, {"dry_run": True, "would_start": would_start})
    assert [seen for seen in stage.requests if seen.method == "POST"] == []


def test_a_dry_run_of_a_drill_says_what_it_would_interrupt_and_count_as(
    stage: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_table(stage.client("dynamodb"), STACK)
    found = deployment()["GET /deployments/name/etl/x"]
    run = make_run(run_count=1, tags=("spot-retries:2",))
    monkeypatch.setattr("spotctl.drill.target.pick", lambda _: target.Target(make_task(), run))
    stage.answers = prefect(**deployment(), **{f"GET /deployments/{run.deployment_id}": found})
    answer = stage.run("drill", "--dry-run").answer
    assert (answer["task"], answer["deployment"], answer["attempt"]) == (TASK_ARN, "etl/x", 1)
    assert answer["counts_as"].startswith("interruption 1 of the run (tag spot-retries:2); in the")
    lines = stage.run("drill", "--dry-run", "--table").out.splitlines()
    assert lines[1:3] == [f"flow run: {run.name} ({run.id}), attempt 1", "deployment: etl/x"]


def test_a_report_is_a_table_json_or_csv(stage: Bench) -> None:
    make_table(stage.client("dynamodb"), STACK)
    assert stage.run("report").answer["recommendations"] == []
    assert "Spot savings by deployment" in stage.run("report", "--table", "--since", "7d").out
    assert stage.run("report", "--csv", "--since", "4w").out.startswith(
        '"day","deployment","runs",'
    )
    for name, drawn in (("savings.png", "savings"), ("of 2026.11", "of 2026.11")):
        result = stage.run("report", "--chart", str(stage.folder / name))
        assert result.answer["deployments"] == []
        assert (stage.folder / f"{drawn}.png").read_bytes().startswith(b"\x89PNG")
        assert "<svg" in (stage.folder / f"{drawn}.svg").read_text()


def test_a_replay_is_a_table_or_json_and_a_line_where_nothing_changes(stage: Bench) -> None:
    make_table(stage.client("dynamodb"), STACK)
    stage.configure(SPOT_RETRIES="2")
    answer = stage.run("replay", "--set", "SPOT_RETRIES=1").answer
    assert (answer["settings"], answer["changes"]) == ({"SPOT_RETRIES": "2"}, {"SPOT_RETRIES": "1"})
    assert answer["nothing_to_decide"] == "no run was interrupted"
    for column in ("as_recorded", "same_settings", "other_settings"):
        assert (answer[column]["runs"], answer[column]["cost_usd"]) == (0, "0.00000000")
    table = stage.run("replay", "--table").out
    for words in ("as recorded", "SPOT_RETRIES=2", "net saving, USD", "Not known: "):
        assert words in table
    line = stage.run("replay", "--table", "--set", "SPOT_RETRIES=1").out
    assert line.startswith("SPOT_RETRIES=1 changes nothing for the runs ")


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
        *(
            ("plan --offline", lambda at, text=text: (at.folder / CONFIG).write_text(text), odd, "")
            for text, odd in (
                ("[]", "it is not a JSON object"),
                ('{"stages": null}', "stages is not a JSON object"),
                ('{"stages": {"dev": []}}', "dev is not a JSON object"),
                ('{"environment_variables": 1}', "environment_variables is not a JSON object"),
                ('{"stages": {"dev": {"lambda_functions": {"react": 1}}}}', "react is not a JSON"),
                ('{"stages": {"dev": {"environment_variables": {"SPOT_RETRIES": 3}}}}', "is 3, w"),
            )
        ),
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
        ("init --stage dev --set A=b", nothing, "stage 'dev' is in", "edit it there"),
        ("init --stage eu --set A=b", nothing, "there is no setting A", "docs/settings.md"),
        ("init --stage eu --set MODE", nothing, "--set 'MODE' is not NAME=VALUE", ""),
        ("init --stage eu --set MODE=x", nothing, "PREFECT_API_URL", ""),
        ("plan --stage prod", lambda _: os.environ.pop(REGION), "known are dev", "pass --stage"),
        ("drill --task x --start a/b", before(), "exclude each other", ""),
        ("drill --throw-away --start a/b", before(), "exclude each other", ""),
        ("drill --start a/b --yes", before(), "does not know the deployment 'a/b'", ""),
        ("drill --task 0123", before(), "task 0123 is not in", ""),
        ("drill", before(), f"no Spot task of a flow run is running in {STACK}", "--sample-flow"),
        ("drill --start etl/x", OTHERS_POOL, "is of work pool others", ""),
        ("report --pool etl", nothing, "--pool 'etl' is none of the stage's work pools", ""),
        ("drill --throw-away", NO_POOL, "does not know the work pool", ""),
        ("report --since tomorrow", nothing, "--since 'tomorrow' is not a period", ""),
        ("report --chart .", nothing, "--chart '.' names no file", "pass a file's name"),
        ("explain x --chart .png", nothing, "--chart '.png' names no file", ""),
        ("report --csv --json", nothing, "--csv excludes --json", ""),
        ("report --csv --format table", nothing, "--csv excludes --format table", ""),
        ("status --table --format json", nothing, "--table excludes --format json", ""),
        ("drill --sample-flow --task x", nothing, "exclude each other", ""),
        ("report", nothing, "the stage has no table yet", ""),
        ("replay --set MODE=x", nothing, "--set 'MODE=x' cannot be replayed: accepted is SPOT", ""),
        ("replay --set SPOT_RETRIES=x", nothing, "'SPOT_RETRIES=x' cannot be", "=2, or another"),
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
