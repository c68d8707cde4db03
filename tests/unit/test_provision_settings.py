"""The settings of cluster, worker and work pool, and what the stack is told of them."""

from dataclasses import fields
from typing import Any

import botocore.session
import pytest

import infra
from chalicelib.core.provision.mode import Provision
from chalicelib.core.provision.plan import Network, stack_definition
from chalicelib.desired import desired_of
from chalicelib.errors import SettingError
from chalicelib.provision_settings import (
    FARGATE_MEMORY,
    LOG_RETENTION_DAYS,
    ProvisionSettings,
    read_provision_settings,
)
from chalicelib.settings import read_settings

URL = "https://api.prefect.cloud/api/accounts/a/workspaces/w"
RESCUE_ONLY = {"PROVISION": "rescue-only"}


def read(**environment: str) -> ProvisionSettings:
    given = {"PREFECT_API_URL": URL, **environment}
    return read_provision_settings(given, read_settings(given))


def parameters(**environment: str) -> dict[str, str]:
    given = {"PREFECT_API_URL": URL, **environment}
    settings = read_settings(given)
    desired = desired_of(
        settings,
        read_provision_settings(given, settings),
        template=infra.load("stack.json"),
        pool_template=infra.load("base-job-template.json"),
    )
    network = Network("vpc-1", ("subnet-1", "subnet-2")) if desired.is_full else None
    return dict(stack_definition(desired, network).parameters)


def test_an_empty_setting_is_one_that_is_not_set() -> None:
    names = [field.name.upper() for field in fields(ProvisionSettings)]
    assert read(**dict.fromkeys(names, "")) == read()


@pytest.mark.parametrize(
    ("name", "value", "accepted"),
    [
        ("PROVISION", "none", "full, rescue-only"),
        ("STACK_NAME", "Prefect", "27 small letters"),
        ("STACK_NAME", "a" * 28, "27 small letters"),
        ("STACK_NAME", "1st", "beginning with a letter"),
        ("ECS_CLUSTER", "one,two", "one cluster"),
        ("ECS_CLUSTER", "arn:aws:ecs:us-east-1:1:cluster/one", "rescue-only"),
        ("WORK_POOL", "prefect-pool", "does not begin with prefect"),
        ("WORK_POOL", "a/b", "without"),
        ("VPC_ID", "default", "vpc-"),
        ("SUBNET_IDS", "subnet-12345678,eu-west-1a", "subnet ids, comma-separated"),
        ("SUBNET_IDS", " , ", "subnet ids, comma-separated"),
        ("SECURITY_GROUP_IDS", "default", "security group ids"),
        ("ASSIGN_PUBLIC_IP", "yes", "true, false"),
        ("USE_SPOT", "1", "true, false"),
        ("SPOT_WEIGHT", "-1", "whole numbers from 0 to 1000"),
        ("FARGATE_WEIGHT", "1001", "whole numbers from 0 to 1000"),
        ("FARGATE_BASE", "one", "whole numbers from 0 to 100000"),
        ("WORKER_IMAGE", "an image", "an image, such as"),
        ("WORKER_CPU", "300", "256, 512, 1024"),
        ("WORKER_MEMORY", "512", "1024, 2048, 3072, 4096"),
        ("WORK_QUEUES", "a'b", "work queues' names"),
        ("WORKER_QUERY_SECONDS", "0", "from 1 to 3600"),
        ("WORKER_QUERY_SECONDS", "3601", "from 0 to 3600"),
        ("LOG_LEVEL", "loud", "DEBUG, INFO, WARNING, ERROR, CRITICAL"),
        ("LOG_RETENTION_DAYS", "31", "30, 60, 90"),
        ("ALARM_EMAIL", "ops", "an e-mail address"),
    ],
)
def test_a_wrong_setting_is_named_shown_and_explained(name: str, value: str, accepted: str) -> None:
    with pytest.raises(SettingError) as error:
        read(**{name: value})
    assert str(error.value).startswith(f"{name} is ")
    assert repr(value) in str(error.value)
    assert accepted in str(error.value)


def test_weights_that_leave_no_provider_are_refused() -> None:
    with pytest.raises(SettingError, match="SPOT_WEIGHT"):
        read(SPOT_WEIGHT="0", FARGATE_WEIGHT="0")
    assert read(SPOT_WEIGHT="0").spot_weight == 0


@pytest.mark.parametrize("name", ["PREFECT_API_KEY_PARAMETER", "PREFECT_API_AUTH_STRING_PARAMETER"])
def test_what_may_be_the_credential_itself_is_refused_and_not_shown(name: str) -> None:
    with pytest.raises(SettingError, match=name) as error:
        read(**{name: "admin:canary"})
    assert "canary" not in str(error.value)


@pytest.mark.parametrize(
    "theirs",
    [{"ECS_CLUSTER": "one,arn:aws:ecs:us-east-1:1:cluster/two"}, {"WORK_POOL": "prefect-managed"}],
    ids=["clusters", "pool"],
)
def test_several_clusters_and_any_pool_are_fine_where_they_are_somebody_elses(
    theirs: dict[str, str],
) -> None:
    assert read(**theirs, **RESCUE_ONLY).provision is Provision.RESCUE_ONLY
    with pytest.raises(SettingError, match=next(iter(theirs))):
        read(**theirs)


@pytest.mark.parametrize("cpu", FARGATE_MEMORY)
def test_whatever_fargate_takes_is_taken(cpu: int) -> None:
    for memory in FARGATE_MEMORY[cpu]:
        settings = read(WORKER_CPU=str(cpu), WORKER_MEMORY=str(memory))
        assert (settings.worker_cpu, settings.worker_memory) == (cpu, memory)
    assert read(WORKER_CPU=str(cpu)).worker_memory in FARGATE_MEMORY[cpu]


def test_the_sizes_are_those_of_the_developer_guide() -> None:
    ranges = {cpu: (memory[0], memory[-1], len(memory)) for cpu, memory in FARGATE_MEMORY.items()}
    assert ranges == {
        256: (512, 2048, 3),
        512: (1024, 4096, 4),
        1024: (2048, 8192, 7),
        2048: (4096, 16384, 13),
        4096: (8192, 30720, 23),
        8192: (16384, 61440, 12),
        16384: (32768, 122880, 12),
    }


def test_the_retentions_are_those_of_cloudwatchs_own_description() -> None:
    service: Any = botocore.session.get_session().get_service_model("logs")
    told = service.shape_for("PutRetentionPolicyRequest").members["retentionInDays"].documentation
    assert ", ".join(map(str, LOG_RETENTION_DAYS[:-1])) in told
    assert f"and {LOG_RETENTION_DAYS[-1]}" in told


# What the stack is told.


def test_the_stack_is_told_all_its_parameters_in_its_order_as_strings() -> None:
    told = parameters()
    assert list(told) == list(infra.load("stack.json")["Parameters"])
    assert all(isinstance(value, str) for value in told.values())


def test_every_setting_comes_through() -> None:
    told = parameters(
        STAGE="prod",
        PREFECT_API_KEY_PARAMETER="/prefect-spot/prod/api-key",
        SECURITY_GROUP_IDS="sg-12345678, sg-87654321",
        ASSIGN_PUBLIC_IP="false",
        USE_SPOT="false",
        SPOT_WEIGHT="4",
        FARGATE_WEIGHT="5",
        FARGATE_BASE="6",
        WORKER_IMAGE="etl:1",
        WORKER_CPU="256",
        WORKER_MEMORY="512",
        WORK_QUEUES="fast, slow",
        WORKER_QUERY_SECONDS="7",
        LOG_LEVEL="DEBUG",
        LOG_RETENTION_DAYS="7",
        ALARM_EMAIL="ops@example.com",
    )
    assert told == {
        "Stage": "prod",
        "Provision": "full",
        "PrefectApiUrl": URL,
        "ApiKeyParameter": "prefect-spot/prod/api-key",
        "AuthStringParameter": "",
        "WorkPool": "fargate-spot-prod",
        "ClusterName": "prefect-spot-prod",
        "VpcId": "vpc-1",
        "SubnetIds": "subnet-1,subnet-2",
        "SecurityGroupIds": "sg-12345678,sg-87654321",
        "AssignPublicIp": "DISABLED",
        "UseSpot": "false",
        "SpotWeight": "4",
        "FargateWeight": "5",
        "FargateBase": "6",
        "WorkerImage": "etl:1",
        "WorkerCpu": "256",
        "WorkerMemory": "512",
        "WorkQueues": "fast,slow",
        "WorkerQuerySeconds": "7",
        "LogLevel": "DEBUG",
        "LogRetentionDays": "7",
        "AlarmEmail": "ops@example.com",
        "TableName": "prefect-spot-prod",
    }


def test_rescue_only_tells_no_network() -> None:
    told = parameters(SUBNET_IDS="subnet-12345678", SECURITY_GROUP_IDS="sg-12345678", **RESCUE_ONLY)
    assert told["Provision"] == "rescue-only"
    assert [told[name] for name in ("VpcId", "SubnetIds", "SecurityGroupIds")] == ["", "", ""]
