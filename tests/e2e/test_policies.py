"""Each function's policy against what it was seen to call, in all end-to-end tests together.

`conftest.py` has this run last. Who calls is told by the access key, which is the function's name;
moto allows everything, so what a policy lacks would otherwise be found on AWS.
"""

import json
from typing import Any, Final

import pytest

from localcloud.bootstrap import STAGE
from localcloud.deployment import PROJECT
from tests.e2e.scenario import Stage

FUNCTIONS: Final = ("react", "meter", "sweep", "provision")
THE_OTHERS: Final = ("test_rescue.py", "test_sweep.py", "test_example.py")

IAM_ACTIONS: Final = {
    # A transaction needs the rights to what is in it, and no right of its own.
    "dynamodb:TransactWriteItems": ("dynamodb:PutItem", "dynamodb:UpdateItem"),
    # The function's rights are asked for when the destination is set.
    "lambda:PutFunctionEventInvokeConfig": (
        "lambda:PutFunctionEventInvokeConfig",
        "sqs:SendMessage",
    ),
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
"""CloudFormation acts with its rights; `tests/unit/test_provision_policy.py` holds those."""


def allowed(function: str) -> set[str]:
    policy = json.loads((PROJECT / ".chalice" / f"policy-{function}.json").read_text())
    statements: list[dict[str, Any]] = policy["Statement"]
    assert {statement["Effect"] for statement in statements} == {"Allow"}
    listed = [statement["Action"] for statement in statements]
    return {a for actions in listed for a in ([actions] if isinstance(actions, str) else actions)}


def needed(stage: Stage, function: str) -> set[str]:
    """The actions that the function's calls have needed."""
    name = f"prefect-spot-{STAGE}-{function}"
    operations = {operation for who, operation in stage.cloud.aws.calls if who == name}
    assert operations, f"{function} was never seen to call AWS"
    return {action for o in operations for action in IAM_ACTIONS.get(o, (o,))}


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_function_may_do_all_that_it_does(stage: Stage, function: str) -> None:
    if function == "sweep":
        stage.cloud.lambdas.invoke(f"prefect-spot-{STAGE}-sweep", {})
    assert needed(stage, function) - allowed(function) == set()


@pytest.mark.parametrize("function", [f for f in FUNCTIONS if f != FOR_CLOUDFORMATION])
def test_a_function_may_do_nothing_that_it_never_does(
    stage: Stage, function: str, request: pytest.FixtureRequest
) -> None:
    played = {item.path.name for item in request.session.items}
    if not played.issuperset(THE_OTHERS):
        pytest.skip(f"only what happened in {', '.join(THE_OTHERS)} as well can tell")
    assert allowed(function) - needed(stage, function) - BY_LAMBDA_ITSELF == set()
