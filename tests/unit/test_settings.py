"""The table of settings: what it reads, refuses, documents, and passes to the stack."""

import json
import re
import traceback
from dataclasses import fields
from decimal import Decimal
from pathlib import Path
from typing import Any

import botocore.session
import pytest

import infra
from chalicelib.core.model.policy import Mode, Policy
from chalicelib.core.model.pricing import Rate
from chalicelib.errors import SettingError
from chalicelib.setting_forms import FARGATE_MEMORY, RETENTION_DAYS
from chalicelib.settings import ROWS, Settings, policy_of, read_settings, stack_parameters
from localcloud.deployment import PROJECT
from tools import settings_page

URL = "https://api.prefect.cloud/api/accounts/a/workspaces/w"
RESCUE_ONLY = {"PROVISION": "rescue-only"}
HEADERS, CA = "PREFECT_CUSTOM_HEADERS_PARAMETER", "PREFECT_CA_CERTIFICATE_PARAMETER"
KEY, AUTH_STRING = "PREFECT_API_KEY_PARAMETER", "PREFECT_API_AUTH_STRING_PARAMETER"
RATE = "us-east-1/x86_64/FARGATE"


def read(**environment: str) -> Settings:
    return read_settings({"PREFECT_API_URL": URL, **environment})


def test_an_empty_setting_is_one_that_is_not_set() -> None:
    names = {row.name for row in ROWS.values()} - {"PREFECT_API_URL"}
    assert read(**dict.fromkeys(names, "")) == read()


def test_the_names_are_made_of_the_stage_where_they_are_not_set() -> None:
    settings = read(STAGE="prod", WORK_POOL="etl")
    assert (settings.stack_name, settings.work_pools) == ("prefect-spot-prod", ("etl",))
    assert settings.ecs_clusters == ("prefect-spot-prod",)


def test_the_policy_is_what_the_settings_say() -> None:
    settings = read(
        MODE="opt-in",
        SPOT_RETRIES="7",
        RERUN_DELAY_SECONDS="9",
        START_RETRIES="5",
        WORK_POOL="etl",
    )
    rate = Rate("us-east-1", "x86_64", "FARGATE", Decimal(1), Decimal(2))
    rates = {rate.key: rate}
    policy = policy_of(settings, rates)
    assert policy == Policy(Mode.OPT_IN, 7, 5, 9, rates, ("etl",))
    default = Policy()
    assert [
        f.name for f in fields(Policy) if getattr(policy, f.name) == getattr(default, f.name)
    ] == []


@pytest.mark.parametrize("text", ["0.68", "0", ".5", "0.999999"])
def test_the_assumed_discount_is_a_share_below_all_of_it(text: str) -> None:
    assert read(ASSUMED_SPOT_DISCOUNT=text).assumed_spot_discount == Decimal(text)
    assert read().assumed_spot_discount == Decimal("0.68")


def test_own_rates_are_read() -> None:
    rates = read(RATES="eu-west-1/arm64/FARGATE=0.03/0.003").rates
    assert rates["eu-west-1", "arm64", "FARGATE"].vcpu_hour_usd == Decimal("0.03")


@pytest.mark.parametrize(
    ("name", "value", "accepted"),
    [
        ("PREFECT_API_URL", "", "address of Prefect's API"),
        ("PREFECT_API_URL", "prefect.example.com", "address of Prefect's API"),
        ("PREFECT_API_URL", "ftp://prefect.example.com", "address of Prefect's API"),
        ("MODE", "yes", "rescue, opt-in, observe"),
        ("SPOT_RETRIES", "-1", "whole numbers from 0 to 1000"),
        ("SPOT_RETRIES", "1001", "whole numbers from 0 to 1000"),
        ("SPOT_RETRIES", "٣", "whole numbers from 0 to 1000"),
        ("RERUN_DELAY_SECONDS", "1.5", "whole numbers from 0 to 86400"),
        ("SPOT_RETRIES", "Auto", "whole numbers from 0 to 1000, or auto"),
        ("REACT_CONCURRENCY", "-1", "whole numbers from 0 to 1000"),
        ("RATES", "0.04", "REGION/ARCHITECTURE/CAPACITY="),
        ("RATES", f"{RATE}=0.04", "cannot be read"),
        ("RATES", f"{RATE}=1e-2/0.004", "cannot be read"),
        ("RATES", f"{RATE}=0/0.004", "0 USD is not above zero"),
        ("RATES", "us-east-1/x86/FARGATE=0.04/0.004", "x86_64 and arm64"),
        ("RATES", f"{RATE}=0.01/0.001,{RATE}_SPOT=0.02/0.001", "Spot is above on-demand"),
        ("PROVISION", "none", "full, rescue-only"),
        ("STACK_NAME", "Prefect", "27 small letters"),
        ("STACK_NAME", "a" * 28, "27 small letters"),
        ("STACK_NAME", "1st", "beginning with a letter"),
        ("ECS_CLUSTER", " , ", "the name of one cluster"),
        ("ECS_CLUSTER", "one,two", "the name of one cluster"),
        ("ECS_CLUSTER", "arn:aws:ecs:us-east-1:1:cluster/one", "rescue-only, names or ARNs"),
        ("WORK_POOL", "prefect-pool", "do not begin with prefect"),
        ("WORK_POOL", "a/b", "without"),
        ("WORK_POOL", "etl,ml", "one name, of"),
        ("WORK_POOL", " , ", "one name, of"),
        ("VPC_ID", "default", "vpc-"),
        ("SUBNET_IDS", "subnet-12345678,eu-west-1a", "subnet ids, comma-separated"),
        ("SUBNET_IDS", " , ", "subnet ids, comma-separated"),
        ("SECURITY_GROUP_IDS", "default", "security group ids"),
        ("WORKER_IMAGE", "an image", "an image, such as"),
        ("WORKER_CPU", "300", "256, 512, 1024"),
        ("WORKER_MEMORY", "512", "1024, 2048, 3072, 4096"),
        ("WORK_QUEUES", "a'b", "work queues' names"),
        ("WORKER_QUERY_SECONDS", "0", "from 1 to 3600"),
        *(
            ("ASSUMED_SPOT_DISCOUNT", wrong, "from 0 to below 1")
            for wrong in ("1", "1.5", "-0.1", "68%", "68", "0.", "NaN", "1e-1")
        ),
        ("DEPLOYMENT_METRICS", "1", "true, false"),
        ("KMS_KEY_ARN", "alias/prefect", "no alias"),
        ("KMS_KEY_ARN", "arn:aws:kms:us-east-1:123456789012:alias/prefect", "no alias"),
        ("FLOW_POLICY_ARNS", "AmazonS3ReadOnlyAccess", "ARNs of managed policies"),
        ("FLOW_POLICY_ARNS", "arn:aws:iam::aws:policy/*", "ARNs of managed policies"),
        ("PASSABLE_ROLE_ARNS", "arn:aws:iam::123456789012:role/etl-*", "ARNs of roles"),
        ("PASSABLE_ROLE_ARNS", "arn:aws:iam::123456789012:role/etl,nightly", "ARNs of roles"),
        ("PERMISSIONS_BOUNDARY_ARN", "boundary", "the ARN of a managed policy"),
        ("LOG_LEVEL", "loud", "DEBUG, INFO, WARNING, ERROR, CRITICAL"),
        ("LOG_RETENTION_DAYS", "31", "30, 60, 90"),
        ("ALARM_EMAIL", "ops", "an e-mail address"),
        ("ARCHITECTURE", "ARM64", "x86_64, arm64"),
        ("NOTIFY", "yes", "moves, losses, all, none"),
    ],
)
def test_a_wrong_setting_is_named_shown_and_explained(name: str, value: str, accepted: str) -> None:
    with pytest.raises(SettingError) as error:
        read(**{name: value})
    assert error.value.what.startswith(f"{name} is {value!r}")
    assert accepted in error.value.what
    assert error.value.next_step.startswith(f"correct {name} in .chalice/config.json")


@pytest.mark.parametrize(
    ("environment", "what"),
    [
        pytest.param({KEY: "admin:canary"}, f"{KEY} is not shown", id="a password"),
        pytest.param({AUTH_STRING: "admin:canary"}, f"{AUTH_STRING} is not shown", id="the same"),
        pytest.param({KEY: "pnu_canary"}, f"{KEY} is not shown", id="an API key"),
        pytest.param({HEADERS: '{"X": "canary"}'}, f"{HEADERS} is not shown", id="headers"),
        pytest.param({CA: "-----BEGIN canary-----"}, f"{CA} is not shown", id="certificates"),
        pytest.param({KEY: "pnb_canary"}, f"{KEY} is not shown", id="a service's key"),
        *(
            pytest.param({"PREFECT_API_URL": url}, "PREFECT_API_URL holds credentials", id=url)
            for url in (
                *("https://u:canary@p.de", "u:canary@p.de", "https:/u:canary@p.de"),
                *(
                    "https://u:canary%40p.de/api",
                    "https://p.de/api?key=canary",
                    "https://p.de#canary",
                ),
                *("https://p.de/api/pnu_canary", "https://p.de/api/PNB%5fcanary", "pnu_canary"),
                *("https://u:canary\r@p.de", "https://p.de/ canary", "https://p.de\\canary"),
            )
        ),
        *(
            pytest.param({name: "pnu_canary"}, f"{name} is not shown", id=name)
            for name in ("MODE", "SPOT_RETRIES", "RATES", "LOG_LEVEL")
        ),
        pytest.param({KEY: "canary", AUTH_STRING: "canary"}, "are both set", id="two"),
    ],
)
def test_what_may_be_the_credential_itself_is_refused_and_not_shown(
    environment: dict[str, str], what: str
) -> None:
    with pytest.raises(SettingError, match=what) as error:
        read(**environment)
    assert "canary" not in "".join(traceback.format_exception(error.value))


def test_certificates_are_of_no_use_over_http() -> None:
    with pytest.raises(SettingError, match=r"PREFECT_API_URL is .*https .*PREFECT_CA_CERTIFICATE"):
        read(PREFECT_API_URL="http://prefect.example.com/api", **{CA: "/ca"})
    settings = read(PREFECT_API_URL="HTTPS://prefect.example.com/api", **{CA: "/ca", KEY: "/key"})
    assert settings.secrets == {KEY: "/key", CA: "/ca"}


def test_weights_that_leave_no_provider_are_refused() -> None:
    with pytest.raises(SettingError, match="SPOT_WEIGHT"):
        read(SPOT_WEIGHT="0", FARGATE_WEIGHT="0")
    assert read(SPOT_WEIGHT="0").spot_weight == 0


@pytest.mark.parametrize(
    ("pools", "names", "in_metrics"),
    [
        ("prefect-managed", ("prefect-managed",), "prefect-managed"),
        (" etl, two words ,,etl,größer,", ("etl", "two words", "größer"), "<all>"),
        ("etl,etl, etl", ("etl",), "etl"),
    ],
)
def test_your_own_clusters_and_pools_may_be_several_and_have_any_name(
    pools: str, names: tuple[str, ...], in_metrics: str
) -> None:
    clusters = "one, arn:aws:ecs:us-east-1:1:cluster/two,"
    settings = read(ECS_CLUSTER=clusters, WORK_POOL=pools, **RESCUE_ONLY)
    assert settings.ecs_clusters == ("one", "arn:aws:ecs:us-east-1:1:cluster/two")
    assert not settings.is_full
    assert settings.work_pools == policy_of(settings, {}).work_pools == names
    parameter = infra.load("stack.json")["Parameters"]["WorkPool"]
    assert stack_parameters(settings)["WorkPool"] == in_metrics
    assert re.fullmatch(parameter["AllowedPattern"], in_metrics)


@pytest.mark.parametrize("cpu", FARGATE_MEMORY)
def test_every_size_that_fargate_accepts_is_accepted(cpu: int) -> None:
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
    days = service.shape_for("PutRetentionPolicyRequest").members["retentionInDays"].documentation
    *most, last = RETENTION_DAYS.accepted.split(", ")
    assert f"{', '.join(most)}, and {last}" in days


# What follows from the table.


def test_the_stack_gets_each_of_its_parameters_as_text() -> None:
    given = {
        "STAGE": "prod",
        "PREFECT_API_KEY_PARAMETER": "/prefect-spot/prod/api-key",
        "SUBNET_IDS": "subnet-12345678, subnet-87654321",
        "ASSIGN_PUBLIC_IP": "false",
        "USE_SPOT": "false",
        "WORK_QUEUES": "fast, slow",
    }
    parameters = stack_parameters(read(**given))
    assert set(parameters) == set(infra.load("stack.json")["Parameters"])
    some = {
        "Stage": "prod",
        "PrefectApiUrl": URL,
        "ApiKeyParameter": "prefect-spot/prod/api-key",
        "AuthStringParameter": "",
        "ClusterName": "prefect-spot-prod",
        "SubnetIds": "subnet-12345678,subnet-87654321",
        "AssignPublicIp": "DISABLED",
        "UseSpot": "false",
        "SpotWeight": "3",
        "WorkQueues": "fast,slow",
    }
    assert some.items() <= parameters.items()


def test_the_settings_page_is_made_of_the_table() -> None:
    assert settings_page.PAGE.read_text() == settings_page.page(), "run `make docs`"
    required = {row.name for row in ROWS.values() if row.default is None}
    assert required == set(settings_page.REQUIRED)


def test_no_setting_is_read_but_through_the_table() -> None:
    root = Path(__file__).parents[2]
    files = [root / "app.py", *(root / "chalicelib").rglob("*.py")]
    uses = re.findall(r".*os\.environ.*", "\n".join(file.read_text() for file in files))
    assert sorted(use.strip() for use in uses) == [
        'if "AWS_LAMBDA_FUNCTION_NAME" in os.environ:',
        # Before the settings are read, and checked with them.
        'log = Logger(service="prefect-spot", level=os.environ.get("LOG_LEVEL") or "INFO")',
        'own_function = os.environ.get("_HANDLER", "").rpartition(".")[2]  # Lambda sets it',
        "return read_clusters(os.environ)",
        "return read_settings(os.environ)",
    ]


def test_the_shipped_config_reserves_no_concurrency_which_fails_on_a_new_account() -> None:
    text = (PROJECT / ".chalice" / "config.json").read_text()
    assert "reserved_concurrency" not in text
    assert read().react_concurrency == 10


def test_mode_stands_in_the_config_of_each_stage_where_it_can_be_seen() -> None:
    config = json.loads((PROJECT / ".chalice" / "config.json").read_text())
    for stage in config["stages"].values():
        assert Mode(stage["environment_variables"]["MODE"])
