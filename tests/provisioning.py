"""Builders for what `provision` plans by: each makes an ordinary thing, a test overrides its point.

The stack's template is the smallest that has all the kinds of things the real one has.
"""

import copy
from collections.abc import Mapping
from typing import Any

from prefect_aws.workers import ECSWorker

import infra
from chalicelib.core.provision.concurrency import Concurrency
from chalicelib.core.provision.model import (
    NO_RETRIES,
    RETRY_POLICY,
    Delivery,
    InvokeConfig,
    Stack,
    is_scheduled,
)
from chalicelib.core.provision.plan import Desired, Network, Observed, stack_definition
from chalicelib.core.provision.pool_template import WorkPool, merged

ACCOUNT = "123456789012"
REGION = "us-east-1"
STACK_NAME = "prefect-spot-dev"
CONCURRENCY = {f"{STACK_NAME}-react": 10, f"{STACK_NAME}-sweep": 1}
STACK_ID = f"arn:aws:cloudformation:{REGION}:{ACCOUNT}:stack/{STACK_NAME}/1"
WORK_POOL = "fargate-spot-dev"
PARAMETER = "/prefect-spot/dev/api-key"
SECRETS = {"PREFECT_API_KEY_PARAMETER": PARAMETER}
PARAMETER_ARN = f"arn:aws:ssm:{REGION}:{ACCOUNT}:parameter{PARAMETER}"
QUEUE_ARN = f"arn:aws:sqs:{REGION}:{ACCOUNT}:{STACK_NAME}-failures"
FUNCTION_PREFIX = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:"
ROLES_ARN = f"arn:aws:iam::{ACCOUNT}:role/"

OUTPUTS = {
    "FailureQueueArn": QUEUE_ARN,
    "ClusterName": STACK_NAME,
    "ExecutionRoleArn": f"{ROLES_ARN}{STACK_NAME}-execution",
    "FlowRoleArn": f"{ROLES_ARN}{STACK_NAME}-flow",
    "LogGroupName": f"/ecs/{STACK_NAME}",
    "SubnetIds": "subnet-11111111,subnet-22222222",
    "VpcId": "vpc-11111111",
    "SecurityGroupIds": "sg-11111111",
}

STACK_TEMPLATE: dict[str, Any] = {
    "Parameters": {
        name: {"Type": "String"}
        for name in ("Stage", "WorkerImage", "VpcId", "SubnetIds", "TableName", "ClusterName")
    },
    "Resources": {
        "FailureQueue": {
            "Type": "AWS::SQS::Queue",
            "Properties": {"QueueName": {"Fn::Sub": "${AWS::StackName}-failures"}},
        },
        "Table": {
            "Type": "AWS::DynamoDB::Table",
            "Properties": {
                "TableName": {"Ref": "TableName"},
                "KeySchema": [{"AttributeName": "pk", "KeyType": "HASH"}],
                "AttributeDefinitions": [{"AttributeName": "pk", "AttributeType": "S"}],
                "BillingMode": "PAY_PER_REQUEST",
            },
        },
    },
    "Outputs": {
        **{name: {"Value": value} for name, value in OUTPUTS.items()},
        "FailureQueueArn": {"Value": {"Fn::GetAtt": ["FailureQueue", "Arn"]}},
        "ClusterName": {"Value": {"Ref": "ClusterName"}},
        "SubnetIds": {"Value": {"Ref": "SubnetIds"}},
        "VpcId": {"Value": {"Ref": "VpcId"}},
    },
}

POOL_TEMPLATE: dict[str, Any] = infra.load("base-job-template.json")

VALUES: Mapping[str, Any] = {
    **OUTPUTS,
    "SubnetIds": ("subnet-11111111", "subnet-22222222"),
    "SecurityGroupIds": ("sg-11111111",),
    "AssignPublicIp": "ENABLED",
    "CpuArchitecture": "X86_64",
    "ApiKeyParameterArn": PARAMETER_ARN,
    "AuthStringParameterArn": "",
    "CustomHeadersParameterArn": "",
    "CaCertificateParameterArn": "",
}

OUR_POOL_TEMPLATE = merged({}, POOL_TEMPLATE, VALUES, "FARGATE_SPOT")


def make_desired(**changes: Any) -> Desired:
    """Full provisioning with an API key, its network looked up."""
    ordinary: dict[str, Any] = {
        "is_full": True,
        "stack_name": STACK_NAME,
        "template": STACK_TEMPLATE,
        "parameters": {
            "Stage": "dev",
            "WorkerImage": "prefecthq/prefect-aws:0.7-python3.12-prefect3.9.1",
            "TableName": STACK_NAME,
            "ClusterName": STACK_NAME,
        },
        "secrets": SECRETS,
        "vpc_id": "",
        "subnet_ids": (),
        "assign_public_ip": True,
        "use_spot": True,
        "work_pools": (WORK_POOL,),
        "pool_template": POOL_TEMPLATE,
        "functions": tuple(f"{STACK_NAME}-{name}" for name in ("react", "sweep", "provision")),
        "roles_arn": ROLES_ARN,
        "concurrency": CONCURRENCY,
    }
    return Desired(**{**ordinary, **changes})


NETWORK = Network("vpc-11111111", ("subnet-11111111", "subnet-22222222"))


def make_stack(**changes: Any) -> Stack:
    """The stack up to date; status CREATE_COMPLETE."""
    definition = stack_definition(make_desired(), NETWORK)
    ordinary: dict[str, Any] = {
        "id": STACK_ID,
        "name": STACK_NAME,
        "status": "CREATE_COMPLETE",
        "template_hash": definition.template_hash,
        "parameters": definition.parameters,
        "outputs": OUTPUTS,
    }
    return Stack(**{**ordinary, **changes})


def make_target(function: str, **changes: Any) -> dict[str, Any]:
    """A rule's target as provision leaves it; Chalice calls it 1."""
    queue: dict[str, Any] = {"DeadLetterConfig": {"Arn": QUEUE_ARN}, "RetryPolicy": RETRY_POLICY}
    ours = {"RetryPolicy": NO_RETRIES} if is_scheduled(function) else queue
    ordinary: dict[str, Any] = {**bare_target(function), **ours}
    return {**ordinary, **changes}


def bare_target(function: str) -> dict[str, Any]:
    """A rule's target as a deploy leaves it."""
    return {"Id": "1", "Arn": f"{FUNCTION_PREFIX}{function}"}


def make_delivery(function: str = f"{STACK_NAME}-react", **changes: Any) -> Delivery:
    """A function whose events end in the queue when nothing can handle them."""
    ordinary: dict[str, Any] = {
        "function": function,
        "arn": f"{FUNCTION_PREFIX}{function}",
        "targets": {f"{function}-event": (make_target(function),)},
        "invoke_config": InvokeConfig("", 0, 60)
        if is_scheduled(function)
        else InvokeConfig(QUEUE_ARN),
    }
    return Delivery(**{**ordinary, **changes})


def push_template() -> dict[str, Any]:
    """The base job template of a push pool, as its users show it (Prefect#18877, #13030).

    It is an ecs pool's, which asks for AWS credentials, and lacks what only a worker does, and at
    first a capacity provider strategy.
    """
    template = copy.deepcopy(ECSWorker.get_default_base_job_template())
    configuration, variables = template["job_configuration"], template["variables"]
    for name in ("stream_output", "task_watch_poll_interval", "capacity_provider_strategy"):
        configuration.pop(name, None)
        variables["properties"].pop(name, None)
    configuration["task_run_request"].pop("capacityProviderStrategy", None)
    variables["required"] = ["aws_credentials"]
    variables["properties"]["aws_credentials"]["default"] = {"region_name": REGION}
    return template


def make_observed(**changes: Any) -> Observed:
    """All up to date."""
    ordinary: dict[str, Any] = {
        "stack": make_stack(),
        "network": NETWORK,
        "arns": {"PREFECT_API_KEY_PARAMETER": PARAMETER_ARN},
        "work_pools": (WorkPool(WORK_POOL, "ecs", OUR_POOL_TEMPLATE),),
        "deliveries": (make_delivery(),),
        "concurrency": Concurrency(1_000, 989, CONCURRENCY),
    }
    return Observed(**{**ordinary, **changes})
