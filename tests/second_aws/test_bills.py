"""The bills' own tests, on another DynamoDB."""

from tests.unit.test_bills_table import *  # noqa: F403
