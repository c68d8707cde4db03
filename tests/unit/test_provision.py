"""The function before moto's AWS and Prefect's twin: from nothing to ready, and kept so."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from operator import itemgetter
from types import SimpleNamespace
from typing import Any, cast

import boto3
import pytest
from moto import mock_aws
from moto.cloudformation.models import Event, cloudformation_backends

from chalicelib.adapters.prefect_client import JsonHttp
from chalicelib.adapters.prefect_work_pools import PrefectWorkPools
from chalicelib.adapters.provisioning import AwsAccount
from chalicelib.core.provision.model import TEMPLATE_TAG, ProvisionState, is_scheduled
from chalicelib.core.provision.pool_template import Template
from chalicelib.errors import (
    NotProvisionedError,
    PrefectForbiddenError,
    PrefectRefusedError,
    PrefectUnavailableError,
)
from chalicelib.functions.provision import ProvisionReport, WorkPools, provision
from localcloud import moto_additions
from tests.provision_bench import Bench, empty_account
from tests.provisioning import (
    ACCOUNT,
    CONCURRENCY,
    PARAMETER,
    QUEUE_ARN,
    REGION,
    STACK_NAME,
    STACK_TEMPLATE,
    WORK_POOL,
    make_desired,
    make_target,
    push_template,
)
from tests.twin.work_pools import InMemoryWorkPools
from tests.unit.scripted_server import ScriptedServer, Step, answer

CREATE_POOL = f"create the work pool {WORK_POOL}"

SCHEDULED = {"source": "aws.events", "detail-type": "Scheduled Event"}


@pytest.fixture
def bench() -> Iterator[Bench]:
    moto_additions.install()
    with mock_aws():
        empty_account()
        bench = Bench()
        bench.store_key()
        bench.deploy()
        yield bench


@pytest.fixture
def ready(bench: Bench) -> Bench:
    bench.until_ready()
    bench.forget()
    return bench


def moto_stack() -> Any:
    [stack] = cloudformation_backends[ACCOUNT][REGION].stacks.values()
    return stack


def put_into(status: str) -> None:
    moto_stack().status = status


def test_an_empty_account_is_ready_after_a_few_calls(bench: Bench) -> None:
    reports = bench.until_ready()
    assert [(report.state.value, report.steps[:2]) for report in reports[:2]] == [
        ("creating", (CREATE_POOL, "create ECS's service-linked role")),
        ("creating", (f"create the stack {STACK_NAME}",)),
    ]
    assert [report.state.value for report in reports[2:]] == ["ready"]
    assert bench.changes == [
        "WorkPool.create",
        "CreateServiceLinkedRole",
        "CreateStack",
        *["PutTargets", "PutFunctionEventInvokeConfig"] * 3,
        "WorkPool.change",
        *["PutFunctionConcurrency"] * 2,
    ]
    assert bench.stack()["Tags"][0]["Key"] == TEMPLATE_TAG
    assert sorted(bench.targets(), key=itemgetter("Arn")) == sorted(
        map(make_target, bench.desired.functions), key=itemgetter("Arn")
    )
    kept = {
        function: config["DestinationConfig"].get("OnFailure", {}).get("Destination")
        for function, config in bench.invoke_configs().items()
    }
    wanted = {f: None if is_scheduled(f) else QUEUE_ARN for f in bench.desired.functions}
    assert kept == wanted
    assert bench.pools.pools[WORK_POOL].type == "ecs"


def test_a_creation_that_ecss_new_role_came_too_late_for_is_done_again_without_an_alarm(
    bench: Bench,
) -> None:
    bench.provision()
    bench.provision()
    assert bench.stack()["TimeoutInMinutes"] == 20
    reason = "Unable to assume the service linked role. Please verify that it exists."
    failed = ("Cluster", "", "AWS::ECS::Cluster", "CREATE_FAILED", reason, None)
    moto_stack().events[1:] = [Event(moto_stack().stack_id, STACK_NAME, *failed)]
    put_into("ROLLBACK_IN_PROGRESS")
    busy = bench.provision(**SCHEDULED)
    put_into("ROLLBACK_COMPLETE")
    complete = bench.provision(**SCHEDULED)
    assert [busy.state, complete.state] == [ProvisionState.PENDING] * 2
    [step] = complete.steps
    assert step.startswith(f"delete the stack {STACK_NAME}")
    for report in (busy, complete):
        assert report.problems == ()
        [warning] = report.warnings
        assert "service-linked role yet" in warning.message
    bench.forget()
    bench.until_ready()
    assert bench.changes[0] == "CreateStack"


def test_a_dry_run_reports_what_would_be_restored_as_pending(ready: Bench) -> None:
    ready.deploy()
    report = ready.provision(dry_run=True)
    assert report.state is ProvisionState.PENDING
    assert len(report.steps) == 5
    assert ready.changes == []
    assert ready.provision(dry_run=False).state is ProvisionState.READY


def test_a_rolled_back_update_is_retried_whatever_its_tags_say(ready: Bench) -> None:
    ready.desired = make_desired(template={**STACK_TEMPLATE, "Description": "newer"})
    newer = ready.provision()
    assert newer.state is ProvisionState.UPDATING
    # What CloudFormation goes back to is the older template; its tags are those of the newer.
    older = moto_stack().template.replace("newer", "older")
    moto_stack().template = older
    put_into("UPDATE_ROLLBACK_COMPLETE")
    ready.forget()
    retried = ready.provision()
    assert retried.state is ProvisionState.RECOVERING
    assert "describe-events --stack-name" in retried.problems[0].message, "no event has a reason"
    assert ready.changes == ["UpdateStack"]


def test_the_logs_of_our_functions_are_kept_as_long_as_is_set_once_lambda_has_made_them(
    ready: Bench,
) -> None:
    logs, own = ready.aws["logs"], f"/aws/lambda/{ready.desired.functions[0]}"
    others = f"{own}-of-another-app"
    for group in (own, others):
        logs.create_log_group(logGroupName=group)
    ready.desired = make_desired(log_retention_days=14)
    assert ready.provision().steps == (f"keep the log group {own} for 14 days",)
    logs.put_retention_policy(logGroupName=own, retentionInDays=400)
    assert ready.provision().state is ProvisionState.READY
    assert ready.provision().steps == ()
    found = {g["logGroupName"]: g.get("retentionInDays") for g in ready.log_groups()}
    assert found == {own: 14, others: None}


def test_what_a_new_account_cannot_reserve_is_a_warning_and_no_step(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(moto_additions.LAMBDA_QUOTA, "10")
    reports = bench.until_ready()
    assert not any("Concurrency" in change for change in bench.changes)
    for report in (*reports, bench.provision(dry_run=True), bench.provision(**SCHEDULED)):
        [warning] = cast("Any", report.summary["warnings"])
        assert warning["error"] == "Concurrency"
        assert "leaves 10 of 10 concurrent executions" in warning["message"]
        assert "ask for a quota of 111" in warning["message"]
    monkeypatch.setenv(moto_additions.LAMBDA_QUOTA, "1000")
    assert bench.provision().warnings == ()
    assert [*bench.reserved().values()] == [10, 1, None]


def test_a_reservation_that_lambda_refuses_is_a_warning_and_the_rest_is_done(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the right is missing, or others reserve what was free."""
    monkeypatch.setenv(moto_additions.LAMBDA_QUOTA, "1000")
    bench.until_ready()
    bench.deploy()
    bench.pools.pools.clear()
    report = late(bench, lambda: monkeypatch.setenv(moto_additions.LAMBDA_QUOTA, "10"))
    assert (report.state, report.overtaken, report.problems) == (ProvisionState.READY, (), ())
    assert not any("reserve" in step for step in report.steps)
    assert f"create the work pool {WORK_POOL}" in report.steps
    refused = [warning.what for warning in report.warnings]
    assert [what.partition(" has no ")[0] for what in refused] == list(CONCURRENCY)
    assert all("below its minimum value" in what for what in refused)
    # A dry run reserves nothing, and cannot learn that.
    monkeypatch.setenv(moto_additions.LAMBDA_QUOTA, "1000")
    looked = bench.provision(dry_run=True)
    assert (looked.state, len(looked.steps)) == (ProvisionState.READY, 2)
    assert ["has no reserved concurrency yet" in each.what for each in looked.warnings] == 2 * [
        True
    ]


@pytest.mark.parametrize("operation", ["GetAccountSettings", "GetFunctionConcurrency"])
def test_without_the_right_to_read_the_concurrency_nothing_is_reserved_and_the_rest_is_done(
    bench: Bench, operation: str
) -> None:
    def refuse(model: Any, **_: Any) -> Any:
        error = {"Code": "AccessDeniedException", "Message": f"not authorized: {model.name}"}
        return SimpleNamespace(status_code=403), {"Error": error}

    context = bench.context()
    events, name = context.aws.lambdas.meta.events, f"before-call.lambda.{operation}"
    events.register(name, refuse)
    try:
        bench.until_ready()
        [warning] = bench.provision(**SCHEDULED).warnings
    finally:
        events.unregister(name, refuse)
    assert operation in warning.what
    assert "spotctl deploy" in warning.next_step
    assert "PutFunctionConcurrency" not in bench.changes


# Two calls that overlap.


class Late:
    """A port before which something is done between our look and our step."""

    def __init__(self, port: Any, meanwhile: Callable[[], object]) -> None:
        self._port, self._meanwhile = port, meanwhile

    def __getattr__(self, method: str) -> Any:
        if method.startswith(("create", "perform")):
            self._meanwhile()
        return getattr(self._port, method)


def late(bench: Bench, meanwhile: Callable[[], object]) -> ProvisionReport:
    """Call it; before its step at the stack, `meanwhile` is done."""
    context = bench.context()
    aws = cast("AwsAccount", Late(context.aws, meanwhile))
    return provision(replace(context, aws=aws), {})


def test_a_stack_that_another_call_created_first_is_overtaken(bench: Bench) -> None:
    bench.provision()
    report = late(bench, bench.provision)
    assert report.state is ProvisionState.CREATING
    assert (report.steps, len(report.overtaken)) == ((), 1)
    bench.until_ready()


def test_an_update_that_another_call_made_first_is_overtaken(ready: Bench) -> None:
    ready.desired = make_desired(template={**STACK_TEMPLATE, "Description": "newer"})
    assert len(late(ready, ready.provision).overtaken) == 1
    ready.until_ready()


def test_a_stack_that_was_deleted_and_created_meanwhile_is_not_deleted_again(ready: Bench) -> None:
    put_into("ROLLBACK_COMPLETE")
    late(ready, ready.until_ready)
    assert ready.stack()["StackStatus"] == "CREATE_COMPLETE"


@pytest.mark.parametrize("status", ["ROLLBACK_COMPLETE", "CREATE_FAILED", "DELETE_FAILED"])
@pytest.mark.parametrize("made_by", ["another tool", "another stage"])
def test_a_failed_stack_of_that_name_that_is_not_ours_is_not_deleted(
    bench: Bench, made_by: str, status: str
) -> None:
    if made_by == "another tool":
        bench.aws["cloudformation"].create_stack(
            StackName=STACK_NAME,
            TemplateBody=json.dumps({"Resources": {"Topic": {"Type": "AWS::SNS::Topic"}}}),
        )
    else:
        theirs = {**make_desired().parameters, "Stage": "dev-eu"}
        Bench(make_desired(parameters=theirs)).until_ready()
    put_into(status)
    report = bench.provision()
    assert (report.state, report.steps) == (ProvisionState.BLOCKED, ())
    assert [problem.name for problem in report.problems] == ["StackNotOurs"]
    assert bench.changes == []
    assert bench.stack()["StackStatus"] == status


@pytest.mark.parametrize("is_ready", [False, True], ids=["from nothing", "deleted when ready"])
def test_a_pool_that_a_worker_created_meanwhile_is_merged_into_by_the_next_call(
    bench: Bench, is_ready: bool
) -> None:
    if is_ready:
        bench.until_ready()
        del bench.pools.pools[WORK_POOL]
    pools = Late(bench.pools, lambda: bench.pools.create_pool(WORK_POOL, template={}))
    report = provision(replace(bench.context(), work_pools=cast("WorkPools", pools)), {})
    assert report.state is (ProvisionState.PENDING if is_ready else ProvisionState.CREATING)
    assert report.overtaken == (CREATE_POOL,)
    bench.until_ready()
    assert bench.pools.pools[WORK_POOL].base_job_template


# What is in the way: it is reported, and nothing is changed.


def no_default_vpc(bench: Bench) -> None:
    ec2 = bench.aws["ec2"]
    for subnet in ec2.describe_subnets()["Subnets"]:
        ec2.delete_subnet(SubnetId=subnet["SubnetId"])
    for vpc in ec2.describe_vpcs()["Vpcs"]:
        ec2.delete_vpc(VpcId=vpc["VpcId"])


def no_key(bench: Bench) -> None:
    bench.aws["ssm"].delete_parameter(Name=PARAMETER)


def a_key_in_plain(bench: Bench) -> None:
    no_key(bench)
    bench.store_key("String")


def a_prefect_that_refuses_the_key(bench: Bench) -> None:
    bench.pools.failure = PrefectRefusedError("answered 401", next_step="check the parameter")


def a_docker_pool(bench: Bench) -> None:
    bench.pools.create_pool(WORK_POOL, kind="docker", template={})


def a_push_pool_to_be_ours(bench: Bench) -> None:
    bench.pools.create_pool(WORK_POOL, kind="ecs:push", template={})


def no_pool_of_your_own(bench: Bench) -> None:
    bench.desired = make_desired(is_full=False)


def a_worker_that_drops_secrets(bench: Bench) -> None:
    headers = {"PREFECT_CUSTOM_HEADERS_PARAMETER": PARAMETER}
    changes = {"WorkerImage": "r.io/prefecthq/prefect-aws:0.7.10-python3.12-prefect3.8.8"}
    desired = bench.desired
    bench.desired = replace(
        desired,
        secrets={**desired.secrets, **headers},
        parameters={**desired.parameters, **changes},
    )


def a_server_older_than_the_worker(bench: Bench) -> None:
    bench.pools.version = "3.8.8"


@pytest.mark.parametrize(
    ("problem", "name", "words"),
    [
        (no_default_vpc, "Network", ("VPC_ID and SUBNET_IDS",)),
        (no_key, "Parameter", ("PREFECT_API_KEY_PARAMETER", "not exist", "--type SecureString")),
        (a_key_in_plain, "Parameter", ("is a String", "SecureString")),
        (a_prefect_that_refuses_the_key, "PrefectRefused", ("answered 401", "check the")),
        (a_docker_pool, "WorkPool", ("type docker, not ecs", "create an ecs pool, or set WORK_")),
        (
            a_push_pool_to_be_ours, "WorkPool",
            ("type ecs:push, not ecs", "PROVISION to rescue-only, which takes push pools"),
        ),
        (no_pool_of_your_own, "WorkPool", ("set WORK_POOL",)),
        (
            a_server_older_than_the_worker, "WorkerNewerThanServer",
            ("newer than the server's 3.8.8", "set WORKER_IMAGE", "-prefect3.8.8"),
        ),
        (a_worker_that_drops_secrets, "WorkerTooOld", ("0.7.10", "headers", "0.7.11 or newer")),
    ],
)  # fmt: skip
def test_a_problem_is_reported_with_its_next_step_and_nothing_is_changed(
    bench: Bench, problem: Callable[[Bench], None], name: str, words: tuple[str, ...]
) -> None:
    problem(bench)
    report = bench.provision()
    assert report.state is ProvisionState.BLOCKED
    [found] = report.problems
    assert found.name == name
    assert all(part in found.message for part in words)
    assert "canary" not in found.message
    assert bench.changes == []
    if name == "Parameter":
        assert bench.pools.calls == [], "Prefect would be asked without its key"


OWN_POOLS = ("etl", "push", "ml")


def test_pools_of_your_own_are_several_and_of_either_type_and_are_not_changed(bench: Bench) -> None:
    bench.desired = make_desired(is_full=False, work_pools=OWN_POOLS)
    for name in OWN_POOLS:
        kind = "ecs:push" if name == "push" else "ecs"
        bench.pools.create_pool(name, kind=kind, template=push_template())
    before = {name: bench.pools.look(name) for name in OWN_POOLS}
    report = bench.provision()
    assert (report.problems, report.warnings) == ((), ())
    assert "create the stack prefect-spot-dev" in report.steps
    assert {name: bench.pools.look(name) for name in OWN_POOLS} == before
    assert {*bench.pools.calls} == {"read"}


def test_what_is_wrong_with_each_of_your_pools_is_reported_at_once(bench: Bench) -> None:
    bench.desired = make_desired(is_full=False, work_pools=OWN_POOLS)
    bench.pools.create_pool("etl", kind="docker", template={})
    fixed = {"job_configuration": {"task_run_request": {"launchType": "FARGATE"}}}
    bench.pools.create_pool("push", kind="ecs:push", template=fixed)
    report = bench.provision()
    assert report.state is ProvisionState.BLOCKED
    found = [problem.message for problem in report.problems]
    for part, message in zip(
        (
            "work pool 'etl' is of type docker, not ecs or ecs:push",
            "work pool 'ml' is not known to Prefect",
            "the base job template of work pool 'push' sets launchType itself",
        ),
        found,
        strict=True,
    ):
        assert part in message
    bench.pools.failure = PrefectRefusedError("answered 401", next_step="check the parameter")
    [problem] = bench.provision().problems
    assert problem.name == "PrefectRefused", "said once, not of each pool"


UNKNOWN, NO_POOLS = answer(404, {"detail": "Not Found"}), answer(200, [])
NO_PLAN = {"detail": "Your plan does not include hybrid work pools"}
REFUSALS: dict[str, tuple[dict[str, Step], str, str, str]] = {
    "a plan without hybrid pools": (
        {"POST /work_pools/": answer(403, NO_PLAN)}, "PrefectPlan",
        f"403 to POST /work_pools/: {NO_PLAN['detail']}", "take a plan of Prefect Cloud that has",
    ),
    "a role too weak": (
        {"POST /work_pools/": answer(403, {"detail": "Forbidden"})}, "PrefectForbidden",
        "403 to POST /work_pools/: Forbidden", "role has to be Developer or above",
    ),
    "a role too weak for the pool that there is": (
        {
            f"GET /work_pools/{WORK_POOL}": answer(200, {"type": "ecs", "base_job_template": {}}),
            f"PATCH /work_pools/{WORK_POOL}": answer(403, {"detail": "Forbidden"}),
        },
        "PrefectForbidden", f"403 to PATCH /work_pools/{WORK_POOL}: Forbid", "Developer or above",
    ),
    "a wrong key": (
        dict.fromkeys((f"GET /work_pools/{WORK_POOL}", "POST /work_pools/filter"), answer(401)),
        "PrefectRefused", "Prefect answered 401", "store a valid credential in the SSM parameter",
    ),
    "a wrong URL": (
        {"POST /work_pools/filter": UNKNOWN}, "PrefectAddress",
        "404 to POST /work_pools/filter", "check PREFECT_API_URL",
    ),
}  # fmt: skip
"""What Prefect answers to what; another path is unknown to it, and it has no work pools."""


@pytest.mark.parametrize("refusal", REFUSALS)
def test_what_prefect_refuses_is_reported_by_the_first_call_before_anything_is_created(
    bench: Bench, refusal: str
) -> None:
    answers, name, what, next_step = REFUSALS[refusal]
    answers = {"POST /work_pools/filter": NO_POOLS, **answers}

    def prefect(handler: BaseHTTPRequestHandler) -> None:
        path = handler.path.removeprefix("/api")
        answers.get(f"{handler.command} {path}", UNKNOWN)(handler)

    group = f"/aws/lambda/{bench.desired.functions[0]}"
    bench.aws["logs"].create_log_group(logGroupName=group)
    with ScriptedServer([prefect]) as server:
        http = JsonHttp(f"{server.url}/api", lambda _fresh: "Bearer x", lambda: 50.0)
        context = replace(bench.context(), work_pools=PrefectWorkPools(http))
        report = provision(context, {})
        with pytest.raises(NotProvisionedError, match=f"^blocked: {name}: .*{what}"):
            provision(context, SCHEDULED)
    assert report.state is ProvisionState.BLOCKED
    [problem] = report.problems
    assert problem.name == name
    assert what in problem.what
    assert next_step in problem.next_step
    kept = f"keep the log group {group} for 30 days"
    assert (report.steps, report.overtaken) == ((kept,), ()), "it stands in nothing's way"
    assert set(bench.changes) == {"PutRetentionPolicy"}
    assert bench.stack() == {}
    assert [role["RoleName"] for role in bench.aws["iam"].list_roles()["Roles"]] == ["functions"]
    assert boto3.client("ecs", REGION).list_clusters()["clusterArns"] == []


def test_each_refusal_of_prefects_has_a_message_of_its_own() -> None:
    of_first_day = [row[1:] for name, row in REFUSALS.items() if "that there is" not in name]
    assert len(of_first_day) == 4
    for column in zip(*of_first_day, strict=True):
        assert len(set(column)) == 4


def test_a_dry_run_shows_the_pool_first_then_ecss_role_and_then_the_stack(bench: Bench) -> None:
    first = bench.provision(dry_run=True).steps
    assert first == (CREATE_POOL, "create ECS's service-linked role")
    assert bench.changes == []
    bench.aws["iam"].create_service_linked_role(AWSServiceName="ecs.amazonaws.com")
    second = bench.provision(dry_run=True)
    assert second.steps == (CREATE_POOL, f"create the stack {STACK_NAME}")
    assert second.state is ProvisionState.CREATING


def test_a_pool_that_prefect_refuses_to_complete_stops_nothing_that_is_there(ready: Bench) -> None:
    ready.deploy()
    ready.desired = make_desired(use_spot=False)

    class Refusing(InMemoryWorkPools):
        def change(self, name: str, base_job_template: Template) -> None:
            raise PrefectForbiddenError(f"403 to {name}", next_step="check the role")

    pools = Refusing()
    pools.pools = ready.pools.pools
    report = provision(replace(ready.context(), work_pools=pools), {})
    assert report.state is ProvisionState.BLOCKED
    assert [problem.name for problem in report.problems] == ["PrefectForbidden"]
    assert len(report.steps) == 5, "three deliveries, and two reservations after the refusal"


def test_an_outage_while_the_pool_is_created_is_met_by_the_next_call(bench: Bench) -> None:
    class Busy(InMemoryWorkPools):
        def create(self, name: str, base_job_template: Template) -> None:
            raise PrefectUnavailableError("503", next_step="none")

    with pytest.raises(PrefectUnavailableError):
        provision(replace(bench.context(), work_pools=Busy()), {})
    assert bench.changes == []
    bench.until_ready()


def test_all_problems_are_reported_at_once(bench: Bench) -> None:
    bench.desired = make_desired(subnet_ids=("subnet-0123456789abcdef0",))
    bench.pools.failure = PrefectUnavailableError("no", next_step="none")
    assert [p.name for p in bench.provision().problems] == ["Network", "PrefectUnavailable"]
    bench.pools.failure = None
    a_docker_pool(bench)
    a_server_older_than_the_worker(bench)
    names = {problem.name for problem in bench.provision(dry_run=True).problems}
    assert names == {"Network", "WorkPool", "WorkerNewerThanServer"}


def test_a_scheduled_call_raises_its_problems_once_it_has_repaired_what_it_can(
    ready: Bench,
) -> None:
    before = ready.end()
    ready.deploy()
    ready.pools.failure = PrefectUnavailableError(
        "Prefect is unavailable", next_step="check the server"
    )
    with pytest.raises(NotProvisionedError) as raised:
        ready.provision(**SCHEDULED)
    assert raised.value.what == "blocked: PrefectUnavailable: Prefect is unavailable"
    assert raised.value.next_step == "check the server"
    assert ready.end() == before
    ready.pools.failure = None
    assert ready.provision(**SCHEDULED).steps == (), "without problems it raises nothing"


# Teams that have a cluster, a pool and a worker already.


def test_rescue_only_makes_the_handlers_own_parts_and_touches_nothing_else(bench: Bench) -> None:
    bench.desired = make_desired(is_full=False)
    theirs = {"job_configuration": {"cluster": "theirs"}, "variables": {}}
    bench.pools.create_pool(WORK_POOL, template=theirs)
    bench.until_ready()
    assert "CreateServiceLinkedRole" not in bench.changes
    assert not any(call.startswith("WorkPool") for call in bench.changes)
    assert not any("Vpc" in call or "Subnet" in call for call in bench.calls)
    assert bench.pools.pools[WORK_POOL].base_job_template == theirs
    assert bench.stack()["StackStatus"] == "CREATE_COMPLETE"
