"""A table for the fault tests."""

import pytest

from tests.laws.universe import Tables
from tests.twin.dynamodb import InMemoryDynamoDB


@pytest.fixture(scope="module")
def tables() -> Tables:
    """The in-memory table, which answers as moto's does (`tests/unit/test_*_table.py`).

    moto copies a whole table for each transaction, and is far slower at it.
    """
    return Tables(InMemoryDynamoDB(), "faults")
