"""The IAM policies: each stage's own names, and what `provision` may do.

CloudFormation acts with the permissions of `provision`. Each resource type's schema lists what its
handlers need; what is left out here has its reason beside it.
"""

import inspect
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import cfnlint
import pytest
from botocore import xform_name
from chalice import awsclient

import infra
from chalicelib.core.provision.model import SCHEDULED, TEMPLATE_TAG
from chalicelib.errors import SettingError
from chalicelib.settings import FUNCTIONS, stack_parameters
from localcloud.deployment import PROJECT
from spotctl.policies import DEPLOYER, TEARDOWN, policy_of, write_policies
from spotctl.project import Project, read_project
from tests.unit import stack_template as stack
from tests.unit.iam import as_list, is_allowed, matches

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
    assert "$" not in policy.replace("${aws:", "")
    own = ("spot-of-the-team", "prefect-spot-prod", "parameter/team/prefect")
    for resource in resources_of(policy):
        is_any = resource == "*" or resource.startswith(
            ("arn:*:ec2:", "arn:*:iam::*:role/aws", "arn:*:iam::*:role/AWSS")
        )
        assert is_any or any(part in resource for part in own), resource


def test_writing_a_stages_policies_leaves_the_others_alone(tmp_path: Path) -> None:
    project = read_project(with_prod(tmp_path), "prod")
    written = {path.name for path in write_policies(project)}
    assert written == {f"policy-{name}-prod.json" for name in (*FUNCTIONS, DEPLOYER, TEARDOWN)}
    assert write_policies(project) == []
    assert write_policies(read_project(tmp_path, "dev")) == []


def test_every_cluster_is_named_where_one_is(tmp_path: Path) -> None:
    clusters = "etl,arn:aws:ecs:us-east-1:111122223333:cluster/ml"
    folder = with_prod(tmp_path, ECS_CLUSTER=clusters, PROVISION="rescue-only")
    resources = resources_of(policy_of(read_project(folder, "prod"), "react"))
    assert "arn:*:ecs:*:*:task/etl/*" in resources
    assert "arn:*:ecs:*:*:task/ml/*" in resources


@pytest.mark.parametrize(
    "settings",
    [
        {"ECS_CLUSTER": "etl-*"},
        {"ECS_CLUSTER": "etl,ml?"},
        {"PREFECT_API_AUTH_STRING_PARAMETER": "team/*"},
        {"WORK_POOL": "etl ${aws:username}"},
    ],
)
def test_a_name_that_iam_reads_as_a_pattern_is_refused(
    tmp_path: Path, settings: dict[str, str]
) -> None:
    folder = with_prod(tmp_path, **{"PROVISION": "rescue-only", **settings})
    with pytest.raises(SettingError, match=r"PARAMETER|reads as a pattern"):
        write_policies(read_project(folder, "prod"))


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
    r"ec2:\w+SecurityGroup(Rule)?(Descriptions)?Ingress": "the group lets nobody in",
    r"ec2:UpdateSecurityGroupRuleDescriptionsEgress": "its one rule keeps its description",
    r"ecs:PutAccountSetting": "the account's settings are not ours",
}


STATEMENTS = statements_of(policy_of(DEV, "provision"))
GIVEN = {action for statement in STATEMENTS for action in as_list(statement["Action"])}
TYPES = sorted({resource["Type"] for resource in infra.load("stack.json")["Resources"].values()})


def wanted_by(resource_type: str, *only: str) -> set[str]:
    """The permissions of a resource type's handlers (`only` those), by its schema."""
    place = json.loads((SCHEMAS / "providers" / f"{REGION}.json").read_text())[resource_type]
    schema = json.loads((SCHEMAS / "resources" / f"{place}.json").read_text())
    handlers = [
        handler
        for name, handler in schema["handlers"].items()
        if (name in only if only else name != "list")
    ]
    return {action for handler in handlers for action in handler["permissions"]}


OF_TAGS = {"ecs:ListTagsForResource", "iam:ListRoleTags", "s3:GetBucketTagging"}
"""CloudFormation's, for the stack's tag on every resource."""


def allowed_of(given: set[str]) -> set[str]:
    """Actions in full: a pattern stands for what the stack's types want of it, and only reads."""
    patterns = {each for each in given if "*" in each}
    assert all(re.match(r"\w+:(Get|Describe|List)", each) for each in patterns)
    wanted = {action for kind in TYPES for action in wanted_by(kind)} | OF_TAGS
    meant = {action for action in wanted if any(matches(each, action) for each in patterns)}
    return given - patterns | meant


def reason_for_leaving_out(action: str) -> str | None:
    return next((why for form, why in LEFT_OUT.items() if re.match(form, action)), None)


ALLOWED = allowed_of(GIVEN)


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
    events="ListTargetsByRule PutTargets",
    logs="CreateLogStream DescribeLogGroups PutLogEvents PutRetentionPolicy",
    ssm="GetParameter",
    **{
        "lambda": "GetAccountSettings GetFunctionConcurrency GetFunctionEventInvokeConfig"
        " PutFunctionConcurrency PutFunctionEventInvokeConfig"
    },
)
"""What the function calls itself, or Lambda with its rights."""


def test_nothing_more_is_given_than_the_function_and_the_stack_need() -> None:
    needed = {action for kind in TYPES for action in wanted_by(kind)}
    assert ALLOWED - needed == {action for action in OWN | OF_TAGS if action not in needed}


BY_CLOUDFORMATION = {"ForAnyValue:StringEquals": {"aws:CalledVia": "cloudformation.amazonaws.com"}}
IN_ITS_CLUSTER = {
    "ecs:ListTasks": {"ArnLike": {"ecs:cluster": "arn:*:ecs:*:*:cluster/prefect-spot-dev"}}
}
ON_ALL = {
    "provision": {
        **dict.fromkeys(
            actions(
                ec2="DescribeInstances DescribeSecurityGroups DescribeSubnets DescribeVpcs",
                cloudwatch="DescribeAlarms",
                **{"lambda": "GetAccountSettings"},
                ecs="DescribeTaskDefinition",
                logs="DescribeIndexPolicies DescribeLogGroups DescribeResourcePolicies",
                sns="GetSubscriptionAttributes",
            )
        ),
        **dict.fromkeys(
            actions(
                ecs="DeregisterTaskDefinition RegisterTaskDefinition",
                sns="SetSubscriptionAttributes Unsubscribe",
            ),
            BY_CLOUDFORMATION,
        ),
    },
    "sweep": IN_ITS_CLUSTER,
    DEPLOYER: {
        **dict.fromkeys(
            actions(
                ecs="DescribeTaskDefinition",
                events="ListRuleNamesByTarget ListRules",
                logs="DescribeLogGroups",
                ssm="DescribeParameters",
            )
        ),
        **IN_ITS_CLUSTER,
    },
}


@pytest.mark.parametrize("name", [*FUNCTIONS, DEPLOYER])
def test_only_what_takes_no_resource_is_given_on_all_and_a_change_to_cloudformation_alone(
    name: str,
) -> None:
    """CloudFormation changes what is the stack's, so no other stage's."""
    on_all = {
        action: statement.get("Condition")
        for statement in statements_of(policy_of(DEV, name))
        for action in as_list(statement["Action"])
        if "*" in as_list(statement["Resource"])
    }
    assert on_all == ON_ALL.get(name, {})


def test_only_react_and_sweep_get_a_concurrency() -> None:
    """Of itself, `provision` could take away by which a teardown holds it."""
    for function in FUNCTIONS:
        arn = f"arn:aws:lambda:{REGION}:123456789012:function:prefect-spot-dev-{function}"
        may = [
            is_allowed(STATEMENTS, f"lambda:{verb}FunctionConcurrency", arn, {})
            for verb in ("Get", "Put")
        ]
        assert may == [True, function in ("react", "sweep")]
    assert not any("DeleteFunctionConcurrency" in action for action in GIVEN)


def test_every_other_resource_is_one_of_the_stages() -> None:
    named = {r for s in STATEMENTS for r in as_list(s["Resource"]) if r != "*"}
    strangers = {r for r in named if not re.search(r"prefect-spot[-/]dev\b", r)}
    assert strangers == {
        # A security group has no name that a policy could ask for.
        "arn:*:ec2:*:*:security-group/*",
        "arn:*:ec2:*:*:security-group-rule/*",
        "arn:*:ec2:*:*:vpc/*",
        # Before the role exists, IAM may read its name without the path: reported both ways.
        "arn:*:iam::*:role/aws-service-role/ecs.amazonaws.com/AWSServiceRoleForECS",
        "arn:*:iam::*:role/AWSServiceRoleForECS",
    }


def test_a_security_group_is_changed_only_where_it_is_the_stacks_and_lets_nobody_in() -> None:
    """CloudFormation sets the tag, with the group; no user can."""
    own = {"StringEquals": {"aws:ResourceTag/aws:cloudformation:stack-name": DEV.stack}}
    at_birth = {"StringEquals": {"ec2:CreateAction": "CreateSecurityGroup"}}
    of_groups = [
        (set(as_list(statement["Action"])), statement.get("Condition"))
        for statement in STATEMENTS
        if "arn:*:ec2:*:*:security-group/*" in as_list(statement["Resource"])
    ]
    assert {actions.pop() for actions, c in of_groups if c is None} == {"ec2:CreateSecurityGroup"}
    assert {actions.pop() for actions, c in of_groups if c == at_birth} == {"ec2:CreateTags"}
    assert [c for _, c in of_groups if c not in (None, at_birth)] == [own]
    assert not any("Ingress" in action for action in ALLOWED)


@pytest.mark.parametrize("name", [*FUNCTIONS, DEPLOYER])
def test_rescue_only_may_change_nothing_of_your_own_cluster_network_or_roles(
    tmp_path: Path, name: str
) -> None:
    folder = with_prod(tmp_path, ECS_CLUSTER="etl", PROVISION="rescue-only")
    statements = statements_of(policy_of(read_project(folder, "prod"), name))
    given = {action for statement in statements for action in as_list(statement["Action"])}
    if name == "provision":
        with_email = stack.resources(stack.rescue_only(AlarmEmail="team@example.com"))
        types = {resource["Type"] for resource in with_email.values()}
        needed = {action for kind in types for action in wanted_by(kind)} | OWN | OF_TAGS
        assert allowed_of(given) <= needed
        assert not {a.partition(":")[0] for a in given} & {"ec2", "ecs", "iam", "s3"}
    changes = {a for a in given if a.startswith(("ecs:", "ec2:", "s3:"))} - {"ecs:StopTask"}
    assert all(re.match(r"\w+:(Describe|List)", action) for action in changes)


def test_without_a_credential_no_parameter_may_be_read(tmp_path: Path) -> None:
    project = read_project(with_prod(tmp_path, PREFECT_API_AUTH_STRING_PARAMETER=""), "prod")
    for name in (*FUNCTIONS, DEPLOYER):
        assert "ssm:GetParameter" not in policy_of(project, name)


# One stage beside another, whose name may begin with the first one's.

AWS_ARNS = {
    "AWS::CloudWatch::Alarm": "cloudwatch:{region}:{account}:alarm:{AlarmName}",
    "AWS::CloudWatch::Dashboard": "cloudwatch::{account}:dashboard/{DashboardName}",
    "AWS::DynamoDB::Table": "dynamodb:{region}:{account}:table/{TableName}",
    "AWS::ECS::Cluster": "ecs:{region}:{account}:cluster/{ClusterName}",
    "AWS::ECS::TaskDefinition": "ecs:{region}:{account}:task-definition/{Family}:7",
    "AWS::IAM::Role": "iam::{account}:role/{RoleName}",
    "AWS::Logs::LogGroup": "logs:{region}:{account}:log-group:{LogGroupName}",
    "AWS::S3::Bucket": "s3:::{BucketName}",
    "AWS::SNS::Topic": "sns:{region}:{account}:{TopicName}",
    "AWS::SQS::Queue": "sqs:{region}:{account}:{QueueName}",
}
WITHOUT_A_STACKS_TAG = {f"aws:ResourceTag/{TEMPLATE_TAG}": "true"}
PLACE = {"region": stack.REGION, "account": stack.ACCOUNT}


def project_of(folder: Path, stage: str) -> Project:
    """A stage with all its names by default."""
    changes = {"STAGE": stage, "PREFECT_API_KEY_PARAMETER": f"/prefect-spot/{stage}/api-key"}
    return replace(read_project(folder, "dev", changes), stage=stage)


def template_of(project: Project) -> Any:
    """The stack's resources, resolved."""
    network = {"VpcId": "vpc-1", "SubnetIds": "subnet-1"}
    return stack.resources({**stack_parameters(project.settings), **network}).values()


def resolved(pattern: str) -> str:
    """A resource as AWS reads it, where `aws:…` stands for what the caller asks."""
    place = {"PrincipalAccount": stack.ACCOUNT, "RequestedRegion": stack.REGION}
    return re.sub(r"\$\{aws:(\w+)\}", lambda found: place[found[1]], pattern).replace(
        "arn:*:", "arn:aws:"
    )


def of_policies(project: Project) -> list[Any]:
    """All statements that say what the stage's functions, roles and deployer may do."""
    own = [s for n in (*FUNCTIONS, DEPLOYER) for s in statements_of(policy_of(project, n))]
    of_roles = [
        statement
        for made in template_of(project)
        for policy in made["Properties"].get("Policies", ())
        for statement in policy["PolicyDocument"]["Statement"]
    ]
    allow = [s for s in (*own, *of_roles) if s["Effect"] == "Allow"]
    return [s for s in allow if s.get("Condition", {}).get("Null") != WITHOUT_A_STACKS_TAG]


def made_by_stack(project: Project) -> set[str]:
    return {
        f"arn:aws:{AWS_ARNS[made['Type']].format(**PLACE, **made['Properties'])}"
        for made in template_of(project)
        if made["Type"] in AWS_ARNS
    }


def arns_of(project: Project) -> set[str]:
    """All that a stage has: the stack's resources, and what its own policies name."""
    named = {
        re.sub(r"(arn:aws:\w+):\*", rf"\1:{stack.REGION}", resolved(resource))
        .replace(":*:", f":{stack.ACCOUNT}:", 1)
        .replace("*", "any")
        for name in (*FUNCTIONS, DEPLOYER)
        for resource in resources_of(policy_of(project, name))
        if project.stage in resource
    }
    return made_by_stack(project) | named


def suffixes() -> list[str]:
    """How another stage's name may go on: as any name of ours does, and otherwise."""
    mine = f"prefect-spot-{DEV.stage}-"
    goes_on = {arn.partition(mine)[2] for arn in arns_of(DEV) if mine in arn}
    words = {
        re.split(r"[:/.]", text)[0].removesuffix(f"-{stack.ACCOUNT}-{REGION}") for text in goes_on
    }
    parts = {word.rsplit("-", cut)[0] for word in words for cut in range(word.count("-") + 1)}
    return sorted(
        {f"-{part}" for part in parts if len(part) < 12} | {"-eu", "2", "-", "_eu", "-results-x"}
    )


@pytest.mark.parametrize("suffix", suffixes())
def test_no_policy_of_a_stage_reaches_one_whose_name_begins_alike(suffix: str) -> None:
    shorter, longer = project_of(PROJECT, "p"), project_of(PROJECT, f"p{suffix}".replace("_", "-"))
    for one, other in ((shorter, longer), (longer, shorter)):
        patterns = {
            resolved(resource)
            for statement in of_policies(one)
            for resource in as_list(statement["Resource"])
            if resource != "*" and not resource.startswith("arn:*:ec2:")
        }
        assert len(patterns) > 30
        others = arns_of(other)
        assert len(others) > 40
        reached = [(p, arn) for p in patterns for arn in others if matches(p, arn)]
        assert reached == []


def test_a_stages_own_policies_reach_all_that_its_stack_makes() -> None:
    """What makes the property above more than empty."""
    project = project_of(PROJECT, "p")
    patterns = [resolved(r) for r in resources_of(policy_of(project, "provision")) if r != "*"]
    made = made_by_stack(project)
    assert len(made) > 15
    assert {arn for arn in made if not any(matches(p, arn) for p in patterns)} == set()


# What the deployer may do.

BY_CHALICE = Path(inspect.getfile(awsclient)).read_text()
BY_US = "".join(
    p.read_text() for room in ("spotctl", "chalicelib") for p in (PROJECT / room).rglob("*.py")
)
CALLED_OTHERWISE = {
    "iam:PassRole": "with CreateFunction",
    "lambda:InvokeFunction": "called invoke",
    "s3:DeleteObject": "called delete_objects",
    "s3:DeleteObjectVersion": "called delete_objects",
    "s3:ListBucketVersions": "called list_object_versions",
}


@pytest.mark.parametrize(
    "action",
    sorted({a for s in statements_of(policy_of(DEV, DEPLOYER)) for a in as_list(s["Action"])}),
)
def test_the_deployer_may_do_nothing_that_neither_chalice_nor_spotctl_calls(action: str) -> None:
    operation = CALLED_OTHERWISE.get(action, "").removeprefix("called ")
    operation = operation or xform_name(action.partition(":")[2])
    if not operation.startswith("with "):
        assert re.search(rf"\b{operation}\b", BY_CHALICE + BY_US)


def test_it_cannot_give_itself_more_permissions() -> None:
    """The Lambdas' own roles are called like the stack's: each of those is named in full."""
    for statement in STATEMENTS:
        for resource in as_list(statement["Resource"]):
            if resource.startswith("arn:*:iam::*:role/prefect-spot-dev"):
                assert resource.rpartition("-")[2] in ("execution", "flow", "worker")


BOUNDARY = "arn:aws:iam::123456789012:policy/boundary"
KEY = "arn:aws:kms:us-east-1:123456789012:key/1"
OF_FLOWS = [
    "arn:aws:iam::aws:policy/AmazonAthenaFullAccess",
    "arn:aws:iam::123456789012:policy/mine",
]


def test_with_a_boundary_no_role_is_created_without_it() -> None:
    bounded = read_project(PROJECT, "dev", {"PERMISSIONS_BOUNDARY_ARN": BOUNDARY})
    statements = statements_of(policy_of(bounded, "provision"))
    role = "arn:aws:iam::123456789012:role/prefect-spot-dev-flow"
    for action in ("iam:CreateRole", "iam:PutRolePermissionsBoundary"):
        assert is_allowed(statements, action, role, {"iam:PermissionsBoundary": BOUNDARY})
        for about in ({}, {"iam:PermissionsBoundary": f"{BOUNDARY}-2"}):
            assert not is_allowed(statements, action, role, about)
    assert not any("DeleteRolePermissionsBoundary" in str(s) for s in statements)
    assert is_allowed(STATEMENTS, "iam:CreateRole", role, {})


def test_only_the_named_policies_are_attached_to_the_flows_role() -> None:
    named = read_project(PROJECT, "dev", {"FLOW_POLICY_ARNS": ",".join(OF_FLOWS)})
    statements = statements_of(policy_of(named, "provision"))
    flow = "arn:aws:iam::123456789012:role/prefect-spot-dev-flow"
    admin = "arn:aws:iam::aws:policy/AdministratorAccess"
    for policy in (*OF_FLOWS, admin):
        about = {"iam:PolicyARN": policy}
        is_named = policy != admin
        assert is_allowed(statements, "iam:AttachRolePolicy", flow, about) is is_named
        assert not is_allowed(STATEMENTS, "iam:AttachRolePolicy", flow, about)
        other = flow.replace("flow", "worker")
        assert not is_allowed(statements, "iam:AttachRolePolicy", other, about)
        assert is_allowed(STATEMENTS, "iam:DetachRolePolicy", flow, about)


@pytest.mark.parametrize("name", [*FUNCTIONS, DEPLOYER])
def test_a_key_of_your_own_decrypts_the_credential_and_nothing_else(name: str) -> None:
    statements = statements_of(policy_of(read_project(PROJECT, "dev", {"KMS_KEY_ARN": KEY}), name))
    parameter = "arn:aws:ssm:us-east-1:123456789012:parameter/prefect-spot/dev/api-key"
    context = "kms:EncryptionContext:PARAMETER_ARN"
    about = {"kms:ViaService": "ssm.us-east-1.amazonaws.com", context: parameter}
    assert is_allowed(statements, "kms:Decrypt", KEY, about)
    for key, other in ((KEY, {context: f"{parameter}-2"}), (f"{KEY}2", {}), (KEY, {context: ""})):
        assert not is_allowed(statements, "kms:Decrypt", key, {**about, **other})
    assert "kms:" not in policy_of(DEV, name)


def in_vpc(folder: Path, *functions: str) -> Project:
    """Stage dev with these functions in a VPC; without names, all."""
    shutil.copytree(PROJECT / ".chalice", folder / ".chalice")
    path = folder / ".chalice" / "config.json"
    config: dict[str, Any] = json.loads(path.read_text())
    stage = config["stages"]["dev"]
    places = [stage["lambda_functions"][name] for name in functions] or [stage]
    for place in places:
        place.update(subnet_ids=["subnet-12345678"], security_group_ids=["sg-12345678"])
    path.write_text(json.dumps(config))
    return read_project(folder, "dev")


@pytest.mark.parametrize("only", [(), ("react",)], ids=["all of the stage", "one function"])
def test_lambda_makes_the_interfaces_of_a_function_in_a_vpc_and_its_code_may_not(
    tmp_path: Path, only: tuple[str, ...]
) -> None:
    project = in_vpc(tmp_path, *only)
    for name in FUNCTIONS:
        is_in = name in (only or FUNCTIONS)
        statements = statements_of(policy_of(project, name))
        arn = f"arn:aws:lambda:us-east-1:123456789012:function:prefect-spot-dev-{name}"
        by_code = {"lambda:SourceFunctionArn": arn}
        for verb in ("Create", "Delete"):
            action = f"ec2:{verb}NetworkInterface"
            assert is_allowed(statements, action, "*", {}) is is_in
            assert not is_allowed(statements, action, "*", by_code)
            assert action not in policy_of(DEV, name)
    assert is_allowed(statements_of(policy_of(project, DEPLOYER)), "ec2:DescribeSubnets", "*", {})
    assert "ec2:" not in policy_of(DEV, DEPLOYER)


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


@pytest.mark.parametrize("resource_type", TYPES)
def test_the_teardown_policy_lets_cloudformation_delete_all_that_it_made(
    resource_type: str,
) -> None:
    statements = statements_of(policy_of(DEV, TEARDOWN))
    given = allowed_of({a for statement in statements for a in as_list(statement["Action"])})
    passes_nothing = {"iam:PassRole", "iam:TagRole", "iam:UntagRole"}
    assert wanted_by(resource_type, "delete") & ALLOWED - passes_nothing <= given
    assert given < ALLOWED
    assert not any(re.search(r":(Create|Put|Attach|Pass|Register|Run)", each) for each in given)


def with_everything(folder: Path) -> Project:
    """A stage with long names, and every setting that lengthens a policy."""
    in_vpc(folder)
    stage = "production-eu"
    many = ",".join(f"arn:aws:iam::123456789012:policy/flows/{each:030}" for each in range(3))
    changes = {
        "STAGE": stage,
        "STACK_NAME": "s" * 27,
        "ECS_CLUSTER": "c" * 16,
        "PREFECT_API_KEY_PARAMETER": "/prefect/" + "p" * 40,
        "PREFECT_CUSTOM_HEADERS_PARAMETER": "/prefect/headers",
        "PREFECT_CA_CERTIFICATE_PARAMETER": "/prefect/ca",
        "KMS_KEY_ARN": "arn:aws:kms:eu-central-1:123456789012:key/" + "k" * 36,
        "PERMISSIONS_BOUNDARY_ARN": "arn:aws:iam::123456789012:policy/" + "b" * 60,
        "FLOW_POLICY_ARNS": many,
    }
    return replace(read_project(folder, "dev", changes), stage=stage)


@pytest.mark.parametrize(
    ("name", "most"),
    [(DEPLOYER, 6_144), (TEARDOWN, 6_144), *((function, 10_240) for function in FUNCTIONS)],
)
def test_a_policy_fits_where_it_is_attached_whatever_the_settings(
    tmp_path: Path, name: str, most: int
) -> None:
    """A managed policy, and a role's inline policies: IAM user guide, "IAM and AWS STS quotas",
    where white space does not count."""
    for project in (DEV, with_everything(tmp_path)):
        policy = json.loads(policy_of(project, name))
        assert len(json.dumps(policy, separators=(",", ":"))) <= most


@pytest.mark.parametrize("name", [*FUNCTIONS, DEPLOYER, TEARDOWN])
def test_a_policy_holds_in_every_partition(name: str) -> None:
    """`arn:*:` as in AWS's own managed policies, such as AmazonMSKFullAccess."""
    policy = policy_of(DEV, name)
    assert "arn:aws" not in policy
    for partition in ("aws-cn", "aws-us-gov"):
        log = f"arn:{partition}:dynamodb:x:123456789012:table/prefect-spot-dev"
        assert any(matches(resource, log) for resource in resources_of(policy))
    assert "arn:aws:" not in json.dumps(infra.load("stack.json"))


def test_a_policy_that_iam_would_refuse_is_refused_with_the_settings_that_shorten_it() -> None:
    many = ",".join(f"arn:aws:iam::123456789012:policy/{each:0100}" for each in range(10))
    changes = {"FLOW_POLICY_ARNS": many, "STACK_NAME": "s" * 27, "ECS_CLUSTER": "c" * 255}
    project = read_project(PROJECT, "dev", changes)
    with pytest.raises(SettingError, match=r"of provision has \d+ .* takes 10240.*FLOW_POLICY"):
        policy_of(project, "provision")


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_of_events_may_send_what_it_could_not_handle_to_the_failure_queue(
    name: str,
) -> None:
    """Lambda asks for it when the on-failure destination is set; a schedule's function has none."""
    statements = statements_of(policy_of(DEV, name))
    sends = [s for s in statements if "sqs:SendMessage" in as_list(s["Action"])]
    queues = [] if name in SCHEDULED else ["arn:*:sqs:*:*:prefect-spot-dev-failures"]
    assert [s["Resource"] for s in sends] == queues
