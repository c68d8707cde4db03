"""Laws of provisioning, over generated accounts: whatever is there, and wherever a call breaks off,
calling again ends in the same place, and what has ended there is left alone.

The account is a value, moved by a few lines of what AWS and Prefect do with each step.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from chalicelib.core.delivery import Delivery, InvokeConfig, PutInvokeConfig, PutTargets
from chalicelib.core.pool_template import WorkPool
from chalicelib.core.provision_mode import Provision
from chalicelib.core.provision_steps import (
    ChangeWorkPool,
    CreateServiceLinkedRole,
    CreateStack,
    CreateWorkPool,
    DeleteStack,
    StackDefinition,
    Step,
    UpdateStack,
)
from chalicelib.core.provisioning import Desired, Observed, plan, stack_definition
from chalicelib.core.stack import STATUSES, Condition, Stack, Standing, standing_of
from tests.provisioning import (
    NETWORK,
    OUTPUTS,
    POOL_AS_IT_SHALL_BE,
    STACK_NAME,
    WORK_POOL,
    bare_target,
    make_delivery,
    make_desired,
    make_observed,
    make_stack,
)

laws = settings(max_examples=200, deadline=None)

MOST_CALLS = 12
"""Delete, twice if it fails, the role, create, update, all else; and one to see that it is so."""

SETTLES: dict[str, str | None] = {
    "CREATE_IN_PROGRESS": "CREATE_COMPLETE",
    "ROLLBACK_IN_PROGRESS": "ROLLBACK_COMPLETE",
    "DELETE_IN_PROGRESS": None,
    "UPDATE_IN_PROGRESS": "UPDATE_COMPLETE",
    "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS": "UPDATE_COMPLETE",
    "UPDATE_ROLLBACK_IN_PROGRESS": "UPDATE_ROLLBACK_COMPLETE",
    "UPDATE_ROLLBACK_COMPLETE_CLEANUP_IN_PROGRESS": "UPDATE_ROLLBACK_COMPLETE",
    "IMPORT_IN_PROGRESS": "IMPORT_COMPLETE",
    "IMPORT_ROLLBACK_IN_PROGRESS": "IMPORT_ROLLBACK_COMPLETE",
}


def time_passes(account: Observed) -> Observed:
    """CloudFormation comes to the end of what it is doing."""
    stack = account.stack
    if stack is None or stack.status not in SETTLES:
        return account
    status = SETTLES[stack.status]
    if status is None:
        return replace(account, stack=None)
    return replace(account, stack=replace(stack, status=status, outputs=OUTPUTS))


def perform(step: Step, account: Observed) -> Observed:
    """What AWS and Prefect do with a step; one that comes too late does nothing."""
    pool = account.work_pool
    match step:
        case CreateServiceLinkedRole():
            return replace(account, has_service_linked_role=True)
        case CreateStack() | UpdateStack() | DeleteStack():
            return replace(account, stack=_moved(account.stack, step))
        case PutTargets(rule, targets):
            return _delivered(account, lambda d: _with_targets(d, rule, targets))
        case PutInvokeConfig(function, config):
            return _delivered(
                account,
                lambda d: replace(d, invoke_config=config) if d.function == function else d,
            )
        case CreateWorkPool(name, template):
            return account if pool else replace(account, work_pool=WorkPool(name, "ecs", template))
        case ChangeWorkPool(name, template):
            return replace(account, work_pool=WorkPool(name, "ecs", template))


def _moved(stack: Stack | None, step: CreateStack | UpdateStack | DeleteStack) -> Stack | None:
    if isinstance(step, CreateStack):
        if stack is not None and stack.status != "DELETE_COMPLETE":
            return stack
        number = int(stack.id.rpartition("/")[2]) + 1 if stack else 1
        made = Stack(f"stack/{number}", STACK_NAME, "CREATE_IN_PROGRESS")
        return _defined(made, step.definition)
    if stack is None or stack.id != step.stack_id:
        return stack
    if isinstance(step, DeleteStack):
        return replace(stack, status="DELETE_IN_PROGRESS", outputs={})
    if stack.status.endswith("_IN_PROGRESS"):
        return stack
    return _defined(replace(stack, status="UPDATE_IN_PROGRESS"), step.definition)


def _defined(stack: Stack, definition: StackDefinition) -> Stack:
    return replace(
        stack,
        template_hash=definition.template_hash,
        parameters=definition.parameters,
        is_ours=True,
    )


def _delivered(account: Observed, change: Callable[[Delivery], Delivery]) -> Observed:
    return replace(account, deliveries=tuple(map(change, account.deliveries)))


def _with_targets(delivery: Delivery, rule: str, targets: Sequence[Any]) -> Delivery:
    if rule not in delivery.targets:
        return delivery
    by_id = {target["Id"]: target for target in (*delivery.targets[rule], *targets)}
    return replace(delivery, targets={**delivery.targets, rule: tuple(by_id.values())})


def until_ready(desired: Desired, account: Observed) -> Observed:
    for _ in range(MOST_CALLS):
        planned = plan(desired, account)
        if planned.condition is Condition.READY and not planned.steps:
            return account
        for step in planned.steps:
            account = perform(step, account)
        account = time_passes(account)
    raise AssertionError(f"not ready after {MOST_CALLS} calls: {plan(desired, account)}")


def end_of(account: Observed) -> Any:
    """All but the stack's life: its id, and whether it was updated or is as it was created."""
    assert account.stack is not None
    stack = account.stack
    return (
        (stack.template_hash, dict(stack.parameters), dict(stack.outputs)),
        account.work_pool,
        account.deliveries,
    )


REACT, SWEEP = f"{STACK_NAME}-react", f"{STACK_NAME}-sweep"
statuses = st.sampled_from(
    [status for status, (standing, _) in STATUSES.items() if standing is not Standing.STUCK]
)
stacks = st.none() | st.builds(
    lambda status, changes: make_stack(id="stack/7", status=status, **changes),
    statuses,
    st.sampled_from(
        [{}, {"template_hash": "older"}, {"parameters": {"Stage": "dev"}}, {"outputs": {}}]
    ),
).filter(lambda stack: bool(stack.outputs) or standing_of(stack)[0] is not Standing.SETTLED)
pools = st.sampled_from(
    [
        None,
        WorkPool(WORK_POOL, "ecs", {}),
        WorkPool(WORK_POOL, "ecs", POOL_AS_IT_SHALL_BE),
        WorkPool(WORK_POOL, "ecs", {"variables": {}, "job_configuration": {"cluster": "else"}}),
    ]
)
deliveries = st.tuples(
    *(
        st.sampled_from(
            [
                make_delivery(function),
                make_delivery(function, invoke_config=None),
                make_delivery(function, invoke_config=InvokeConfig("another")),
                make_delivery(function, targets={f"{function}-event": (bare_target(function),)}),
            ]
        )
        for function in (REACT, SWEEP)
    )
)
accounts = st.builds(
    lambda stack, pool, ways, role: make_observed(
        stack=stack, work_pool=pool, deliveries=ways, has_service_linked_role=role
    ),
    stacks,
    pools,
    deliveries,
    st.booleans(),
)
wishes = st.sampled_from(
    [
        make_desired(),
        make_desired(use_spot=False),
        make_desired(template={"Resources": {}}),
        make_desired(parameters={"Stage": "prod"}),
    ]
)
breaks = st.lists(st.tuples(st.integers(0, 6), st.booleans()), max_size=5)
"""Calls that break off after so many steps, and whether CloudFormation gets on meanwhile."""


@laws
@given(wishes, accounts, breaks)
def test_a_call_that_broke_off_anywhere_is_made_good_by_the_next(
    desired: Desired, account: Observed, broken: list[tuple[int, bool]]
) -> None:
    whole = until_ready(desired, account)
    for steps, gets_on in broken:
        for step in plan(desired, account).steps[:steps]:
            account = perform(step, account)
        account = time_passes(account) if gets_on else account
    assert end_of(until_ready(desired, account)) == end_of(whole)


@laws
@given(wishes, accounts, st.integers(0, 6), st.booleans())
def test_two_calls_that_overlap_do_no_harm(
    desired: Desired, account: Observed, steps: int, gets_on: bool
) -> None:
    whole = until_ready(desired, account)
    late = plan(desired, account).steps
    for step in late[:steps]:
        account = perform(step, account)
    for step in plan(desired, account).steps:
        account = perform(step, account)
    account = until_ready(desired, account) if gets_on else account
    for step in late[steps:]:
        account = perform(step, account)
    assert end_of(until_ready(desired, account)) == end_of(whole)


@laws
@given(wishes, accounts)
def test_a_stack_that_once_stood_is_never_deleted(desired: Desired, account: Observed) -> None:
    for _ in range(MOST_CALLS):
        planned = plan(desired, account)
        for step in planned.steps:
            if isinstance(step, DeleteStack):
                assert account.stack is not None
                assert not account.stack.status.startswith(("UPDATE", "IMPORT"))
                assert account.stack.status != "CREATE_COMPLETE"
            account = perform(step, account)
        account = time_passes(account)


@laws
@given(accounts, pools)
def test_rescue_only_touches_neither_pool_nor_role(account: Observed, pool: Any) -> None:
    desired = make_desired(provision=Provision.RESCUE_ONLY)
    account = replace(account, network=None, work_pool=pool)
    ended = until_ready(desired, account)
    assert ended.work_pool == pool
    assert ended.has_service_linked_role == account.has_service_linked_role


def test_what_is_ready_is_what_shall_be() -> None:
    nothing = make_observed(stack=None, work_pool=None, has_service_linked_role=False)
    ended = until_ready(make_desired(), nothing)
    assert ended.stack is not None
    definition = stack_definition(make_desired(), NETWORK)
    assert ended.stack.template_hash == definition.template_hash
    assert ended.stack.parameters == definition.parameters
    assert ended.work_pool == WorkPool(WORK_POOL, "ecs", POOL_AS_IT_SHALL_BE)
    assert ended.deliveries == (make_delivery(),)
