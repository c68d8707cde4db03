"""Every recorded call, judged by another IAM against the policies of its caller.

What is recorded is in `build/calls`: run `tests/e2e` and `tests/system` before.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import pytest

from chalicelib.settings import FUNCTIONS
from localcloud.bootstrap import AUTH_PARAMETER
from tests.second_aws.calls import ACCOUNT, ON_ALL, REGION, STAGES, Call, arn, policies, recorded
from tests.second_aws.server import ask
from tests.unit.iam import as_list, matches
from tests.unit.test_policies import TYPES, wanted_by

POLICIES: Final = policies()
DEV: Final = "prefect-spot-dev"
REACT, METER, SWEEP, PROVISION = (f"{DEV}-{name}" for name in FUNCTIONS)
WORKER, FLOW, EXECUTION = (f"{DEV}-{name}" for name in ("worker", "flow", "execution"))
OTHER_ACCOUNT: Final = "999988887777"
CREDENTIAL: Final = arn("ssm", f"parameter{AUTH_PARAMETER}")
BUCKET: Final = f"arn:aws:s3:::{DEV}-results-{ACCOUNT}-{REGION}"

BY_ECS: Final = {Call(EXECUTION, "ssm:GetParameters", CREDENTIAL)}
"""What ECS asks with a role of the stack, for a task that is about to start."""

OBSERVERS: Final = {
    Call(f"prefect-spot-{stage}-worker", "sqs:GetQueueUrl", arn("sqs", "prefect-ecs-tasks-events"))
    for stage in STAGES
}
"""Recorded, and to be refused: prefect-aws's observer, which is to find no queue."""


WANTED: Final = {each.removeprefix("AWS::"): wanted_by(each) for each in TYPES}
WHY: Final = {
    r"(react|meter|sweep|provision) logs:.*": "Lambda writes the log with the function's rights",
    r"(react|meter) sqs:SendMessage": "Lambda sends what failed with the function's rights",
    r"react dynamodb:BatchGetItem": "with SPOT_RETRIES=auto only: it reads the daily sums",
    r"provision cloudformation:\w+": "another operation on the stack than the tests needed",
    r"provision (iam|ecs|s3):\w*Tag\w*": "CloudFormation's, for the stack's tag on each resource",
    r"operator lambda:(RemovePermission|(Unt|T)agResource)": "Chalice's, when the app has changed",
    r"operator cloudformation:DescribeStackEvents": "teardown, of a stack that is not deleted",
    r"operator sqs:ChangeMessageVisibility": "redrive, of an event that fails again",
    r"operator ecs:StopTask": "drill, and teardown of a stage at work",
    r"operator ecs:DescribeTaskDefinition": "status, of a deployment with its own definition",
    r"operator s3:DeleteObjectVersion": "DeleteObjects with versions: its body is not recorded",
    r"operator logs:GetLogEvents": "status, of a worker that exits: it reads the log's end",
    r"operator (dynamodb|ssm):\w+": "a command that these tests do not run: explain, pause, replay",
    r"worker ecs:StopTask": "Prefect's worker, when a run is cancelled",
    r"flow s3:(DeleteObject|AbortMultipartUpload|ListBucket)": "flows that replace or list results",
    r"flow s3:GetObject": "flows that resume from a result",
}
"""Why a permission stays that the tests never use."""


def decisions(calls: Iterable[Call], given: Mapping[str, Sequence[Any]]) -> dict[Call, bool]:
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
    return dict(zip(calls, ask("iam", questions), strict=True))


@pytest.fixture(scope="module")
def calls() -> set[Call]:
    return (recorded() | BY_ECS) - OBSERVERS


@pytest.fixture(scope="module")
def found(judged: dict[str, Any]) -> dict[str, Any]:
    report: dict[str, Any] = judged.setdefault("iam", {})
    return report


def test_every_recorded_call_is_allowed(calls: set[Call], found: dict[str, Any]) -> None:
    refused = [str(call) for call, allowed in decisions(calls, POLICIES).items() if not allowed]
    found |= {"recorded": len(calls), "allowed": len(calls) - len(refused)}
    assert refused == []


def test_what_must_be_refused_is_refused(calls: set[Call], found: dict[str, Any]) -> None:
    answers = decisions(set(must_refuse(calls)), POLICIES)
    allowed = [str(call) for call, is_allowed in answers.items() if is_allowed]
    found |= {"must_refuse": len(answers), "refused": len(answers) - len(allowed)}
    assert allowed == []


def test_each_permission_that_is_granted_and_was_not_used_has_a_reason(
    calls: set[Call], found: dict[str, Any]
) -> None:
    reasons = {(who, action): why_unused(who, action) for who, action in unused(calls)}
    found["granted_unused"] = [
        {"action": action, "of": who, "why": why} for (who, action), why in sorted(reasons.items())
    ]
    assert [unused for unused, why in reasons.items() if not why] == []


@pytest.mark.parametrize(
    ("principal", "mistake"),
    [
        (REACT, ('"dynamodb:UpdateItem"', '"dynamodb:UpdateTable"')),
        (SWEEP, (f"cluster/{DEV}", "cluster/prefect-spot")),
        (METER, (f"table/{DEV}", "table/prefect-spot")),
        (WORKER, ("ecs-tasks.amazonaws.com", "ecs.amazonaws.com")),
        (REACT, (f"table/{DEV}", "table/*")),
        (METER, ("aws:ResourceAccount", "aws:PrincipalAccount")),
        (WORKER, ("ArnEquals", "ArnNotEquals")),
        (FLOW, ('"Deny"', '"Allow"')),
        (SWEEP, ("parameter/prefect-spot/dev/auth-string", "parameter/*")),
    ],
)
def test_a_planted_mistake_in_a_policy_is_noticed(
    calls: set[Call], principal: str, mistake: tuple[str, str]
) -> None:
    was = json.dumps(POLICIES[principal])
    assert mistake[0] in was
    planted = {**POLICIES, principal: json.loads(was.replace(*mistake))}
    allowed = decisions(calls, planted)
    refused = decisions(set(must_refuse(calls)), planted)
    assert not all(allowed.values()) or any(refused.values())


def must_refuse(calls: Iterable[Call]) -> Iterator[Call]:
    """Each call about something else of the same kind, and what no caller is to do at all."""
    for call in calls:
        if not ON_ALL.match(call.action) and call.action != "ecs:RunTask":
            yield replace(call, resource=elsewhere(call.resource))
        if "ecs:cluster" in call.context and call.action in ("ecs:RunTask", "ecs:ListTasks"):
            yield replace(call, context={"ecs:cluster": arn("ecs", "cluster/other")})
        if call.action == "iam:PassRole":
            yield replace(call, context={"iam:PassedToService": "ec2.amazonaws.com"})
        if call.action.startswith(("sqs:", "dynamodb:", "sns:")):
            yield replace(call, resource=call.resource.replace(ACCOUNT, OTHER_ACCOUNT))
    yield from OBSERVERS
    yield from foreign()


def foreign() -> Iterator[Call]:
    """What is nobody's, or another's, to do."""
    table, role = arn("dynamodb", f"table/{DEV}"), f"arn:aws:iam::{ACCOUNT}:role/"
    on_cluster = {"ecs:cluster": arn("ecs", f"cluster/{DEV}")}
    for principal in (REACT, METER):
        yield Call(principal, "sqs:SendMessage", arn("sqs", f"{DEV}-failures", OTHER_ACCOUNT))
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
    names = (
        r"prefect-spot-(dev|prod)|prefect_fargate-spot|auth-string|dev/headers|dev/ca$"
        r"|AWSServiceRole|flows-exec"
    )
    assert re.search(names, resource), resource
    return re.sub(names, "other", resource)


def unused(calls: Iterable[Call]) -> Iterator[tuple[str, str]]:
    """Each action that a policy grants and no recorded call of its principal needs."""
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


def why_unused(who: str, action: str) -> str:
    of = [kind for kind, wanted in WANTED.items() if any(matches(action, each) for each in wanted)]
    if who == "provision" and of:
        return f"CloudFormation's, which acts with these permissions, for {', '.join(of)}"
    return next((why for form, why in WHY.items() if re.fullmatch(form, f"{who} {action}")), "")


def kind_of(principal: str) -> str:
    return principal.rpartition("-")[2]
