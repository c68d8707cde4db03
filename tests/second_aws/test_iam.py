"""Every recorded call, judged by another IAM against the policies of its caller.

What is recorded is in `build/calls`: run `tests/e2e` and `tests/system` before.
"""

import json
import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import pytest

from chalicelib.settings import FUNCTIONS
from localcloud.bootstrap import AUTH_PARAMETER
from tests.e2e.command import OPERATOR
from tests.second_aws.calls import ACCOUNT, ON_ALL, REGION, Call, arn, policies, recorded
from tests.second_aws.server import JUDGE, PYTHON
from tests.unit.iam import as_list, matches

POLICIES: Final = policies()
DEV: Final = "prefect-spot-dev"
REACT, METER, SWEEP, PROVISION = (f"{DEV}-{name}" for name in FUNCTIONS)
WORKER, FLOW, EXECUTION = (f"{DEV}-{name}" for name in ("worker", "flow", "execution"))
CREDENTIAL: Final = arn("ssm", f"parameter{AUTH_PARAMETER}")
BUCKET: Final = f"arn:aws:s3:::{DEV}-results-{ACCOUNT}-{REGION}"

BY_ECS: Final = {Call(EXECUTION, "ssm:GetParameters", CREDENTIAL)}
"""What ECS asks with a role of the stack, for a task that is about to start."""

REFUSED_ON_AWS: Final = {
    (WORKER, "sqs:GetQueueUrl"): "prefect-aws's observer, which is to find no queue",
}


def judged(calls: Iterable[Call], given: Mapping[str, Sequence[Any]]) -> dict[Call, bool]:
    """Which of the calls MiniStack's engine allows."""
    calls = list(calls)
    questions = [
        (
            given[call.principal],
            {
                "principal": f"arn:aws:sts::{ACCOUNT}:assumed-role/{call.principal}/it",
                "account": ACCOUNT,
                "region": REGION,
                "action": call.action,
                "resource": call.resource,
                "context": dict(call.context),
            },
        )
        for call in calls
    ]
    asked = subprocess.run(
        [PYTHON, JUDGE, "iam"],
        input=json.dumps(questions),
        text=True,
        capture_output=True,
        check=True,
    )
    return dict(zip(calls, json.loads(asked.stdout), strict=True))


@pytest.fixture(scope="module")
def calls() -> set[Call]:
    return recorded() | BY_ECS


@pytest.fixture(scope="module")
def found(judged_: None, judged_by: dict[str, Any]) -> dict[str, Any]:
    raise NotImplementedError


def must_refuse(calls: Iterable[Call]) -> Iterator[Call]:
    """Each call about something else of the same kind, and what no caller is to do at all."""
    for call in calls:
        if not ON_ALL.match(call.action) and call.action != "ecs:RunTask":
            yield replace(call, resource=elsewhere(call.resource))
        if "ecs:cluster" in call.context and call.action in ("ecs:RunTask", "ecs:ListTasks"):
            yield replace(call, context={"ecs:cluster": arn("ecs", "cluster/other")})
        if call.action == "iam:PassRole":
            yield replace(call, context={"iam:PassedToService": "ec2.amazonaws.com"})
        if call.action.startswith(("sqs:", "dynamodb:")):
            yield replace(call, resource=call.resource.replace(ACCOUNT, "999988887777"))
    others = arn("sqs", f"{DEV}-failures", account="999988887777")
    table, role = arn("dynamodb", f"table/{DEV}"), f"arn:aws:iam::{ACCOUNT}:role/"
    on_cluster = {"ecs:cluster": arn("ecs", f"cluster/{DEV}")}
    for principal in (REACT, METER):
        yield Call(principal, "sqs:SendMessage", others)
    for principal in (REACT, METER, SWEEP, PROVISION):
        yield Call(principal, "ecs:RunTask", arn("ecs", f"task-definition/{DEV}-worker"))
        yield Call(principal, "iam:PassRole", f"{role}{PROVISION}")
        yield Call(principal, "ssm:GetParameter", f"{CREDENTIAL}-2")
        yield Call(principal, "ssm:PutParameter", CREDENTIAL)
    for principal in (REACT, METER, SWEEP, WORKER, FLOW, EXECUTION):
        yield Call(principal, "dynamodb:DeleteTable", table)
        yield Call(principal, "iam:PutRolePolicy", f"{role}{principal}")
    for principal in (WORKER, FLOW, EXECUTION):
        yield Call(principal, "dynamodb:PutItem", table)
    for principal in (WORKER, FLOW):
        yield Call(principal, "ssm:GetParameters", CREDENTIAL)
    yield Call(WORKER, "ecs:RunTask", arn("ecs", f"task-definition/{DEV}-worker:1"), on_cluster)
    yield Call(FLOW, "s3:PutObject", f"{BUCKET}/deployments/etl/1")
    yield Call(PROVISION, "iam:CreateServiceLinkedRole", f"{role}aws-service-role/x/y")
    yield Call(PROVISION, "iam:PutRolePolicy", f"{role}{REACT}")
    yield Call(PROVISION, "iam:PassRole", f"{role}{WORKER}", {"iam:PassedToService": "x"})


def elsewhere(resource: str) -> str:
    """The ARN of something of that kind that is not the stage's."""
    names = r"prefect-spot-(dev|prod)|prefect_fargate-spot-(dev|prod)|auth-string|AWSServiceRole"
    assert re.search(names, resource), resource
    return re.sub(names, "other", resource)


def unused(calls: Iterable[Call]) -> Iterator[tuple[str, str]]:
    """Each action that a policy names and its principal was never seen to need."""
    seen: dict[str, set[str]] = {}
    for call in calls:
        seen.setdefault(kind_of(call.principal), set()).add(call.action)
    for principal, documents in POLICIES.items():
        if "-prod-" in principal:
            continue
        for statement in (s for document in documents for s in document["Statement"]):
            for action in as_list(statement["Action"]) if statement["Effect"] == "Allow" else ():
                if not any(matches(action, used) for used in seen.get(kind_of(principal), ())):
                    yield kind_of(principal), action


def kind_of(principal: str) -> str:
    return principal.rpartition("-")[2]
