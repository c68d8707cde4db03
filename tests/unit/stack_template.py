"""The stack's template, its conditions and functions resolved, as the embedded cloud reads it."""

from collections.abc import Callable
from typing import Any, Final

import infra
from chalicelib.settings import read_settings, stack_parameters
from localcloud.cloudformation.resources import Made
from localcloud.cloudformation.scope import Scope

Resources = dict[str, dict[str, Any]]

ACCOUNT: Final = "123456789012"
REGION: Final = "us-east-1"
STACK: Final = "prefect-spot-dev"

_PSEUDO: Final = {
    "AWS::AccountId": ACCOUNT,
    "AWS::Partition": "aws",
    "AWS::Region": REGION,
}
_ARNS: Final[dict[str, Callable[[dict[str, Any]], str]]] = {
    "AWS::ECS::Cluster": lambda it: f"arn:aws:ecs:{REGION}:{ACCOUNT}:cluster/{it['ClusterName']}",
    "AWS::IAM::Role": lambda it: f"arn:aws:iam::{ACCOUNT}:role/{it['RoleName']}",
    "AWS::S3::Bucket": lambda it: f"arn:aws:s3:::{it['BucketName']}",
    "AWS::SQS::Queue": lambda it: f"arn:aws:sqs:{REGION}:{ACCOUNT}:{it['QueueName']}",
}


def parameters(**changes: str) -> dict[str, str]:
    """Return what `provision` passes by default, changed by `changes`."""
    ordinary = parameters_of()
    assert set(changes) <= set(ordinary)
    return {**ordinary, **changes}


def parameters_of(**settings: str) -> dict[str, str]:
    """Return what `provision` passes with these settings beside those that are needed."""
    environment = {
        "PREFECT_API_URL": "https://prefect.example.com/api",
        "PREFECT_API_KEY_PARAMETER": "/prefect-spot/dev/api-key",
        "VPC_ID": "vpc-0123456789abcdef0",
        "SUBNET_IDS": "subnet-0123456789abcdef0,subnet-0123456789abcdef1",
    }
    return stack_parameters(read_settings({**environment, **settings}))


def rescue_only(**changes: str) -> dict[str, str]:
    """Return what `provision` passes for teams that have a cluster, pool and worker already."""
    empty = {"Provision": "rescue-only", "VpcId": "", "SubnetIds": ""}
    return parameters(**{**empty, **changes})


def resources(given: dict[str, str], template: Any = None) -> Resources:
    """Return what is created with these parameters: types and properties, by logical id.

    `template`: another one than the stack's.
    """
    made = _scope(given, template).provide_all()
    return {name: {"Type": it.type, "Properties": it.properties} for name, it in made.items()}


def outputs(given: dict[str, str]) -> dict[str, str]:
    """Return the stack's outputs with these parameters."""
    return _scope(given).outputs()


def _scope(given: dict[str, str], template: Any = None) -> Scope:
    name = {"AWS::StackName": given["TableName"]}  # the table is called like the stack
    return Scope(template or infra.load("stack.json"), {**_PSEUDO, **name, **given}, _made)


def _made(logical_id: str, kind: str, properties: dict[str, Any]) -> Made:
    """A resource whose physical id is `the-` and its logical id."""
    attributes = {
        "GroupId": "sg-0123456789abcdef0",
        "Name": f"the-{logical_id}",
        "QueueName": f"the-{logical_id}",
    }
    if kind in _ARNS:
        attributes["Arn"] = _ARNS[kind](properties)
    return Made(kind, properties, f"the-{logical_id}", attributes)
