"""A table in moto, in this process, for the laws and the faults; each run in it is another."""

import os
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from hypothesis import Phase, settings
from moto import mock_aws

from tests.laws.universe import Tables
from tests.make import make_table

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
def tables() -> Iterator[Tables]:
    """A module's own: an embedded cloud takes all of moto's state along when it ends."""
    os.environ.setdefault("AWS_ACCESS_KEY_ID", "testing")
    os.environ.setdefault("AWS_SECRET_ACCESS_KEY", "testing")
    with mock_aws():
        dynamodb = boto3.client("dynamodb", region_name="us-east-1")
        make_table(dynamodb, "laws")
        yield Tables(dynamodb, "laws")
