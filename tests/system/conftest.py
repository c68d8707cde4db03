"""The clouds of the long tests, one at a time in a process: when other options come, it is ended.

With `pytest -n 2` two of them are up at once, each in a process of its own.
"""

from collections.abc import Generator, Iterator
from pathlib import Path, PurePath
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

from localcloud.cloud import Options, embedded_cloud
from tests.e2e.scenario import Stage, set_up
from tests.system.clouds import ORDINARY, PAPER
from tests.system.plays import Playbill, played, plays_of
from tests.system.world import World, world_on_paper

HERE = Path(__file__).parent
UNDER_WAY = pytest.StashKey[Playbill]()
GROUPS = {
    "ordinary": (),
    "on paper": ("test_misbehaving_world.py", "test_storm_deployed.py"),
    "observed": ("test_observer.py",),
    "benchmark": ("test_bench.py",),
    "ended by hand": ("test_demo.py",),
}
"""Files by the cloud that their tests share, the longest first; the ordinary one: all others."""


TEST_SECONDS = 1800
"""For a test to wait for its cloud and its play, on a busy machine."""


class ByCloud(LoadScopeScheduling):  # type: ignore[misc]  # xdist is not typed
    """Has the tests of a cloud, and those of the UI's demo, run in one process each.

    xdist's own `loadgroup` does not group under pytest 9.2: it changes a node id that is not read.
    """

    def _split_scope(self, nodeid: str) -> str:
        path = PurePath(nodeid.partition("::")[0])
        return group_of(path.name) if path.parent.name == HERE.name else path.parent.name


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByCloud:
    return ByCloud(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Have the tests of a cloud run one after the other."""
    groups = list(GROUPS)
    here = [item for item in items if item.path.parent == HERE]
    for item in here:
        item.add_marker(pytest.mark.timeout(TEST_SECONDS))
    here.sort(key=lambda item: groups.index(group_of(item.path.name)))
    items[:] = here + [item for item in items if item not in here]


def group_of(file: str) -> str:
    return next((group for group, files in GROUPS.items() if file in files), "ordinary")


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
    with embedded_cloud(options, report=print) as cloud, world_on_paper(cloud) as world:
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
