"""What a Prefect 1 user once set up by hand, row by row, as the stack makes it."""

import inspect
import json
import re
from typing import Any

from prefect_aws.workers import ecs_worker

from tests.localcloud.stacks import API_KEY, StackUnderTest
from tests.unit.stack_rules import as_list


def grants(stack: StackUnderTest, role: str) -> dict[str, dict[str, Any]]:
    """What the role's inline policies allow: each statement, by action."""
    return {
        action: statement
        for policy in stack.read(role)["Policies"]
        for statement in policy["PolicyDocument"]["Statement"]
        for action in as_list(statement["Action"])
    }


def test_row_api_key_as_ssm_secure_string_whose_value_stands_nowhere(
    stack: StackUnderTest,
) -> None:
    parameter = stack.aws.client("ssm").get_parameter(Name="/prefect-spot/dev/api-key")
    [container] = stack.read("WorkerTaskDefinition")["ContainerDefinitions"]
    [secret] = container["Secrets"]
    assert secret == {"Name": "PREFECT_API_KEY", "ValueFrom": parameter["Parameter"]["ARN"]}
    client = stack.client
    told = [
        client.get_template(StackName=stack.id)["TemplateBody"],
        client.describe_stack_events(StackName=stack.id)["StackEvents"],
        stack.described(),
        *[stack.read(logical_id) for logical_id in stack.physical_ids()],
    ]
    assert API_KEY not in json.dumps(told, default=str)


def test_row_cluster_with_spot_and_fargate_weights(stack: StackUnderTest) -> None:
    cluster = stack.read("Cluster")
    assert cluster["CapacityProviders"] == ["FARGATE", "FARGATE_SPOT"]
    assert cluster["DefaultCapacityProviderStrategy"] == [
        {"CapacityProvider": "FARGATE_SPOT", "Weight": 3},
        {"CapacityProvider": "FARGATE", "Weight": 2, "Base": 1},
    ]


def test_row_plain_fargate_cluster(another: StackUnderTest) -> None:
    assert another.create(another.full(UseSpot="false")) == "CREATE_COMPLETE"
    cluster = another.read("Cluster")
    assert cluster["CapacityProviders"] == ["FARGATE"]
    assert cluster["DefaultCapacityProviderStrategy"] == [
        {"CapacityProvider": "FARGATE", "Weight": 1}
    ]


def test_row_execution_role_narrowed_to_the_one_parameter(stack: StackUnderTest) -> None:
    role = stack.read("ExecutionRole")
    [managed] = role["ManagedPolicyArns"]
    assert managed == "arn:aws:iam::aws:policy/service-role/AmazonECSTaskExecutionRolePolicy"
    [(action, statement)] = grants(stack, "ExecutionRole").items()
    assert action == "ssm:GetParameters"
    arn = "arn:aws:ssm:us-east-1:123456789012:parameter/prefect-spot/dev/api-key"
    assert statement["Resource"] == arn
    [trust] = role["AssumeRolePolicyDocument"]["Statement"]
    assert trust["Principal"] == {"Service": "ecs-tasks.amazonaws.com"}


def test_row_worker_role_allows_what_the_ecs_worker_calls(stack: StackUnderTest) -> None:
    source = inspect.getsource(ecs_worker)
    calls = {
        f"{service}:{''.join(word.title() for word in operation.split('_'))}"
        for service, operation in re.findall(r"\b(ecs|ec2)_client\.(\w+)\(", source)
    }
    allowed = grants(stack, "WorkerRole")
    assert "ecs:RunTask" in calls
    # Tasks get tags while they are run, in tasks' own names and with these roles.
    assert calls | {"ecs:TagResource", "iam:PassRole"} == set(allowed)
    outputs = stack.outputs()
    on_the_cluster = {"ArnEquals": {"ecs:cluster": outputs["ClusterArn"]}}
    assert allowed["ecs:RunTask"]["Condition"] == on_the_cluster
    its_tasks = "arn:aws:ecs:us-east-1:123456789012:task/prefect-spot-dev/*"
    assert allowed["ecs:StopTask"]["Resource"] == its_tasks
    tagged = allowed["ecs:TagResource"]
    assert tagged["Resource"] == its_tasks
    assert tagged["Condition"] == {"StringEquals": {"ecs:CreateAction": "RunTask"}}
    passed = allowed["iam:PassRole"]["Resource"]
    assert passed == [outputs["ExecutionRoleArn"], outputs["FlowRoleArn"]]


def test_row_flow_role_reads_and_writes_the_stacks_own_bucket(stack: StackUnderTest) -> None:
    bucket = f"arn:aws:s3:::{stack.outputs()['ResultsBucket']}"
    allowed = {
        action: statement["Resource"] for action, statement in grants(stack, "FlowRole").items()
    }
    assert allowed == {
        "s3:GetObject": f"{bucket}/*",
        "s3:PutObject": f"{bucket}/*",
        "s3:DeleteObject": f"{bucket}/*",
        "s3:AbortMultipartUpload": f"{bucket}/*",
        "s3:ListBucket": bucket,
    }


def test_row_results_bucket_encrypted_private_and_emptied_with_time(
    stack: StackUnderTest,
) -> None:
    bucket = stack.read("ResultsBucket")
    assert set(bucket["PublicAccessBlockConfiguration"].values()) == {True}
    [encryption] = bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    assert encryption["ServerSideEncryptionByDefault"]["SSEAlgorithm"] == "AES256"
    [rule] = bucket["LifecycleConfiguration"]["Rules"]
    assert (rule["Status"], rule["Expiration"]["Days"]) == ("Enabled", 90)
    [statement] = stack.read("ResultsBucketPolicy")["PolicyDocument"]["Statement"]
    assert statement["Effect"] == "Deny"
    assert statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
    s3, name = stack.aws.client("s3"), stack.outputs()["ResultsBucket"]
    s3.put_object(Bucket=name, Key="result", Body=b"1")
    assert s3.get_object(Bucket=name, Key="result")["Body"].read() == b"1"
    s3.delete_object(Bucket=name, Key="result")


def test_row_log_group_with_retention_awslogs_and_stream_prefix(stack: StackUnderTest) -> None:
    assert stack.read("LogGroup") == {
        "LogGroupName": "/ecs/prefect-spot-dev",
        "RetentionInDays": 30,
    }
    [container] = stack.read("WorkerTaskDefinition")["ContainerDefinitions"]
    assert container["LogConfiguration"] == {
        "LogDriver": "awslogs",
        "Options": {
            "awslogs-group": "/ecs/prefect-spot-dev",
            "awslogs-region": "us-east-1",
            "awslogs-stream-prefix": "worker",
        },
    }


def test_row_worker_task_definition(stack: StackUnderTest) -> None:
    definition = stack.read("WorkerTaskDefinition")
    assert (definition["Cpu"], definition["Memory"]) == ("512", "1024")
    assert definition["RequiresCompatibilities"] == ["FARGATE"]
    assert definition["NetworkMode"] == "awsvpc"
    assert definition["TaskRoleArn"] == stack.outputs()["WorkerRoleArn"]
    assert definition["ExecutionRoleArn"] == stack.outputs()["ExecutionRoleArn"]
    [container] = definition["ContainerDefinitions"]
    assert " ".join(container["Command"]) == (
        "prefect worker start --type ecs --pool fargate-spot-dev --with-healthcheck"
        " --work-queue etl --work-queue ml"
    )
    environment = {entry["Name"]: entry["Value"] for entry in container["Environment"]}
    assert environment == {
        "PREFECT_API_URL": "https://prefect.example.com/api",
        "PREFECT_INTEGRATIONS_AWS_ECS_OBSERVER_ENABLED": "false",
        "PREFECT_LOGGING_LEVEL": "INFO",
        "PREFECT_WORKER_QUERY_SECONDS": "10",
    }
    assert container["HealthCheck"]["Command"][0] == "CMD"
    assert "/health" in container["HealthCheck"]["Command"][-1]


def test_row_service_of_one_worker_on_fargate_with_public_ip_and_rollback(
    stack: StackUnderTest,
) -> None:
    service = stack.read("WorkerService")
    assert (service["ServiceName"], service["DesiredCount"]) == ("worker", 1)
    assert service["LaunchType"] == "FARGATE"
    assert not service.get("CapacityProviderStrategy")
    assert service["TaskDefinition"] == stack.outputs()["WorkerTaskDefinitionArn"]
    network = service["NetworkConfiguration"]["AwsvpcConfiguration"]
    assert network["AssignPublicIp"] == "ENABLED"
    assert network["Subnets"] == stack.subnets
    breaker = service["DeploymentConfiguration"]["DeploymentCircuitBreaker"]
    assert breaker == {"Enable": True, "Rollback": True}


def test_row_subnets_and_security_groups_of_ones_own(another: StackUnderTest) -> None:
    [default] = another.aws.client("ec2").describe_security_groups(
        Filters=[{"Name": "group-name", "Values": ["default"]}]
    )["SecurityGroups"]
    given = another.full(SecurityGroupIds=default["GroupId"], AssignPublicIp="DISABLED")
    assert another.create(given) == "CREATE_COMPLETE"
    network = another.read("WorkerService")["NetworkConfiguration"]["AwsvpcConfiguration"]
    assert network["SecurityGroups"] == [default["GroupId"]]
    assert network["AssignPublicIp"] == "DISABLED"
    assert "SecurityGroup" not in another.physical_ids()


def test_row_table_on_demand_with_ttl_and_recovery(stack: StackUnderTest) -> None:
    table = stack.read("Table")
    assert table["KeySchema"] == [{"AttributeName": "pk", "KeyType": "HASH"}]
    assert table["BillingMode"] == "PAY_PER_REQUEST"
    assert table["TimeToLiveSpecification"] == {"AttributeName": "expires_at", "Enabled": True}
    assert table["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": True}


def test_row_failure_queue_encrypted_for_a_fortnight_and_open_to_rules(
    stack: StackUnderTest,
) -> None:
    queue = stack.read("FailureQueue")
    assert queue["MessageRetentionPeriod"] == str(14 * 24 * 60 * 60)
    assert queue["SqsManagedSseEnabled"] == "true"
    # SQS encrypts by default, so its answer alone does not show that the template asks for it.
    assert stack.wanted()["FailureQueue"]["Properties"]["SqsManagedSseEnabled"] is True
    rules, functions = stack.read("FailureQueuePolicy")["PolicyDocument"]["Statement"]
    assert rules["Principal"] == {"Service": "events.amazonaws.com"}
    its_rules = "arn:aws:events:us-east-1:123456789012:rule/*"
    assert rules["Condition"]["ArnLike"] == {"aws:SourceArn": its_rules}
    assert rules["Resource"] == functions["Resource"] == stack.outputs()["FailureQueueArn"]
    who = functions["Condition"]["ArnLike"]["aws:PrincipalArn"]
    assert who == "arn:aws:iam::123456789012:role/prefect-spot-dev-*"


def test_row_alarms_tell_the_topic_and_the_topic_tells_the_operator(
    stack: StackUnderTest,
) -> None:
    alarms = [i for i in stack.physical_ids() if i.endswith("Alarm")]
    assert len(alarms) == 8
    topic = stack.outputs()["AlarmTopicArn"]
    assert {tuple(stack.read(alarm)["AlarmActions"]) for alarm in alarms} == {(topic,)}
    subscription = stack.read("AlarmSubscription")
    assert (subscription["Protocol"], subscription["Endpoint"]) == ("email", "ops@example.com")
    assert subscription["TopicArn"] == topic
    worker = stack.read("WorkerNotRunningAlarm")
    assert worker["TreatMissingData"] == "breaching"
    assert {d["Name"]: d["Value"] for d in worker["Dimensions"]} == {
        "ClusterName": "prefect-spot-dev",
        "ServiceName": "worker",
    }
