"""The stack's template is one that AWS takes, that asks for no more than it needs, and no less."""

import json
from typing import Any

import pytest
from cfnlint.api import lint
from cfnlint.config import ManualArgs

import infra
from chalicelib.core.metrics import NAMESPACE, Metric
from tests.unit import stack_rules as rules
from tests.unit import stack_template as stack
from tests.unit.stack_template import Resources, Template

ALWAYS = {
    "AlarmTopic",
    "Dashboard",
    "EventNotHandledAlarm",
    "FailureQueue",
    "FailureQueuePolicy",
    "InterruptionsSurgeAlarm",
    "MeterFailingAlarm",
    "NetSavingNegativeAlarm",
    "ProvisionFailingAlarm",
    "ReactFailingAlarm",
    "SweepFailingAlarm",
    "Table",
}
"""What the handler itself needs."""

FULL_OUTPUTS = {
    "ClusterName",
    "ClusterArn",
    "ExecutionRoleArn",
    "WorkerRoleArn",
    "FlowRoleArn",
    "LogGroupName",
    "SecurityGroupIds",
    "SubnetIds",
    "VpcId",
    "ResultsBucket",
    "WorkerServiceName",
    "WorkerTaskDefinitionArn",
}
OUTPUTS = {"TableName", "FailureQueueArn", "FailureQueueUrl", "AlarmTopicArn"}

VARIANTS = {
    "full": stack.parameters(),
    "plain Fargate": stack.parameters(UseSpot="false"),
    "own network, queues, e-mail": stack.parameters(
        SecurityGroupIds="sg-1,sg-2", WorkQueues="etl,ml", AlarmEmail="ops@example.com"
    ),
    "auth string": stack.parameters(ApiKeyParameter="", AuthStringParameter="auth"),
    "no credential": stack.parameters(ApiKeyParameter=""),
    "rescue only": stack.rescue_only(),
}


def made(**changes: str) -> Resources:
    return stack.resources(stack.template(), stack.parameters(**changes))


def properties(logical_id: str, **changes: str) -> dict[str, Any]:
    found: dict[str, Any] = made(**changes)[logical_id]["Properties"]
    return found


def worker(**changes: str) -> dict[str, Any]:
    [container] = properties("WorkerTaskDefinition", **changes)["ContainerDefinitions"]
    return dict(container)


def linted(template: Template) -> list[str]:
    found = lint(json.dumps(template), config=ManualArgs(regions=["us-east-1"]))
    return [f"{match.rule.id} {match.message}" for match in found]


def test_cfn_lint_has_nothing_to_say() -> None:
    assert linted(stack.template()) == []


def test_cfn_lint_notices_a_planted_mistake() -> None:
    template = stack.template()
    template["Resources"]["WorkerTaskDefinition"]["Properties"]["NetworkMode"] = "bridge"
    assert [found.split()[0] for found in linted(template)] == ["E3048"]


@pytest.mark.parametrize("rule", rules.RULES, ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("given", VARIANTS.values(), ids=list(VARIANTS))
def test_template_keeps_the_rules(given: dict[str, str], rule: rules.Rule) -> None:
    assert rule(stack.resources(stack.template(), given)) == []


def test_parameters_are_those_agreed_all_strings_and_none_optional() -> None:
    declared = stack.template()["Parameters"]
    assert list(declared) == list(stack.parameters())
    for name, parameter in declared.items():
        assert parameter["Type"] == "String", name
        assert "Default" not in parameter, f"{name}: what is not passed would go unnoticed"


def test_every_parameter_is_used_and_every_name_is_declared() -> None:
    template = stack.template()
    parts = [template[part] for part in ("Conditions", "Resources", "Outputs")]
    used = {name.split(".")[0] for name in stack.mentioned(parts)}
    assert set(template["Parameters"]) <= used
    known = {*template["Parameters"], *template["Resources"], *stack.PSEUDO, "AWS::NoValue"}
    assert used <= known


def test_a_name_that_is_not_declared_is_noticed() -> None:
    template = stack.template()
    template["Resources"]["LogGroup"]["Properties"]["RetentionInDays"] = {"Ref": "RetentionDays"}
    with pytest.raises(KeyError, match="RetentionDays"):
        stack.resources(template, stack.parameters())


def test_rescue_only_makes_what_the_handler_needs_and_no_more() -> None:
    assert set(stack.resources(stack.template(), stack.rescue_only())) == ALWAYS
    assert set(stack.outputs(stack.template(), stack.rescue_only())) == OUTPUTS


def test_full_makes_everything_but_what_a_setting_asks_for() -> None:
    everything = set(stack.template()["Resources"])
    assert everything - set(made()) == {"AlarmSubscription"}
    given = {"SecurityGroupIds": "sg-1", "AlarmEmail": "ops@example.com"}
    assert everything - set(made(**given)) == {"SecurityGroup"}
    assert set(stack.outputs(stack.template(), stack.parameters())) == OUTPUTS | FULL_OUTPUTS


@pytest.mark.parametrize("name", ["/prefect-spot/dev/api-key", "prefect-spot/dev/api-key", "key"])
def test_parameters_arn_is_right_with_a_slash_or_without(name: str) -> None:
    [secret] = worker(ApiKeyParameter=name)["Secrets"]
    arn = f"arn:aws:ssm:us-east-1:123456789012:parameter/{name.removeprefix('/')}"
    assert secret == {"Name": "PREFECT_API_KEY", "ValueFrom": arn}
    [policy] = properties("ExecutionRole", ApiKeyParameter=name)["Policies"]
    assert [s["Resource"] for s in policy["PolicyDocument"]["Statement"]] == [arn]


def test_auth_string_is_a_secret_of_its_own_name_and_none_is_none() -> None:
    [secret] = worker(ApiKeyParameter="", AuthStringParameter="auth")["Secrets"]
    assert secret["Name"] == "PREFECT_API_AUTH_STRING"
    assert secret["ValueFrom"].endswith(":parameter/auth")
    assert "Secrets" not in worker(ApiKeyParameter="")
    assert "Policies" not in properties("ExecutionRole", ApiKeyParameter="")


def test_worker_polls_all_queues_or_each_that_is_named() -> None:
    command = "prefect worker start --type ecs --pool fargate-spot-dev --with-healthcheck"
    assert worker()["Command"] == command.split()
    some = worker(WorkQueues="etl,ml")["Command"]
    assert some == f"{command} --work-queue etl --work-queue ml".split()


def test_given_security_groups_are_used_and_none_is_made() -> None:
    network = properties("WorkerService", SecurityGroupIds="sg-1,sg-2")["NetworkConfiguration"]
    assert network["AwsvpcConfiguration"]["SecurityGroups"] == ["sg-1", "sg-2"]
    outputs = stack.outputs(stack.template(), stack.parameters(SecurityGroupIds="sg-1,sg-2"))
    assert outputs["SecurityGroupIds"] == "sg-1,sg-2"


def test_dashboard_and_alarms_are_checked_for_the_metrics_that_are_printed() -> None:
    assert {metric.value for metric in Metric} == rules.METRICS
    assert NAMESPACE == "PrefectSpot"


def test_dashboard_shows_what_a_person_wants_to_know() -> None:
    body = json.loads(properties("Dashboard")["DashboardBody"])
    text = json.dumps(body)
    for metric in rules.METRICS - {"SpotInterruptions"}:
        assert f'"PrefectSpot", "{metric}", "Stage", "dev", "WorkPool", "fargate-spot-dev"' in text
    [search] = [w for w in body["widgets"] if "expression" in json.dumps(w)]
    line = search["properties"]["metrics"][0][0]
    assert line["expression"].startswith("SEARCH('{PrefectSpot,Stage,WorkPool,Deployment} ")
    assert 'MetricName="SpotInterruptions"' in line["expression"]
    assert line["label"] == "${PROP('Dim.Deployment')}"
    places = [(w["x"], w["y"]) for w in body["widgets"]]
    assert len(set(places)) == len(places)


@pytest.mark.parametrize(
    ("alarm", "metric", "rings"),
    [
        (
            "EventNotHandledAlarm",
            ("AWS/SQS", "ApproximateNumberOfMessagesVisible"),
            ("Maximum", 300, 1, "GreaterThanThreshold", 0, "notBreaching"),
        ),
        (
            "InterruptionsSurgeAlarm",
            ("PrefectSpot", "SpotInterruptions"),
            ("Sum", 3600, 1, "GreaterThanOrEqualToThreshold", 20, "notBreaching"),
        ),
        (
            "NetSavingNegativeAlarm",
            ("PrefectSpot", "NetSavings"),
            ("Sum", 86400, 1, "LessThanThreshold", 0, "notBreaching"),
        ),
        (
            "WorkerNotRunningAlarm",
            ("AWS/ECS", "CPUUtilization"),
            ("SampleCount", 60, 10, "LessThanThreshold", 1, "breaching"),
        ),
    ],
)
def test_alarm_rings_when_it_should(alarm: str, metric: Any, rings: Any) -> None:
    found = properties(alarm)
    assert (found["Namespace"], found["MetricName"]) == metric
    how = ("Statistic", "Period", "EvaluationPeriods", "ComparisonOperator", "Threshold")
    assert tuple(found[name] for name in (*how, "TreatMissingData")) == rings


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


def test_what_holds_data_is_kept_when_it_is_replaced_and_goes_with_the_stack() -> None:
    made = stack.template()["Resources"]
    for name in ("Table", "ResultsBucket", "FailureQueue"):
        policies = (made[name]["DeletionPolicy"], made[name]["UpdateReplacePolicy"])
        assert policies == ("Delete", "Retain"), name


def test_template_fits_into_one_request() -> None:
    assert len(json.dumps(infra.load("stack.json"), indent=2).encode()) < 51_200
