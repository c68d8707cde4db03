"""Tables for the tests: in memory for laws and faults, in moto for the tables' own tests."""

import os
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from hypothesis import Phase, settings
from moto import mock_aws

from tests.laws.universe import Tables
from tests.twin.dynamodb import InMemoryDynamoDB

os.environ.setdefault("MOTO_EC2_LOAD_DEFAULT_AMIS", "false")  # half a second for each account

settings.register_profile(
    "first-failure", phases=(Phase.explicit, Phase.generate), derandomize=True, database=None
)
"""For planted mistakes: that a test fails is enough, the smallest example is not needed.

The examples are the same each time, so that a mistake is not noticed by luck.
"""


@pytest.fixture
def moto_dynamodb(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A client of an account in which there is no table yet."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    with mock_aws():
        yield boto3.client("dynamodb", region_name="us-east-1")


@pytest.fixture(scope="module")
def tables() -> Tables:
    """A module's own table in memory, which the tables' own tests hold against moto's."""
    return Tables(InMemoryDynamoDB(), "laws")
