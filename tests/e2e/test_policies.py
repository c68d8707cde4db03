"""Each function's policy against what it was seen to call, in all end-to-end tests together.

The access key is the function's name and says who calls; moto allows everything, so what a policy
lacks would otherwise be found on AWS. With what each call names, MiniStack's IAM judges them once
more: `tests/second_aws/test_iam.py`. Not seen are calls of S3, which moto answers in another way:
no function makes any, and of spotctl only `teardown`.
"""

import json
from typing import Any, Final

import pytest

from chalicelib.settings import FUNCTIONS
from localcloud.bootstrap import STAGE
from localcloud.deployment import PROJECT
from tests.e2e.command import OPERATOR, spotctl
from tests.e2e.scenario import Stage
from tests.unit.iam import matches

THE_OTHERS: Final = ("test_rescue.py", "test_sweep.py")
NO_RIGHT_NEEDED: Final = frozenset({"sts:GetCallerIdentity"})

IAM_ACTIONS: Final = {
    # A transaction needs the rights to what is in it, and no right of its own.
    "dynamodb:TransactWriteItems": ("dynamodb:PutItem", "dynamodb:UpdateItem"),
    "lambda:Invoke": ("lambda:InvokeFunction",),
}
"""What an operation needs, where it is not the action of its name."""

BY_LAMBDA_ITSELF: Final = frozenset(
    {
        "logs:CreateLogGroup",
        "logs:CreateLogStream",
        "logs:PutLogEvents",  # the log: Lambda writes it with the function's rights
        "sqs:SendMessage",  # the failure queue: so does Lambda
    }
)
"""Allowed and never called by our code."""

FOR_CLOUDFORMATION: Final = "provision"
"""CloudFormation acts with its rights; `tests/unit/test_policies.py` holds those."""


def name_of(function: str) -> str:
    return f"prefect-spot-{STAGE}-{function}"


def allowed(function: str) -> set[str]:
    policy = json.loads((PROJECT / ".chalice" / f"policy-{function}-dev.json").read_text())
    statements: list[dict[str, Any]] = policy["Statement"]
    assert {statement["Effect"] for statement in statements} == {"Allow"}
    listed = [statement["Action"] for statement in statements]
    return {a for actions in listed for a in ([actions] if isinstance(actions, str) else actions)}


def needed(stage: Stage, caller: str) -> set[str]:
    """The actions that the caller's calls have needed."""
    operations = {operation for who, operation in stage.cloud.aws.calls if who == caller}
    assert operations, f"{caller} was never seen to call AWS"
    return {action for o in operations for action in IAM_ACTIONS.get(o, (o,))}


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_function_may_do_all_that_it_does(
    stage: Stage, function: str, everything_is_over: None
) -> None:
    if function == "sweep":
        stage.cloud.lambdas.invoke(name_of(function), {})
    given = allowed(function)
    wanted = needed(stage, name_of(function))
    assert {a for a in wanted if not any(matches(pattern, a) for pattern in given)} == set()


@pytest.mark.parametrize("function", [f for f in FUNCTIONS if f != FOR_CLOUDFORMATION])
def test_a_function_may_do_nothing_that_it_never_does(
    stage: Stage, function: str, request: pytest.FixtureRequest, everything_is_over: None
) -> None:
    played = {item.path.name for item in request.session.items}
    if not played.issuperset(THE_OTHERS):
        pytest.skip(f"the calls made by {', '.join(THE_OTHERS)} are missing: run all of tests/e2e")
    assert allowed(function) - needed(stage, name_of(function)) - BY_LAMBDA_ITSELF == set()


def test_who_deploys_may_do_all_that_status_drill_and_redrive_do(
    stage: Stage, everything_is_over: None
) -> None:
    """What `deploy` and `teardown` do: `tests/system/test_spotctl_deploy.py`."""
    spotctl(stage.cloud, "status")
    assert needed(stage, OPERATOR) - allowed("deployer") - NO_RIGHT_NEEDED == set()
