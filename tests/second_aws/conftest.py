"""One MiniStack for all tests here; its report is `build/second_aws.json`."""

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from localcloud.processes import Supervisor
from tests.second_aws.server import Account, MiniStack, open_to_others
from tests.tiers import BUILD

REPORT: Final = BUILD / "second_aws.json"
OF_ALL_TESTS: Final = ("version", "resources", "left_out", "updates", "patterns", "iam")
TABLES: Final = ("test_records.py", "test_bills.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of the tables' own tests, only those that meet DynamoDB."""
    here = Path(__file__).parent

    def is_of_another(item: pytest.Item) -> bool:
        is_of_a_table = item.path.parent == here and item.path.name in TABLES
        uses = "dynamodb" in getattr(item, "fixturenames", ()) or "[DynamoDB" in item.nodeid
        return is_of_a_table and not uses

    items[:] = [item for item in items if not is_of_another(item)]


@pytest.fixture(scope="session")
def judged(ministack: MiniStack) -> Iterator[dict[str, Any]]:
    """What the tests found, for the report, which is written when all of them have."""
    began = time.monotonic()
    found: dict[str, Any] = {"version": ministack.version}
    REPORT.unlink(missing_ok=True)
    yield found
    found["seconds"] = round(time.monotonic() - began, 1)
    if all(part in found for part in OF_ALL_TESTS):
        REPORT.write_text(json.dumps(found, indent=2) + "\n")


@pytest.fixture(scope="session", autouse=True)
def nothing_but_loopback() -> Iterator[None]:
    """Look every second at what listens: of this process, and of all that it started."""
    over, found = threading.Event(), set[str]()

    def keep_looking() -> None:
        while not over.wait(1):
            found.update(open_to_others())

    thread = threading.Thread(target=keep_looking, daemon=True)
    thread.start()
    yield
    over.set()
    thread.join()
    assert found == set()


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
