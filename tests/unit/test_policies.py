"""The IAM policies: each stage's own names, and what `provision` may do.

CloudFormation acts with the permissions of `provision`. Each resource type's schema lists what its
handlers need; what is left out here has its reason beside it.
"""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import cfnlint
import pytest

import infra
from chalicelib.errors import SettingError
from chalicelib.settings import FUNCTIONS
from localcloud.deployment import PROJECT
from spotctl.policies import DEPLOYER, policy_of, write_policies
from spotctl.project import read_project

PROD = {
    "STAGE": "prod",
    "PREFECT_API_URL": "https://prefect.example.com/api",
    "PREFECT_API_AUTH_STRING_PARAMETER": "team/prefect",
    "STACK_NAME": "spot-of-the-team",
}


def with_prod(folder: Path, file: str = "policy-{}-prod.json", **settings: str) -> Path:
    """Copy the config, with a second stage in it; `file`: its functions' policies."""
    shutil.copytree(PROJECT / ".chalice", folder / ".chalice")
    path = folder / ".chalice" / "config.json"
    config: dict[str, Any] = json.loads(path.read_text())
    of_dev = config["stages"]["dev"]
    config["stages"]["prod"] = {
        **of_dev,
        "lambda_functions": {
            name: {**function, "iam_policy_file": file.format(name)}
            for name, function in of_dev["lambda_functions"].items()
        },
        "environment_variables": {**PROD, **settings},
    }
    path.write_text(json.dumps(config))
    return folder


def as_list(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


def statements_of(policy: str) -> Any:
    return json.loads(policy)["Statement"]


def resources_of(policy: str) -> list[str]:
    return [r for statement in statements_of(policy) for r in as_list(statement["Resource"])]


def test_the_committed_files_are_made_of_the_templates(tmp_path: Path) -> None:
    shutil.copytree(PROJECT / ".chalice", tmp_path / ".chalice")
    written = write_policies(read_project(tmp_path, "dev"))
    assert written == [], "run .venv/bin/python -m tools.policies"


@pytest.mark.parametrize("name", [*FUNCTIONS, DEPLOYER])
def test_another_stage_has_its_own_names_everywhere(tmp_path: Path, name: str) -> None:
    policy = policy_of(read_project(with_prod(tmp_path), "prod"), name)
    assert "dev" not in policy
    assert "$" not in policy
    own = ("spot-of-the-team", "prefect-spot-prod", "parameter/team/prefect")
    for resource in resources_of(policy):
        is_any = resource == "*" or resource.startswith(("arn:aws:ec2:", "arn:aws:iam::*:role/aws"))
        assert is_any or any(part in resource for part in own), resource


def test_writing_a_stages_policies_leaves_the_others_alone(tmp_path: Path) -> None:
    project = read_project(with_prod(tmp_path), "prod")
    written = {path.name for path in write_policies(project)}
    assert written == {f"policy-{name}-prod.json" for name in (*FUNCTIONS, DEPLOYER)}
    assert write_policies(project) == []
    assert write_policies(read_project(tmp_path, "dev")) == []


def test_every_cluster_is_named_where_one_is(tmp_path: Path) -> None:
    clusters = "etl,arn:aws:ecs:us-east-1:111122223333:cluster/ml"
    folder = with_prod(tmp_path, ECS_CLUSTER=clusters, PROVISION="rescue-only")
    resources = resources_of(policy_of(read_project(folder, "prod"), "react"))
    assert "arn:aws:ecs:*:*:task/etl/*" in resources
    assert "arn:aws:ecs:*:*:task/ml/*" in resources


@pytest.mark.parametrize(
    ("file", "why"),
    [
        ("policy-{}-dev.json", r"share policy-react-dev\.json.*policy-react-prod"),
        ("", r"no iam_policy_file for react.*policy-react-prod"),
    ],
    ids=["shared with another stage", "none"],
)
def test_each_function_of_a_stage_needs_a_file_of_its_own(
    tmp_path: Path, file: str, why: str
) -> None:
    with pytest.raises(SettingError, match=why):
        write_policies(read_project(with_prod(tmp_path, file), "prod"))


# What `provision` may do.

SCHEMAS = Path(str(cfnlint.__file__)).parent / "data" / "schemas"
REGION = "us-east-1"
DEV = read_project(PROJECT, "dev")

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


STATEMENTS = statements_of(policy_of(DEV, "provision"))
ALLOWED = {action for statement in STATEMENTS for action in as_list(statement["Action"])}
TYPES = sorted({resource["Type"] for resource in infra.load("stack.json")["Resources"].values()})


def wanted_by(resource_type: str) -> set[str]:
    """The permissions of a resource type's handlers, by its schema."""
    place = json.loads((SCHEMAS / "providers" / f"{REGION}.json").read_text())[resource_type]
    schema = json.loads((SCHEMAS / "resources" / f"{place}.json").read_text())
    handlers = [handler for name, handler in schema["handlers"].items() if name != "list"]
    return {action for handler in handlers for action in handler["permissions"]}


def reason_for_leaving_out(action: str) -> str | None:
    return next((why for form, why in LEFT_OUT.items() if re.match(form, action)), None)


@pytest.mark.parametrize("resource_type", TYPES)
def test_every_permission_that_the_stack_needs_is_given(resource_type: str) -> None:
    wanted = wanted_by(resource_type)
    assert wanted
    missing = {a for a in wanted - ALLOWED if reason_for_leaving_out(a) is None}
    assert not missing


def actions(**by_service: str) -> set[str]:
    return {f"{service}:{a}" for service, names in by_service.items() for a in names.split()}


OWN = actions(
    cloudformation="CreateStack DeleteStack DescribeStackEvents DescribeStacks GetTemplate"
    " TagResource UntagResource UpdateStack",
    ec2="DescribeSubnets DescribeVpcs",
    events="ListRuleNamesByTarget ListTargetsByRule PutTargets",
    logs="CreateLogStream DescribeLogGroups PutLogEvents PutRetentionPolicy",
    sqs="SendMessage",
    ssm="GetParameter",
) | {"lambda:GetFunctionEventInvokeConfig", "lambda:PutFunctionEventInvokeConfig"}
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
    assert on_all == actions(
        ec2="DescribeInstances DescribeSecurityGroups DescribeSubnets DescribeVpcs",
        ecs="DeregisterTaskDefinition DescribeTaskDefinition",
        events="ListRuleNamesByTarget",
        logs="DescribeIndexPolicies DescribeLogGroups DescribeResourcePolicies",
        sns="GetSubscriptionAttributes SetSubscriptionAttributes Unsubscribe",
    )


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


def test_it_cannot_give_itself_more_permissions() -> None:
    """The Lambdas' own roles are called like the stack's: each of those is named in full."""
    for statement in STATEMENTS:
        for resource in as_list(statement["Resource"]):
            if resource.startswith("arn:aws:iam::*:role/prefect-spot-dev"):
                assert resource.rpartition("-")[2] in ("execution", "flow", "worker")


def condition_of(action: str) -> Any:
    [found] = [s["Condition"] for s in STATEMENTS if action in as_list(s["Action"])]
    return found


def test_roles_are_passed_to_ecs_tasks_only() -> None:
    to_tasks = {"iam:PassedToService": "ecs-tasks.amazonaws.com"}
    assert condition_of("iam:PassRole") == {"StringEquals": to_tasks}
    of_ecs = {"iam:AWSServiceName": "ecs.amazonaws.com"}
    assert condition_of("iam:CreateServiceLinkedRole") == {"StringEquals": of_ecs}
    managed = condition_of("iam:AttachRolePolicy")["ArnEquals"]["iam:PolicyARN"]
    assert managed.endswith("/AmazonECSTaskExecutionRolePolicy")


def test_it_fits_into_a_roles_inline_policies() -> None:
    policy = json.loads(policy_of(DEV, "provision"))
    assert len(json.dumps(policy, separators=(",", ":"))) < 10_240


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_may_send_what_it_could_not_handle_to_the_failure_queue(name: str) -> None:
    """Lambda asks for it when the on-failure destination is set."""
    statements = statements_of(policy_of(DEV, name))
    sends = [s for s in statements if "sqs:SendMessage" in as_list(s["Action"])]
    assert [s["Resource"] for s in sends] == ["arn:aws:sqs:*:*:prefect-spot-dev-failures"]
