"""The clouds of the long tests: one of plain runs, and one whose Lambdas are behind fault proxies."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from localcloud.cloud import Options
from tests.e2e.scenario import Stage, set_up
from tests.system.stories import STORIES
from tests.system.world import Story, World

AUTH_STRING = "admin:only-for-these-tests"
OPTIONS = Options(
    auth_string=AUTH_STRING,
    worker_query_seconds=1,
    lambda_timeout_seconds=10,
    retry_scale=0.3,  # 18 and 36 s: a lease lives for the 10 s and 5 more
    faults=True,
    postgres=True,  # so many runs at once, and SQLite itself answers 503: a fault that is not ours
)


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    options = Options(auth_string=AUTH_STRING, settings={"SWEEP_GRACE_SECONDS": "5"})
    with set_up(options, tmp_path_factory.mktemp("notes")) as stage:
        yield stage


def chosen_stories(items: list[pytest.Item]) -> list[Story]:
    parameters = [
        i.callspec.params
        for i in items
        if isinstance(i, pytest.Function) and hasattr(i, "callspec")
    ]
    chosen = {value for given in parameters for value in given.values()}
    return [story for story in STORIES if chosen.intersection((story, *story.acts))]


@pytest.fixture(scope="module")
def world(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    """Stories are begun at once; those of which no test was chosen are not played."""
    stories = chosen_stories(request.session.items)
    with set_up(OPTIONS, tmp_path_factory.mktemp("notes")) as stage:
        cloud = stage.cloud
        assert cloud.prefect_faults
        assert cloud.aws_faults
        world = World(stage, cloud.prefect_faults, cloud.aws_faults)
        world.rule()
        with ThreadPoolExecutor(max(1, len(stories))) as pool:
            world.begin(stories, pool)
            yield world
        world.write()
        assert world.prefect.errors == []
        assert world.aws.errors == []
