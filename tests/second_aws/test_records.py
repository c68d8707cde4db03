"""The run records' own tests, on another DynamoDB; and many threads at its leases."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any
from uuid import UUID

from chalicelib.adapters.records import RunTable
from chalicelib.errors import LeaseHeldError
from tests.make import NOW
from tests.unit.test_table import *  # noqa: F403
from tests.unit.test_table import LEASE

THREADS, LEASES = 12, 40


def test_of_many_threads_at_one_lease_one_has_it(dynamodb: Any) -> None:
    def takes(run_id: UUID, owner: int) -> bool:
        try:
            RunTable(dynamodb, "runs", f"thread {owner}").acquire(run_id, NOW, LEASE)
        except LeaseHeldError:
            return False
        return True

    with ThreadPoolExecutor(THREADS) as pool:
        for number in range(LEASES):
            taken = pool.map(partial(takes, UUID(int=number)), range(THREADS))
            assert sum(taken) == 1
