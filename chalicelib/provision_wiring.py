"""Joins the parts for one invocation of `provision`: what no other function loads."""

from typing import Final

import boto3

import infra
from chalicelib.adapters.prefect_client import JsonHttp
from chalicelib.adapters.prefect_work_pools import PrefectWorkPools
from chalicelib.adapters.provisioning import AwsAccount
from chalicelib.core.provision.plan import Desired
from chalicelib.functions.provision import ProvisionContext
from chalicelib.settings import function_names, stack_parameters
from chalicelib.wiring import (
    LambdaContext,
    authorization,
    countdown,
    log_of_function,
    make_connections,
    settings,
)

SECONDS_FOR_AWS: Final = 10.0
"""Left of an invocation when Prefect must have answered: for AWS's part."""


def provision_context(lambda_context: LambdaContext) -> ProvisionContext:
    """Make all of it anew: what is called every few minutes keeps nothing warm."""
    chosen = settings()
    left = countdown(lambda_context.get_remaining_time_in_millis() / 1000 - SECONDS_FOR_AWS)
    of_function = lambda_context.invoked_function_arn.split(":")
    return ProvisionContext(
        desired=Desired(
            is_full=chosen.is_full,
            stack_name=chosen.stack_name,
            template=infra.load("stack.json"),
            parameters=stack_parameters(chosen),
            secrets=chosen.secrets,
            vpc_id=chosen.vpc_id,
            subnet_ids=chosen.subnet_ids,
            assign_public_ip=chosen.assign_public_ip,
            use_spot=chosen.use_spot,
            work_pools=chosen.work_pools,
            pool_template=infra.load("base-job-template.json"),
            functions=(names := function_names(chosen.stage)),
            ends_runs=chosen.mode.ends_runs,
            architecture=chosen.architecture,
            log_retention_days=chosen.log_retention_days,
            concurrency=dict(zip(names, (chosen.react_concurrency, 0, 1, 0), strict=True)),
            roles_arn=f"arn:{of_function[1]}:iam::{of_function[4]}:role/",
        ),
        aws=AwsAccount(
            cloudformation=boto3.client("cloudformation"),
            ec2=boto3.client("ec2"),
            events=boto3.client("events"),
            iam=boto3.client("iam"),
            lambdas=boto3.client("lambda"),
            logs=boto3.client("logs"),
            ssm=boto3.client("ssm"),
            function_arn_prefix=":".join(of_function[:6]) + ":",
        ),
        # Without the table's wait, which `provision` may not read.
        work_pools=PrefectWorkPools(
            JsonHttp(chosen.prefect_api_url, authorization(), left, connections=make_connections())
        ),
        log=log_of_function(),
    )
