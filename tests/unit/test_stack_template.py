"""The stack's template: what cfn-lint and checkov do not see, and a deployment would suffer from.

cfn-lint reads the template as it is, and as it is resolved, where sizes and retentions are values.
"""

import inspect
import json
import re
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from cfnlint.api import lint
from cfnlint.config import ManualArgs
from prefect._internal.result_records import ResultRecord, ResultRecordMetadata
from prefect.serializers import JSONSerializer, PickleSerializer
from prefect_aws.workers import ecs_worker

import infra
from chalicelib.core.metrics import NAMESPACE, UNITS, USD, Metric
from chalicelib.core.model.policy import ALL_POOLS
from chalicelib.core.provision.model import TEMPLATE_TAG
from chalicelib.core.provision.plan import stack_definition
from chalicelib.settings import FUNCTIONS
from localcloud.deployment import PROJECT
from tests.provisioning import make_desired
from tests.unit import iam
from tests.unit import stack_template as stack
from tests.unit.stack_template import ACCOUNT, REGION

EXAMPLE = json.loads((PROJECT / "examples" / "deployment_role.json").read_text())

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
        pytest.param(EXAMPLE, id="the example's role"),
    ],
)
def test_cfn_lint_accepts_the_template(template: Any) -> None:
    found = lint(json.dumps(template), config=ManualArgs(regions=[REGION]))
    assert [f"{match.rule.id} {match.message}" for match in found] == []


def test_template_fits_into_one_request() -> None:
    assert (
        len(
            stack_definition(
                make_desired(template=infra.load("stack.json")), None
            ).template_body.encode()
        )
        < 51_200
    )


def test_rescue_only_creates_what_the_handler_needs_and_no_more() -> None:
    kinds = {made["Type"].split("::")[1] for made in stack.resources(stack.rescue_only()).values()}
    assert kinds == {"CloudWatch", "DynamoDB", "SNS", "SQS"}
    assert set(stack.outputs(stack.rescue_only())) == OUTPUTS


def test_a_plain_fargate_cluster_has_no_spot() -> None:
    plain = properties("Cluster", UseSpot="false")
    assert plain["CapacityProviders"] == ["FARGATE"]
    [strategy] = plain["DefaultCapacityProviderStrategy"]
    assert strategy == {"CapacityProvider": "FARGATE", "Weight": 1}


@pytest.mark.parametrize("architecture", ["x86_64", "arm64"])
def test_the_worker_is_of_the_architecture_that_is_set_as_ecs_spells_it(architecture: str) -> None:
    found = properties("WorkerTaskDefinition", Architecture=architecture)["RuntimePlatform"]
    assert found["CpuArchitecture"] == architecture.upper()


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
    assert (statement["Action"], statement["Resource"]) == ("ssm:GetParameters", [arn])


@pytest.mark.parametrize("key", ["/a/key", ""])
def test_headers_and_certificates_come_the_same_way_and_the_worker_trusts_a_file_of_them(
    key: str, tmp_path: Path
) -> None:
    names = {"CUSTOM_HEADERS": "/a/headers", "CA_CERTIFICATE": "/a/ca"}
    given = stack.parameters_of(
        PREFECT_API_KEY_PARAMETER=key,
        WORK_QUEUES="etl",
        **{f"PREFECT_{each}_PARAMETER": name for each, name in names.items()},
    )
    at = f"arn:aws:ssm:{REGION}:{ACCOUNT}:parameter"
    container = worker(**given)
    assert {each["Name"]: each["ValueFrom"] for each in container["Secrets"]} == {
        **({"PREFECT_API_KEY": f"{at}/a/key"} if key else {}),
        "PREFECT_CLIENT_CUSTOM_HEADERS": f"{at}/a/headers",
        "PREFECT_SPOT_CA_CERTIFICATE": f"{at}/a/ca",
    }
    [policy] = properties("ExecutionRole", **given)["Policies"]
    [statement] = policy["PolicyDocument"]["Statement"]
    assert statement["Resource"] == [each["ValueFrom"] for each in container["Secrets"]]

    assert container["Command"][4:] == [*worker()["Command"], "--work-queue", "etl"]
    printed = subprocess.run(
        [
            *container["Command"][:3],
            "sh",
            "sh",
            "-c",
            'cat "$PREFECT_API_SSL_CERT_FILE"; echo "$@"',
            "sh",
            "a b",
            "c",
        ],
        env={"PREFECT_SPOT_CA_CERTIFICATE": PEM, "TMPDIR": str(tmp_path), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert printed.stdout == f"{PEM}a b c\n"


PEM = "-----BEGIN CERTIFICATE-----\nA%s$(b)\\n\n-----END CERTIFICATE-----\n"
YOURS = f"arn:aws:iam::{ACCOUNT}"


def test_a_key_of_your_own_is_used_for_the_one_parameter_only() -> None:
    key = f"arn:aws:kms:{REGION}:{ACCOUNT}:key/1"
    [policy] = properties("ExecutionRole", KmsKeyArn=key)["Policies"]
    parameter = f"arn:aws:ssm:{REGION}:{ACCOUNT}:parameter/prefect-spot/dev/api-key"
    context = "kms:EncryptionContext:PARAMETER_ARN"
    about = {"kms:ViaService": f"ssm.{REGION}.amazonaws.com", context: parameter}
    statements = policy["PolicyDocument"]["Statement"]
    assert iam.is_allowed(statements, "kms:Decrypt", key, about)
    for other in ({context: f"{parameter}-2"}, {"kms:ViaService": f"s3.{REGION}.amazonaws.com"}):
        assert not iam.is_allowed(statements, "kms:Decrypt", key, {**about, **other})
    assert "kms:Decrypt" not in dict(allowed("ExecutionRole"))


def test_flows_get_the_managed_policies_that_are_named() -> None:
    policies = [f"{YOURS}:policy/read-sales", "arn:aws:iam::aws:policy/AmazonAthenaFullAccess"]
    flow = properties("FlowRole", FlowPolicyArns=",".join(policies))
    assert flow["ManagedPolicyArns"] == policies
    assert "ManagedPolicyArns" not in properties("FlowRole")


def test_worker_passes_your_own_roles_to_tasks_and_they_write_results() -> None:
    roles = [f"{YOURS}:role/etl", f"{YOURS}:role/team/nightly"]
    given = {"PassableRoleArns": ",".join(roles)}
    [policy] = properties("WorkerRole", **given)["Policies"]
    statements = policy["PolicyDocument"]["Statement"]
    of_bucket = properties("ResultsBucketPolicy", **given)["PolicyDocument"]["Statement"]
    anything = ANYTHING[0]["PolicyDocument"]["Statement"]
    for role, is_named in [*((role, True) for role in roles), (f"{YOURS}:role/etl-2", False)]:
        to = {"iam:PassedToService": "ecs-tasks.amazonaws.com"}
        assert iam.is_allowed(statements, "iam:PassRole", role, to) is is_named
        to = {"iam:PassedToService": "lambda.amazonaws.com"}
        assert not iam.is_allowed(statements, "iam:PassRole", role, to)
        about = {"aws:PrincipalArn": role, "aws:SecureTransport": "true"}
        both = [*anything, *of_bucket]
        assert iam.is_allowed(both, "s3:PutObject", f"{BUCKET}/key", about) is is_named


@pytest.mark.parametrize("role", ["ExecutionRole", "FlowRole", "WorkerRole"])
def test_every_role_gets_the_permissions_boundary(role: str) -> None:
    boundary = f"{YOURS}:policy/boundary"
    made = properties(role, PermissionsBoundaryArn=boundary)
    assert made["PermissionsBoundary"] == boundary
    assert "PermissionsBoundary" not in properties(role)


def test_without_a_credential_there_is_no_secret() -> None:
    assert "Secrets" not in worker(ApiKeyParameter="")
    assert "Policies" not in properties("ExecutionRole", ApiKeyParameter="")


@pytest.mark.parametrize(
    ("mode", "value"), [("rescue", "false"), ("opt-in", "false"), ("observe", None)]
)
def test_worker_environment_switches_the_observer_off_where_we_end_runs(
    mode: str, value: str | None
) -> None:
    """It would mark runs Crashed that `react` is to rerun; in observe it is what ends runs."""
    given = {"EndsRuns": stack.parameters_of(MODE=mode)["EndsRuns"]}
    environment = {entry["Name"]: entry["Value"] for entry in worker(**given)["Environment"]}
    assert environment.get("PREFECT_INTEGRATIONS_AWS_ECS_OBSERVER_ENABLED") == value
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
    given = {a: s for a, s in allowed("WorkerRole") if s["Effect"] == "Allow"}
    assert "ecs:RunTask" in calls
    assert calls | {"ecs:TagResource", "iam:PassRole"} == set(given)
    cluster = f"arn:aws:ecs:{REGION}:{ACCOUNT}:cluster/{stack.STACK}"
    assert given["ecs:RunTask"]["Condition"] == {
        "ArnEquals": {"ecs:cluster": cluster},
        "Null": {f"aws:ResourceTag/{TEMPLATE_TAG}": "true"},  # no stage's worker
    }
    tasks = f"arn:aws:ecs:{REGION}:{ACCOUNT}:task/{stack.STACK}/*"
    assert given["ecs:StopTask"]["Resource"] == given["ecs:TagResource"]["Resource"] == tasks
    on_run = {"StringEquals": {"ecs:CreateAction": "RunTask"}}
    assert given["ecs:TagResource"]["Condition"] == on_run
    names = (f"{stack.STACK}-execution", f"{stack.STACK}-flow", f"prefect-spot/{stack.STACK}/*")
    roles = [f"arn:aws:iam::{ACCOUNT}:role/{name}" for name in names]
    assert given["iam:PassRole"]["Resource"] == roles
    to_ecs = {"StringEquals": {"iam:PassedToService": "ecs-tasks.amazonaws.com"}}
    assert given["iam:PassRole"]["Condition"] == to_ecs


def family_of(pool: str, deployment: UUID | None) -> str:
    """The name that prefect-aws gives a family that has none."""
    worker = SimpleNamespace(_work_pool_name=pool)
    run = SimpleNamespace(deployment_id=deployment, flow_id=UUID(int=1))
    return str(ecs_worker.ECSWorker._get_or_generate_family(worker, {}, run))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("family", "may_register"),
    [
        (family_of("fargate-spot-dev", UUID(int=2)), True),
        (family_of("fargate-spot-dev", None), True),
        (f"{stack.STACK}_of-a-deployment", True),
        (family_of("fargate-spot-dev-eu", UUID(int=2)), False),
        (family_of("fargate-spot", UUID(int=2)), False),
        (f"{stack.STACK}-worker", False),
        (f"{stack.STACK}-eu_of-a-deployment", False),
        ("billing", False),
    ],
)
def test_worker_registers_task_definitions_of_its_pools_flows_only(
    family: str, may_register: bool
) -> None:
    """Else it could have another's service start an image of its choice: the newest revision."""
    [policy] = properties("WorkerRole")["Policies"]
    arn = f"arn:aws:ecs:{REGION}:{ACCOUNT}:task-definition/{family}:*"
    statements = policy["PolicyDocument"]["Statement"]
    assert iam.is_allowed(statements, "ecs:RegisterTaskDefinition", arn, {}) is may_register


@pytest.mark.parametrize(
    ("family", "may_run"),
    [
        ("billing", True),  # asked for so, where a deployment names a family and no revision
        ("billing:7", True),
        (f"{stack.STACK}-worker", False),
        (f"{stack.STACK}-worker:7", False),
    ],
)
def test_worker_runs_any_family_with_or_without_a_revision_but_not_its_own(
    family: str, may_run: bool
) -> None:
    [policy] = properties("WorkerRole")["Policies"]
    place = f"arn:aws:ecs:{REGION}:{ACCOUNT}"
    about = {"ecs:cluster": f"{place}:cluster/{stack.STACK}"}
    statements = policy["PolicyDocument"]["Statement"]
    arn = f"{place}:task-definition/{family}"
    assert iam.is_allowed(statements, "ecs:RunTask", arn, about) is may_run
    elsewhere = {"ecs:cluster": f"{place}:cluster/{stack.STACK}-eu"}
    assert not iam.is_allowed(statements, "ecs:RunTask", arn, elsewhere)


@pytest.mark.parametrize("role", ["ExecutionRole", "FlowRole", "WorkerRole"])
def test_role_has_no_wildcard_and_is_assumed_by_tasks_of_this_account(role: str) -> None:
    for action, statement in allowed(role):
        assert "*" not in action
        assert "*" not in as_list(statement["Resource"]) or action in ON_ALL_RESOURCES
    [trust] = properties(role)["AssumeRolePolicyDocument"]["Statement"]
    assert trust["Principal"] == {"Service": "ecs-tasks.amazonaws.com"}
    assert trust["Condition"]["StringEquals"] == {"aws:SourceAccount": ACCOUNT}


BUCKET = f"arn:aws:s3:::{stack.STACK}-results-{ACCOUNT}-{REGION}"


def test_flow_role_reads_and_writes_the_stacks_own_bucket() -> None:
    granted = [(action, s) for action, s in allowed("FlowRole") if s["Effect"] == "Allow"]
    assert {action: statement["Resource"] for action, statement in granted} == {
        "s3:GetObject": f"{BUCKET}/*",
        "s3:PutObject": f"{BUCKET}/*",
        "s3:DeleteObject": f"{BUCKET}/*",
        "s3:AbortMultipartUpload": f"{BUCKET}/*",
        "s3:ListBucket": BUCKET,
    }


def may_do_with_results(principal: str, policies: list[Any], action: str, key: str) -> bool:
    """Whether IAM lets that role do it, by its own policies and by the bucket's."""
    of_bucket = properties("ResultsBucketPolicy")["PolicyDocument"]["Statement"]
    about = {"aws:PrincipalArn": principal, "aws:SecureTransport": "true"}
    own = [statement for policy in policies for statement in policy["PolicyDocument"]["Statement"]]
    return iam.is_allowed([*own, *of_bucket], action, f"{BUCKET}/{key}", about)


ANYTHING = [
    {
        "PolicyDocument": {
            "Statement": [
                {
                    "Effect": "Allow",
                    "Action": ["s3:PutObject", "s3:DeleteObject", "s3:GetObject"],
                    "Resource": "*",
                }
            ]
        }
    }
]


OWN_ROLE = f"prefect-spot/{stack.STACK}/{stack.STACK}-flow-nightly-sales"


@pytest.mark.parametrize(
    ("role", "key", "can_write"),
    [
        (f"{stack.STACK}-flow", "any-key", True),
        (f"{stack.STACK}-flow", "deployments/nightly-sales/key", False),
        (OWN_ROLE, "deployments/nightly-sales/key", True),
        (OWN_ROLE, "deployments/nightly-sales-eu/key", False),
        (OWN_ROLE, "any-key", False),
    ],
)
def test_a_deployment_with_a_role_of_its_own_shares_its_results_with_no_other(
    role: str, key: str, can_write: bool
) -> None:
    """The default role belongs to all others; the deployment's own comes from the example."""
    given = {"Stack": stack.STACK, "Deployment": "nightly-sales"}
    own = stack.resources({**stack.parameters(), **given}, EXAMPLE)["Role"]["Properties"]
    assert f"{own['Path']}{own['RoleName']}" == f"/{OWN_ROLE}"
    assert own["AssumeRolePolicyDocument"] == properties("FlowRole")["AssumeRolePolicyDocument"]
    policies = own["Policies"] if "/" in role else properties("FlowRole")["Policies"]
    principal = f"arn:aws:iam::{ACCOUNT}:role/{role}"
    for action in ("s3:PutObject", "s3:GetObject", "s3:DeleteObject"):
        assert may_do_with_results(principal, policies, action, key) is can_write


@pytest.mark.parametrize(
    "principal",
    [
        "root", "user/ann", "role/admin", f"role/{stack.STACK}-worker",
        f"role/{stack.STACK}-flow-2", f"role/other/{stack.STACK}-flow",
        f"role/prefect-spot/{stack.STACK}-eu/nightly-sales",
    ],
)  # fmt: skip
def test_nobody_but_flows_writes_results_and_an_operator_can_empty_the_bucket(
    principal: str,
) -> None:
    arn = f"arn:aws:iam::{ACCOUNT}:{principal}"
    assert not may_do_with_results(arn, ANYTHING, "s3:PutObject", "any-key")
    assert may_do_with_results(arn, ANYTHING, "s3:DeleteObject", "any-key")


def test_a_result_names_its_own_serializer_whatever_the_flows_is() -> None:
    """Why JSON alone does not protect a flow that reads what others may write."""
    stored = ResultRecord(
        result=Path("/"),
        metadata=ResultRecordMetadata(serializer=PickleSerializer(), storage_key="key"),
    ).serialize()
    read: ResultRecord[Any] = ResultRecord.deserialize(stored, backup_serializer=JSONSerializer())
    assert read.result == Path("/")
    assert "pickle" in stored.decode()


def test_given_security_groups_are_used_and_ours_has_no_ingress() -> None:
    assert "SecurityGroupIngress" not in properties("SecurityGroup")
    assert "SecurityGroup" not in stack.resources(stack.parameters(SecurityGroupIds="sg-1"))
    network = properties("WorkerService", SecurityGroupIds="sg-1,sg-2")["NetworkConfiguration"]
    assert network["AwsvpcConfiguration"]["SecurityGroups"] == ["sg-1", "sg-2"]
    assert stack.outputs(stack.parameters(SecurityGroupIds="sg-1,sg-2"))["SecurityGroupIds"] == (
        "sg-1,sg-2"
    )


OF_EVENTS = ("react", "meter")
ANY_QUEUE = {"Effect": "Allow", "Action": "sqs:SendMessage", "Resource": "*"}


@pytest.mark.parametrize(
    ("sender", "name", "is_taken"),
    [
        *[("rule", f"prefect-spot-dev-{name}-event", name in OF_EVENTS) for name in FUNCTIONS],
        *[("role", f"prefect-spot-dev-{name}", name in OF_EVENTS) for name in FUNCTIONS],
        ("rule", "somebodys", False),
        ("rule", "prefect-spot-dev-eu-react-event", False),
        ("rule", "prefect-spot-dev-react-event-2", False),
        ("role", "prefect-spot-dev-flow", False),
        ("role", "prefect-spot-dev-eu-react", False),
        ("role", "admin", False),
    ],
)
def test_failure_queue_takes_what_our_rules_and_functions_could_not_deliver_and_no_more(
    sender: str, name: str, is_taken: bool
) -> None:
    """A rule has no right but the queue's; a role may have its own for every queue."""
    statements = properties("FailureQueuePolicy")["PolicyDocument"]["Statement"]
    queue = f"arn:aws:sqs:{REGION}:{ACCOUNT}:{stack.STACK}-failures"
    own = []
    if sender == "rule":
        source = f"arn:aws:events:{REGION}:{ACCOUNT}:rule/{name}"
        about = {"Service": "events.amazonaws.com", "aws:SourceArn": source}
        about |= {"aws:SourceAccount": ACCOUNT, "aws:PrincipalIsAWSService": "true"}
    else:
        principal = f"arn:aws:iam::{ACCOUNT}:role/{name}"
        about = {"aws:PrincipalArn": principal, "aws:PrincipalAccount": ACCOUNT}
        about |= {"aws:PrincipalIsAWSService": "false"}
        own = [ANY_QUEUE]
    assert iam.is_allowed([*statements, *own], "sqs:SendMessage", queue, about) is is_taken
    if sender == "role":  # without a right of its own, too
        assert iam.is_allowed(statements, "sqs:SendMessage", queue, about) is is_taken


def test_failure_queue_keeps_what_it_has_encrypted_for_two_weeks() -> None:
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
        "SampleCount of 60 s, 10 times LessThanThreshold 1, missing",
    ),
    "Paused": (
        *(f"{NAMESPACE} {Metric.PAUSED_SECONDS.value}", OF_A_POOL),
        "Maximum of 300 s, 1 times GreaterThanOrEqualToThreshold 0, notBreaching",
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


def alarms() -> dict[str, dict[str, Any]]:
    kept = stack.resources(stack.parameters())
    kind = "AWS::CloudWatch::Alarm"
    return {name: r["Properties"] for name, r in kept.items() if r["Type"] == kind}


def test_no_alarm_goes_off_while_there_is_no_data_yet() -> None:
    """Or the mail of a healthy deploy were an alarm: ECS's first data come minutes after a start.

    CloudWatch: a new alarm's state is INSUFFICIENT_DATA, without an action; where all data are
    missing, it goes to ALARM by `breaching`, and back to INSUFFICIENT_DATA by `missing`.
    """
    found = alarms()
    assert {a["TreatMissingData"] for a in found.values()} == {"notBreaching", "missing"}
    by_silence = {n for n, a in found.items() if a["TreatMissingData"] == "missing"}
    assert by_silence == {n for n, a in found.items() if "InsufficientDataActions" in a}
    assert by_silence == {"WorkerNotRunningAlarm"}


def test_every_alarm_sends_that_it_goes_off_and_that_it_is_over() -> None:
    for name, found in alarms().items():
        sent = [found[key] for key in ("AlarmActions", "OKActions")]
        assert sent == [["the-AlarmTopic"]] * 2, name


SEVERAL = stack.parameters_of(PROVISION="rescue-only", WORK_POOL="etl, ml")


@pytest.mark.parametrize(
    ("given", "pool"), [(stack.parameters(), "fargate-spot-dev"), (SEVERAL, ALL_POOLS)]
)
def test_dashboard_is_json_and_shows_every_metric_as_it_is_published(
    given: dict[str, str], pool: str
) -> None:
    """CloudWatch shows a broken body as nothing, and a misspelt metric as an empty chart."""
    made = stack.resources(given)
    widgets = json.loads(made["Dashboard"]["Properties"]["DashboardBody"])["widgets"]
    lines = [line for widget in widgets for line in widget["properties"]["metrics"]]
    assert all(isinstance(line, list) for line in lines)
    ours = [line for line in lines if line[0] == NAMESPACE]
    assert {line[1] for line in ours} == {*Metric}
    for line in ours:
        assert line[2:6] == ["Stage", "dev", "WorkPool", pool]
    of_pools, of_deployments = [line[0] for line in lines if isinstance(line[0], dict)]
    series = '{PrefectSpot,Stage,WorkPool,Deployment} MetricName="SpotInterruptions"'
    assert of_deployments["expression"] == f"SEARCH('{series} Stage=\"dev\"', 'Sum', 3600)"
    assert of_deployments["label"] == "${PROP('Dim.Deployment')}"
    series = f'MetricName="NetSavings" Stage="dev" NOT WorkPool="{pool}"'  # which is the first line
    assert (
        f"SEARCH('{{PrefectSpot,Stage,WorkPool}} {series}', 'Sum', 86400)" == of_pools["expression"]
    )
    assert of_pools["label"] == "net of ${PROP('Dim.WorkPool')}"
    for widget in widgets:
        usd = {line[1] for line in widget["properties"]["metrics"] if line[0] == NAMESPACE}
        is_money = any(UNITS[Metric(name)] == USD for name in usd)
        assert ("assumed rates" in widget["properties"]["title"]) is is_money
    places = [(widget["x"], widget["y"]) for widget in widgets]
    assert len(set(places)) == len(places)
    alarms = [
        r["Properties"] for r in made.values() if r["Properties"].get("Namespace") == NAMESPACE
    ]
    of_stage = [{"Name": "Stage", "Value": "dev"}, {"Name": "WorkPool", "Value": pool}]
    assert [alarm["Dimensions"] for alarm in alarms] == [of_stage] * 4
