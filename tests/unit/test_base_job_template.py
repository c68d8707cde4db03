"""The work pool's template is prefect-aws's own with our changes, and what a worker makes of it.

When a newer prefect-aws brings another default, the first test says so: look what is new, and
write the template anew.
"""

import asyncio
import json
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock
from uuid import uuid4

import pytest
from prefect.client.schemas.objects import FlowRun
from prefect.settings import PREFECT_API_KEY, temporary_settings
from prefect_aws.workers import ECSWorker
from prefect_aws.workers.ecs_worker import ECSJobConfiguration

import infra
from chalicelib.adapters.prefect_answers import read_pool_defaults
from chalicelib.core.model.policy import (
    ON_FARGATE,
    STRATEGY,
    is_on_demand,
    on_demand_variables,
    runs_on_fargate,
)
from chalicelib.core.provision.plan import ARNS
from chalicelib.core.provision.pool_template import merged
from tests.make import make_run
from tests.provisioning import VALUES

CONTAINER = ("job_configuration", "task_definition", "containerDefinitions", 0)
OUR_CHANGES: dict[tuple[str | int, ...], Any] = {
    (*CONTAINER, "memory"): "{{ memory }}",
    (*CONTAINER, "stopTimeout"): 120,
    (*CONTAINER, "environment"): [
        {"name": "PREFECT_FLOW_RUN_EXECUTE_SIGTERM_BEHAVIOR", "value": "relinquish"}
    ],
    ("job_configuration", "task_definition", "runtimePlatform"): {
        "cpuArchitecture": "{{ cpu_architecture }}",
        "operatingSystemFamily": "LINUX",
    },
    ("variables", "properties", "cpu_architecture"): {
        "default": "${CpuArchitecture}",
        "description": "The CPU architecture that the image was built for. Not applied to a task"
        " definition that is named by its ARN.",
        "enum": ["X86_64", "ARM64"],
        "title": "CPU Architecture",
        "type": "string",
    },
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


WORKER = ECSWorker(work_pool_name="fargate-spot-dev")


def configured(
    job_variables: Mapping[str, Any], template: dict[str, Any] | None = None
) -> tuple[ECSJobConfiguration, dict[str, Any]]:
    """What the worker makes of these job variables, and the task definition that it registers."""
    if template is None:
        template = dict(merged({}, infra.load("base-job-template.json"), VALUES, "FARGATE_SPOT"))
    configuration = asyncio.run(
        ECSJobConfiguration.from_template_and_values(
            template, dict(job_variables), client=MagicMock()
        )
    )
    run = FlowRun(id=uuid4(), flow_id=uuid4(), deployment_id=uuid4())
    return configuration, WORKER._prepare_task_definition(configuration, "us-east-1", run)


def test_template_is_prefect_aws_default_with_our_changes_and_nothing_else() -> None:
    default = ECSWorker.get_default_base_job_template()
    for path, value in OUR_CHANGES.items():
        changed(default, path, value)
    assert infra.load("base-job-template.json") == default


def test_worker_makes_a_fargate_task_of_it_whose_memory_is_the_containers() -> None:
    """A deployment's own environment does not displace the SIGTERM behaviour."""
    _, definition = configured({"memory": 4096, "cpu": 2048, "env": {"MY_OWN": "1"}})
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


@pytest.mark.parametrize("architecture", ["X86_64", "ARM64"])
@pytest.mark.parametrize("own", [{}, {"cpu_architecture": "ARM64"}], ids=["none", "its own"])
def test_the_task_is_of_the_pools_architecture_or_the_deployments(
    architecture: str, own: dict[str, str]
) -> None:
    values = {**VALUES, "CpuArchitecture": architecture}
    template = dict(merged({}, infra.load("base-job-template.json"), values, "FARGATE_SPOT"))
    _, definition = configured(own, template)
    wanted = own.get("cpu_architecture", architecture)
    assert definition["runtimePlatform"] == {
        "cpuArchitecture": wanted,
        "operatingSystemFamily": "LINUX",
    }


BEHIND = {**VALUES, "CustomHeadersParameterArn": "arn:h", "CaCertificateParameterArn": "arn:c"}
PEM = "-----BEGIN CERTIFICATE-----\nA%s$(b)\\n\n-----END CERTIFICATE-----\n"


def request_behind_a_proxy(
    monkeypatch: pytest.MonkeyPatch, job_variables: dict[str, Any]
) -> tuple[Any, Any]:
    """The flow's container in a task definition and in RunTask, of a worker behind a proxy."""
    monkeypatch.setenv("PREFECT_CLIENT_CUSTOM_HEADERS", '{"CF-Access-Client-Secret": "canary"}')
    template = dict(merged({}, infra.load("base-job-template.json"), BEHIND, "FARGATE_SPOT"))
    configuration, _ = configured(job_variables, template)
    run = FlowRun(id=uuid4(), flow_id=uuid4(), deployment_id=uuid4())
    monkeypatch.setenv("PREFECT_API_KEY", "canary")
    with temporary_settings({PREFECT_API_KEY: "canary"}):
        configuration.prepare_for_flow_run(run)
    definition = WORKER._prepare_task_definition(configuration, "us-east-1", run)
    bridged = {**definition, "networkMode": "bridge"}
    request = WORKER._prepare_task_run_request(configuration, bridged, "arn", False)
    assert "canary" not in f"{definition} {request}"
    [container], [override] = (
        definition["containerDefinitions"],
        request["overrides"]["containerOverrides"],
    )
    return container, override


@pytest.mark.parametrize("command", [{}, {"command": None}, {"command": "mine 'a b'"}])
@pytest.mark.parametrize("own", [{}, {"env": {"MINE": "1"}}, {"env.MINE": "1"}])
def test_flows_get_headers_and_certificates_as_secrets_and_never_the_workers_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, command: dict[str, Any], own: dict[str, Any]
) -> None:
    container, override = request_behind_a_proxy(monkeypatch, {**command, **own})
    assert {each["name"]: each["valueFrom"] for each in container["secrets"]} == {
        "PREFECT_API_KEY": VALUES["ApiKeyParameterArn"],
        "PREFECT_CLIENT_CUSTOM_HEADERS": "arn:h",
        "PREFECT_SPOT_CA_CERTIFICATE": "arn:c",
    }
    assert ({"name": "MINE", "value": "1"} in override["environment"]) == bool(own)
    for name in ("prefect", "mine"):
        program = tmp_path / name
        program.write_text('#!/bin/sh\ncat "$PREFECT_API_SSL_CERT_FILE"; echo $# "$0" "$@"\n')
        program.chmod(0o755)
    ran = subprocess.run(
        override["command"],
        env={
            "PREFECT_SPOT_CA_CERTIFICATE": PEM,
            "TMPDIR": str(tmp_path),
            "PATH": f"{tmp_path}:/usr/bin:/bin",
        },
        capture_output=True,
        text=True,
        check=True,
    )
    mine = f"1 {tmp_path / 'mine'} a b"
    theirs = f"2 {tmp_path / 'prefect'} flow-run execute"
    assert ran.stdout == f"{PEM}{mine if command.get('command') else theirs}\n"


ON_SPOT = {"capacityProvider": "FARGATE_SPOT", "weight": 1}
STRATEGIES: dict[str, dict[str, Any]] = {
    "none": {},
    "empty": {STRATEGY: []},
    "null": {STRATEGY: None},
    "Spot": {STRATEGY: [ON_SPOT]},
    "mixed": {STRATEGY: [ON_SPOT, {"capacityProvider": "FARGATE", "base": 1, "weight": 1}]},
}


@pytest.mark.parametrize("default", STRATEGIES.values(), ids=STRATEGIES)
@pytest.mark.parametrize("deployed", STRATEGIES.values(), ids=STRATEGIES)
@pytest.mark.parametrize("own", STRATEGIES.values(), ids=STRATEGIES)
def test_a_moved_run_is_on_fargate_by_exactly_one_of_launch_type_and_strategy(
    default: dict[str, Any], deployed: dict[str, Any], own: dict[str, Any]
) -> None:
    template = ECSWorker.get_default_base_job_template()
    template["variables"]["properties"]["launch_type"]["default"] = "FARGATE_SPOT"
    for name, value in default.items():
        template["variables"]["properties"][name]["default"] = value
    defaults = read_pool_defaults({"base_job_template": template})
    moved = on_demand_variables(own, deployed, defaults)
    configuration, definition = configured({**deployed, **moved}, template)
    definition["networkMode"] = "bridge"
    request = WORKER._prepare_task_run_request(configuration, definition, "arn", False)
    capacity = {k: request[k] for k in ("launchType", "capacityProviderStrategy") if k in request}
    assert capacity in ({"launchType": "FARGATE"}, {"capacityProviderStrategy": [ON_FARGATE]})
    inherited = {**defaults, **deployed}
    assert (STRATEGY in moved) is (STRATEGY in inherited or bool(own.get(STRATEGY)))
    assert is_on_demand(make_run(job_variables=moved))
    assert runs_on_fargate({**inherited, **moved})


def test_every_placeholder_is_an_output_of_the_stack_or_a_setting() -> None:
    asked = set(re.findall(r"\$\{(\w+)\}", json.dumps(infra.load("base-job-template.json"))))
    settings = {"CpuArchitecture", "AssignPublicIp", *ARNS}
    assert asked - settings < set(infra.load("stack.json")["Outputs"])
