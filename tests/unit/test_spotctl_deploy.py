"""Deploy and teardown: when to go on, when to give up, and what is never touched."""

import json
from typing import Any

import pytest
from moto.core.models import DEFAULT_ACCOUNT_ID as ACCOUNT
from moto.s3.models import s3_backends

from chalicelib.core.provision.model import TEMPLATE_TAG
from localcloud.moto_additions import LambdaAnswer
from spotctl.context import Aws, Context
from spotctl.deploy import MOST_ERRORS, Next, deploy, next_after
from spotctl.output import State
from spotctl.project import read_project
from spotctl.status.provisioning import Provisioned
from spotctl.teardown import Stack, find_stack, teardown, what_stays
from tests.make import NOW
from tests.unit.spotctl_bench import FUNCTIONS, POOL, STACK, Bench, stage

__all__ = ["stage"]  # the fixture

TEMPLATE = {
    "Description": "another team's",
    "Parameters": {"Stage": {"Type": "String"}},
    "Resources": {
        "Cluster": {"Type": "AWS::ECS::Cluster", "Properties": {"ClusterName": STACK}},
        "Results": {"Type": "AWS::S3::Bucket", "Properties": {"BucketName": "results"}},
    },
    "Outputs": {
        "ClusterName": {"Value": {"Ref": "Cluster"}},
        "ResultsBucket": {"Value": {"Ref": "Results"}},
    },
}


@pytest.fixture(autouse=True)
def _functions(stage: Bench) -> None:
    stage.deploy_functions()


def context_of(stage: Bench, **changes: Any) -> Context:
    """A context in which nothing waits, and Chalice does nothing."""
    ordinary: dict[str, Any] = {
        "project": read_project(stage.folder, "dev"),
        "aws": Aws(),
        "now": lambda: NOW,
        "pause": lambda _seconds: None,
        "environment": {},
        "progress": lambda _line: None,
        "chalice": lambda _command: 0,
    }
    return Context(**{**ordinary, **changes})


WAIT, DONE, GIVE_UP = Next.WAIT, Next.DONE, Next.GIVE_UP


@pytest.mark.parametrize(
    ("states", "last"),
    [
        pytest.param(["ready"], DONE, id="nothing to do"),
        pytest.param(["creating", "creating", "pending", "ready"], DONE, id="from nothing"),
        pytest.param(["updating", "ready"], DONE, id="an update"),
        pytest.param(["creating", "recovering"], GIVE_UP, id="it fails meanwhile"),
        pytest.param(["recovering", "deleting", "creating", "ready"], DONE, id="failed before"),
        pytest.param(["recovering", "creating", "recovering"], GIVE_UP, id="it fails again"),
        pytest.param(
            ["creating", "pending", "deleting", "creating", "pending", "ready"],
            DONE,
            id="ECS's role came too late",
        ),
        pytest.param(["blocked"], GIVE_UP, id="a person has to act"),
        pytest.param(["failed"], GIVE_UP, id="stuck"),
        pytest.param(["", "creating", ""], WAIT, id="the function fails now and then"),
        pytest.param([""] * MOST_ERRORS, GIVE_UP, id="it keeps failing"),
    ],
)
def test_a_deploy_goes_on_until_it_is_ready_or_cannot_be(states: list[str], last: Next) -> None:
    answers = [Provisioned(state) for state in states]
    follows = [next_after(answers[: number + 1]) for number in range(len(answers))]
    assert follows == [WAIT] * (len(states) - 1) + [last]


def answer(state: str, *steps: str, problem: str = "") -> dict[str, Any]:
    return {"state": state, "steps": steps, "problems": [{"message": problem}] if problem else []}


def answers(stage: Bench, *given: dict[str, Any]) -> None:
    """Let `provision` answer these, one after the other."""
    waiting = list(given)
    stage.reply = lambda _event: LambdaAnswer(waiting.pop(0))


def test_a_deploy_prints_each_change_once_and_waits_for_the_workers_heartbeat(
    stage: Bench,
) -> None:
    creating, ready = answer("creating"), {**answer("ready"), "warnings": [{"message": "ten"}]}
    answers(stage, answer("creating", "create the stack"), creating, creating, ready)
    path = f"POST /work_pools/{POOL}/workers/filter"
    stage.answers = {path: [], "POST /events/filter": {"events": []}}
    pauses: list[float] = []
    lines: list[str] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 6:  # three for the stack, three for the worker
            stage.answers[path] = [{"name": "ECSWorker 1", "status": "ONLINE"}]

    rows = deploy(context_of(stage, pause=pause, progress=lines.append))
    assert [(row.part, row.state.value) for row in rows] == [
        *[("chalice deploy", "ok"), ("provision", "ok")]
    ]
    assert stage.invoked == [(f"{STACK}-provision", {"dry_run": False})] * 4
    assert len(pauses) == 6
    assert lines[-4:] == [
        "provision: creating; create the stack",
        "provision: creating",
        "provision: ready; ten",
        "worker: waiting for its first heartbeat in Prefect",
    ]


def test_a_deploy_waits_for_ecss_new_role_and_goes_on_where_it_came_too_late(stage: Bench) -> None:
    late = answer("pending") | {"warnings": [{"message": "ECS cannot assume its role yet"}]}
    steps = ("create the work pool", "create ECS's service-linked role")
    answers(stage, answer("creating", *steps), answer("creating"), late, answer("ready"))
    path = f"POST /work_pools/{POOL}/workers/filter"
    online = [{"name": "ECSWorker 1", "status": "ONLINE"}]
    stage.answers = {path: online, "POST /events/filter": {"events": []}}
    pauses: list[float] = []
    lines: list[str] = []
    rows = deploy(context_of(stage, pause=pauses.append, progress=lines.append))
    assert rows[-1].state is State.OK
    assert pauses[:3] == [60.0, 5.0, 5.0]
    assert "provision: pending; ECS cannot assume its role yet" in lines


def test_a_deploy_that_fails_names_resource_and_reason(stage: Bench) -> None:
    problem = "WorkerService (AWS::ECS::Service): no image"
    answers(stage, answer("creating"), answer("recovering", problem=problem))
    row = deploy(context_of(stage))[-1]
    assert (row.state, row.found) == (State.FAILED, f"recovering: {problem}")
    assert row.next_step


def test_without_a_deployed_function_nothing_is_provisioned(stage: Bench) -> None:
    [row] = deploy(context_of(stage, chalice=lambda _command: 3))
    assert (row.part, row.state) == ("chalice deploy", State.FAILED)
    assert "exit code 3" in row.found
    assert stage.invoked == []


def create_stack(stage: Bench, tag: str = TEMPLATE_TAG, made_for: str = "dev") -> None:
    stage.client("cloudformation").create_stack(
        StackName=STACK,
        TemplateBody=json.dumps(TEMPLATE),
        Parameters=[{"ParameterKey": "Stage", "ParameterValue": made_for}],
        Tags=[{"Key": tag, "Value": "x"}],
    )


def found(rows: dict[str, Any]) -> dict[str, str]:
    return {part: row["found"] for part, row in rows.items()}


def test_a_plan_is_what_deploy_and_provision_would_change_and_changes_nothing(
    stage: Bench,
) -> None:
    answers(stage, *[answer("pending", "create the work pool P", "create the stack S")] * 2)
    stage.client("lambda").update_function_configuration(
        FunctionName=f"{STACK}-react",
        Environment={"Variables": {"PREFECT_API_URL": f"{stage.server.url}/api", "MODE": "rescue"}},
    )
    before = {path: path.read_bytes() for path in stage.folder.rglob("*") if path.is_file()}
    planned = stage.run("plan")
    assert (planned.code, planned.answer) == (0, stage.run("deploy", "--dry-run").answer)
    assert stage.invoked == [(f"{STACK}-provision", {"dry_run": True})] * 2
    assert {path: path.read_bytes() for path in before} == before
    assert found(planned.rows) | {"policies": ""} == {
        "settings": f"valid: MODE rescue, PROVISION full, stack {STACK}",
        "policies": "",
        f"function {STACK}-react": "would get its code, and other settings: MODE",
        **{
            f"function {STACK}-{name}": "would get its code, and other settings: PREFECT_API_URL"
            for name in ("meter", "sweep", "provision")
        },
        "provision": "pending: would, with the settings of the last deploy, create the work pool P,"
        " create the stack S",
    }
    assert "policy-react-dev.json" in found(planned.rows)["policies"]
    assert "nothing was changed" in stage.run("plan", "--offline", "--format", "table").out


def test_a_plan_before_the_first_deploy_says_what_it_would_create(stage: Bench) -> None:
    for name in FUNCTIONS:
        stage.client("lambda").delete_function(FunctionName=f"{STACK}-{name}")
    planned = stage.run("plan")
    assert planned.code == 0
    assert found(planned.rows)["provision"] == (
        f"would then create the work pool {POOL}, the stack {STACK} and what is in it"
    )
    assert found(planned.rows)[f"function {STACK}-react"].startswith("would be created")


def test_a_plan_fails_where_something_stands_in_the_way(stage: Bench) -> None:
    answers(stage, answer("blocked", problem="there is no default VPC"))
    planned = stage.run("plan", "--format", "csv")
    assert planned.code == 1
    assert '"provision","failed","there is no default VPC"' in planned.out


def test_a_plan_offline_needs_no_account(stage: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_DEFAULT_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    assert stage.run("plan", "--offline").rows.keys() == {"settings", "policies"}
    stage.configure(SPOT_RETIRES="2")
    warned = stage.run("plan", "--offline")
    assert (warned.code, "there is no setting SPOT_RETIRES" in warned.out) == (0, True)
    stage.configure(MODE="perhaps")
    for options in ([], ["--offline"]):
        assert stage.run("plan", *options).is_refused("MODE is 'perhaps'")


def test_a_dry_run_of_a_teardown_names_its_steps_in_order_and_takes_none(stage: Bench) -> None:
    create_stack(stage)
    stage.client("s3").put_object(Bucket="results", Key="result", Body=b"x")
    planned = stage.run("teardown", "--stage", "dev", "--dry-run", "--delete-work-pool")
    answer = planned.answer
    assert (planned.code, answer["dry_run"], answer["ok"]) == (0, True, True)
    for name in FUNCTIONS:
        assert name in found(planned.rows)["functions"]
        held = stage.client("lambda").get_function_concurrency(FunctionName=f"{STACK}-{name}")
        assert "ReservedConcurrentExecutions" not in held
    assert stage.client("s3").list_objects_v2(Bucket="results")["KeyCount"] == 1
    context = context_of(stage, chalice=lambda _command: 0)
    stack = find_stack(context)
    done = list(teardown(context, stack, work_pool=True))
    assert [row.part for row in done] == list(planned.rows)[: len(done)]
    assert len(done) == len(planned.rows) - 1, "functions are left, so that the pool is kept"


@pytest.mark.parametrize(
    ("stack", "options", "error", "next_step"),
    [
        ({"tag": "team"}, ["--yes"], "other than prefect-spot (another team's)", "STACK_NAME"),
        ({"made_for": "dev-eu"}, ["--yes"], "prefect-spot's stage dev-eu", "correct STACK_NAME"),
        ({}, [], "stdin is not a terminal", "pass --yes"),
        ({}, ["--yes", "--work-pool"], "the work pool is yours", "leave out --delete-work-pool"),
    ],
    ids=["another tool's", "another stage's", "not confirmed", "a work pool that is not ours"],
)
def test_a_teardown_that_may_not_be_deletes_nothing(
    stage: Bench, stack: dict[str, str], options: list[str], error: str, next_step: str
) -> None:
    create_stack(stage, **stack)
    if "--work-pool" in options:
        stage.configure(PROVISION="rescue-only")
    assert stage.run("teardown", "--stage", "dev", *options).is_refused(error, next_step)
    [left] = stage.client("cloudformation").describe_stacks(StackName=STACK)["Stacks"]
    assert left["StackStatus"] == "CREATE_COMPLETE"


def test_teardown_empties_and_deletes_in_order(stage: Bench) -> None:
    create_stack(stage)
    s3, functions = stage.client("s3"), stage.client("lambda")
    s3.put_bucket_versioning(Bucket="results", VersioningConfiguration={"Status": "Enabled"})
    stored = s3_backends[ACCOUNT]["aws"]  # by the API, so many would take seconds
    for number in range(1500):
        stored.put_object("results", f"result-{number % 700}", b"x")
    s3.delete_object(Bucket="results", Key="result-0")

    def chalice(command: str) -> int:
        assert command == "delete"
        assert s3.list_buckets()["Buckets"] == [], "the stack goes first"
        held = functions.get_function_concurrency(FunctionName=f"{STACK}-provision")
        assert held["ReservedConcurrentExecutions"] == 0, "it would create the stack anew"
        for name in FUNCTIONS:
            functions.delete_function(FunctionName=f"{STACK}-{name}")
        return 0

    context = context_of(stage, chalice=chalice)
    rows = list(teardown(context, find_stack(context), work_pool=False))
    assert {row.state for row in rows} == {State.OK}
    assert [row.part for row in rows] == [
        "provision", "worker", "flow runs", "bucket results", f"stack {STACK}", "functions",
    ]  # fmt: skip
    assert rows[3].found == "emptied of 1501 objects, their versions counted"


def test_teardown_stops_where_a_step_fails(stage: Bench) -> None:
    rows = list(teardown(context_of(stage, chalice=lambda _command: 3), Stack(), work_pool=True))
    assert [(row.part, row.state) for row in rows] == [
        ("provision", State.OK),
        ("functions", State.FAILED),
    ]
    assert "exit code 3" in rows[-1].found
    assert all(name in rows[-1].found for name in FUNCTIONS)


RECORDED = {"name": "react", "resource_type": "lambda_function", "lambda_arn": "arn:of-long-ago"}
OF_OTHERS = {"name": "more", "resource_type": "lambda_function", "lambda_arn": "arn:another"}


@pytest.mark.parametrize("before", [None, [RECORDED, OF_OTHERS]], ids=["lost", "out of date"])
def test_teardown_gives_chalice_the_record_of_what_the_account_has(
    stage: Bench, before: list[dict[str, str]] | None
) -> None:
    """`sweep` lost its rule, `meter` its role; `react` is whole."""
    for name in ("react", "sweep"):
        role = {"RoleName": f"{STACK}-{name}", "AssumeRolePolicyDocument": "{}"}
        stage.client("iam").create_role(**role)
    for name in ("react", "meter"):
        rule = {"Name": f"{STACK}-{name}-event", "ScheduleExpression": "rate(1 minute)"}
        stage.client("events").put_rule(**rule)
    path = stage.folder / ".chalice" / "deployed" / "dev.json"
    if before is not None:
        path.parent.mkdir()
        path.write_text(json.dumps({"resources": before}))
    given: list[dict[str, str]] = []

    def chalice(_command: str) -> int:
        given.extend(json.loads(path.read_text())["resources"])
        return 3

    list(teardown(context_of(stage, chalice=chalice), Stack(), work_pool=False))
    assert [each["name"] for each in given] == [
        *(["more"] if before else []),
        *("react_role", "react", "react-event", "meter", "meter-event", "sweep_role", "sweep"),
        "provision",
    ]
    assert RECORDED not in given
    assert given[-1]["lambda_arn"].endswith(f":function:{STACK}-provision")


@pytest.mark.parametrize("role", [f"{STACK}-eu-flow", f"{STACK}-flow"], ids=["another's", "ours"])
def test_a_work_pool_that_gives_flows_another_stacks_roles_is_not_deleted(
    stage: Bench, role: str
) -> None:
    """Our own is, even before there is a stack."""

    def chalice(_command: str) -> int:
        for name in FUNCTIONS:
            stage.client("lambda").delete_function(FunctionName=f"{STACK}-{name}")
        return 0

    roles = {"task_role_arn": {"default": f"arn:aws:iam::{ACCOUNT}:role/{role}"}}
    template = {"variables": {"properties": roles}}
    pool = {"name": POOL, "type": "ecs", "base_job_template": template}
    stage.answers |= {f"GET /work_pools/{POOL}": pool, f"DELETE /work_pools/{POOL}": {}}
    [*_, row] = teardown(context_of(stage, chalice=chalice), Stack(), work_pool=True)
    is_ours = role == f"{STACK}-flow"
    assert (row.part, row.state) == (f"work pool {POOL}", State.OK if is_ours else State.FAILED)
    assert is_ours or (role in row.found and row.next_step.startswith("correct WORK_POOL"))
    deleted = [seen.path for seen in stage.requests if seen.method == "DELETE"]
    assert deleted == ([f"/api/work_pools/{POOL}"] if is_ours else [])


def test_what_teardown_leaves_is_named(stage: Bench) -> None:
    stage.configure(PREFECT_API_KEY_PARAMETER="/key")
    for name in (f"{STACK}-react", "prefect-spot-prod-react", f"{STACK}-prod-react"):
        stage.client("logs").create_log_group(logGroupName=f"/aws/lambda/{name}")
    stays = "\n".join(what_stays(context_of(stage), work_pool=False))
    for named in ("/key", f"/aws/lambda/{STACK}-react", POOL, "AWSServiceRoleForECS"):
        assert named in stays
    assert "prod" not in stays
    stage.configure(PROVISION="rescue-only")
    stays = "\n".join(what_stays(context_of(stage), work_pool=False))
    assert POOL not in stays, "the user's own pool is not the stage's to name"
