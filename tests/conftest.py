"""A table in moto, in this process, for the laws and the faults; each run in it is another."""

import os
from collections.abc import Iterator

import boto3
import pytest
from hypothesis import Phase, settings
from moto import mock_aws

from tests.laws.universe import Tables

settings.register_profile(
    "first-failure", phases=(Phase.explicit, Phase.generate), derandomize=True, database=None
)
"""For planted mistakes: that a test fails is enough, the smallest example is not needed.

The examples are the same each time, so that a mistake is not noticed by luck.
"""


@pytest.fixture(scope="module")
def tables() -> Iterator[Tables]:
    """A module's own: an embedded cloud takes all of moto's state along when it ends."""
    os.environ.setdefault("AWS_ACCESS_KEY_ID", "testing")
    os.environ.setdefault("AWS_SECRET_ACCESS_KEY", "testing")
    with mock_aws():
        dynamodb = boto3.client("dynamodb", region_name="us-east-1")
        dynamodb.create_table(
            TableName="laws",
            KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
        )
        yield Tables(dynamodb, "laws")
