"""The clouds of the long tests, one at a time in a process: when another comes, it is ended.

A module that needs another than the ordinary one names it in `CLOUDS`. With `pytest -n 2` two of
them are up at once, each in a process of its own.
"""

import re
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

from tests.e2e.scenario import Stage, set_up
from tests.e2e.stories import pytest_runtest_makereport, stage, stories
from tests.system.clouds import CLOUDS
from tests.system.simulated_worker import simulated_worker

__all__ = ["pytest_runtest_makereport", "stage", "stories"]

HERE = Path(__file__).parent
SWEEP_EVERY_SECONDS = 6.0
"""As the schedule would every few minutes."""
TEST_SECONDS = 1800
"""For a test to wait for its cloud and its story, on a busy machine."""


class ByCloud(LoadScopeScheduling):  # type: ignore[misc]  # xdist is not typed
    """Has the tests of a cloud, and those of the UI's demo, run in one process each.

    xdist's own `loadgroup` does not group under pytest 9.2: it changes a node id that is not read.
    """

    def _split_scope(self, nodeid: str) -> str:
        path = PurePath(nodeid.partition("::")[0])
        return group_of(nodeid) if path.parent.name == HERE.name else path.parent.name


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByCloud:
    return ByCloud(config, log)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test in each cloud that its module names, with each scenario of that cloud."""
    clouds = getattr(metafunc.module, "CLOUDS", ("ordinary",))
    rows: dict[str, tuple[object, ...]] = {}
    names = ["deployed"]
    if "scenario" in metafunc.fixturenames:
        names.append("scenario")
        scenarios = metafunc.module.SCENARIOS
        rows = {f"{c}-{name}": (CLOUDS[c], name) for c in clouds for name in scenarios[c]}
    elif "deployed" in metafunc.fixturenames:
        rows = {cloud: (CLOUDS[cloud],) for cloud in clouds}
    if rows:
        metafunc.parametrize(
            names, list(rows.values()), ids=list(rows), indirect=["deployed"], scope="session"
        )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order = list(CLOUDS)
    here = [item for item in items if item.path.parent == HERE]
    for item in here:
        item.add_marker(pytest.mark.timeout(TEST_SECONDS))
    groups = {item: group_of(item.nodeid) for item in here}
    here.sort(key=lambda item: order.index(groups[item]) if groups[item] in order else len(order))
    items[:] = here + [item for item in items if item not in here]


def group_of(nodeid: str) -> str:
    """A test's cloud, which its parameters begin with; its file if it needs none."""
    parameters = re.search(r"\[(\w+)", nodeid)
    return parameters[1] if parameters else PurePath(nodeid.partition("::")[0]).name


@pytest.fixture(scope="session")
def deployed(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    [name] = [name for name, options in CLOUDS.items() if options is request.param]
    with set_up(request.param, tmp_path_factory.mktemp("notes"), name) as deployed:
        sweeping = deployed.kept_sweeping(SWEEP_EVERY_SECONDS)
        with sweeping if deployed.options.worker else simulated_worker(deployed):
            yield deployed
