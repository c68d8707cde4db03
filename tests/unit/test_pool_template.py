"""The base job template: ours is restored, the users' own stays."""

import copy
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from prefect_aws.workers import ECSWorker

from chalicelib.core.provision.pool_template import filled, merged
from tests.provisioning import (
    OUR_POOL_TEMPLATE,
    PARAMETER_ARN,
    POOL_TEMPLATE,
    STACK_NAME,
    VALUES,
)

Json = dict[str, Any]
SIGTERM = {"name": "PREFECT_FLOW_RUN_EXECUTE_SIGTERM_BEHAVIOR", "value": "relinquish"}


def restored(
    current: Mapping[str, Any], values: Any = VALUES, launch_type: str = "FARGATE_SPOT"
) -> Any:
    return merged(current, POOL_TEMPLATE, values, launch_type)


def set_default(name: str, value: object) -> Callable[[Json], object]:
    return lambda t: t["variables"]["properties"][name].update(default=value)


def set_in_container(**values: object) -> Callable[[Json], object]:
    return lambda t: flow_of(t).update(values)


def edited(edit: Callable[[Json], object]) -> Json:
    """Our template after a user's edit."""
    template: Json = copy.deepcopy(dict(OUR_POOL_TEMPLATE))
    edit(template)
    return template


def defaults(template: Json) -> Json:
    return {n: p.get("default") for n, p in template["variables"]["properties"].items()}


def flow_of(template: Json) -> Json:
    """The flow's container."""
    containers: list[Json] = template["job_configuration"]["task_definition"][
        "containerDefinitions"
    ]
    return containers[0]


def test_an_empty_template_becomes_ours_with_all_placeholders_filled() -> None:
    template = restored({})
    assert "${" not in str(template)
    ours = {
        "image": None,
        "cpu": 1024,
        "launch_type": "FARGATE_SPOT",
        "capacity_provider_strategy": None,
        "cluster": STACK_NAME,
        "task_role_arn": VALUES["FlowRoleArn"],
        "prefect_api_key_secret_arn": PARAMETER_ARN,
        "prefect_api_auth_string_secret_arn": None,
        "network_configuration": {
            "subnets": ["subnet-11111111", "subnet-22222222"],
            "securityGroups": ["sg-11111111"],
            "assignPublicIp": "ENABLED",
        },
    }
    assert {name: defaults(template)[name] for name in ours} == ours


def test_a_placeholder_without_a_value_is_an_error() -> None:
    with pytest.raises(KeyError, match="ClusterName"):
        filled(POOL_TEMPLATE, {}, "FARGATE_SPOT")


def test_the_shipped_template_is_not_written_into() -> None:
    before = copy.deepcopy(POOL_TEMPLATE)
    restored({}, launch_type="FARGATE")
    restored(OUR_POOL_TEMPLATE, launch_type="FARGATE")
    assert before == POOL_TEMPLATE


def test_a_pool_that_a_worker_created_first_becomes_ours() -> None:
    theirs = ECSWorker.get_default_base_job_template()
    template = restored(theirs)
    ours = defaults(restored({}))
    assert {name: defaults(template)[name] for name in ours} == {**ours, "image": None}
    assert flow_of(template)["stopTimeout"] == 120
    assert flow_of(template)["environment"] == [SIGTERM]
    assert flow_of(template)["memory"] == "{{ memory }}"
    assert set(defaults(template)) == set(defaults(theirs))


USERS_EDITS: dict[str, Callable[[Json], object]] = {
    "another image": set_default("image", "etl:1"),
    "other cpu": set_default("cpu", 256),
    "a variable": lambda t: t["variables"]["properties"].update(team={"type": "string"}),
    "a title": lambda t: t["variables"]["properties"]["cluster"].update(title="Where"),
    "a required variable": lambda t: t["variables"].update(required=["image"]),
    "a line": lambda t: t["job_configuration"].update(aws_credentials="{{ credentials }}"),
    "a line that was shipped": lambda t: t["job_configuration"].update(env={"A": "b"}),
    "a line removed": lambda t: t["job_configuration"].pop("env"),
    "a key of the task": lambda t: t["job_configuration"]["task_definition"].update(
        runtimePlatform={"cpuArchitecture": "ARM64"}
    ),
    "memory of the container": set_in_container(memory=300),
    "an entry of the environment": lambda t: flow_of(t)["environment"].append(
        {"name": "TEAM", "value": "etl"}
    ),
    "a sidecar in front": lambda t: t["job_configuration"]["task_definition"][
        "containerDefinitions"
    ].insert(0, {"name": "sidecar", "image": "proxy"}),
    "an option of the network": lambda t: t["variables"]["properties"]["network_configuration"][
        "default"
    ].update(more=True),
    "something beside": lambda t: t.update(x_note="ours"),
}


@pytest.mark.parametrize("name", USERS_EDITS)
def test_a_users_edit_survives(name: str) -> None:
    template = edited(USERS_EDITS[name])
    assert template != OUR_POOL_TEMPLATE
    assert restored(template) == template


OURS: dict[str, Callable[[Json], object]] = {
    "the cluster": set_default("cluster", "another"),
    "the launch type": set_default("launch_type", "FARGATE"),
    "a strategy": set_default("capacity_provider_strategy", [{"capacityProvider": "FARGATE"}]),
    "no secret": set_default("prefect_api_key_secret_arn", None),
    "another secret": set_default("prefect_api_auth_string_secret_arn", "arn:aws:ssm:…"),
    "no network": set_default("network_configuration", None),
    "another network": lambda t: t["variables"]["properties"]["network_configuration"][
        "default"
    ].update(subnets=["subnet-99999999"]),
    "a variable of ours removed": lambda t: t["variables"]["properties"].pop("task_role_arn"),
    "a fixed launch type": lambda t: t["job_configuration"]["task_run_request"].update(
        launchType="FARGATE"
    ),
    "a line of ours removed": lambda t: t["job_configuration"].pop("network_configuration"),
    "the overrides removed": lambda t: t["job_configuration"]["task_run_request"].pop("overrides"),
    "the whole request removed": lambda t: t["job_configuration"].pop("task_run_request"),
    "another stop timeout": set_in_container(stopTimeout=30),
    "another SIGTERM behaviour": set_in_container(environment=[{**SIGTERM, "value": "reschedule"}]),
    "no environment": set_in_container(environment=[]),
    "no containers": lambda t: t["job_configuration"]["task_definition"].pop(
        "containerDefinitions"
    ),
    "a task definition that is a variable": lambda t: t["job_configuration"].update(
        task_definition="{{ it }}"
    ),
    "no definitions": lambda t: t["variables"].pop("definitions"),
}


@pytest.mark.parametrize("name", OURS)
def test_what_is_ours_is_restored(name: str) -> None:
    template = edited(OURS[name])
    assert template != OUR_POOL_TEMPLATE
    assert restored(template) == OUR_POOL_TEMPLATE


def test_what_is_missing_of_the_users_own_is_filled_in_where_a_value_is_shipped() -> None:
    template = restored(edited(set_default("cpu", None)))
    assert defaults(template)["cpu"] == 1024


def test_a_container_with_a_reservation_gets_no_limit() -> None:
    def reserve(template: Json) -> None:
        del flow_of(template)["memory"]
        flow_of(template)["memoryReservation"] = 300

    assert restored(edited(reserve)) == edited(reserve)


@pytest.mark.parametrize(
    ("edit", "where"),
    [
        (lambda t: t.update(variables=[]), "variables"),
        (lambda t: t["variables"].update(properties="all"), "properties"),
        (lambda t: t["variables"]["properties"].update(cluster="mine"), "cluster"),
        (lambda t: t.update(job_configuration="{{ all }}"), "job_configuration"),
        (
            lambda t: t["job_configuration"]["task_definition"].update(containerDefinitions="x"),
            "containerDefinitions",
        ),
    ],
)
def test_a_template_of_another_shape_is_refused_and_says_where(
    edit: Callable[[Json], object], where: str
) -> None:
    with pytest.raises(ValueError, match=where):
        restored(edited(edit))
