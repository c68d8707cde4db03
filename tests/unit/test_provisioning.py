"""The plan: what each state of the stack, the pool and the rules asks for, row by row."""

import re
from dataclasses import replace
from typing import Any

import botocore.session
import pytest

from chalicelib.core.provision.concurrency import Concurrency
from chalicelib.core.provision.model import (
    RETRY_POLICY,
    STATUSES,
    ChangeWorkPool,
    CreateServiceLinkedRole,
    CreateStack,
    CreateWorkPool,
    DeleteStack,
    InvokeConfig,
    ProvisionState,
    PutConcurrency,
    PutInvokeConfig,
    PutRetention,
    PutTargets,
    Stack,
    UpdateStack,
    describe,
    failures_in,
)
from chalicelib.core.provision.plan import Network, Plan, Problem, plan, stack_definition
from chalicelib.core.provision.pool_template import WorkPool, merged
from tests.provisioning import (
    NETWORK,
    OUR_POOL_TEMPLATE,
    OUTPUTS,
    POOL_TEMPLATE,
    QUEUE_ARN,
    STACK_ID,
    STACK_NAME,
    STACK_TEMPLATE,
    VALUES,
    WORK_POOL,
    bare_target,
    make_delivery,
    make_desired,
    make_observed,
    make_stack,
    make_target,
)
from tests.unit import stack_template

REACT = f"{STACK_NAME}-react"
NOTHING, CREATE, UPDATE, DELETE = None, CreateStack, UpdateStack, DeleteStack
CHANGED = {"template_hash": "another"}
ALL_CHANGED = "changed: template, ClusterName, Stage, SubnetIds, TableName, VpcId, WorkerImage"

IN_PLACE = (ProvisionState.READY, NOTHING)
"""Up to date; with another template the stack is updated instead."""

ROWS: dict[str, tuple[ProvisionState, Any]] = {
    "CREATE_IN_PROGRESS": (ProvisionState.CREATING, NOTHING),
    "CREATE_FAILED": (ProvisionState.RECOVERING, DELETE),
    "CREATE_COMPLETE": IN_PLACE,
    "ROLLBACK_IN_PROGRESS": (ProvisionState.RECOVERING, NOTHING),
    "ROLLBACK_FAILED": (ProvisionState.RECOVERING, DELETE),
    "ROLLBACK_COMPLETE": (ProvisionState.RECOVERING, DELETE),
    "DELETE_IN_PROGRESS": (ProvisionState.DELETING, NOTHING),
    "DELETE_FAILED": (ProvisionState.RECOVERING, DELETE),
    "DELETE_COMPLETE": (ProvisionState.CREATING, CREATE),
    "UPDATE_IN_PROGRESS": (ProvisionState.UPDATING, NOTHING),
    "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS": (ProvisionState.UPDATING, NOTHING),
    "UPDATE_COMPLETE": IN_PLACE,
    "UPDATE_FAILED": (ProvisionState.UPDATING, UPDATE),
    "UPDATE_ROLLBACK_IN_PROGRESS": (ProvisionState.RECOVERING, NOTHING),
    "UPDATE_ROLLBACK_FAILED": (ProvisionState.FAILED, NOTHING),
    "UPDATE_ROLLBACK_COMPLETE_CLEANUP_IN_PROGRESS": (ProvisionState.RECOVERING, NOTHING),
    "UPDATE_ROLLBACK_COMPLETE": IN_PLACE,
    "REVIEW_IN_PROGRESS": (ProvisionState.FAILED, NOTHING),
    "IMPORT_IN_PROGRESS": (ProvisionState.UPDATING, NOTHING),
    "IMPORT_COMPLETE": IN_PLACE,
    "IMPORT_ROLLBACK_IN_PROGRESS": (ProvisionState.RECOVERING, NOTHING),
    "IMPORT_ROLLBACK_FAILED": (ProvisionState.FAILED, NOTHING),
    "IMPORT_ROLLBACK_COMPLETE": IN_PLACE,
    # Of a release of CloudFormation that is newer than this table.
    "POLISH_IN_PROGRESS": (ProvisionState.PENDING, NOTHING),
    "POLISH_FAILED": (ProvisionState.FAILED, NOTHING),
}


def known_statuses() -> set[str]:
    service = botocore.session.get_session().get_service_model("cloudformation")
    return set(service.shape_for("StackStatus").enum)  # type: ignore[attr-defined]  # a string's


def test_every_status_that_cloudformation_knows_is_a_row_here_and_there() -> None:
    assert set(STATUSES) == known_statuses()
    assert set(ROWS) - known_statuses() == {"POLISH_IN_PROGRESS", "POLISH_FAILED"}


PUT_CONFIG = PutInvokeConfig(REACT, InvokeConfig(QUEUE_ARN))
UNDELIVERED = make_delivery(invoke_config=None)
NO_QUEUE_LEFT = ("CREATE_FAILED", "ROLLBACK_FAILED", "ROLLBACK_COMPLETE", "DELETE_")


@pytest.mark.parametrize("status", ROWS)
@pytest.mark.parametrize("differs", [False, True], ids=["up to date", "another template"])
def test_what_a_status_asks_for_besides_the_delivery_as_long_as_its_queue_lasts(
    status: str, differs: bool
) -> None:
    state, step = ROWS[status]
    if differs and (state, step) == IN_PLACE:
        state, step = ProvisionState.UPDATING, UPDATE
    stack = make_stack(status=status, **(CHANGED if differs else {}))
    planned = plan(make_desired(), make_observed(stack=stack, deliveries=(UNDELIVERED,)))
    assert planned.state is state
    assert (PUT_CONFIG in planned.steps) == (not status.startswith(NO_QUEUE_LEFT))
    besides = (type(s) for s in planned.steps if s != PUT_CONFIG)
    assert [s for s in besides if s is not ChangeWorkPool] == ([step] if step else [])


def test_where_no_cluster_is_ours_there_is_no_need_for_the_service_linked_role() -> None:
    desired = make_desired(is_full=False)
    planned = plan(desired, make_observed(stack=None, network=None, has_service_linked_role=False))
    assert [type(step) for step in planned.steps] == [CreateStack]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (CHANGED, "changed: template"),
        ({"parameters": {**make_stack().parameters, "WorkerImage": "x"}}, "changed: WorkerImage"),
        ({"parameters": {**make_stack().parameters, "Old": "x"}}, "changed: Old"),
        ({"parameters": {}, **CHANGED}, ALL_CHANGED),
    ],
    ids=["template", "a value", "one too many", "all"],
)
def test_an_update_says_what_has_changed(changes: dict[str, Any], reason: str) -> None:
    [step] = plan(make_desired(), make_observed(stack=make_stack(**changes))).steps
    assert step == UpdateStack(STACK_ID, stack_definition(make_desired(), NETWORK), reason)


STRANGERS: dict[str, tuple[dict[str, Any], str]] = {
    "another tool's": ({"is_ours": False, "description": "VPC of a team"}, "(VPC of a team)"),
    "nobody's that we know": ({"is_ours": False, "parameters": {}}, "other than prefect-spot"),
    "another stage's": ({"parameters": {**make_stack().parameters, "Stage": "dev-eu"}}, "dev-eu"),
}


@pytest.mark.parametrize("status", [s for s in ROWS if s != "DELETE_COMPLETE"])
@pytest.mark.parametrize(("changes", "whose"), STRANGERS.values(), ids=STRANGERS)
def test_a_stack_that_this_stage_did_not_make_is_never_changed_nor_its_queue_used(
    status: str, changes: dict[str, Any], whose: str
) -> None:
    network = Problem("Network", "no default VPC", next_step="set VPC_ID")
    for made in (changes, {**changes, **CHANGED}):
        stack = make_stack(status=status, **made)
        observed = make_observed(stack=stack, deliveries=(UNDELIVERED,), work_pools=())
        planned = plan(make_desired(), observed)
        assert (planned.state, planned.steps) == (ProvisionState.BLOCKED, ())
        [problem] = planned.problems
        assert problem.name == "StackNotOurs"
        assert whose in problem.what
        assert "STACK_NAME" in problem.next_step
        both = plan(make_desired(), replace(observed, problems=(network,)))
        assert (both.steps, both.problems) == ((), (network, problem))


@pytest.mark.parametrize(
    "status",
    [
        *("ROLLBACK_COMPLETE", "ROLLBACK_IN_PROGRESS", "UPDATE_ROLLBACK_FAILED"),
        "UPDATE_ROLLBACK_COMPLETE",
    ],
)
def test_a_failed_stack_is_reported_with_the_resource_and_awss_reason(status: str) -> None:
    failure = "Cluster (AWS::ECS::Cluster): Unable to assume the role"
    problem = Problem("Network", "no default VPC", next_step="set VPC_ID")
    stack = make_stack(status=status, failures=(failure,), **CHANGED)
    alone = plan(make_desired(), make_observed(stack=stack))
    assert alone.state in (ProvisionState.RECOVERING, ProvisionState.FAILED)
    for part in (STACK_NAME, status, "Cluster", "AWS::ECS::Cluster", "Unable to assume the role"):
        assert part in alone.problems[0].message
    both = plan(make_desired(), make_observed(stack=stack, problems=(problem,)))
    assert [problem.name for problem in both.problems][:2] == ["Network", "StackFailed"]


NO_ROLE = (
    'Cluster (AWS::ECS::Cluster): Resource handler returned message: "Invalid request provided:'
    " CreateCluster Invalid Request: Unable to assume the service linked role. Please verify that"
    ' the ECS service linked role exists."'
)
OF_SERVICE = NO_ROLE.replace("Cluster (AWS::ECS::Cluster)", "WorkerService (AWS::ECS::Service)")


IN_OTHER_WORDS = (
    "Cluster (AWS::ECS::Cluster): Unable to assume the ECS service-linked role.",
    "WorkerService (AWS::ECS::Service): ECS was unable to assume the role 'arn:aws:iam::1:role/"
    "aws-service-role/ecs.amazonaws.com/AWSServiceRoleForECS'",
)


@pytest.mark.parametrize(
    "failures",
    [(NO_ROLE,), (OF_SERVICE, NO_ROLE), IN_OTHER_WORDS],
    ids=["one", "both", "in other words"],
)
@pytest.mark.parametrize(
    ("status", "steps"),
    [
        ("ROLLBACK_IN_PROGRESS", []),
        ("ROLLBACK_COMPLETE", [DeleteStack]),
        ("ROLLBACK_FAILED", [DeleteStack]),
        ("CREATE_FAILED", [DeleteStack]),
    ],
)
def test_a_creation_that_came_before_ecss_new_role_is_waited_for_and_no_failure(
    status: str, steps: list[Any], failures: tuple[str, ...]
) -> None:
    planned = plan(
        make_desired(), make_observed(stack=make_stack(status=status, failures=failures))
    )
    assert (planned.state, planned.problems) == (ProvisionState.PENDING, ())
    assert [type(step) for step in planned.steps] == steps
    [warning] = planned.warnings
    assert "ECS cannot assume its service-linked role yet" in warning.message
    assert "the next run creates it again" in warning.next_step


@pytest.mark.parametrize(
    ("status", "failures"),
    [
        ("ROLLBACK_COMPLETE", (NO_ROLE, "LogGroup (AWS::Logs::LogGroup): already exists")),
        ("ROLLBACK_COMPLETE", ("Cluster (AWS::ECS::Cluster): Unable to assume role",)),
        ("ROLLBACK_COMPLETE", ("Cluster (…): no right to iam:CreateServiceLinkedRole",)),
        ("UPDATE_ROLLBACK_COMPLETE", (OF_SERVICE,)),
        ("UPDATE_ROLLBACK_IN_PROGRESS", (OF_SERVICE,)),
    ],
    ids=["another failure too", "another role", "no right", "an update", "an update, at work"],
)
def test_what_another_creation_would_not_settle_is_a_failure(
    status: str, failures: tuple[str, ...]
) -> None:
    """A role that was there when the stack was created is not new: it was deleted."""
    stack = make_stack(status=status, failures=failures, **CHANGED)
    planned = plan(make_desired(), make_observed(stack=stack))
    assert [problem.name for problem in planned.problems] == ["StackFailed"]
    assert (planned.state, planned.warnings) == (ProvisionState.RECOVERING, ())


@pytest.mark.parametrize(
    ("status", "next_step"),
    [
        ("UPDATE_ROLLBACK_FAILED", "continue-update-rollback"),
        ("REVIEW_IN_PROGRESS", "execute its change set"),
        ("IMPORT_ROLLBACK_FAILED", "roll the import back"),
        ("POLISH_FAILED", "by hand"),
    ],
)
def test_what_only_an_operator_can_fix_says_how(status: str, next_step: str) -> None:
    planned = plan(make_desired(), make_observed(stack=make_stack(status=status)))
    assert planned.problems[-1].name == "StackStuck"
    assert next_step in planned.problems[-1].next_step


def test_a_problem_keeps_everything_from_being_changed_but_the_delivery() -> None:
    problem = Problem("Network", "no default VPC", next_step="set VPC_ID")
    observed = make_observed(
        stack=make_stack(**CHANGED), deliveries=(UNDELIVERED,), problems=(problem,)
    )
    assert plan(make_desired(), observed) == Plan(ProvisionState.BLOCKED, (PUT_CONFIG,), (problem,))
    assert plan(make_desired(), replace(observed, stack=None)).steps == ()


# Delivery.


def test_what_a_deploy_takes_away_is_restored_and_nothing_else_of_a_target_changed() -> None:
    bare = {**bare_target(REACT), "Input": "{}"}
    delivery = make_delivery(targets={"rule": (bare,)}, invoke_config=None)
    planned = plan(make_desired(), make_observed(deliveries=(delivery,)))
    target = make_target(REACT, Input="{}")
    assert planned == Plan(ProvisionState.READY, (PutTargets("rule", (target,)), PUT_CONFIG))
    assert [describe(step) for step in planned.steps] == [
        "set dead-letter queue and retry policy for the rule rule",
        f"set retries and failure destination for the function {REACT}",
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {"targets": {"rule": (make_target(REACT, DeadLetterConfig={"Arn": "another"}),)}},
        {"targets": {"rule": (make_target(REACT, RetryPolicy={"MaximumRetryAttempts": 1}),)}},
        {"invoke_config": InvokeConfig("another")},
        {"invoke_config": InvokeConfig(QUEUE_ARN, retries=0)},
        {"invoke_config": InvokeConfig(QUEUE_ARN, age_seconds=60)},
    ],
    ids=["queue", "retry policy", "destination", "retries", "age"],
)
def test_what_differs_of_a_delivery_is_restored(changes: dict[str, Any]) -> None:
    observed = make_observed(deliveries=(make_delivery(**changes),))
    assert len(plan(make_desired(), observed).steps) == 1


@pytest.mark.parametrize("function", [f"{STACK_NAME}-sweep", f"{STACK_NAME}-provision"])
def test_what_a_schedule_calls_again_is_neither_retried_nor_kept_when_it_fails(
    function: str,
) -> None:
    """A provision that is blocked would put three hundred calls a day into the failure queue."""
    before = {"DeadLetterConfig": {"Arn": QUEUE_ARN}, "RetryPolicy": RETRY_POLICY}
    target = make_target(function, **before)
    delivery = make_delivery(
        function, targets={"rule": (target,)}, invoke_config=InvokeConfig(QUEUE_ARN)
    )
    targets, config = plan(make_desired(), make_observed(deliveries=(delivery,))).steps
    assert describe(targets) == "set no retries for the rule rule"
    assert describe(config) == f"set no retries for the function {function}"
    never = {"MaximumRetryAttempts": 0, "MaximumEventAgeInSeconds": 60}
    assert targets == PutTargets("rule", ({**bare_target(function), "RetryPolicy": never},))
    assert config == PutInvokeConfig(function, InvokeConfig("", retries=0, age_seconds=60))
    assert plan(make_desired(), make_observed(deliveries=(make_delivery(function),))).steps == ()


@pytest.mark.parametrize("ends_runs", [True, False])
def test_a_change_of_mode_changes_the_pools_template_and_nothing_else_of_it(
    ends_runs: bool,
) -> None:
    other = merged({}, POOL_TEMPLATE, VALUES, "FARGATE_SPOT", ends_runs=not ends_runs)
    wanted = merged({}, POOL_TEMPLATE, VALUES, "FARGATE_SPOT", ends_runs=ends_runs)
    observed = make_observed(work_pools=(WorkPool(WORK_POOL, "ecs", other),))
    planned = plan(make_desired(ends_runs=ends_runs), observed)
    assert planned == Plan(ProvisionState.READY, (ChangeWorkPool(WORK_POOL, wanted),))


def test_another_architecture_changes_the_pools_template() -> None:
    arm = merged({}, POOL_TEMPLATE, {**VALUES, "CpuArchitecture": "ARM64"}, "FARGATE_SPOT")
    planned = plan(make_desired(architecture="arm64"), make_observed())
    assert planned == Plan(ProvisionState.READY, (ChangeWorkPool(WORK_POOL, arm),))


NOT_OURS = {"Id": "mine", "Arn": "arn:aws:sqs:us-east-1:1:mine"}
TWO_TARGETS = make_delivery(targets={"rule": (make_target(REACT), NOT_OURS)})
NOT_DEPLOYED = make_delivery(targets={}, invoke_config=None)
NO_QUEUE = {name: value for name, value in OUTPUTS.items() if name != "FailureQueueArn"}


@pytest.mark.parametrize(
    ("observed", "desired"),
    [
        ({}, {"template": dict(reversed(STACK_TEMPLATE.items()))}),
        ({"deliveries": (TWO_TARGETS,)}, {}),
        ({"deliveries": (NOT_DEPLOYED,)}, {}),
        ({"stack": make_stack(outputs=NO_QUEUE), "deliveries": (UNDELIVERED,)}, {}),
    ],
    ids=["order", "another target of the rule", "a function that is not deployed", "no queue"],
)
def test_nothing_is_changed_for(observed: dict[str, Any], desired: dict[str, Any]) -> None:
    assert plan(make_desired(**desired), make_observed(**observed)).steps == ()


# The functions' concurrency.

SWEEP = f"{STACK_NAME}-sweep"
NOTHING_RESERVED: dict[str, int | None] = {REACT: None, SWEEP: None}
RESERVE = {
    name: PutConcurrency(f"{STACK_NAME}-{name}", n) for name, n in (("react", 10), ("sweep", 1))
}


@pytest.mark.parametrize(
    ("quota", "unreserved", "reserved", "steps", "warned"),
    [
        pytest.param(1_000, 1_000, {}, "react sweep", "", id="fits"),
        pytest.param(111, 111, {}, "react sweep", "", id="fits just so"),
        pytest.param(
            110, 110, {}, "react", r"100 of 110 .* for \S+sweep; .* 111 or", id="one fits"
        ),
        pytest.param(
            1_000, 109, {}, "sweep", r"108 of 1000 .* for \S+react; .* 1002", id="the other"
        ),
        pytest.param(10, 10, {}, "", r"10 of 10 .*react and \S+sweep; .* 111", id="new account"),
        pytest.param(100, 90, {REACT: 10}, "", r"90 of 100 .* for \S+sweep; .* 111", id="by hand"),
        pytest.param(10, 10, {REACT: 0, SWEEP: 0}, "", "", id="held"),
        pytest.param(1_000, 990, {REACT: 7, SWEEP: 3}, "", "", id="an operator's own"),
    ],
)
def test_concurrency_is_reserved_where_nothing_is_and_where_the_account_has_it_to_spare(
    quota: int, unreserved: int, reserved: dict[str, int | None], steps: str, warned: str
) -> None:
    found = Concurrency(quota, unreserved, {**NOTHING_RESERVED, **reserved})
    planned = plan(make_desired(), make_observed(concurrency=found))
    assert planned.state is ProvisionState.READY
    assert planned.steps == tuple(RESERVE[name] for name in steps.split())
    said = " ".join(f"{each.what}; {each.next_step}" for each in planned.warnings)
    assert re.search(warned, said) if warned else said == ""


def test_what_is_not_wanted_not_deployed_or_not_known_is_not_reserved() -> None:
    unwanted = make_desired(concurrency={REACT: 0, SWEEP: 1})
    free = make_observed(concurrency=Concurrency(10, 10, NOTHING_RESERVED))
    assert [REACT in each.what for each in plan(unwanted, free).warnings] == [False]
    for found in (Concurrency(1_000, 1_000), Concurrency()):
        planned = plan(make_desired(), make_observed(concurrency=found))
        assert planned == Plan(ProvisionState.READY)


def test_what_a_deploy_takes_of_the_concurrency_is_restored_whatever_else_is_in_the_way() -> None:
    """But not before there is a stack: `react` has nothing to do, and a first call no effect."""
    problem = Problem("Network", "no default VPC", next_step="set VPC_ID")
    free = make_observed(
        concurrency=Concurrency(1_000, 1_000, NOTHING_RESERVED), problems=(problem,)
    )
    assert plan(make_desired(), free).steps == tuple(RESERVE.values())
    assert plan(make_desired(), replace(free, stack=None)).steps == ()


# The functions' logs.


@pytest.mark.parametrize("observed", [{}, {"stack": None}, {"problems": (Problem("No", "", ""),)}])
def test_the_setting_decides_how_long_a_functions_log_is_kept(observed: dict[str, Any]) -> None:
    """At any time, and where somebody set more days, or less."""
    groups = {"never set": None, "longer": 400, "shorter": 1, "as it is set": 90}
    desired = make_desired(log_retention_days=90)
    steps = plan(desired, make_observed(retentions=groups, **observed)).steps
    kept = ("never set", "longer", "shorter")
    assert steps[-3:] == tuple(PutRetention(group, 90) for group in kept)
    others = plan(desired, make_observed(retentions={"as it is set": 90}, **observed)).steps
    assert steps[:-3] == others


# The work pool.


GONE = make_stack(status="DELETE_COMPLETE")
TO_COME = merged({}, POOL_TEMPLATE, {**VALUES, "SecurityGroupIds": ()}, "FARGATE_SPOT")
"""Of a pool before its stack: all but the stack's own security group."""
FROM_NOTHING: dict[str, tuple[WorkPool | None, list[Any]]] = {
    "none": (None, [CreateWorkPool(WORK_POOL, TO_COME)]),
    "a worker's": (WorkPool(WORK_POOL, "ecs", {}), [ChangeWorkPool(WORK_POOL, {})]),
    "ours": (WorkPool(WORK_POOL, "ecs", TO_COME), []),
    "our last stack's": (
        WorkPool(WORK_POOL, "ecs", OUR_POOL_TEMPLATE),
        [ChangeWorkPool(WORK_POOL, TO_COME)],
    ),
}


@pytest.mark.parametrize("stack", [None, GONE], ids=["no stack", "a deleted stack"])
@pytest.mark.parametrize("has_role", [True, False], ids=["has ECS's role", "lacks ECS's role"])
@pytest.mark.parametrize(("pool", "steps"), FROM_NOTHING.values(), ids=FROM_NOTHING)
def test_before_anything_else_prefect_shows_that_the_pool_may_be_written(
    pool: WorkPool | None, steps: list[Any], has_role: bool, stack: Stack | None
) -> None:
    """A pool without roles of ours may have another worker: it is written as it is."""
    observed = make_observed(
        stack=stack, work_pools=(pool,) * bool(pool), has_service_linked_role=has_role
    )
    planned = plan(make_desired(), observed)
    assert planned.state is ProvisionState.CREATING
    assert list(planned.steps[: len(steps)]) == steps
    kind = CreateStack if has_role else CreateServiceLinkedRole
    assert [type(step) for step in planned.steps[len(steps) :]] == [kind]


def test_a_pool_of_your_own_keeps_no_stack_from_being_created() -> None:
    """Nor is it written: that its runs cannot be moved is a warning until the stack is there."""
    fixed = {"job_configuration": {"task_run_request": {"launchType": "FARGATE"}}}
    pool = WorkPool(WORK_POOL, "ecs", fixed)
    observed = make_observed(stack=None, network=None, work_pools=(pool,))
    planned = plan(make_desired(is_full=False), observed)
    assert [type(step) for step in planned.steps] == [CreateStack]
    [warning] = planned.warnings
    assert "runs cannot be moved to FARGATE" in warning.message


def test_once_the_stack_is_complete_the_pool_gets_the_rest_or_is_created_anew() -> None:
    before = WorkPool(WORK_POOL, "ecs", TO_COME)
    planned = plan(make_desired(), make_observed(work_pools=(before,)))
    assert planned == Plan(ProvisionState.READY, (ChangeWorkPool(WORK_POOL, OUR_POOL_TEMPLATE),))
    planned = plan(make_desired(), make_observed(work_pools=()))
    assert planned == Plan(ProvisionState.READY, (CreateWorkPool(WORK_POOL, OUR_POOL_TEMPLATE),))
    for busy in (
        make_stack(status="UPDATE_IN_PROGRESS"),
        make_stack(status="CREATE_IN_PROGRESS", outputs={}),
    ):
        assert plan(make_desired(), make_observed(stack=busy, work_pools=())).steps == ()


def test_what_the_pool_has_in_it_before_its_stack_is_what_the_stack_then_returns() -> None:
    given = stack_template.parameters(SecurityGroupIds="sg-1")
    made = stack_template.resources(given)
    desired = make_desired(parameters=given, stack_name=given["TableName"])
    observed = make_observed(stack=None, work_pools=(), network=Network("vpc-1", ("subnet-1",)))
    created = plan(desired, observed).steps[0]
    assert isinstance(created, CreateWorkPool)
    known = {
        name: variable.get("default")
        for name, variable in created.base_job_template["variables"]["properties"].items()
    }
    outputs = stack_template.outputs(given)
    assert known["cluster"] == made["Cluster"]["Properties"]["ClusterName"]
    assert known["task_role_arn"] == outputs["FlowRoleArn"]
    assert known["execution_role_arn"] == outputs["ExecutionRoleArn"]
    group = made["LogGroup"]["Properties"]["LogGroupName"]
    assert known["cloudwatch_logs_options"]["awslogs-group"] == group
    assert known["vpc_id"] == "vpc-1"
    network = {"subnets": ["subnet-1"], "securityGroups": ["sg-1"], "assignPublicIp": "ENABLED"}
    assert known["network_configuration"] == network


@pytest.mark.parametrize("stack", [make_stack(), None, GONE], ids=["ready", "none", "gone"])
def test_a_pool_that_cannot_be_completed_keeps_its_template_and_is_reported(
    stack: Stack | None,
) -> None:
    pool = WorkPool(WORK_POOL, "ecs", {"job_configuration": "{{ all }}", "variables": {}})
    observed = make_observed(stack=stack, work_pools=(pool,), deliveries=(UNDELIVERED,))
    planned = plan(make_desired(), observed)
    delivered = (PUT_CONFIG,) if stack == make_stack() else ()
    assert (planned.state, planned.steps) == (ProvisionState.BLOCKED, delivered)
    assert "job_configuration" in planned.problems[0].message
    problem = Problem("Network", "no default VPC", next_step="set VPC_ID")
    all_of_them = plan(make_desired(), replace(observed, network=None, problems=(problem,)))
    assert all_of_them.problems == (problem, *planned.problems)


@pytest.mark.parametrize(
    ("task_role", "execution_role", "is_taken"),
    [
        (None, None, True),
        ("role/of-a-user", OUTPUTS["ExecutionRoleArn"], True),
        (f"arn:aws:iam::999999999999:role/{STACK_NAME}-flow", None, True),
        ("arn:aws:iam::123456789012:role/prefect-spot-dev-eu-flow", None, False),
        ("role/of-a-team", "arn:aws:iam::123456789012:role/theirs/my-execution", False),
    ],
    ids=["a worker's", "ours, edited", "ours, from another account", "a stage's", "a team's"],
)
@pytest.mark.parametrize("stack", [make_stack(), None], ids=["ready", "none"])
def test_a_pool_that_gives_flows_another_stacks_roles_is_not_taken_over(
    task_role: str | None, execution_role: str | None, is_taken: bool, stack: Stack | None
) -> None:
    properties = {
        "task_role_arn": {"default": task_role},
        "execution_role_arn": {"default": execution_role},
    }
    pool = WorkPool(WORK_POOL, "ecs", {"variables": {"properties": properties}})
    planned = plan(make_desired(), make_observed(work_pools=(pool,), stack=stack))
    steps = [ChangeWorkPool] if stack else [ChangeWorkPool, CreateStack]
    assert [type(step) for step in planned.steps] == (steps if is_taken else [])
    assert is_taken or "set WORK_POOL" in planned.problems[0].next_step


def plan_with_own_pool(template: dict[str, Any]) -> Plan:
    desired, pool = make_desired(is_full=False), WorkPool(WORK_POOL, "ecs", template)
    stack = make_stack(parameters=stack_definition(desired, None).parameters)
    return plan(desired, make_observed(stack=stack, network=None, work_pools=(pool,)))


def test_a_pool_of_your_own_is_left_alone() -> None:
    assert plan_with_own_pool({}) == Plan(ProvisionState.READY)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("capacityProviderStrategy", [{"capacityProvider": "FARGATE_SPOT", "weight": 1}]),
        ("launchType", "FARGATE"),
        ("launchType", "{{ mine }}"),
    ],
)
def test_a_pool_of_your_own_whose_runs_cannot_be_moved_is_reported(field: str, value: Any) -> None:
    planned = plan_with_own_pool({"job_configuration": {"task_run_request": {field: value}}})
    assert (planned.state, planned.steps) == (ProvisionState.BLOCKED, ())
    [problem] = planned.problems
    assert (problem.name, f"sets {field} itself" in problem.what) == ("WorkPool", True)
    assert problem.next_step.startswith(f"set {field} to {{{{ ")


def test_a_plain_fargate_cluster_has_flows_on_fargate() -> None:
    [step] = plan(make_desired(use_spot=False), make_observed()).steps
    assert isinstance(step, ChangeWorkPool)
    properties = step.base_job_template["variables"]["properties"]
    assert properties["launch_type"]["default"] == "FARGATE"


def make_stack_event(resource: str, status: str, reason: str = "") -> dict[str, str]:
    """A line of the stack's history; one about the stack itself has its id."""
    return {
        "StackId": STACK_ID,
        "PhysicalResourceId": STACK_ID if resource == "stack" else resource,
        "LogicalResourceId": resource,
        "ResourceType": "AWS::ECS::Cluster",
        "ResourceStatus": status,
        "ResourceStatusReason": reason,
    }


def test_the_oldest_failures_are_kept_and_what_was_only_cancelled_is_left_out() -> None:
    oldest_first = [
        make_stack_event("stack", "UPDATE_IN_PROGRESS"),
        make_stack_event("Old", "UPDATE_FAILED", "of an earlier update"),
        make_stack_event("stack", "UPDATE_IN_PROGRESS"),
        make_stack_event("Cluster", "CREATE_FAILED", "no role"),
        make_stack_event("Bucket", "CREATE_FAILED", "Resource creation cancelled"),
        make_stack_event("stack", "UPDATE_ROLLBACK_IN_PROGRESS", "failed: [Cluster]"),
        make_stack_event("Service", "UPDATE_FAILED", "no\ncluster"),
        *(make_stack_event(f"Later{number}", "UPDATE_FAILED", "no") for number in range(4)),
        make_stack_event("stack", "UPDATE_ROLLBACK_FAILED"),
    ]
    failures = failures_in(reversed(oldest_first))
    assert failures == (
        "Cluster (AWS::ECS::Cluster): no role",
        "Service (AWS::ECS::Cluster): no cluster",
        *(f"Later{number} (AWS::ECS::Cluster): no" for number in range(3)),
    )


def test_a_creation_whose_time_is_over_says_what_it_waited_for_and_where_to_look() -> None:
    exceeded = "Stack creation time exceeded the specified timeout. Rollback requested by user."
    oldest_first = [
        make_stack_event("stack", "CREATE_IN_PROGRESS", "User Initiated"),
        make_stack_event("Cluster", "CREATE_COMPLETE"),
        make_stack_event("WorkerService", "CREATE_IN_PROGRESS", "Resource creation Initiated"),
        make_stack_event("WorkerService", "CREATE_FAILED", "Resource creation cancelled"),
        make_stack_event("stack", "ROLLBACK_IN_PROGRESS", exceeded),
        make_stack_event("WorkerService", "DELETE_IN_PROGRESS"),
        make_stack_event("stack", "ROLLBACK_COMPLETE"),
    ]
    failures = failures_in(reversed(oldest_first))
    assert failures == (f"{exceeded} Not complete: WorkerService (AWS::ECS::Cluster)",)
    unknown = [event for event in oldest_first if event["ResourceStatus"] != "CREATE_FAILED"]
    assert failures_in(reversed(unknown)) == (f"{exceeded} Not complete: unknown",)
    stack = make_stack(status="ROLLBACK_COMPLETE", failures=failures)
    planned = plan(make_desired(), make_observed(stack=stack))
    assert planned.state is ProvisionState.RECOVERING
    [problem] = planned.problems
    assert "exceeded the specified timeout" in problem.what
    for place in ("stopped tasks (spotctl status)", f"/ecs/{STACK_NAME}", "subnets", "registry"):
        assert place in problem.next_step
