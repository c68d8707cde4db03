"""The recorded calls as IAM sees them: action, resource and condition keys.

Source: service authorization reference, "Actions, resources, and condition keys for" each service.
MiniStack's own reading is not used: it asks about the cluster for a task, and has no policy
variables, so those are filled in here.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from localcloud.bootstrap import AUTH_PARAMETER
from localcloud.deployment import PROJECT
from spotctl.policies import DEPLOYER, policy_of
from spotctl.project import Project, read_project
from tests.e2e.command import OPERATOR
from tests.system.test_example import EXECUTION_ROLE
from tests.tiers import BUILD
from tests.unit import stack_template as stack

ACCOUNT: Final = stack.ACCOUNT
REGION: Final = stack.REGION
STAGES: Final = ("dev", "prod")
ON_ALL: Final = re.compile(
    r"ec2:Describe|(ecs:(DescribeTaskDefinition|ListTasks)|events:List\w*Rule(s|Names\w*)"
    r"|lambda:GetAccountSettings|logs:DescribeLogGroups|ssm:DescribeParameters)$"
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


def arn(service: str, rest: str, account: str = ACCOUNT) -> str:
    return rest if rest.startswith("arn:") else f"arn:aws:{service}:{REGION}:{account}:{rest}"


def recorded() -> set[Call]:
    """The calls that the end-to-end tests made; raises AssertionError where none are recorded.

    Not in the observed cloud: prefect-aws's observer has a policy of its own.
    """
    files = [f for f in sorted((BUILD / "calls").glob("*.json")) if f.stem != "observed"]
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
    action, context = RENAMED.get(operation, operation), dict[str, str]()
    service = action.partition(":")[0]
    cluster = str(named.get("cluster", "")).rpartition("/")[2]
    if cluster:
        context["ecs:cluster"] = arn("ecs", f"cluster/{cluster}")
    if "AWSServiceName" in named:
        context["iam:AWSServiceName"] = named["AWSServiceName"]
    if action == "dynamodb:TransactWriteItems":  # it asks for each of its writes
        for kind, table in named["TransactItems"]:
            yield Call(who, f"dynamodb:{kind}Item", arn("dynamodb", f"table/{table}"))
        return
    resources = ["*"] if ON_ALL.match(action) else list(OF_SERVICE[service](named, cluster))
    assert resources, f"which resource does {operation} with {named} need?"
    for resource in resources:
        yield Call(who, action, resource, context)
    for name in ("Role", "taskRoleArn", "executionRoleArn"):
        if action in PASSES and name in named:
            passed = {"iam:PassedToService": f"{PASSES[action]}.amazonaws.com"}
            yield Call(who, "iam:PassRole", named[name], passed)
    if action == "ecs:RunTask":  # Prefect tags each task that it runs
        tagging = {"ecs:CreateAction": "RunTask"}
        yield Call(who, "ecs:TagResource", arn("ecs", f"task/{cluster}/0123"), tagging)


PASSES: Final = {
    "lambda:CreateFunction": "lambda",
    "ecs:RunTask": "ecs-tasks",
    "ecs:RegisterTaskDefinition": "ecs-tasks",
}
"""Actions that pass a role on, and to whom."""

Named = Mapping[str, Any]


def of_ecs(named: Named, cluster: str) -> Sequence[str]:
    """Tasks, a task definition, services, or clusters."""
    if tasks := named.get("tasks") or [named[key] for key in ("task",) if key in named]:
        return [arn("ecs", t if "/" in t else f"task/{cluster}/{t}") for t in tasks]
    if services := named.get("services") or [named[k] for k in ("service",) if k in named]:
        return [arn("ecs", f"service/{cluster}/{each}") for each in services]
    if "family" in named or "taskDefinition" in named:
        definition = named.get("taskDefinition") or f"{named['family']}:1"
        return [
            arn("ecs", definition if ":ecs:" in definition else f"task-definition/{definition}")
        ]
    clusters = named.get("clusters") or [cluster]
    return [arn("ecs", f"cluster/{each.rpartition('/')[2]}") for each in clusters]


def of_lambda(named: Named, _: str) -> Sequence[str]:
    """A function by its path; CreateFunction's by its role, which Chalice calls like it."""
    found = re.search(r"(?:functions|tags)/([^/]+)", named["path"])
    name = found[1] if found else named["Role"].rpartition("/")[2]
    return [arn("lambda", name if name.startswith("arn:") else f"function:{name}")]


def stream_of(named: Named) -> str:
    return f"log-stream:{named['logStreamName']}" if "logStreamName" in named else "*"


def of_s3(named: Named, _: str) -> Sequence[str]:
    """A bucket, or an object in it."""
    return [f"arn:aws:s3:::{named['Bucket']}" + (f"/{named['Key']}" if named["Key"] else "")]


def of_iam(named: Named, _: str) -> Sequence[str]:
    """A role; ECS's own where none is named."""
    own = "aws-service-role/ecs.amazonaws.com/AWSServiceRoleForECS"
    return [f"arn:aws:iam::{ACCOUNT}:role/{named.get('RoleName', own)}"]


OF_SERVICE: Final[Mapping[str, Callable[[Named, str], Sequence[str]]]] = {
    "dynamodb": lambda named, _: [
        arn("dynamodb", f"table/{table}")
        for table in named.get("RequestItems") or [named["TableName"]]
    ],
    "ecs": of_ecs,
    "lambda": of_lambda,
    "s3": of_s3,
    "iam": of_iam,
    "sns": lambda named, _: [named["TopicArn"]],
    "ssm": lambda named, _: [arn("ssm", f"parameter/{named['Name'].removeprefix('/')}")],
    "sqs": lambda named, _: [
        arn("sqs", named.get("QueueName") or named["QueueUrl"].rpartition("/")[2])
    ],
    "events": lambda named, _: [arn("events", f"rule/{named.get('Rule') or named['Name']}")],
    "cloudformation": lambda named, _: [arn("cloudformation", f"stack/{named['StackName']}/0123")],
    "logs": lambda named, _: [arn("logs", f"log-group:{named['logGroupName']}:{stream_of(named)}")],
}
"""The ARNs of what a call names; the second argument is its cluster's name."""


_FOLDER: Final = AUTH_PARAMETER.rpartition("/")[0]
HEADERS_PARAMETER: Final = f"{_FOLDER}/headers"
CA_PARAMETER: Final = f"{_FOLDER}/ca"


def project_of(stage: str) -> Project:
    """A stage as the embedded clouds have it: behind basic auth, one behind a proxy as well.

    The parameters are `dev`'s.
    """
    changes = {
        "STAGE": stage,
        "PREFECT_API_URL": "https://prefect.example/api",
        "PREFECT_CUSTOM_HEADERS_PARAMETER": HEADERS_PARAMETER,
        "PREFECT_CA_CERTIFICATE_PARAMETER": CA_PARAMETER,
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
            "WorkPool": project.settings.work_pools[0],
            "PassableRoleArns": EXECUTION_ROLE,  # as the example's user has to name it
            "ApiKeyParameter": "",
            "AuthStringParameter": AUTH_PARAMETER.removeprefix("/"),
            "CustomHeadersParameter": HEADERS_PARAMETER.removeprefix("/"),
            "CaCertificateParameter": CA_PARAMETER.removeprefix("/"),
        }
        made = stack.resources(stack.parameters(**names)).values()
        for role in (it["Properties"] for it in made if it["Type"] == "AWS::IAM::Role"):
            documents = [policy["PolicyDocument"] for policy in role["Policies"]]
            found[role["RoleName"]] = [_filled(json.dumps(each)) for each in documents]
    return found


def _filled(policy: str) -> Any:
    place = {"PrincipalAccount": ACCOUNT, "RequestedRegion": REGION}
    return json.loads(re.sub(r"\$\{aws:(\w+)\}", lambda found: place[found[1]], policy))
