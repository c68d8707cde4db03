"""The clouds of the long tests, one at a time in a process: when other options come, it is ended.

With `pytest -n 2 --dist loadgroup` two of them are up at once, each in a process of its own.
"""

from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from localcloud.cloud import Options, embedded_cloud
from tests.e2e.scenario import Stage, set_up
from tests.system.clouds import ORDINARY, PAPER
from tests.system.plays import Playbill, played, plays_of
from tests.system.world import World, world_on_paper

UNDER_WAY = pytest.StashKey[Playbill]()
GROUPS = {
    "ordinary": (),
    "on paper": ("test_misbehaving_world.py", "test_storm_deployed.py"),
    "observed": ("test_observer.py",),
    "benchmark": ("test_bench.py",),
    "ended by hand": ("test_demo.py",),
}
"""Files by the cloud that their tests share, the longest first; the ordinary one: all others."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Have the tests of a cloud run one after the other, in one process."""
    groups = list(GROUPS)
    here = [item for item in items if item.path.parent == Path(__file__).parent]
    for item in here:
        item.add_marker(pytest.mark.xdist_group(group_of(item)))
    here.sort(key=lambda item: groups.index(group_of(item)))
    items[:] = here + [item for item in items if item not in here]


def group_of(item: pytest.Item) -> str:
    return next((group for group, files in GROUPS.items() if item.path.name in files), "ordinary")


@pytest.fixture(scope="session")
def options(request: pytest.FixtureRequest) -> Options:
    """How the cloud is built: a module's own, where it is parametrized with some."""
    found: Options = getattr(request, "param", ORDINARY)
    return found


@pytest.fixture(scope="session")
def playbill(
    options: Options, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Playbill]:
    """A cloud in which all plays of the chosen tests are under way."""
    with (
        set_up(options, tmp_path_factory.mktemp("notes")) as stage,
        played(stage, options, request.session.items) as playbill,
    ):
        request.session.stash[UNDER_WAY] = playbill
        yield playbill


@pytest.fixture(scope="session")
def stage(playbill: Playbill) -> Stage:
    return playbill.stage


@pytest.fixture(scope="session")
def on_paper(options: Options) -> Iterator[World]:
    """A cloud whose worker and tasks are on paper."""
    assert options is PAPER
    with embedded_cloud(options, tell=print) as cloud, world_on_paper(cloud) as world:
        yield world


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Say at the end of a failure what to look at."""
    report = yield
    playbill = item.session.stash.get(UNDER_WAY, None)
    if report.failed and playbill and (plays := plays_of(item)):
        report.sections.append(("what to look at", playbill.stories.reports(plays)))
    return report
