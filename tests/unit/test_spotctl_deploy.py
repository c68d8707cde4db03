"""Deploy and teardown: when to go on, when to give up, and what is never touched."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from moto.core.models import DEFAULT_ACCOUNT_ID as ACCOUNT
from moto.s3.models import s3_backends

from chalicelib.core.provision.stack import TEMPLATE_TAG
from localcloud.moto_additions import LambdaAnswer
from spotctl.deploy import MOST_ERRORS, Course, Next, deploy
from spotctl.errors import RefusedError
from spotctl.project import read_project
from spotctl.provisioning import Provisioned
from spotctl.rows import State
from spotctl.teardown import find_stack, teardown, what_stays
from spotctl.world import Aws, World
from tests.make import NOW
from tests.unit.spotctl_bench import STACK, Bench, bench

TEMPLATE = {
    "Resources": {
        "Cluster": {"Type": "AWS::ECS::Cluster", "Properties": {"ClusterName": STACK}},
        "Results": {"Type": "AWS::S3::Bucket", "Properties": {"BucketName": "results"}},
        "Table": {
            "Type": "AWS::DynamoDB::Table",
            "Properties": {
                "TableName": STACK,
                "BillingMode": "PAY_PER_REQUEST",
                "KeySchema": [{"AttributeName": "pk", "KeyType": "HASH"}],
                "AttributeDefinitions": [{"AttributeName": "pk", "AttributeType": "S"}],
            },
        },
    },
    "Outputs": {
        "ClusterName": {"Value": {"Ref": "Cluster"}},
        "ResultsBucket": {"Value": {"Ref": "Results"}},
    },
}


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    with bench(tmp_path, monkeypatch) as made:
        made.deploy_functions()
        yield made


def world_of(stage: Bench, chalice: Callable[..., int] = lambda _command, _tell: 0) -> World:
    return World(
        project=read_project(stage.folder, "dev"),
        aws=Aws(),
        now=lambda: NOW,
        pause=lambda _seconds: None,
        environment={},
        chalice=chalice,
    )


WAIT, DONE, GIVE_UP = Next.WAIT, Next.DONE, Next.GIVE_UP


@pytest.mark.parametrize(
    ("states", "last"),
    [
        pytest.param(["ready"], DONE, id="nothing to do"),
        pytest.param(["creating", "creating", "pending", "ready"], DONE, id="from empty"),
        pytest.param(["updating", "ready"], DONE, id="an update"),
        pytest.param(["creating", "recovering"], GIVE_UP, id="it fails before our eyes"),
        pytest.param(["recovering", "deleting", "creating", "ready"], DONE, id="failed before"),
        pytest.param(["recovering", "creating", "recovering"], GIVE_UP, id="it fails again"),
        pytest.param(["blocked"], GIVE_UP, id="a person has to do something"),
        pytest.param(["failed"], GIVE_UP, id="stuck"),
        pytest.param(["", "creating", ""], WAIT, id="the function fails now and then"),
        pytest.param([""] * MOST_ERRORS, GIVE_UP, id="it keeps failing"),
    ],
)
def test_a_deploy_goes_on_until_it_is_ready_or_of_no_use(states: list[str], last: Next) -> None:
    course, follows = Course(), []
    for state in states:
        course, following = course.after(Provisioned(state))
        follows.append(following)
    assert follows == [WAIT] * (len(states) - 1) + [last]


def answer(state: str, *steps: str, problems: tuple[dict[str, str], ...] = ()) -> dict[str, Any]:
    return {"state": state, "steps": list(steps), "problems": list(problems)}


def answers(stage: Bench, *given: dict[str, Any]) -> None:
    """Let `provision` answer these, one after the other."""
    waiting = list(given)
    stage.reply = lambda _name, _event: LambdaAnswer(waiting.pop(0))


def test_a_deploy_calls_provision_until_it_is_ready(stage: Bench) -> None:
    told: list[str] = []
    creating = answer("creating")
    first, last = answer("creating", "create the stack"), answer("ready", "create the work pool")
    answers(stage, first, creating, creating, last)
    rows = deploy(world_of(stage), told.append)
    assert [(row.part, row.state) for row in rows] == [
        ("chalice deploy", State.OK),
        ("provision", State.OK),
    ]
    assert stage.invoked == [(f"{STACK}-provision", {"dry_run": False})] * 4
    assert [line for line in told if line.startswith("provision")] == [
        "provision: creating; create the stack",
        "provision: creating",
        "provision: ready; create the work pool",
    ], "a line is told once"


def test_a_deploy_waits_until_prefect_hears_of_the_worker(stage: Bench) -> None:
    told: list[str] = []
    answers(stage, answer("ready"))
    path = "POST /work_pools/fargate-spot-dev/workers/filter"
    stage.answers = {path: [], "POST /events/filter": {"events": []}}
    waits = 0

    def pause(_seconds: float) -> None:
        nonlocal waits
        waits += 1
        if waits == 3:
            stage.answers[path] = [{"name": "ECSWorker 1", "status": "ONLINE"}]

    rows = deploy(replace(world_of(stage), pause=pause), told.append)
    assert rows[-1].state is State.OK
    assert waits == 3
    assert told[-1] == "worker: waiting until Prefect hears of it"


def test_a_deploy_that_fails_names_resource_and_reason(stage: Bench) -> None:
    problem = {"error": "StackFailed", "message": "WorkerService (AWS::ECS::Service): no image"}
    answers(stage, answer("creating"), answer("recovering", problems=(problem,)))
    row = deploy(world_of(stage), lambda _: None)[-1]
    assert row.state is State.FAILED
    assert row.found == "recovering: WorkerService (AWS::ECS::Service): no image"
    assert row.next_step


def test_without_a_deployed_function_nothing_is_provisioned(stage: Bench) -> None:
    rows = deploy(world_of(stage, lambda _command, _tell: 3), lambda _: None)
    assert [(row.part, row.state) for row in rows] == [("chalice deploy", State.FAILED)]
    assert "exit code 3" in rows[0].found
    assert stage.invoked == []


def create_stack(stage: Bench, *, ours: bool = True) -> None:
    stage.client("cloudformation").create_stack(
        StackName=STACK,
        TemplateBody=json.dumps(TEMPLATE),
        Tags=[{"Key": TEMPLATE_TAG, "Value": "x"}] if ours else [],
    )


def test_a_stack_of_somebody_else_is_left_alone(stage: Bench) -> None:
    create_stack(stage, ours=False)
    with pytest.raises(RefusedError, match="was not made by prefect-spot"):
        find_stack(world_of(stage))
    said = stage.run("teardown", "--yes")
    assert (said.code, said.out) == (2, "")


def test_nobody_to_ask_is_no_yes(stage: Bench) -> None:
    create_stack(stage)
    said = stage.run("teardown")
    assert (said.code, said.out) == (2, "")
    assert "next step: pass --yes" in said.err
    assert stage.client("cloudformation").describe_stacks(StackName=STACK)["Stacks"]


def test_teardown_empties_and_deletes_in_order(stage: Bench) -> None:
    create_stack(stage)
    s3 = stage.client("s3")
    s3.put_bucket_versioning(Bucket="results", VersioningConfiguration={"Status": "Enabled"})
    stored = s3_backends[ACCOUNT]["aws"]  # by the API, so many would take seconds
    for number in range(1500):
        stored.put_object("results", f"result-{number % 700}", b"x")
    s3.delete_object(Bucket="results", Key="result-0")

    def chalice(command: str, _tell: object) -> int:
        assert command == "delete"
        assert stage.client("dynamodb").list_tables()["TableNames"] == [], "the stack goes first"
        held = stage.client("lambda").get_function_concurrency(FunctionName=f"{STACK}-provision")
        assert held["ReservedConcurrentExecutions"] == 0, "it would make the stack anew"
        for name in ("react", "meter", "sweep", "provision"):
            stage.client("lambda").delete_function(FunctionName=f"{STACK}-{name}")
        return 0

    world = world_of(stage, chalice)
    rows = list(teardown(world, find_stack(world), work_pool=False, tell=lambda _: None))
    assert {row.state for row in rows} == {State.OK}
    parts = [row.part for row in rows]
    stopped = ["provision", "worker", "flow runs"]  # a worker would start further flows
    assert parts == [*stopped, "bucket results", f"stack {STACK}", "functions"]
    assert rows[3].found == "emptied of 1501 objects, their versions counted"
    assert s3.list_buckets()["Buckets"] == []


def test_teardown_stops_where_a_step_fails(stage: Bench) -> None:
    world = world_of(stage, lambda _command, _tell: 0)  # it knows of no deployment, and says so
    rows = list(teardown(world, None, work_pool=True, tell=lambda _: None))
    assert [row.part for row in rows] == ["provision", "functions"]
    assert rows[-1].state is State.FAILED
    assert "deployed from elsewhere" in rows[-1].found


def test_what_teardown_leaves_is_said(stage: Bench) -> None:
    stage.configure(PREFECT_API_KEY_PARAMETER="/key")
    stage.client("logs").create_log_group(logGroupName=f"/aws/lambda/{STACK}-react")
    stage.client("logs").create_log_group(logGroupName="/aws/lambda/prefect-spot-prod-react")
    stays = what_stays(world_of(stage), work_pool=False)
    said = "\n".join(stays)
    for named in ("/key", f"/aws/lambda/{STACK}-react", "fargate-spot-dev", "AWSServiceRoleForECS"):
        assert named in said
    assert "prod" not in said
    stage.configure(PROVISION="rescue-only")
    said = "\n".join(what_stays(world_of(stage), work_pool=False))
    assert "fargate-spot-dev" not in said, "somebody else's pool is not ours to name"


def test_somebody_elses_work_pool_is_not_deleted(stage: Bench) -> None:
    stage.configure(PROVISION="rescue-only")
    said = stage.run("teardown", "--yes", "--work-pool")
    assert (said.code, said.out) == (2, "")
    assert "the work pool is yours" in said.err
