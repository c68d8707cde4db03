"""Sets up by hand what a user's AWS account would hold: cluster, table, bucket, worker, pool.

A script in place of provisioning: it makes just what an interruption needs to be rescued.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from localcloud.aws import EmulatedAws
from localcloud.deployment import PROJECT

STAGE = "dev"
STACK = f"prefect-spot-{STAGE}"
CLUSTER = f"prefect-spot-{STAGE}"
WORK_POOL = f"fargate-spot-{STAGE}"
AUTH_PARAMETER = f"/prefect-spot/{STAGE}/auth-string"
IMAGE = "prefecthq/prefect:3-latest"
FLOW_CPU = 256
FLOW_MEMORY = 512
STOP_TIMEOUT_SECONDS = 120


@dataclass(frozen=True)
class Account:
    """Where things are, once they are set up."""

    bucket: str
    subnets: tuple[str, ...]
    vpc: str
    security_group: str
    execution_role_arn: str
    auth_parameter_arn: str


def set_up_aws(aws: EmulatedAws, auth_string: str | None) -> Account:
    """Create cluster, table, bucket, log group, role and the secret; return where they are."""
    ec2 = aws.client("ec2")
    vpc = ec2.describe_vpcs(Filters=[{"Name": "isDefault", "Values": ["true"]}])["Vpcs"][0]["VpcId"]
    of_vpc = [{"Name": "vpc-id", "Values": [vpc]}]
    subnets = ec2.describe_subnets(Filters=of_vpc)["Subnets"]
    group = ec2.describe_security_groups(Filters=of_vpc)["SecurityGroups"][0]["GroupId"]
    aws.client("ecs").create_cluster(
        clusterName=CLUSTER,
        capacityProviders=["FARGATE", "FARGATE_SPOT"],
        defaultCapacityProviderStrategy=[
            {"capacityProvider": "FARGATE_SPOT", "weight": 3},
            {"capacityProvider": "FARGATE", "weight": 2, "base": 1},
        ],
    )
    aws.client("dynamodb").create_table(
        TableName=STACK,
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    bucket = f"{STACK}-results"
    aws.client("s3").create_bucket(Bucket=bucket)
    aws.client("logs").create_log_group(logGroupName=f"/ecs/{STACK}")
    role = aws.client("iam").create_role(
        RoleName=f"{STACK}-execution",
        AssumeRolePolicyDocument=json.dumps(
            {
                "Version": "2012-10-17",
                "Statement": [
                    {
                        "Effect": "Allow",
                        "Principal": {"Service": "ecs-tasks.amazonaws.com"},
                        "Action": "sts:AssumeRole",
                    }
                ],
            }
        ),
    )
    parameter_arn = ""
    if auth_string:
        ssm = aws.client("ssm")
        ssm.put_parameter(Name=AUTH_PARAMETER, Value=auth_string, Type="SecureString")
        parameter_arn = ssm.get_parameter(Name=AUTH_PARAMETER)["Parameter"]["ARN"]
    return Account(
        bucket=bucket,
        subnets=tuple(subnet["SubnetId"] for subnet in subnets),
        vpc=vpc,
        security_group=group,
        execution_role_arn=role["Role"]["Arn"],
        auth_parameter_arn=parameter_arn,
    )


def set_up_work_pool(account: Account, environment: dict[str, str]) -> None:
    """Create the ecs work pool; `environment` says where Prefect is, and how to be let in."""
    network = {
        "subnets": list(account.subnets),
        "securityGroups": [account.security_group],
        "assignPublicIp": "ENABLED",
    }
    defaults = {
        "launch_type": "FARGATE_SPOT",
        "cluster": CLUSTER,
        "image": IMAGE,
        "cpu": FLOW_CPU,
        "memory": FLOW_MEMORY,
        "execution_role_arn": account.execution_role_arn,
        "vpc_id": account.vpc,
        "network_configuration": network,
        "prefect_api_auth_string_secret_arn": account.auth_parameter_arn or None,
    }
    container = {
        "memory": FLOW_MEMORY,
        "stopTimeout": STOP_TIMEOUT_SECONDS,
        "environment": [
            {"name": "PREFECT_FLOW_RUN_EXECUTE_SIGTERM_BEHAVIOR", "value": "relinquish"}
        ],
    }
    run_python(
        ["-m", "localcloud.work_pool", WORK_POOL, json.dumps(defaults), json.dumps(container)],
        environment,
    )


def set_up_observer(aws: EmulatedAws) -> str:
    """Have all news of the cluster's tasks put into a queue, for prefect-aws's observer.

    As `prefect-aws ecs-worker deploy-events` does; returns the queue's name.
    """
    queue = f"{WORK_POOL}-ecs-events"
    sqs, events = aws.client("sqs"), aws.client("events")
    url = sqs.create_queue(QueueName=queue, Attributes={"VisibilityTimeout": "300"})["QueueUrl"]
    attributes = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]
    pattern = {"source": ["aws.ecs"], "detail-type": ["ECS Task State Change"]}
    events.put_rule(Name=queue, EventPattern=json.dumps(pattern))
    events.put_targets(Rule=queue, Targets=[{"Id": "1", "Arn": attributes["QueueArn"]}])
    return queue


def start_worker(
    aws: EmulatedAws,
    account: Account,
    api_url: str,
    query_seconds: float,
    health_port: int,
    observed_queue: str = "",
) -> None:
    """Register the worker's task definition and create its service, on demand, never on Spot.

    `observed_queue`: where prefect-aws's observer reads news of tasks. Without one it ends at
    once, which is what keeps it off: nothing in prefect-aws 0.7 reads its setting ENABLED.
    """
    ecs = aws.client("ecs")
    observer = "PREFECT_INTEGRATIONS_AWS_ECS_OBSERVER"
    environment = {
        "PREFECT_API_URL": api_url,
        "PREFECT_WORKER_QUERY_SECONDS": str(query_seconds),
        "PREFECT_WORKER_WEBSERVER_HOST": "127.0.0.1",
        "PREFECT_WORKER_WEBSERVER_PORT": str(health_port),
        f"{observer}_ENABLED": "true" if observed_queue else "false",
    }
    if observed_queue:
        environment[f"{observer}_SQS_QUEUE_NAME"] = observed_queue
    secrets = []
    if account.auth_parameter_arn:
        secrets = [{"name": "PREFECT_API_AUTH_STRING", "valueFrom": account.auth_parameter_arn}]
    command = ["prefect", "worker", "start", "--type", "ecs", "--pool", WORK_POOL]
    definition = ecs.register_task_definition(
        family=f"{STACK}-worker",
        requiresCompatibilities=["FARGATE"],
        networkMode="awsvpc",
        cpu="512",
        memory="1024",
        executionRoleArn=account.execution_role_arn,
        containerDefinitions=[
            {
                "name": "worker",
                "image": IMAGE,
                "memory": 1024,
                "command": [*command, "--with-healthcheck"],
                "environment": [{"name": k, "value": v} for k, v in environment.items()],
                "secrets": secrets,
            }
        ],
    )
    ecs.create_service(
        cluster=CLUSTER,
        serviceName="worker",
        taskDefinition=definition["taskDefinition"]["taskDefinitionArn"],
        desiredCount=1,
        launchType="FARGATE",
        networkConfiguration={
            "awsvpcConfiguration": {
                "subnets": list(account.subnets),
                "securityGroups": [account.security_group],
                "assignPublicIp": "ENABLED",
            }
        },
    )


def run_python(arguments: list[str], environment: dict[str, str], cwd: Path = PROJECT) -> str:
    """Run this Python with `environment` in place of the host's AWS and Prefect settings.

    Raises RuntimeError with the output when it fails.
    """
    host = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "PREFECT_"))}
    finished = subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env={**host, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if finished.returncode != 0:
        raise RuntimeError(f"{' '.join(arguments)} failed:\n{finished.stdout}")
    return finished.stdout
