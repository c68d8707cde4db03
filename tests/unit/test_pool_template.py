"""The base job template: ours is restored, the users' own stays."""

import copy
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from prefect_aws.workers import ECSWorker

from chalicelib.core.provision.pool_template import architecture_of, filled, merged
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


Edit = Callable[[Json], object]
VARIABLE = "variables/properties/"
JOB = "job_configuration/"
TASK = JOB + "task_definition/"
CONTAINERS = TASK + "containerDefinitions"
FLOW = CONTAINERS + "/0/"


def put(path: str, value: object) -> Edit:
    """An edit that sets what stands at a path, or removes it where the value is `...`."""

    def edit(template: Json) -> None:
        *steps, name = path.split("/")
        parent: Any = template
        for step in steps:
            parent = parent[int(step) if step.isdigit() else step]
        if value is ...:
            del parent[name]
        else:
            parent[name] = value

    return edit


def edited(edit: Edit) -> Json:
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
    found = defaults(template)
    assert (found["image"], found["launch_type"]) == (None, "FARGATE_SPOT")
    assert (found["cluster"], found["task_role_arn"]) == (STACK_NAME, VALUES["FlowRoleArn"])
    assert found["prefect_api_key_secret_arn"] == PARAMETER_ARN
    assert found["prefect_api_auth_string_secret_arn"] is None
    assert found["network_configuration"] == {
        "subnets": ["subnet-11111111", "subnet-22222222"],
        "securityGroups": ["sg-11111111"],
        "assignPublicIp": "ENABLED",
    }


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
    assert set(defaults(template)) == {*defaults(theirs), "cpu_architecture"}


USERS_EDITS: dict[str, Edit] = {
    "another image": put(VARIABLE + "image/default", "etl:1"),
    "other cpu": put(VARIABLE + "cpu/default", 256),
    "a variable": put(VARIABLE + "team", {"type": "string"}),
    "a title": put(VARIABLE + "cluster/title", "Where"),
    "a required variable": put("variables/required", ["image"]),
    "a line": put(JOB + "aws_credentials", "{{ credentials }}"),
    "a line that was shipped": put(JOB + "env", {"A": "b"}),
    "a line removed": put(JOB + "env", ...),
    "a key of the task": put(TASK + "ephemeralStorage", {"sizeInGiB": 50}),
    "a platform": put(TASK + "runtimePlatform", {"cpuArchitecture": "ARM64"}),
    "an architecture": put(TASK + "runtimePlatform/cpuArchitecture", "ARM64"),
    "memory of the container": put(FLOW + "memory", 300),
    "an entry of the environment": put(FLOW + "environment", [SIGTERM, {"name": "A", "value": ""}]),
    "a sidecar in front": lambda t: t["job_configuration"]["task_definition"][
        "containerDefinitions"
    ].insert(0, {"name": "sidecar", "image": "proxy"}),
    "an option of the network": put(VARIABLE + "network_configuration/default/more", True),
    "secrets that are a variable": put(FLOW + "secrets", "{{ secrets }}"),
    "something beside": put("x_note", "ours"),
}


@pytest.mark.parametrize("name", USERS_EDITS)
def test_a_users_edit_survives(name: str) -> None:
    template = edited(USERS_EDITS[name])
    assert template != OUR_POOL_TEMPLATE
    assert restored(template) == template


OURS: dict[str, Edit] = {
    "the cluster": put(VARIABLE + "cluster/default", "another"),
    "the launch type": put(VARIABLE + "launch_type/default", "FARGATE"),
    "a strategy": put(VARIABLE + "capacity_provider_strategy/default", [{"weight": 1}]),
    "no secret": put(VARIABLE + "prefect_api_key_secret_arn/default", None),
    "another secret": put(VARIABLE + "prefect_api_auth_string_secret_arn/default", "arn:aws:…"),
    "no network": put(VARIABLE + "network_configuration/default", None),
    "another network": put(VARIABLE + "network_configuration/default/subnets", ["subnet-9"]),
    "a variable of ours removed": put(VARIABLE + "task_role_arn", ...),
    "a fixed strategy": put(JOB + "task_run_request/capacityProviderStrategy", [{"weight": 1}]),
    "a fixed launch type": put(JOB + "task_run_request/launchType", "FARGATE"),
    "a line of ours removed": put(JOB + "network_configuration", ...),
    "the overrides removed": put(JOB + "task_run_request/overrides", ...),
    "the whole request removed": put(JOB + "task_run_request", ...),
    "another architecture": put(VARIABLE + "cpu_architecture/default", "ARM64"),
    "no architecture, as in older releases": lambda t: [
        put(path, ...)(t) for path in (TASK + "runtimePlatform", VARIABLE + "cpu_architecture")
    ],
    "another stop timeout": put(FLOW + "stopTimeout", 30),
    "another SIGTERM behaviour": put(FLOW + "environment", [{**SIGTERM, "value": "reschedule"}]),
    "no environment": put(FLOW + "environment", []),
    "no containers": put(CONTAINERS, ...),
    "a task definition that is a variable": put(JOB + "task_definition", "{{ it }}"),
    "no definitions": put("variables/definitions", ...),
}


@pytest.mark.parametrize("name", OURS)
def test_what_is_ours_is_restored(name: str) -> None:
    template = edited(OURS[name])
    assert template != OUR_POOL_TEMPLATE
    assert restored(template) == OUR_POOL_TEMPLATE


@pytest.mark.parametrize("name", [*USERS_EDITS, *OURS])
def test_another_architecture_changes_one_default_and_nothing_else(name: str) -> None:
    current = restored(edited((USERS_EDITS | OURS)[name]))
    arm = restored(current, {**VALUES, "CpuArchitecture": "ARM64"})
    assert defaults(arm)["cpu_architecture"] == "ARM64"
    assert restored(arm) == current
    put(VARIABLE + "cpu_architecture/default", "X86_64")(arm)
    assert arm == current


@pytest.mark.parametrize(
    ("edit", "variables", "architecture"),
    [
        (lambda _: None, {"cpu_architecture": "X86_64"}, "x86_64"),
        (lambda _: None, {"cpu_architecture": "ARM64"}, "arm64"),
        (USERS_EDITS["a platform"], {"cpu_architecture": "X86_64"}, "arm64"),
        (put(TASK + "runtimePlatform", ...), {"cpu_architecture": "ARM64"}, "x86_64"),
        (put(JOB + "task_definition", "odd"), {}, "x86_64"),
    ],
    ids=["ours", "a run's own", "the template's own", "none", "no task definition"],
)
def test_the_architecture_is_the_task_definitions_or_its_variables(
    edit: Edit, variables: Json, architecture: str
) -> None:
    assert architecture_of(edited(edit), variables) == architecture


@pytest.mark.parametrize("name", ["nothing", "ours", "a sidecar in front", "no containers"])
def test_a_mode_that_ends_no_run_takes_the_sigterm_behaviour_away_and_its_end_puts_it_back(
    name: str,
) -> None:
    current = {"nothing": {}, "ours": OUR_POOL_TEMPLATE}.get(name)
    current = edited((USERS_EDITS | OURS)[name]) if current is None else current
    observed = merged(current, POOL_TEMPLATE, VALUES, "FARGATE_SPOT", ends_runs=False)
    assert SIGTERM["name"] not in str(observed)
    assert merged(observed, POOL_TEMPLATE, VALUES, "FARGATE_SPOT", ends_runs=False) == observed
    assert restored(observed) == restored(current)


def test_a_sigterm_behaviour_of_the_users_own_is_left_to_a_mode_that_ends_no_run() -> None:
    own = [{**SIGTERM, "value": "reschedule"}]
    template = edited(put(FLOW + "environment", own))
    observed = merged(template, POOL_TEMPLATE, VALUES, "FARGATE_SPOT", ends_runs=False)
    assert flow_of(dict(observed))["environment"] == own


BEHIND = {**VALUES, "CustomHeadersParameterArn": "arn:h", "CaCertificateParameterArn": "arn:c"}
OWN_SECRET = {"name": "DB", "valueFrom": "arn:db"}
BEHIND_EDITS: dict[str, Edit] = {
    "none": put("x_note", "ours"),
    "a secret": put(FLOW + "secrets", [OWN_SECRET]),
    "no secrets": put(FLOW + "secrets", []),
    "a variable for all": put(VARIABLE + "env/default", {"A": "b"}),
    "nothing for env": put(JOB + "env", ...),
}


@pytest.mark.parametrize("name", BEHIND_EDITS)
def test_the_way_through_a_proxy_comes_and_goes_with_its_settings(name: str) -> None:
    before = edited(BEHIND_EDITS[name])
    behind: Any = restored(before, BEHIND)
    assert restored(behind, BEHIND) == behind
    secrets = [each["name"] for each in flow_of(behind)["secrets"]]
    own = ["DB"] if name == "a secret" else []
    assert secrets == [*own, "PREFECT_CLIENT_CUSTOM_HEADERS", "PREFECT_SPOT_CA_CERTIFICATE"]
    assert defaults(behind)["env"]["PREFECT_CLIENT_CUSTOM_HEADERS"] is None
    assert behind["job_configuration"]["command"].endswith(" sh {{ command }}")
    after = restored(behind)
    if name == "no secrets":
        del flow_of(before)["secrets"]
    assert after == before


@pytest.mark.parametrize(
    "edit",
    [
        put(VARIABLE + "env/default", {"PREFECT_CLIENT_CUSTOM_HEADERS": "{}"}),
        put(VARIABLE + "env", ...),
        put(
            FLOW + "environment",
            [{"name": "PREFECT_CLIENT_CUSTOM_HEADERS", "value": "{}"}, SIGTERM],
        ),
        put(FLOW + "secrets", [{"name": "PREFECT_CLIENT_CUSTOM_HEADERS", "valueFrom": "arn:old"}]),
        put(JOB + "command", "mine {{ command }}"),
    ],
)
def test_what_would_show_or_lack_the_headers_is_replaced(edit: Edit) -> None:
    assert restored(edited(edit), BEHIND) == restored({}, BEHIND)


def test_what_is_missing_of_the_users_own_is_filled_in_where_a_value_is_shipped() -> None:
    template = restored(edited(put(VARIABLE + "cpu/default", None)))
    assert defaults(template)["cpu"] == 1024


def test_a_container_with_a_reservation_gets_no_limit() -> None:
    def reserve(template: Json) -> None:
        del flow_of(template)["memory"]
        flow_of(template)["memoryReservation"] = 300

    assert restored(edited(reserve)) == edited(reserve)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("variables", []),
        ("variables/properties", "all"),
        (VARIABLE + "cluster", "mine"),
        ("job_configuration", "{{ all }}"),
        (CONTAINERS, "x"),
        (FLOW + "environment", "{{ environment }}"),
        (FLOW + "secrets", "{{ secrets }}"),
        (VARIABLE + "env/default", "{}"),
    ],
)
def test_a_template_of_another_shape_is_refused_and_says_where(path: str, value: object) -> None:
    with pytest.raises(ValueError, match=path.rpartition("/")[2]):
        restored(edited(put(path, value)), BEHIND)
