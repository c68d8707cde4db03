"""The credential: read once, kept for five minutes, never shown."""

import base64
from collections.abc import Iterator
from typing import Any
from unittest.mock import Mock

import boto3
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from moto import mock_aws

from chalicelib.adapters.credentials import CACHE_SECONDS, PrefectAuthorization
from chalicelib.errors import SecretUnreadableError

KEY = "pnu_0123456789abcdef"
NAME = "/prefect/key"


@pytest.fixture
def ssm() -> Iterator[Any]:
    with mock_aws():
        client = boto3.client("ssm", "us-east-1", aws_access_key_id="a", aws_secret_access_key="b")
        client.put_parameter(Name=NAME, Value=f"{KEY}\n", Type="SecureString")
        yield Mock(wraps=client)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def store(ssm: Any, value: str) -> None:
    ssm.put_parameter(Name=NAME, Value=value, Type="SecureString", Overwrite=True)


def error(code: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "…"}}, "GetParameter")


def test_an_auth_string_becomes_basic(ssm: Any) -> None:
    store(ssm, "admin:pässword")
    header = PrefectAuthorization(ssm, auth_string_parameter=NAME)()
    assert header is not None
    assert base64.b64decode(header.removeprefix("Basic ")).decode() == "admin:pässword"


def test_no_parameter_means_no_header_and_no_question(ssm: Any) -> None:
    assert PrefectAuthorization(ssm)(True) is None
    assert ssm.get_parameter.call_count == 0


def test_the_value_is_read_once_in_five_minutes(ssm: Any) -> None:
    clock = Clock()
    authorization = PrefectAuthorization(ssm, api_key_parameter=NAME, clock=clock)
    assert authorization() == f"Bearer {KEY}"
    store(ssm, "pnu_new")

    clock.now += CACHE_SECONDS - 1
    assert authorization() == f"Bearer {KEY}"
    clock.now += 1
    assert authorization() == "Bearer pnu_new"
    assert ssm.get_parameter.call_count == 2

    store(ssm, "pnu_newer")
    assert authorization(True) == "Bearer pnu_newer", "a fresh one was asked for"
    assert authorization() == "Bearer pnu_newer"


@pytest.mark.parametrize(
    ("failure", "next_step"),
    [
        (error("ParameterNotFound"), "create it as a SecureString"),
        (error("AccessDeniedException"), "ssm:GetParameter"),
        (error("ThrottlingException"), "run a spotctl command again"),
        (EndpointConnectionError(endpoint_url="https://ssm"), "network"),
    ],
    ids=["missing", "denied", "throttled", "no-network"],
)
def test_what_cannot_be_read_is_named_with_the_next_step(
    ssm: Any, failure: Exception, next_step: str
) -> None:
    ssm.get_parameter.side_effect = failure
    with pytest.raises(SecretUnreadableError) as caught:
        PrefectAuthorization(ssm, auth_string_parameter=NAME)()
    for part in (NAME, "PREFECT_API_AUTH_STRING_PARAMETER", next_step):
        assert part in str(caught.value)


def test_a_held_value_outlives_ssm_unless_a_fresh_one_is_asked_for(ssm: Any) -> None:
    clock = Clock()
    authorization = PrefectAuthorization(ssm, api_key_parameter=NAME, clock=clock)
    authorization()
    ssm.get_parameter.side_effect = error("ThrottlingException")
    clock.now += 2 * CACHE_SECONDS

    assert authorization() == f"Bearer {KEY}"
    with pytest.raises(SecretUnreadableError):
        authorization(True)


@pytest.mark.parametrize("value", ["pnu_a\r\nX-Evil: 1", "pnu_ä", " "])
def test_a_key_that_no_header_can_hold_is_refused_without_showing_it(ssm: Any, value: str) -> None:
    store(ssm, value)
    with pytest.raises(SecretUnreadableError) as caught:
        PrefectAuthorization(ssm, api_key_parameter=NAME)()
    assert "pnu_" not in str(caught.value)


def test_its_representation_names_parameters_only(ssm: Any) -> None:
    authorization = PrefectAuthorization(ssm, api_key_parameter=NAME)
    authorization()
    assert NAME in repr(authorization)
    assert KEY not in f"{authorization!r} {vars(authorization)}"
