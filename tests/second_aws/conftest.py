"""One MiniStack for all tests here, and the report of what it has judged: `build/second_aws.json`."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from localcloud.processes import Supervisor
from tests.second_aws.ministack import Account, MiniStack, open_to_others
from tests.tiers import BUILD

SECONDS = 300


@pytest.fixture(scope="session")
def supervisor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Supervisor]:
    with Supervisor.open(tmp_path_factory.mktemp("second-aws")) as supervisor:
        yield supervisor


@pytest.fixture(scope="session")
def ministack(supervisor: Supervisor) -> Iterator[MiniStack]:
    with MiniStack(supervisor.folder / "ministack", supervisor.spawn) as ministack:
        yield ministack


@pytest.fixture
def account(ministack: MiniStack) -> Account:
    return ministack.account()


@pytest.fixture
def moto_dynamodb(account: Account) -> Any:
    """Not moto's: the tests of the tables run on this one as well."""
    return account.client("dynamodb")
