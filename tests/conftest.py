"""What all tests share: a profile for planted mistakes, and DynamoDB in moto."""

import os
from collections.abc import Iterator
from functools import cache
from typing import Any

import boto3
import botocore.loaders
import botocore.session
import pytest
from hypothesis import Phase, settings
from moto import mock_aws

os.environ.setdefault("MOTO_EC2_LOAD_DEFAULT_AMIS", "false")  # half a second for each account
os.environ.pop("COLUMNS", None)  # xdist sets it: what goes into a pipe has a width of its own
# moto has each test begin with a new session, and each session would parse all models anew.
botocore.session.create_loader = cache(botocore.loaders.create_loader)

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
