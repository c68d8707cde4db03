"""Stories: each follows a run, or a few that belong together, from the start to the end.

All stories of the selected tests that share a cloud begin together, each in a thread of its own:
they mostly wait. A conftest imports the fixtures and the hook, and has a fixture `deployed`.
"""

import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, wait
from dataclasses import replace
from typing import Any

import pytest

from tests.e2e.scenario import Run, Stage
from tests.progress import note

Story = Callable[[Stage], Any]
STORIES: dict[str, Story] = {}
"""All stories by name, in the order in which their modules define them."""


class StoryBrokeOffError(Exception):
    """A story did not come to its end; the cause is chained to it."""


def story(function: Story) -> Any:
    """Make a story of a function, and return a fixture of its name: what the story returned.

    A test that asks for the fixture waits for the story's end. Stories that no selected test asks
    for are left out.
    """
    name = function.__name__
    STORIES[name] = function

    @pytest.fixture(scope="session", name=name)
    def ended(stories: Stories) -> Any:
        return stories.result(name)

    return ended


def stories_of(items: Iterable[pytest.Item]) -> list[str]:
    """Names of the stories that the tests ask for, as a fixture or as parameter `scenario`."""
    asked = {name for item in items for name in getattr(item, "fixturenames", ())}
    asked |= {parameter_of(item, "scenario") for item in items}
    return [name for name in STORIES if name in asked]


def parameter_of(item: pytest.Item, name: str) -> Any:
    """A test's parameter; None where it has none of that name."""
    return item.callspec.params.get(name) if hasattr(item, "callspec") else None


class Stories:
    """The stories under way on a stage."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.seconds: dict[str, float] = {}
        """How long each story took that has ended well."""
        self._stages: dict[str, Stage] = {}
        self._outcomes: dict[str, Future[Any]] = {}

    def begin(self, names: Sequence[str]) -> None:
        for name in names:
            self._stages[name] = replace(self.stage, runs=[])
            self._outcomes[name] = Future()
            # A daemon, so that a session that is broken off does not wait for them.
            threading.Thread(target=self._follow, args=(name,), daemon=True).start()

    def result(self, name: str) -> Any:
        """Wait for the story; return what it returned. Raises StoryBrokeOffError if it did not."""
        return self._outcomes[name].result()

    def wait_for_all(self) -> None:
        wait(self._outcomes.values())

    def runs(self, names: Iterable[str]) -> list[Run]:
        """The runs so far of those of the stories that were begun."""
        return [run for name in names if name in self._stages for run in self._stages[name].runs]

    def _follow(self, name: str) -> None:
        began = time.monotonic()
        note(f"story {name} begun")
        try:
            result = STORIES[name](self._stages[name])
            self.seconds[name] = time.monotonic() - began
            self._outcomes[name].set_result(result)
            how = "ended"
        except BaseException as error:
            broken = StoryBrokeOffError(f"story {name} broke off: {error!r}")
            broken.__cause__ = error
            self._outcomes[name].set_exception(broken)
            how = "broke off"
        note(f"story {name} {how} after {time.monotonic() - began:.0f} s")


UNDER_WAY = pytest.StashKey[Stories]()


@pytest.fixture(scope="session")
def stories(request: pytest.FixtureRequest, deployed: Stage) -> Iterator[Stories]:
    """The stories of the selected tests of this cloud, begun at once."""
    stories = request.session.stash[UNDER_WAY] = Stories(deployed)
    here = [
        item
        for item in request.session.items
        if parameter_of(item, "deployed") in (None, deployed.options)
    ]
    stories.begin(stories_of(here))
    yield stories
    stories.wait_for_all()


@pytest.fixture(scope="session")
def stage(stories: Stories) -> Stage:
    return stories.stage


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Say at the end of a failure what to look at: the runs of the test's stories."""
    report = yield
    stories = item.session.stash.get(UNDER_WAY, None)
    if report.failed and stories and (runs := stories.runs(stories_of([item]))):
        report.sections.append(("what to look at", "\n".join(map(_report_of, runs))))
    return report


def _report_of(run: Run) -> str:
    try:
        return run.report()
    except Exception as error:  # the test's own failure is what matters
        return f"run {run.id}: no report, {error!r}"
