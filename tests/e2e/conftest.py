"""One embedded cloud for all end-to-end tests, behind basic auth, with the stories under way.

Of its schedules, that of `sweep` is kept.
"""

from collections.abc import Iterator

import pytest

from localcloud.cloud import Options
from localcloud.fargate import Timings
from tests.e2e.scenario import Stage, set_up, subscribe_mailbox
from tests.e2e.stories import Stories, pytest_runtest_makereport, stage, stories, stories_of

__all__ = ["pytest_runtest_makereport", "stage", "stories"]

OPTIONS = Options(
    # Not a second less: a sweep must not be faster than a busy worker with any story's run.
    settings={"SWEEP_GRACE_SECONDS": "30", "DEPLOYMENT_METRICS": "true", "NOTIFY": "all"},
    # Time for the one handler before the next event comes: on Fargate it is half a minute.
    timings=Timings(deprovisioning_seconds=5),
    lambda_timeout_seconds=30,  # as shipped: `react` gathers facts only while 15 s are left
    retry_scale=0.3,  # 18 and 36 s: a lease lives for the 30 s and 5 more
    lambda_concurrency=3,
    postgres=True,  # to so many runs at once, SQLite answers 503 for minutes
)
TEST_SECONDS = 900
"""For a test to wait for the cloud and its story, on a busy machine."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """First what needs no story, while they go on; last what looks at the whole cloud."""
    items.sort(key=lambda item: (is_about_all(item), bool(stories_of([item]))))
    for item in items:
        if "stories" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.timeout(TEST_SECONDS))


def is_about_all(item: pytest.Item) -> bool:
    return "everything_is_over" in getattr(item, "fixturenames", ())


@pytest.fixture(scope="session")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with (
        set_up(OPTIONS, tmp_path_factory.mktemp("notes"), "e2e") as deployed,
        deployed.kept_sweeping(),
    ):
        subscribe_mailbox(deployed.cloud)
        yield deployed


@pytest.fixture(scope="session")
def everything_is_over(stories: Stories) -> None:
    """For what concerns the whole cloud: all stories have ended, well or not."""
    stories.wait_for_all()
    stories.stage.cloud.lambdas.wait_idle(300)
