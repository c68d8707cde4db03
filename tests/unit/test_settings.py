"""Settings, and the errors that say what is wrong with one."""

from decimal import Decimal

import pytest

from chalicelib.core.model.policy import Mode
from chalicelib.errors import SettingError
from chalicelib.settings import policy_of, read_settings

URL = "https://api.prefect.cloud/api/accounts/a/workspaces/w"


def test_an_empty_setting_is_one_that_is_not_set() -> None:
    settings = read_settings({"PREFECT_API_URL": URL, "MODE": "", "SPOT_RETRIES": ""})
    assert (settings.mode, settings.spot_retries) == (Mode.RESCUE, 3)


def test_the_policy_is_what_the_settings_say() -> None:
    environment = {
        "PREFECT_API_URL": URL,
        "MODE": "opt-in",
        "SPOT_RETRIES": "7",
        "RERUN_DELAY_SECONDS": "9",
        "GUARD_ECONOMICS": "true",
    }
    policy = policy_of(read_settings(environment), {})
    assert (policy.mode, policy.spot_retries) == (Mode.OPT_IN, 7)
    assert policy.rerun_delay_seconds == 9
    assert policy.economics


def test_several_clusters_are_separated_by_commas() -> None:
    settings = read_settings({"PREFECT_API_URL": URL, "ECS_CLUSTER": "one, two,"})
    assert settings.ecs_clusters == ("one", "two")


@pytest.mark.parametrize(
    ("name", "value", "accepted"),
    [
        ("PREFECT_API_URL", "", "address of Prefect's API"),
        ("PREFECT_API_URL", "prefect.example.com", "address of Prefect's API"),
        ("PREFECT_API_URL", "ftp://prefect.example.com", "address of Prefect's API"),
        ("MODE", "yes", "rescue, opt-in, observe"),
        ("SPOT_RETRIES", "-1", "whole numbers from 0 to 1000"),
        ("SPOT_RETRIES", "many", "whole numbers from 0 to 1000"),
        ("SPOT_RETRIES", "1001", "whole numbers from 0 to 1000"),
        ("RERUN_DELAY_SECONDS", "1.5", "whole numbers from 0 to 86400"),
        ("GUARD_ECONOMICS", "yes", "true, false"),
        ("ECS_CLUSTER", " , ", "names or ARNs"),
        ("RATES", "0.04", "REGION/ARCHITECTURE/CAPACITY="),
        ("RATES", "us-east-1/x86_64/FARGATE=0.04", "cannot be read"),
        ("RATES", "us-east-1/x86_64/FARGATE=1e-2/0.004", "cannot be read"),
        ("RATES", "us-east-1/x86_64/FARGATE=0/0.004", "0 USD is not above zero"),
        ("RATES", "us-east-1/x86/FARGATE=0.04/0.004", "x86_64 and arm64"),
        (
            "RATES",
            "us-east-1/x86_64/FARGATE=0.01/0.001,us-east-1/x86_64/FARGATE_SPOT=0.02/0.001",
            "Spot is above on-demand",
        ),
    ],
)
def test_a_wrong_setting_is_named_shown_and_explained(name: str, value: str, accepted: str) -> None:
    with pytest.raises(SettingError) as error:
        read_settings({"PREFECT_API_URL": URL, name: value})
    assert name in str(error.value)
    assert repr(value) in str(error.value)
    assert accepted in str(error.value)


def test_own_rates_are_read() -> None:
    rates = read_settings(
        {"PREFECT_API_URL": URL, "RATES": "eu-west-1/arm64/FARGATE=0.03/0.003"}
    ).rates
    assert rates["eu-west-1", "arm64", "FARGATE"].vcpu_hour_usd == Decimal("0.03")


def test_two_credentials_are_one_too_many() -> None:
    both = {
        "PREFECT_API_KEY_PARAMETER": "/key",
        "PREFECT_API_AUTH_STRING_PARAMETER": "/auth",
    }
    with pytest.raises(SettingError, match="set one of them"):
        read_settings({"PREFECT_API_URL": URL, **both})
