"""The recorded calls as IAM sees them: action, resource and condition keys.

Source: service authorization reference, "Actions, resources, and condition keys for" each service.
MiniStack's own reading is not used: it asks about the cluster for a task, and has no policy
variables, so those are filled in here.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from localcloud.bootstrap import AUTH_PARAMETER
from localcloud.deployment import PROJECT
from spotctl.policies import DEPLOYER, policy_of
from spotctl.project import Project, read_project
from tests.e2e.command import OPERATOR
from tests.tiers import BUILD
from tests.unit import stack_template as stack

ACCOUNT: Final = stack.ACCOUNT
REGION: Final = stack.REGION
STAGES: Final = ("dev", "prod")
ON_ALL: Final = re.compile(
    r"ec2:Describe|(ecs:(DescribeTaskDefinition|ListTasks)|events:List\w*Rule(s|Names\w*)"
    r"|logs:DescribeLogGroups|ssm:DescribeParameters)$"
)
"""Actions that are allowed or refused as a whole: they take no resource."""

FREE: Final = frozenset({"sts:GetCallerIdentity"})
"""AWS never refuses it."""

RENAMED: Final = {
    "lambda:Invoke": "lambda:InvokeFunction",
    "s3:ListObjectVersions": "s3:ListBucketVersions",
    "s3:ListObjects": "s3:ListBucket",
    "s3:ListObjectsV2": "s3:ListBucket",
    "s3:HeadObject": "s3:GetObject",
    "s3:HeadBucket": "s3:ListBucket",
    "s3:DeleteObjects": "s3:DeleteObject",
}
"""What an operation asks for, where it is not the action of its name."""


@dataclass(frozen=True)
class Call:
    """What a caller asks of IAM; `policies` of `principal` are to judge it."""

    principal: str
    action: str
    resource: str
    context: Mapping[str, str] = field(default_factory=dict, hash=False)

    def __str__(self) -> str:
        return f"{self.principal}: {self.action} on {self.resource} {dict(self.context) or ''}"


def arn(service: str, rest: str, *, region: str = REGION, account: str = ACCOUNT) -> str:
    return rest if rest.startswith("arn:") else f"arn:aws:{service}:{region}:{account}:{rest}"


def recorded() -> set[Call]:
    """What the end-to-end tests were seen to ask; raises AssertionError where none were."""
    files = sorted((BUILD / "calls").glob("*.json"))
    assert {"e2e", "ordinary"} <= {f.stem for f in files}, "first run tests/e2e and tests/system"
    found = {tuple(call) for file in files for call in json.loads(file.read_text())}
    known = policies()
    return {
        call
        for who, operation, named in found
        if who in known and operation not in FREE
        for call in asked(who, operation, json.loads(named))
    }


def asked(who: str, operation: str, named: Mapping[str, Any]) -> Iterator[Call]:
    """What a call asks of IAM: for each of its resources, and for what it passes on."""
    action = RENAMED.get(operation, operation)
    context: dict[str, str] = {}
    if cluster := named.get("cluster"):
        context = {"ecs:cluster": arn("ecs", f"cluster/{cluster}")}
    resources = ["*"] if ON_ALL.match(action) else list(_resources(action, named))
    assert resources, f"which resource does {operation} with {named} need?"
    for wanted, resource in resources_of(action, resources):
        yield Call(who, wanted, resource, context)
    to = {"lambda:CreateFunction": "lambda", "ecs:RunTask": "ecs-tasks"}
    to["ecs:RegisterTaskDefinition"] = "ecs-tasks"
    for name in ("Role", "taskRoleArn", "executionRoleArn"):
        if action in to and name in named:
            passed = {"iam:PassedToService": f"{to[action]}.amazonaws.com"}
            yield Call(who, "iam:PassRole", named[name], passed)
    if action == "ecs:RunTask":  # Prefect tags each task that it runs
        place = named["cluster"].rpartition("/")[2]
        tagging = {"ecs:CreateAction": "RunTask"}
        yield Call(who, "ecs:TagResource", arn("ecs", f"task/{place}/0123"), tagging)


def resources_of(action: str, resources: Sequence[Any]) -> Iterator[tuple[str, str]]:
    """Pairs of action and resource: a transaction asks for each of its writes."""
    for resource in resources:
        if action == "dynamodb:TransactWriteItems":
            kind, table = resource
            yield f"dynamodb:{kind}Item", arn("dynamodb", f"table/{table}")
        else:
            yield action, resource


def _resources(action: str, named: Mapping[str, Any]) -> Iterator[Any]:
    """The ARNs of what a call names."""
    service, _, operation = action.partition(":")
    cluster = str(named.get("cluster", "default")).rpartition("/")[2]
    match service:
        case "dynamodb" if operation == "TransactWriteItems":
            yield from named["TransactItems"]
        case "dynamodb":
            for table in named.get("RequestItems") or [named["TableName"]]:
                yield arn("dynamodb", f"table/{table}")
        case "ecs" if "tasks" in named or "task" in named:
            for task in named.get("tasks") or [named["task"]]:
                yield arn("ecs", task if "/" in task else f"task/{cluster}/{task}")
        case "ecs" if "family" in named:
            yield arn("ecs", f"task-definition/{named['family']}:1")
        case "ecs" if "services" in named or "service" in named:
            for each in named.get("services") or [named["service"]]:
                yield arn("ecs", f"service/{cluster}/{each}")
        case "ecs" if "taskDefinition" in named:
            yield arn("ecs", f"task-definition/{named['taskDefinition']}")
        case "ecs":
            for each in named.get("clusters") or [cluster]:
                yield arn("ecs", f"cluster/{each.rpartition('/')[2]}")
        case "ssm":
            yield arn("ssm", f"parameter/{named['Name'].removeprefix('/')}")
        case "sqs":
            name = named.get("QueueName") or named["QueueUrl"].rpartition("/")[2]
            yield arn("sqs", name)
        case "events":
            yield arn("events", f"rule/{named.get('Rule') or named['Name']}")
        case "cloudformation":
            yield arn("cloudformation", f"stack/{named['StackName']}/0123")
        case "iam" if operation == "CreateServiceLinkedRole":
            path = "role/aws-service-role/ecs.amazonaws.com/AWSServiceRoleForECS"
            yield f"arn:aws:iam::{ACCOUNT}:{path}"
        case "iam":
            yield f"arn:aws:iam::{ACCOUNT}:role/{named['RoleName']}"
        case "logs":
            yield arn("logs", f"log-group:{named['logGroupName']}:*")
        case "s3":
            key = f"/{named['Key']}" if named["Key"] else ""
            if operation == "DeleteObject" and not key:
                key = "/any"
            yield f"arn:aws:s3:::{named['Bucket']}{key}"
        case "lambda":
            found = re.search(r"(?:functions|tags)/([^/]+)", named["path"])
            name = found[1] if found else named["Role"].rpartition("/")[2]  # of CreateFunction
            yield arn("lambda", name if name.startswith("arn:") else f"function:{name}")


def project_of(stage: str) -> Project:
    """A stage as the embedded cloud has it: behind basic auth, whose parameter is `dev`'s."""
    changes = {
        "STAGE": stage,
        "PREFECT_API_KEY_PARAMETER": "",
        "PREFECT_API_AUTH_STRING_PARAMETER": AUTH_PARAMETER,
    }
    return replace(read_project(PROJECT, "dev", changes), stage=stage)


def policies() -> dict[str, list[Any]]:
    """The policy documents of each principal: functions, the stack's roles, who deploys."""
    found: dict[str, list[Any]] = {OPERATOR: []}
    for project in map(project_of, STAGES):
        for function in project.functions:
            name = project.function_name(function)
            found[name] = [_filled(policy_of(project, function))]
        found[OPERATOR].append(_filled(policy_of(project, DEPLOYER)))
        names = {
            "Stage": project.stage,
            "TableName": project.stack,
            "ClusterName": project.settings.ecs_clusters[0],
            "WorkPool": project.settings.work_pool,
            "ApiKeyParameter": "",
            "AuthStringParameter": AUTH_PARAMETER.removeprefix("/"),
        }
        made = stack.resources(stack.parameters(**names)).values()
        for role in (it["Properties"] for it in made if it["Type"] == "AWS::IAM::Role"):
            documents = [policy["PolicyDocument"] for policy in role["Policies"]]
            found[role["RoleName"]] = [_filled(json.dumps(each)) for each in documents]
    return found


def _filled(policy: str) -> Any:
    place = {"PrincipalAccount": ACCOUNT, "RequestedRegion": REGION}
    return json.loads(re.sub(r"\$\{aws:(\w+)\}", lambda found: place[found[1]], policy))
