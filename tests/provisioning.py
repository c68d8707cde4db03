"""Builders for what `provision` plans by: each makes an ordinary thing, a test overrides its point.

The templates are the smallest that have all the kinds of things the real ones have.
"""

from collections.abc import Mapping
from typing import Any

from chalicelib.core.provision.dead_letters import RETRY_POLICY, Delivery, InvokeConfig
from chalicelib.core.provision.mode import Provision
from chalicelib.core.provision.plan import (
    Credential,
    Desired,
    Network,
    Observed,
    stack_definition,
)
from chalicelib.core.provision.pool_template import WorkPool, merged
from chalicelib.core.provision.stack import Stack

ACCOUNT = "123456789012"
REGION = "us-east-1"
STACK_NAME = "prefect-spot-dev"
STACK_ID = f"arn:aws:cloudformation:{REGION}:{ACCOUNT}:stack/{STACK_NAME}/1"
WORK_POOL = "fargate-spot-dev"
PARAMETER = "/prefect-spot/dev/api-key"
PARAMETER_ARN = f"arn:aws:ssm:{REGION}:{ACCOUNT}:parameter{PARAMETER}"
QUEUE_ARN = f"arn:aws:sqs:{REGION}:{ACCOUNT}:{STACK_NAME}-failures"
FUNCTION_PREFIX = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:"

STACK_TEMPLATE: dict[str, Any] = {
    "Parameters": {
        "Stage": {"Type": "String"},
        "WorkerImage": {"Type": "String"},
        "VpcId": {"Type": "String"},
        "SubnetIds": {"Type": "String"},
        "TableName": {"Type": "String"},
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
        "FailureQueueArn": {"Value": {"Fn::GetAtt": ["FailureQueue", "Arn"]}},
        "ClusterName": {"Value": {"Ref": "TableName"}},
        "FlowRoleArn": {"Value": "arn:aws:iam::123456789012:role/flow"},
        "SubnetIds": {"Value": {"Ref": "SubnetIds"}},
        "VpcId": {"Value": {"Ref": "VpcId"}},
        "SecurityGroupIds": {"Value": "sg-11111111"},
    },
}

OUTPUTS = {
    "FailureQueueArn": QUEUE_ARN,
    "ClusterName": STACK_NAME,
    "FlowRoleArn": f"arn:aws:iam::{ACCOUNT}:role/flow",
    "SubnetIds": "subnet-11111111,subnet-22222222",
    "VpcId": "vpc-11111111",
    "SecurityGroupIds": "sg-11111111",
}

_TEXT: dict[str, Any] = {"anyOf": [{"type": "string"}, {"type": "null"}]}
POOL_TEMPLATE: dict[str, Any] = {
    "variables": {
        "type": "object",
        "properties": {
            "image": {**_TEXT, "default": None},
            "cpu": {"type": "integer", "default": 1024},
            "launch_type": {"type": "string", "default": "FARGATE_SPOT"},
            "capacity_provider_strategy": {
                "type": "array",
                "items": {"$ref": "#/definitions/CapacityProvider"},
            },
            "cluster": {**_TEXT, "default": "${ClusterName}"},
            "vpc_id": {**_TEXT, "default": "${VpcId}"},
            "task_role_arn": {**_TEXT, "default": "${FlowRoleArn}"},
            "configure_cloudwatch_logs": {"type": "boolean", "default": True},
            "prefect_api_key_secret_arn": {**_TEXT, "default": "${ApiKeyParameterArn}"},
            "prefect_api_auth_string_secret_arn": {**_TEXT, "default": "${AuthStringParameterArn}"},
            "network_configuration": {
                "type": "object",
                "default": {
                    "subnets": "${SubnetIds}",
                    "securityGroups": "${SecurityGroupIds}",
                    "assignPublicIp": "${AssignPublicIp}",
                },
            },
        },
        "definitions": {"CapacityProvider": {"type": "object"}},
    },
    "job_configuration": {
        "cluster": "{{ cluster }}",
        "env": "{{ env }}",
        "prefect_api_key_secret_arn": "{{ prefect_api_key_secret_arn }}",
        "network_configuration": "{{ network_configuration }}",
        "task_definition": {
            "cpu": "{{ cpu }}",
            "containerDefinitions": [
                {
                    "name": "{{ container_name }}",
                    "image": "{{ image }}",
                    "memory": "{{ memory }}",
                    "stopTimeout": 120,
                    "environment": [
                        {
                            "name": "PREFECT_FLOW_RUN_EXECUTE_SIGTERM_BEHAVIOR",
                            "value": "relinquish",
                        }
                    ],
                }
            ],
        },
        "task_run_request": {
            "launchType": "{{ launch_type }}",
            "capacityProviderStrategy": "{{ capacity_provider_strategy }}",
            "overrides": {"taskRoleArn": "{{ task_role_arn }}"},
        },
    },
}

VALUES: Mapping[str, Any] = {
    **OUTPUTS,
    "SubnetIds": ("subnet-11111111", "subnet-22222222"),
    "SecurityGroupIds": ("sg-11111111",),
    "AssignPublicIp": "ENABLED",
    "ApiKeyParameterArn": PARAMETER_ARN,
    "AuthStringParameterArn": "",
}

SHIPPED_VALUES: Mapping[str, Any] = {
    **VALUES,
    "ExecutionRoleArn": f"arn:aws:iam::{ACCOUNT}:role/{STACK_NAME}-execution",
    "LogGroupName": f"/ecs/{STACK_NAME}",
}
"""What the template that is shipped asks for."""

POOL_AS_IT_SHALL_BE = merged({}, POOL_TEMPLATE, VALUES, "FARGATE_SPOT")


def make_desired(**changes: Any) -> Desired:
    """Full provisioning with an API key, its network looked up."""
    ordinary: dict[str, Any] = {
        "provision": Provision.FULL,
        "stack_name": STACK_NAME,
        "template": STACK_TEMPLATE,
        "parameters": {
            "Stage": "dev",
            "WorkerImage": "prefecthq/prefect-aws:latest",
            "TableName": STACK_NAME,
        },
        "credential": Credential(PARAMETER, "PREFECT_API_KEY_PARAMETER", is_api_key=True),
        "vpc_id": "",
        "subnet_ids": (),
        "assign_public_ip": True,
        "use_spot": True,
        "work_pool": WORK_POOL,
        "pool_template": POOL_TEMPLATE,
        "functions": tuple(f"{STACK_NAME}-{name}" for name in ("react", "sweep", "provision")),
    }
    return Desired(**{**ordinary, **changes})


NETWORK = Network("vpc-11111111", ("subnet-11111111", "subnet-22222222"))


def make_stack(**changes: Any) -> Stack:
    """The stack as it shall be; status CREATE_COMPLETE."""
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
    """A rule's target as it shall be; Chalice calls it 1."""
    ordinary: dict[str, Any] = {
        "Id": "1",
        "Arn": f"{FUNCTION_PREFIX}{function}",
        "DeadLetterConfig": {"Arn": QUEUE_ARN},
        "RetryPolicy": dict(RETRY_POLICY),
    }
    return {**ordinary, **changes}


def bare_target(function: str) -> dict[str, Any]:
    """A rule's target as a deploy leaves it."""
    return {"Id": "1", "Arn": f"{FUNCTION_PREFIX}{function}"}


def make_delivery(function: str = f"{STACK_NAME}-react", **changes: Any) -> Delivery:
    """A function whose events end in the queue when nobody can handle them."""
    ordinary: dict[str, Any] = {
        "function": function,
        "arn": f"{FUNCTION_PREFIX}{function}",
        "targets": {f"{function}-event": (make_target(function),)},
        "invoke_config": InvokeConfig(QUEUE_ARN),
    }
    return Delivery(**{**ordinary, **changes})


def make_observed(**changes: Any) -> Observed:
    """All as it shall be."""
    ordinary: dict[str, Any] = {
        "stack": make_stack(),
        "network": NETWORK,
        "credential_arn": PARAMETER_ARN,
        "work_pool": WorkPool(WORK_POOL, "ecs", POOL_AS_IT_SHALL_BE),
        "deliveries": (make_delivery(),),
    }
    return Observed(**{**ordinary, **changes})
