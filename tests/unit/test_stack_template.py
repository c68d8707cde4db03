"""The stack's template: what cfn-lint and checkov do not see, and a deployment would suffer from.

cfn-lint reads the template as it is, and as it is resolved, where sizes and retentions are values.
"""

import inspect
import json
import re
from typing import Any

import pytest
from cfnlint.api import lint
from cfnlint.config import ManualArgs
from prefect_aws.workers import ecs_worker

import infra
from chalicelib.core.metrics import NAMESPACE, UNITS, Metric
from tests.unit import stack_template as stack
from tests.unit.stack_template import ACCOUNT, REGION

OUTPUTS = {"TableName", "FailureQueueArn", "FailureQueueUrl", "AlarmTopicArn"}

ON_ALL_RESOURCES = {"ec2:DescribeVpcs", "ec2:DescribeSubnets", "ecs:DescribeTaskDefinition"}
"""IAM offers no narrower resource for these."""


def properties(logical_id: str, **changes: str) -> dict[str, Any]:
    found: dict[str, Any] = stack.resources(stack.parameters(**changes))[logical_id]["Properties"]
    return found


def worker(**changes: str) -> dict[str, Any]:
    [container] = properties("WorkerTaskDefinition", **changes)["ContainerDefinitions"]
    return dict(container)


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def allowed(role: str) -> list[tuple[str, dict[str, Any]]]:
    """Each action that the role's inline policies allow, with its statement."""
    return [
        (action, statement)
        for policy in properties(role)["Policies"]
        for statement in policy["PolicyDocument"]["Statement"]
        for action in as_list(statement["Action"])
    ]


@pytest.mark.parametrize(
    "template",
    [
        pytest.param(infra.load("stack.json"), id="as it is"),
        pytest.param({"Resources": stack.resources(stack.parameters())}, id="full"),
        pytest.param({"Resources": stack.resources(stack.rescue_only())}, id="rescue-only"),
    ],
)
def test_cfn_lint_accepts_the_template(template: Any) -> None:
    found = lint(json.dumps(template), config=ManualArgs(regions=[REGION]))
    assert [f"{match.rule.id} {match.message}" for match in found] == []


def test_template_fits_into_one_request() -> None:
    assert len(json.dumps(infra.load("stack.json"), indent=2).encode()) < 51_200


def test_rescue_only_creates_what_the_handler_needs_and_no_more() -> None:
    kinds = {made["Type"].split("::")[1] for made in stack.resources(stack.rescue_only()).values()}
    assert kinds == {"CloudWatch", "DynamoDB", "SNS", "SQS"}
    assert set(stack.outputs(stack.rescue_only())) == OUTPUTS


def test_a_plain_fargate_cluster_has_no_spot() -> None:
    plain = properties("Cluster", UseSpot="false")
    assert plain["CapacityProviders"] == ["FARGATE"]
    [strategy] = plain["DefaultCapacityProviderStrategy"]
    assert strategy == {"CapacityProvider": "FARGATE", "Weight": 1}


@pytest.mark.parametrize(
    ("given", "variable"),
    [
        ({"ApiKeyParameter": "a/key"}, "PREFECT_API_KEY"),
        ({"ApiKeyParameter": "", "AuthStringParameter": "a/key"}, "PREFECT_API_AUTH_STRING"),
    ],
)
def test_credential_comes_from_ssm_through_the_execution_role_alone(
    given: dict[str, str], variable: str
) -> None:
    arn = f"arn:aws:ssm:{REGION}:{ACCOUNT}:parameter/a/key"
    definition = properties("WorkerTaskDefinition", **given)
    [container] = definition["ContainerDefinitions"]
    assert container["Secrets"] == [{"Name": variable, "ValueFrom": arn}]
    assert definition["ExecutionRoleArn"].endswith(f":role/{stack.STACK}-execution")
    [policy] = properties("ExecutionRole", **given)["Policies"]
    [statement] = policy["PolicyDocument"]["Statement"]
    assert (statement["Action"], statement["Resource"]) == ("ssm:GetParameters", arn)


def test_without_a_credential_there_is_no_secret() -> None:
    assert "Secrets" not in worker(ApiKeyParameter="")
    assert "Policies" not in properties("ExecutionRole", ApiKeyParameter="")


def test_worker_environment_switches_the_observer_off() -> None:
    """prefect-aws's observer would mark runs Crashed that `react` is about to rerun."""
    environment = {entry["Name"]: entry["Value"] for entry in worker()["Environment"]}
    assert environment["PREFECT_INTEGRATIONS_AWS_ECS_OBSERVER_ENABLED"] == "false"
    assert not any("KEY" in name or "AUTH" in name for name in environment)


def test_worker_polls_all_queues_or_each_that_is_named() -> None:
    command = "prefect worker start --type ecs --pool fargate-spot-dev --with-healthcheck"
    assert worker()["Command"] == command.split()
    some = worker(WorkQueues="etl,ml")["Command"]
    assert some == f"{command} --work-queue etl --work-queue ml".split()


def test_worker_role_allows_what_the_ecs_worker_calls_on_this_cluster() -> None:
    source = inspect.getsource(ecs_worker)
    calls = {
        f"{service}:{''.join(word.title() for word in operation.split('_'))}"
        for service, operation in re.findall(r"\b(ecs|ec2)_client\.(\w+)\(", source)
    }
    given = dict(allowed("WorkerRole"))
    assert "ecs:RunTask" in calls
    assert calls | {"ecs:TagResource", "iam:PassRole"} == set(given)
    cluster = f"arn:aws:ecs:{REGION}:{ACCOUNT}:cluster/{stack.STACK}"
    assert given["ecs:RunTask"]["Condition"] == {"ArnEquals": {"ecs:cluster": cluster}}
    tasks = f"arn:aws:ecs:{REGION}:{ACCOUNT}:task/{stack.STACK}/*"
    assert given["ecs:StopTask"]["Resource"] == given["ecs:TagResource"]["Resource"] == tasks
    on_run = {"StringEquals": {"ecs:CreateAction": "RunTask"}}
    assert given["ecs:TagResource"]["Condition"] == on_run
    assert given["iam:PassRole"]["Resource"] == [
        f"arn:aws:iam::{ACCOUNT}:role/{stack.STACK}-{name}" for name in ("execution", "flow")
    ]
    to_ecs = {"StringEquals": {"iam:PassedToService": "ecs-tasks.amazonaws.com"}}
    assert given["iam:PassRole"]["Condition"] == to_ecs


@pytest.mark.parametrize("role", ["ExecutionRole", "FlowRole", "WorkerRole"])
def test_role_has_no_wildcard_and_is_assumed_by_tasks_of_this_account(role: str) -> None:
    for action, statement in allowed(role):
        assert "*" not in action
        assert "*" not in as_list(statement["Resource"]) or action in ON_ALL_RESOURCES
    [trust] = properties(role)["AssumeRolePolicyDocument"]["Statement"]
    assert trust["Principal"] == {"Service": "ecs-tasks.amazonaws.com"}
    assert trust["Condition"]["StringEquals"] == {"aws:SourceAccount": ACCOUNT}


def test_flow_role_reads_and_writes_the_stacks_own_bucket() -> None:
    bucket = f"arn:aws:s3:::{stack.STACK}-results-{ACCOUNT}-{REGION}"
    assert {action: statement["Resource"] for action, statement in allowed("FlowRole")} == {
        "s3:GetObject": f"{bucket}/*",
        "s3:PutObject": f"{bucket}/*",
        "s3:DeleteObject": f"{bucket}/*",
        "s3:AbortMultipartUpload": f"{bucket}/*",
        "s3:ListBucket": bucket,
    }


def test_given_security_groups_are_used_and_ours_has_no_ingress() -> None:
    assert "SecurityGroupIngress" not in properties("SecurityGroup")
    assert "SecurityGroup" not in stack.resources(stack.parameters(SecurityGroupIds="sg-1"))
    network = properties("WorkerService", SecurityGroupIds="sg-1,sg-2")["NetworkConfiguration"]
    assert network["AwsvpcConfiguration"]["SecurityGroups"] == ["sg-1", "sg-2"]
    assert stack.outputs(stack.parameters(SecurityGroupIds="sg-1,sg-2"))["SecurityGroupIds"] == (
        "sg-1,sg-2"
    )


def test_failure_queue_takes_what_rules_and_functions_could_not_deliver() -> None:
    """Without these two statements AWS drops undelivered events without a trace."""
    rules, functions = properties("FailureQueuePolicy")["PolicyDocument"]["Statement"]
    for statement in (rules, functions):
        assert statement["Action"] == "sqs:SendMessage"
        assert statement["Resource"].endswith(f":{stack.STACK}-failures")
    assert rules["Principal"] == {"Service": "events.amazonaws.com"}
    assert rules["Condition"] == {
        "StringEquals": {"aws:SourceAccount": ACCOUNT},
        "ArnLike": {"aws:SourceArn": f"arn:aws:events:{REGION}:{ACCOUNT}:rule/*"},
    }
    assert functions["Principal"] == {"AWS": "*"}
    assert functions["Condition"]["StringEquals"] == {"aws:PrincipalAccount": ACCOUNT}
    roles = f"arn:aws:iam::{ACCOUNT}:role/prefect-spot-dev-*"
    assert functions["Condition"]["ArnLike"] == {"aws:PrincipalArn": roles}
    queue = properties("FailureQueue")
    assert (queue["MessageRetentionPeriod"], queue["SqsManagedSseEnabled"]) == (1_209_600, True)


@pytest.mark.parametrize("name", ["Table", "ResultsBucket", "FailureQueue"])
def test_data_is_deleted_with_the_stack_and_survives_a_replacement(name: str) -> None:
    resource = infra.load("stack.json")["Resources"][name]
    assert (resource["DeletionPolicy"], resource["UpdateReplacePolicy"]) == ("Delete", "Retain")


OF_A_POOL = {"Stage": "dev", "WorkPool": "fargate-spot-dev"}
OF_A_QUEUE = {"QueueName": "the-FailureQueue"}
OF_A_SERVICE = {"ClusterName": "the-Cluster", "ServiceName": "the-WorkerService"}

ALARMS = {
    "EventNotHandled": (
        *("AWS/SQS ApproximateNumberOfMessagesVisible", OF_A_QUEUE),
        "Maximum of 300 s, 1 times GreaterThanThreshold 0, notBreaching",
    ),
    "InterruptionsSurge": (
        *(f"{NAMESPACE} {Metric.SPOT_INTERRUPTIONS.value}", OF_A_POOL),
        "Sum of 3600 s, 1 times GreaterThanOrEqualToThreshold 20, notBreaching",
    ),
    "StartFailuresSurge": (
        *(f"{NAMESPACE} {Metric.FAILED_STARTS.value}", OF_A_POOL),
        "Sum of 300 s, 1 times GreaterThanOrEqualToThreshold 10, notBreaching",
    ),
    "NetSavingNegative": (
        *(f"{NAMESPACE} {Metric.NET_SAVINGS.value}", OF_A_POOL),
        "Sum of 86400 s, 1 times LessThanThreshold 0, notBreaching",
    ),
    "WorkerNotRunning": (
        *("AWS/ECS CPUUtilization", OF_A_SERVICE),
        "SampleCount of 60 s, 10 times LessThanThreshold 1, breaching",
    ),
}


@pytest.mark.parametrize("alarm", ALARMS)
def test_alarm_rings_when_it_should(alarm: str) -> None:
    found = properties(f"{alarm}Alarm")
    assert ALARMS[alarm] == (
        f"{found['Namespace']} {found['MetricName']}",
        {dimension["Name"]: dimension["Value"] for dimension in found["Dimensions"]},
        f"{found['Statistic']} of {found['Period']} s, {found['EvaluationPeriods']} times"
        f" {found['ComparisonOperator']} {found['Threshold']}, {found['TreatMissingData']}",
    )


@pytest.mark.parametrize("function", ["react", "sweep", "meter", "provision"])
def test_alarm_rings_when_half_of_a_functions_invocations_fail(function: str) -> None:
    found = properties(f"{function.title()}FailingAlarm")
    errors, invocations, share = found["Metrics"]
    for metric, name in ((errors, "Errors"), (invocations, "Invocations")):
        stat = metric["MetricStat"]
        assert (stat["Metric"]["MetricName"], stat["Stat"], stat["Period"]) == (name, "Sum", 300)
        [dimension] = stat["Metric"]["Dimensions"]
        assert dimension == {"Name": "FunctionName", "Value": f"prefect-spot-dev-{function}"}
    assert (share["Expression"], share["ReturnData"]) == ("errors / invocations", True)
    assert (found["Threshold"], found["EvaluationPeriods"]) == (0.5, 3)
    assert found["ComparisonOperator"] == "GreaterThanOrEqualToThreshold"


def test_dashboard_is_json_and_shows_every_metric_as_it_is_published() -> None:
    """CloudWatch shows a broken body as nothing, and a misspelt metric as an empty chart."""
    widgets = json.loads(properties("Dashboard")["DashboardBody"])["widgets"]
    lines = [line for widget in widgets for line in widget["properties"]["metrics"]]
    assert all(isinstance(line, list) for line in lines)
    ours = [line for line in lines if line[0] == NAMESPACE]
    assert {line[1] for line in ours} == {*Metric}
    for line in ours:
        assert line[2:6] == ["Stage", "dev", "WorkPool", "fargate-spot-dev"]
    [search] = [line[0] for line in lines if isinstance(line[0], dict)]
    assert search["expression"].startswith("SEARCH('{PrefectSpot,Stage,WorkPool,Deployment} ")
    assert 'MetricName="SpotInterruptions"' in search["expression"]
    assert search["label"] == "${PROP('Dim.Deployment')}"
    for widget in widgets:
        usd = {line[1] for line in widget["properties"]["metrics"] if line[0] == NAMESPACE}
        is_money = bool(usd - UNITS.keys())
        assert ("assumed rates" in widget["properties"]["title"]) is is_money
    places = [(widget["x"], widget["y"]) for widget in widgets]
    assert len(set(places)) == len(places)
