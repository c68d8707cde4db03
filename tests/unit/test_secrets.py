"""The credential: read once, kept for five minutes, never shown."""

import base64
import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import boto3
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from moto import mock_aws

from chalicelib.adapters.credentials import (
    CACHE_SECONDS,
    PrefectAuthorization,
    certificates,
    custom_headers,
    without,
)
from chalicelib.errors import SecretUnreadableError
from localcloud.access_proxy import AccessProxy

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


def assert_refused_unshown(read: Callable[[], object], parts: Sequence[str]) -> None:
    """It is refused with these words, and neither the error nor a cause of it holds the canary."""
    with pytest.raises(SecretUnreadableError) as caught:
        read()
    assert [part for part in parts if part not in str(caught.value)] == []
    link: BaseException | None = caught.value
    while link is not None:
        assert not re.search("can[aä]", f"{link!r} {vars(link)}".lower())
        link = link.__cause__ or link.__context__


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("canary", "is no JSON object"),
        ('["canary"]', "is no JSON object"),
        ('{"X": "canary"', "is no JSON object"),
        ("null", "is no JSON object"),
        ("[" * 100_000, "is no JSON object"),
        ('{"X": 1}', "a value in it that no header can have"),
        ('{"X": ""}', "a value in it that no header can have"),
        ('{"X": {"Y": "canary"}}', "a value in it that no header can have"),
        ('{"X": "canary\\r\\nEvil: 1"}', "a value in it that no header can have"),
        ('{"X": "canary\\u0000"}', "a value in it that no header can have"),
        ('{"X": "canäry"}', "a value in it that no header can have"),
        ('{"X": " canary"}', "a value in it that no header can have"),
        ('{"canary: ": "x"}', "a name in it that no header can have"),
        ('{"": "canary"}', "a name in it that no header can have"),
        ('{"canary\\n": "x"}', "a name in it that no header can have"),
        ('{"X-Canary": "canary", "x-canary": "b"}', "a header twice"),
        ('{"Host": "canary"}', "the header host"),
        ('{"content-LENGTH": "canary"}', "the header content-length"),
        ('{"Transfer-Encoding": "canary"}', "the header transfer-encoding"),
        ('{"Prefect-Csrf-Token": "canary"}', "the header prefect-csrf-token"),
        ('{"User-Agent": "canary"}', "the header user-agent"),
    ],
)
def test_headers_that_cannot_be_sent_are_refused_without_showing_them(
    ssm: Any, value: str, why: str
) -> None:
    store(ssm, value)
    parts = (NAME, "PREFECT_CUSTOM_HEADERS_PARAMETER", why, "store a JSON object")
    assert_refused_unshown(custom_headers(ssm, NAME), parts)


@pytest.mark.parametrize("value", ["{}", ' {"X-A": "b c"}\n', '{"Authorization": "Basic eA=="}'])
def test_headers_are_a_json_object_as_prefect_itself_reads_it(ssm: Any, value: str) -> None:
    store(ssm, value)
    assert custom_headers(ssm, NAME)() == json.loads(value)
    assert custom_headers(ssm, "")() == {}


def test_of_a_cookie_too_each_value_is_hidden_where_a_server_sends_it_back() -> None:
    cookie = {"Cookie": "CF_Authorization=canary; session=second"}
    assert without(cookie, "neither canary nor second is known") == "neither *** nor *** is known"


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("canary", "is not PEM"),
        ("-----BEGIN CERTIFICATE-----\ncanary\n-----END CERTIFICATE-----", "is not PEM"),
        ("-----BEGIN CERTIFICATE-----\nMIIBcanäry\n", "is not PEM"),
        ("PEM\n-----BEGIN EC PRIVATE KEY-----\ncanary", "holds a private key"),
    ],
)
def test_what_is_no_certificate_is_refused_without_showing_it(
    ssm: Any, value: str, why: str
) -> None:
    store(ssm, value)
    parts = (NAME, "PREFECT_CA_CERTIFICATE_PARAMETER", why, "in PEM")
    assert_refused_unshown(certificates(ssm, NAME), parts)


def test_the_certificates_are_the_same_context_until_others_are_stored(
    ssm: Any, tmp_path: Path
) -> None:
    one, two = (AccessProxy("", tmp_path / name).certificates for name in "ab")
    store(ssm, f"\ufeff# Főtanúsítvány\n{one}")
    trust = certificates(ssm, NAME)
    assert certificates(ssm, "")() is None
    assert trust() is trust(True) is not None
    store(ssm, one + two)
    both = trust(True)
    assert both is not None
    assert len(both.get_ca_certs()) == 2


def test_its_representation_names_parameters_only(ssm: Any) -> None:
    authorization = PrefectAuthorization(ssm, api_key_parameter=NAME)
    authorization()
    assert NAME in repr(authorization)
    assert KEY not in f"{authorization!r} {vars(authorization)}"
