"""Plays: what may happen around an interruption, with real runs, a real worker, the deployed zip.

All plays of a cloud are played at the same time, as stories of their own, while `sweep` comes every
few seconds; each test waits for the end of its own.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import pytest

from localcloud.cloud import SWEEP, Cloud, Options, wait_for
from localcloud.oracle import Verdict, judge
from tests.e2e.scenario import ATTEMPT_SECONDS, STORIES, Run, Stage, Stories
from tests.faults.ledger import Ledger
from tests.system.clouds import GRACE_SECONDS, ORDINARY

SWEEP_EVERY_SECONDS = 6.0

T = TypeVar("T")


@dataclass(frozen=True)
class Play(Generic[T]):
    """One course of things; `act` returns what its tests look at, and raises what was wrong."""

    name: str
    act: Callable[[Stage], T]

    def __post_init__(self) -> None:
        STORIES[self.name] = self._timed

    def _timed(self, stage: Stage) -> tuple[T, float]:
        began = time.monotonic()
        return self.act(stage), time.monotonic() - began


@dataclass(frozen=True)
class Playbill:
    """The plays under way in a cloud."""

    stage: Stage
    stories: Stories

    def result(self, play: Play[T]) -> T:
        """Wait for the play's end; return what it returned, or raise what was wrong."""
        result: T = self.stories.result(play.name)[0]
        return result

    def judge(self, play: Play[Sequence[Run]], ledger: Ledger) -> None:
        """Wait for the play's end; fail with what it found wrong, or the oracle."""
        runs, seconds = self.stories.result(play.name)
        verdict = self._verdict(runs)
        ledger.note(play.name, verdict, seconds)
        assert not verdict.findings, verdict

    def judge_all_again(self, plays: Sequence[Play[Sequence[Run]]], ledger: Ledger) -> None:
        """Once all is quiet and two more sweeps have come, nothing may look different."""
        runs = [run for play in plays for run in self.result(play)]
        began = time.monotonic()
        sweeps_pass(self.stage.cloud, 2)
        verdict = self._verdict(runs)
        seconds = time.monotonic() - began
        ledger.note("all of these runs, once all was quiet", verdict, seconds, len(runs))
        assert not verdict.findings, verdict

    def _verdict(self, runs: Sequence[Run]) -> Verdict:
        return judge(*(self.stage.cloud.observe(run.id) for run in runs))


def plays_of(item: pytest.Item) -> list[str]:
    """Names of a test's plays: its parameter, or all in `PLAYS` of its module."""
    assert isinstance(item, pytest.Function)
    plays: Sequence[Play[Any]] = getattr(item.module, "PLAYS", ())
    chosen = item.callspec.params.get("play") if hasattr(item, "callspec") else None
    return [play.name for play in plays if chosen in (None, play)]


def options_of(item: pytest.Item) -> object:
    """How the cloud of a test is built."""
    assert isinstance(item, pytest.Function)
    return item.callspec.params.get("options", ORDINARY) if hasattr(item, "callspec") else ORDINARY


@contextmanager
def played(stage: Stage, options: Options, items: Sequence[pytest.Item]) -> Iterator[Playbill]:
    """Begin the plays of those tests that run in this cloud, all at once."""
    over = threading.Event()

    def keep_sweeping() -> None:
        while not over.wait(SWEEP_EVERY_SECONDS):
            stage.cloud.lambdas.invoke_async(SWEEP, {"source": "aws.events", "detail": {}})

    here = [item for item in items if options_of(item) is options]
    stories = Stories(stage)
    stories.begin(list(dict.fromkeys(name for item in here for name in plays_of(item))))
    sweeping = threading.Thread(target=keep_sweeping, daemon=True)
    sweeping.start()
    try:
        yield Playbill(stage, stories)
        stories.wait_for_all()
    finally:
        over.set()
        sweeping.join()


def completes(run: Run, *, starts: int) -> None:
    """Wait for the good end, and see that the flow was started so often, each in its own task."""
    run.wait_for_state("COMPLETED")
    run.wait_until_stopped()
    assert run.starts() == len(run.containers()) == starts, run.notes()


def is_not_started_again(run: Run) -> None:
    """Give `react` and `sweep` every occasion to start the run's second task; see none."""
    sweeps_pass(run.cloud, 2)
    assert len(run.containers()) == 1, run.states()


def sweeps_pass(cloud: Cloud, number: int) -> None:
    """Wait until so many sweeps have come after the grace of what is now."""

    def sweeps() -> int:
        return sum(i.function == SWEEP and i.status == "ok" for i in cloud.lambdas.invocations)

    time.sleep(GRACE_SECONDS)
    wanted = sweeps() + number + 1  # one may be under way
    wait_for(f"{number} sweeps", ATTEMPT_SECONDS, lambda: sweeps() >= wanted)
