"""The work pool's template is prefect-aws's own with our changes, and what a worker makes of it.

When a newer prefect-aws brings another default, the first test says so: look what is new, and
write the template anew.
"""

import asyncio
import json
import re
from typing import Any
from unittest.mock import MagicMock
from uuid import uuid4

from prefect.client.schemas.objects import FlowRun
from prefect_aws.workers import ECSWorker
from prefect_aws.workers.ecs_worker import ECSJobConfiguration

import infra
from chalicelib.core.provision.pool_template import merged
from tests.provisioning import VALUES

CONTAINER = ("job_configuration", "task_definition", "containerDefinitions", 0)
OUR_CHANGES: dict[tuple[str | int, ...], Any] = {
    (*CONTAINER, "memory"): "{{ memory }}",
    (*CONTAINER, "stopTimeout"): 120,
    (*CONTAINER, "environment"): [
        {"name": "PREFECT_FLOW_RUN_EXECUTE_SIGTERM_BEHAVIOR", "value": "relinquish"}
    ],
    **{
        ("variables", "properties", name, "default"): value
        for name, value in {
            "launch_type": "FARGATE_SPOT",
            "cpu": 1024,
            "memory": 2048,
            "cluster": "${ClusterName}",
            "execution_role_arn": "${ExecutionRoleArn}",
            "task_role_arn": "${FlowRoleArn}",
            "vpc_id": "${VpcId}",
            "network_configuration": {
                "subnets": "${SubnetIds}",
                "securityGroups": "${SecurityGroupIds}",
                "assignPublicIp": "${AssignPublicIp}",
            },
            "configure_cloudwatch_logs": True,
            "cloudwatch_logs_options": {
                "awslogs-group": "${LogGroupName}",
                "awslogs-create-group": "false",
            },
            "cloudwatch_logs_prefix": "flows",
            "prefect_api_key_secret_arn": "${ApiKeyParameterArn}",
            "prefect_api_auth_string_secret_arn": "${AuthStringParameterArn}",
        }.items()
    },
}


def changed(template: Any, path: tuple[str | int, ...], value: Any) -> None:
    for step in path[:-1]:
        template = template[step]
    template[path[-1]] = value


def task_definition(**job_variables: Any) -> dict[str, Any]:
    """What the worker registers for a run with these job variables."""
    template = dict(merged({}, infra.load("base-job-template.json"), VALUES, "FARGATE_SPOT"))
    configuration = asyncio.run(
        ECSJobConfiguration.from_template_and_values(template, job_variables, client=MagicMock())
    )
    worker = ECSWorker(work_pool_name="fargate-spot-dev")
    run = FlowRun(id=uuid4(), flow_id=uuid4(), deployment_id=uuid4())
    return worker._prepare_task_definition(configuration, "us-east-1", run)


def test_template_is_prefect_aws_default_with_our_changes_and_nothing_else() -> None:
    default = ECSWorker.get_default_base_job_template()
    for path, value in OUR_CHANGES.items():
        changed(default, path, value)
    assert infra.load("base-job-template.json") == default


def test_worker_makes_a_fargate_task_of_it_whose_memory_is_the_containers() -> None:
    """A deployment's own environment does not displace the SIGTERM behaviour."""
    definition = task_definition(memory=4096, cpu=2048, env={"MY_OWN": "1"})
    assert (definition["cpu"], definition["memory"]) == ("2048", "4096")
    assert definition["networkMode"] == "awsvpc"
    assert definition["requiresCompatibilities"] == ["FARGATE"]
    assert definition["executionRoleArn"] == VALUES["ExecutionRoleArn"]
    [made] = definition["containerDefinitions"]
    assert (made["stopTimeout"], made["memory"]) == (120, 4096)
    assert OUR_CHANGES[*CONTAINER, "environment"][0] in made["environment"]
    log = made["logConfiguration"]["options"]
    assert (log["awslogs-group"], log["awslogs-stream-prefix"]) == (
        "/ecs/prefect-spot-dev",
        "flows",
    )
    arn = VALUES["ApiKeyParameterArn"]
    assert made["secrets"] == [{"name": "PREFECT_API_KEY", "valueFrom": arn}]


def test_every_placeholder_is_an_output_of_the_stack_or_a_setting() -> None:
    asked = set(re.findall(r"\$\{(\w+)\}", json.dumps(infra.load("base-job-template.json"))))
    settings = {"AssignPublicIp", "ApiKeyParameterArn", "AuthStringParameterArn"}
    assert asked - settings < set(infra.load("stack.json")["Outputs"])
