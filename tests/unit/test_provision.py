"""The function before moto's AWS and Prefect's twin: from nothing to ready, and kept so."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, cast

import pytest
from moto import mock_aws
from moto.cloudformation.models import cloudformation_backends

from chalicelib.core.provision.context import WorkPools
from chalicelib.core.provision.mode import Provision
from chalicelib.core.provision.stack import TEMPLATE_TAG, Condition
from chalicelib.errors import NotProvisionedError, PrefectRefusedError, PrefectUnavailableError
from chalicelib.functions.provision import ProvisionReport, provision
from localcloud import moto_additions
from tests.provision_bench import Bench, empty_account
from tests.provisioning import (
    ACCOUNT,
    QUEUE_ARN,
    REGION,
    STACK_NAME,
    STACK_TEMPLATE,
    WORK_POOL,
    make_desired,
    make_target,
)

OURS = {"DeadLetterConfig", "RetryPolicy"}


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


def problem_of(bench: Bench, **event: Any) -> tuple[str, str]:
    report = bench.provision(**event)
    assert report.condition is Condition.BLOCKED
    [problem] = report.problems
    return problem.name, problem.message


def test_an_empty_account_is_ready_after_a_few_calls(bench: Bench) -> None:
    reports = bench.until_ready()
    assert [report.condition.value for report in reports] == ["creating", "creating", "ready"]
    assert bench.changes == [
        "CreateServiceLinkedRole",
        "CreateStack",
        *["PutTargets", "PutFunctionEventInvokeConfig"] * 3,
        "WorkPool.create",
    ]
    assert bench.stack()["Tags"][0]["Key"] == TEMPLATE_TAG
    assert sorted(t["Arn"] for t in bench.targets() if set(t) >= OURS) == sorted(
        make_target(function)["Arn"] for function in bench.desired.functions
    )
    for config in bench.invoke_configs().values():
        assert config["DestinationConfig"]["OnFailure"]["Destination"] == QUEUE_ARN
    assert bench.pools.pools[WORK_POOL].type == "ecs"


def test_a_dry_run_over_things_that_are_out_of_place_says_that_they_are_pending(
    ready: Bench,
) -> None:
    ready.deploy()
    report = ready.provision(dry_run=True)
    assert report.condition is Condition.PENDING
    assert len(report.steps) == 3
    assert ready.changes == []
    assert ready.provision(dry_run=False).condition is Condition.READY


def test_a_new_template_and_a_new_setting_update_the_stack(ready: Bench) -> None:
    before = ready.stack()
    ready.desired = make_desired(
        template={**STACK_TEMPLATE, "Description": "newer"},
        parameters={**ready.desired.parameters, "WorkerImage": "etl:2"},
    )
    report = ready.provision()
    assert report.steps == (f"update the stack {STACK_NAME}: changed: template, WorkerImage",)
    assert ready.changes == ["UpdateStack"]
    ready.until_ready()
    assert ready.stack()["Tags"] != before["Tags"]
    ready.forget()
    ready.provision()
    assert ready.changes == []


def test_a_rolled_back_update_is_tried_again_whatever_its_tags_say(ready: Bench) -> None:
    ready.desired = make_desired(template={**STACK_TEMPLATE, "Description": "newer"})
    newer = ready.provision()
    assert newer.condition is Condition.UPDATING
    # What CloudFormation goes back to is the older template; its tags are those of the newer.
    older = moto_stack().template.replace("newer", "older")
    moto_stack().template = older
    put_into("UPDATE_ROLLBACK_COMPLETE")
    ready.forget()
    assert ready.provision().condition is Condition.UPDATING
    assert ready.changes == ["UpdateStack"]


# Two calls that overlap.


class Late:
    """A port before which something is done between our look and our step."""

    def __init__(self, port: Any, meanwhile: Callable[[], object]) -> None:
        self._port, self._meanwhile = port, meanwhile

    def __getattr__(self, method: str) -> Any:
        if method != "read":
            self._meanwhile()
        return getattr(self._port, method)


def late(bench: Bench, meanwhile: Callable[[], object]) -> ProvisionReport:
    """Call it; before its step at the stack, `meanwhile` is done."""
    context = bench.context()
    return provision(replace(context, stacks=Late(context.stacks, meanwhile)), {})


def test_a_stack_that_was_created_meanwhile_is_somebody_elses_step(bench: Bench) -> None:
    bench.provision()
    report = late(bench, bench.provision)
    assert report.condition is Condition.CREATING
    assert (report.steps, len(report.overtaken)) == ((), 1)
    bench.until_ready()


def test_an_update_that_was_made_meanwhile_is_somebody_elses_step(ready: Bench) -> None:
    ready.desired = make_desired(template={**STACK_TEMPLATE, "Description": "newer"})
    assert len(late(ready, ready.provision).overtaken) == 1
    ready.until_ready()


def test_a_stack_that_was_deleted_and_created_meanwhile_is_not_deleted_again(ready: Bench) -> None:
    put_into("ROLLBACK_COMPLETE")
    late(ready, ready.until_ready)
    assert ready.stack()["StackStatus"] == "CREATE_COMPLETE"


def test_a_pool_that_a_worker_created_meanwhile_is_merged_into_by_the_next_call(
    bench: Bench,
) -> None:
    bench.provision()
    bench.provision()
    pools = Late(bench.pools, lambda: bench.pools.create_pool(WORK_POOL, template={}))
    report = provision(replace(bench.context(), work_pools=cast("WorkPools", pools)), {})
    assert report.condition is Condition.PENDING
    assert report.overtaken == (f"create the work pool {WORK_POOL}",)
    bench.until_ready()
    assert bench.pools.pools[WORK_POOL].base_job_template


# What stands in the way: nothing is half made.


def test_without_a_default_vpc_it_says_which_settings_to_set(bench: Bench) -> None:
    ec2 = bench.aws["ec2"]
    [vpc] = [v["VpcId"] for v in ec2.describe_vpcs()["Vpcs"] if v["IsDefault"]]
    for subnet in ec2.describe_subnets()["Subnets"]:
        ec2.delete_subnet(SubnetId=subnet["SubnetId"])
    ec2.delete_vpc(VpcId=vpc)
    name, message = problem_of(bench)
    assert name == "Network"
    assert "VPC_ID and SUBNET_IDS" in message
    assert bench.changes == []


def test_without_the_key_it_says_how_to_store_it(bench: Bench) -> None:
    bench.aws["ssm"].delete_parameter(Name=bench.desired.credential.parameter)  # type: ignore[union-attr]  # it has one
    name, message = problem_of(bench)
    assert name == "Parameter"
    for part in ("PREFECT_API_KEY_PARAMETER", "does not exist", "--type SecureString"):
        assert part in message
    assert bench.changes == []
    assert bench.pools.calls == [], "Prefect would be asked without its key"


def test_a_key_in_plain_is_refused_and_not_shown(bench: Bench) -> None:
    bench.aws["ssm"].delete_parameter(Name=bench.desired.credential.parameter)  # type: ignore[union-attr]  # it has one
    bench.store_key("String")
    name, message = problem_of(bench)
    assert name == "Parameter"
    assert "is a String" in message
    assert "SecureString" in message
    assert "canary" not in message
    assert bench.changes == []


def test_a_prefect_that_refuses_the_key_stops_everything(bench: Bench) -> None:
    bench.pools.failure = PrefectRefusedError("answered 401", next_step="check the parameter")
    assert problem_of(bench) == ("PrefectRefused", str(bench.pools.failure))
    assert bench.changes == []


def test_a_pool_of_another_type_is_refused(bench: Bench) -> None:
    bench.pools.create_pool(WORK_POOL, kind="docker", template={})
    name, message = problem_of(bench)
    assert name == "WorkPool"
    assert "of type docker, not ecs. Next step: create an ecs pool, or set WORK_POOL" in message
    assert bench.changes == []


def test_all_that_stands_in_the_way_is_told_at_once(bench: Bench) -> None:
    bench.desired = make_desired(subnet_ids=("subnet-0123456789abcdef0",))
    bench.pools.failure = PrefectUnavailableError("no", next_step="none")
    assert [p.name for p in bench.provision().problems] == ["Network", "PrefectUnavailable"]


def test_while_prefect_is_away_a_deploys_damage_is_repaired_all_the_same(ready: Bench) -> None:
    before = ready.end()
    ready.deploy()
    ready.pools.failure = PrefectUnavailableError("no", next_step="none")
    assert ready.provision().condition is Condition.BLOCKED
    assert ready.end() == before


SCHEDULED = {"source": "aws.events", "detail-type": "Scheduled Event"}


def test_a_schedule_raises_what_a_person_would_read_once_all_is_done_that_can_be(
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


def test_a_schedule_that_finds_nothing_wrong_is_content(bench: Bench) -> None:
    while bench.provision(**SCHEDULED).condition is not Condition.READY:
        pass
    assert bench.provision(**SCHEDULED).steps == ()


# Teams that have a cluster, a pool and a worker already.


def test_rescue_only_makes_the_handlers_own_parts_and_touches_nothing_else(bench: Bench) -> None:
    bench.desired = make_desired(provision=Provision.RESCUE_ONLY)
    theirs = {"job_configuration": {"cluster": "theirs"}, "variables": {}}
    bench.pools.create_pool(WORK_POOL, template=theirs)
    bench.until_ready()
    assert "CreateServiceLinkedRole" not in bench.changes
    assert not any(call.startswith("WorkPool") for call in bench.changes)
    assert not any("Vpc" in call or "Subnet" in call for call in bench.calls)
    assert bench.pools.pools[WORK_POOL].base_job_template == theirs
    assert bench.stack()["StackStatus"] == "CREATE_COMPLETE"


def test_rescue_only_says_when_there_is_no_such_pool(bench: Bench) -> None:
    bench.desired = make_desired(provision=Provision.RESCUE_ONLY)
    name, message = problem_of(bench)
    assert name == "WorkPool"
    assert "set WORK_POOL" in message
    assert bench.changes == []
