"""What `provision` may do: all that CloudFormation needs for the stack, by AWS's own word.

CloudFormation acts with the function's rights. Each resource type's schema lists the permissions
that its handlers want; what is left out here has its reason beside it.
"""

import json
import re
from pathlib import Path
from typing import Any

import cfnlint
import pytest

import infra

PROJECT = Path(__file__).parent.parent.parent
SCHEMAS = Path(str(cfnlint.__file__)).parent / "data" / "schemas"
REGION = "us-east-1"

LEFT_OUT = {
    r"kinesis:|dynamodb:(Enable|Disable|Update)Kinesis": "the table streams nowhere",
    r"kms:|logs:(Dis)?[Aa]ssociateKmsKey": "AWS's own keys encrypt everything",
    r"dynamodb:(Scan|Query|(Update|Put|Get|Delete)Item|BatchWriteItem|.*TableReplica)": (
        "for replicas in other regions"
    ),
    r"dynamodb:(Import|DescribeImport)|s3:GetObject": "the table is not imported",
    r"dynamodb:(Put|Delete)ResourcePolicy|dynamodb:UpdateContributorInsights": "it has none",
    r"logs:(Put|Delete)(DataProtection|Resource|Index)Policy|logs:CreateLogDelivery": (
        "the log group has none"
    ),
    r"logs:PutLogGroupDeletionProtection|logs:PutBearerTokenAuthentication": "not switched on",
    r"logs:(DescribeLogStreams|CreateLogStream|PutLogEvents)": "for the import's log",
    r"firehose:|s3:REST\.": "logs are delivered nowhere",
    r"s3tables:|s3:(Create|Update|Delete)BucketMetadata": "no tables in the bucket",
    r"s3:Put(BucketAbac|Analytics|Inventory|Metrics|Replication|Accelerate|IntelligentTiering)": (
        "the bucket has none"
    ),
    r"s3:PutBucket(CORS|Notification|Replication|Website|ObjectLock|Logging|Versioning|Acl)": (
        "the bucket has none"
    ),
    r"s3:Put(ObjectAcl|ObjectLockConfiguration)|s3:DeleteObject": "its objects are the flows'",
    r"s3:DeleteBucket(Website|Analytics|Cors|Metrics|Encryption|Lifecycle|Replication|Tagging)": (
        "no actions of IAM, or the bucket has none"
    ),
    r"sns:PutDataProtectionPolicy": "the topic has none",
    r"iam:(Put|Delete)RolePermissionsBoundary": "the roles have none",
    r"ecs:PutAccountSetting": "the account's settings are not ours",
}


def load_policy(name: str) -> Any:
    return json.loads((PROJECT / ".chalice" / f"policy-{name}-dev.json").read_text())


def as_list(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


STATEMENTS = load_policy("provision")["Statement"]
ALLOWED = {action for statement in STATEMENTS for action in as_list(statement["Action"])}
TYPES = sorted({resource["Type"] for resource in infra.load("stack.json")["Resources"].values()})


def wanted_by(resource_type: str) -> set[str]:
    """What the handlers of a resource type want, by its schema."""
    place = json.loads((SCHEMAS / "providers" / f"{REGION}.json").read_text())[resource_type]
    schema = json.loads((SCHEMAS / "resources" / f"{place}.json").read_text())
    handlers = {name: told for name, told in schema["handlers"].items() if name != "list"}
    return {action for told in handlers.values() for action in told["permissions"]}


def reason_for_leaving_out(action: str) -> str | None:
    return next((why for form, why in LEFT_OUT.items() if re.match(form, action)), None)


@pytest.mark.parametrize("resource_type", TYPES)
def test_every_permission_that_the_stack_needs_is_given(resource_type: str) -> None:
    wanted = wanted_by(resource_type)
    assert wanted
    missing = {a for a in wanted - ALLOWED if reason_for_leaving_out(a) is None}
    assert not missing


def test_nothing_that_is_given_is_called_needless() -> None:
    assert not {action for action in ALLOWED if reason_for_leaving_out(action)} - {
        # The function's own log.
        "logs:CreateLogStream",
        "logs:PutLogEvents",
    }


OWN = {
    "cloudformation:CreateStack",
    "cloudformation:DeleteStack",
    "cloudformation:DescribeStackEvents",
    "cloudformation:DescribeStacks",
    "cloudformation:GetTemplate",
    "cloudformation:TagResource",
    "cloudformation:UntagResource",
    "cloudformation:UpdateStack",
    "ec2:DescribeSubnets",
    "ec2:DescribeVpcs",
    "events:ListRuleNamesByTarget",
    "events:ListTargetsByRule",
    "events:PutTargets",
    "lambda:GetFunctionEventInvokeConfig",
    "lambda:PutFunctionEventInvokeConfig",
    "sqs:SendMessage",
    "ssm:GetParameter",
    "logs:CreateLogStream",
    "logs:PutLogEvents",
}
"""What the function calls itself, or Lambda with its rights."""

OF_TAGS = {"ecs:ListTagsForResource", "iam:ListRoleTags", "s3:GetBucketTagging"}
"""CloudFormation's, for the stack's tag on every resource."""


def test_nothing_more_is_given_than_the_function_and_the_stack_need() -> None:
    needed = {action for kind in TYPES for action in wanted_by(kind)}
    assert ALLOWED - needed == {action for action in OWN | OF_TAGS if action not in needed}


def test_only_what_takes_no_resource_is_given_on_all() -> None:
    on_all = {
        action
        for statement in STATEMENTS
        for action in as_list(statement["Action"])
        if "*" in as_list(statement["Resource"])
    }
    assert on_all == {
        "ec2:DescribeInstances",
        "ec2:DescribeSecurityGroups",
        "ec2:DescribeSubnets",
        "ec2:DescribeVpcs",
        "ecs:DeregisterTaskDefinition",
        "ecs:DescribeTaskDefinition",
        "events:ListRuleNamesByTarget",
        "logs:DescribeIndexPolicies",
        "logs:DescribeLogGroups",
        "logs:DescribeResourcePolicies",
        "sns:GetSubscriptionAttributes",
        "sns:SetSubscriptionAttributes",
        "sns:Unsubscribe",
    }


def test_every_other_resource_is_one_of_the_stages() -> None:
    named = {r for s in STATEMENTS for r in as_list(s["Resource"]) if r != "*"}
    strangers = {r for r in named if not re.search(r"prefect-spot[-/]dev\b", r)}
    assert strangers == {
        # A security group has no name that a policy could ask for.
        "arn:aws:ec2:*:*:security-group/*",
        "arn:aws:ec2:*:*:security-group-rule/*",
        "arn:aws:ec2:*:*:vpc/*",
        "arn:aws:iam::*:role/aws-service-role/ecs.amazonaws.com/AWSServiceRoleForECS*",
    }


def test_it_cannot_give_itself_more_rights() -> None:
    """The Lambdas' own roles are called like the stack's: each of those is named in full."""
    for statement in STATEMENTS:
        for resource in as_list(statement["Resource"]):
            if resource.startswith("arn:aws:iam::*:role/prefect-spot-dev"):
                assert resource.rpartition("-")[2] in ("execution", "flow", "worker")


def statement_with(action: str) -> Any:
    [found] = [s for s in STATEMENTS if action in as_list(s["Action"])]
    return found


def test_roles_are_passed_to_ecs_tasks_and_to_nobody_else() -> None:
    condition = statement_with("iam:PassRole")["Condition"]
    assert condition == {"StringEquals": {"iam:PassedToService": "ecs-tasks.amazonaws.com"}}
    service = statement_with("iam:CreateServiceLinkedRole")["Condition"]
    assert service == {"StringEquals": {"iam:AWSServiceName": "ecs.amazonaws.com"}}
    managed = statement_with("iam:AttachRolePolicy")["Condition"]["ArnEquals"]["iam:PolicyARN"]
    assert managed.endswith("/AmazonECSTaskExecutionRolePolicy")


def test_it_fits_into_a_roles_inline_policies() -> None:
    assert len(json.dumps(load_policy("provision"), separators=(",", ":"))) < 10_240


@pytest.mark.parametrize("name", ["react", "meter", "sweep", "provision"])
def test_every_function_may_send_what_it_could_not_handle_to_the_failure_queue(name: str) -> None:
    """Lambda asks for it when the on-failure destination is set."""
    sends = [s for s in load_policy(name)["Statement"] if "sqs:SendMessage" in as_list(s["Action"])]
    assert [s["Resource"] for s in sends] == ["arn:aws:sqs:*:*:prefect-spot-dev-failures"]
