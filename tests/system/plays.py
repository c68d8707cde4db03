"""Plays: what may happen around an interruption, with real runs, a real worker, the deployed zip.

All plays of a cloud are played at the same time, each in a thread of its own, while `sweep` comes
every few seconds; each test waits for the end of its own.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import pytest

from localcloud.cloud import SWEEP, Cloud, Options, wait_for
from localcloud.oracle import Verdict, judge
from tests.e2e.scenario import Run, Stage
from tests.faults.ledger import Ledger
from tests.system.clouds import GRACE_SECONDS, ORDINARY

SWEEP_EVERY_SECONDS = 6.0

LONG_SECONDS = 240.0
"""For whatever takes a few starts of processes on a machine where all plays are played at once."""

T = TypeVar("T")


@dataclass(frozen=True)
class Play(Generic[T]):
    """One course of things; `act` returns what its tests look at, and raises what was wrong."""

    name: str
    act: Callable[[Stage], T]


@dataclass(frozen=True)
class Playbill:
    """The plays under way in a cloud."""

    stage: Stage
    plays: dict[str, Future[tuple[Any, float]]]

    def result(self, play: Play[T]) -> T:
        """Wait for the play's end; return what it returned, or raise what was wrong."""
        result: T = self.plays[play.name].result()[0]
        return result

    def judge(self, play: Play[Sequence[Run]], ledger: Ledger) -> None:
        """Wait for the play's end; fail with what it found wrong, or the oracle."""
        runs, seconds = self.plays[play.name].result()
        verdict = self._verdict(runs)
        ledger.note(play.name, verdict, seconds)
        assert not verdict.findings, f"{verdict}; {_described(runs)}"

    def judge_all_again(self, plays: Sequence[Play[Sequence[Run]]], ledger: Ledger) -> None:
        """Once all is quiet and two more sweeps have come, nothing may look different."""
        runs = [run for play in plays for run in self.result(play)]
        began = time.monotonic()
        sweeps_pass(self.stage.cloud, 2)
        verdict = self._verdict(runs)
        seconds = time.monotonic() - began
        ledger.note("all of these runs, once all was quiet", verdict, seconds, len(runs))
        assert not verdict.findings, f"{verdict}; {_described(runs)}"

    def _verdict(self, runs: Sequence[Run]) -> Verdict:
        return judge(*(self.stage.cloud.observe(run.id) for run in runs))


def _described(runs: Sequence[Run]) -> str:
    """What is to be seen of the runs from the outside, for a failed test."""
    return "; ".join(f"{run.id}: {run.states()}, {len(run.containers())} tasks" for run in runs)


def plays_in(options: Options, items: Sequence[pytest.Item]) -> dict[str, Play[Any]]:
    """The plays of which a test was chosen: those in `PLAYS` of its module, or its parameter."""
    found: dict[str, Play[Any]] = {}
    for item in items:
        assert isinstance(item, pytest.Function)
        params = item.callspec.params if hasattr(item, "callspec") else {}
        if params.get("options", ORDINARY) is options:
            plays: Sequence[Play[Any]] = getattr(item.module, "PLAYS", ())
            chosen = params.get("play")
            found |= {play.name: play for play in plays if chosen in (None, play)}
    return found


@contextmanager
def played(stage: Stage, plays: Sequence[Play[Any]]) -> Iterator[Playbill]:
    """Begin all plays at once."""
    over = threading.Event()

    def keep_sweeping() -> None:
        while not over.wait(SWEEP_EVERY_SECONDS):
            stage.cloud.lambdas.invoke_async(SWEEP, {"source": "aws.events", "detail": {}})

    def timed(play: Play[Any]) -> tuple[Any, float]:
        began = time.monotonic()
        return play.act(stage), time.monotonic() - began

    sweeping = threading.Thread(target=keep_sweeping, daemon=True)
    sweeping.start()
    with ThreadPoolExecutor(max(1, len(plays))) as pool:
        yield Playbill(stage, {play.name: pool.submit(timed, play) for play in plays})
    over.set()
    sweeping.join()


def becomes(run: Run, state_type: str) -> None:
    """Wait until the run is in that state, and its last container has gone or is at work."""

    def has_become() -> bool:
        return bool(run.cloud.prefect.run(run.id)["state_type"] == state_type)

    try:
        wait_for(f"{run.id} to be {state_type}", LONG_SECONDS, has_become)
    except TimeoutError as error:
        raise TimeoutError(f"{error}: {run.states()}") from None


def ends_well(run: Run) -> None:
    """Wait until the run is completed and none of its containers is left."""
    becomes(run, "COMPLETED")
    wait_for("the last exit", 60, lambda: not run.cloud.fargate.running(run.id))


def completes(run: Run, *, starts: int) -> None:
    """Wait for the good end, and see that the flow was started so often, each in its own task."""
    ends_well(run)
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
    wait_for(f"{number} sweeps", LONG_SECONDS, lambda: sweeps() >= wanted)
