"""Joins the parts for one invocation of `provision`; apart, so that no other Lambda loads them."""

import os
import time
from collections.abc import Callable, Mapping
from functools import cache
from typing import Final

import boto3

import infra
from chalicelib.adapters.dead_letters import AwsDeliveries
from chalicelib.adapters.network import Ec2Networks
from chalicelib.adapters.parameters import SsmParameters
from chalicelib.adapters.prefect_client import JsonHttp
from chalicelib.adapters.service_linked_role import EcsServiceLinkedRole
from chalicelib.adapters.stack import CloudFormationStacks
from chalicelib.adapters.work_pools import PrefectWorkPools
from chalicelib.core.provision.context import ProvisionContext
from chalicelib.core.provision.plan import Desired
from chalicelib.desired import desired_of
from chalicelib.provision_settings import read_provision_settings
from chalicelib.wiring import (
    LambdaContext,
    Outcome,
    authorize,
    connections,
    log_of_function,
    logged,
    settings,
)

SECONDS_FOR_AWS: Final = 10.0
"""Left of an invocation when Prefect must have answered: for AWS's part."""


def answer_provisioning(
    function: Callable[[ProvisionContext, object], Outcome],
    event: object,
    lambda_context: LambdaContext,
) -> Mapping[str, object]:
    """Call a function with the world as it is now; return what it came to, for Lambda's records."""
    return logged(lambda: function(_context(lambda_context), event), lambda_context)


def _context(lambda_context: LambdaContext) -> ProvisionContext:
    """Make all of it anew: what is called every few minutes keeps nothing warm."""
    ends_at = time.monotonic() + lambda_context.get_remaining_time_in_millis() / 1000

    def seconds_left() -> float:
        return ends_at - SECONDS_FOR_AWS - time.monotonic()

    http = JsonHttp(
        settings().prefect_api_url, authorize, deadline=seconds_left, pool=connections()
    )
    return ProvisionContext(
        desired=_desired(),
        stacks=CloudFormationStacks(boto3.client("cloudformation")),
        networks=Ec2Networks(boto3.client("ec2")),
        parameters=SsmParameters(boto3.client("ssm")),
        service_linked_role=EcsServiceLinkedRole(boto3.client("iam")),
        deliveries=AwsDeliveries(
            boto3.client("events"),
            boto3.client("lambda"),
            arn_prefix=":".join(lambda_context.invoked_function_arn.split(":")[:6]) + ":",
        ),
        work_pools=PrefectWorkPools(http),
        log=log_of_function(),
    )


@cache
def _desired() -> Desired:
    return desired_of(
        settings(),
        read_provision_settings(os.environ, settings()),
        template=infra.load("stack.json"),
        pool_template=infra.load("base-job-template.json"),
    )
