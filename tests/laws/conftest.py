"""A table for the laws, in moto, in this process."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import boto3
import pytest
from moto import mock_aws

from chalicelib.core.situation import Policy
from tests.laws.universe import Universe


@dataclass(frozen=True)
class Tables:
    dynamodb: Any
    name: str

    def universe(self, policy: Policy | None = None) -> Universe:
        return Universe(self.dynamodb, self.name, policy or Policy())


@pytest.fixture(scope="session")
def tables() -> Iterator[Tables]:
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
