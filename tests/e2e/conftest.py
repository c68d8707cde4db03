"""One embedded cloud for all end-to-end tests, behind basic auth, with the test flows deployed."""

from collections.abc import Iterator

import pytest

from localcloud.cloud import Options
from localcloud.events import deliver_once
from tests.e2e.scenario import Stage, set_up

AUTH_STRING = "admin:only-for-these-tests"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Look at what was called once everything else has been done."""
    items.sort(key=lambda item: item.path.name == "test_policies.py")


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    options = Options(auth_string=AUTH_STRING, settings={"SWEEP_GRACE_SECONDS": "5"})
    with set_up(options, tmp_path_factory.mktemp("notes")) as stage:
        yield stage


@pytest.fixture(autouse=True)
def well_behaved_again(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "stage" in request.fixturenames:
        request.getfixturevalue("stage").cloud.router.mischief = deliver_once
