"""Plays: what may happen around an interruption, with real runs, a real worker, the deployed zip.

All plays of a module are played at the same time, each in a thread of its own, while `sweep` comes
every few seconds; then the oracle judges all runs that took part.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest

from localcloud.cloud import SWEEP, Cloud, wait_for
from localcloud.fargate import Timings
from localcloud.oracle import Verdict, judge
from tests.e2e.scenario import Run, Stage
from tests.faults.ledger import Ledger

AUTH_STRING = "admin:only-for-these-tests"
GRACE_SECONDS = 20
SWEEP_EVERY_SECONDS = 6.0
SCHEDULE_SECONDS = 300.0
"""Between two sweeps, as it is deployed."""

LONG_SECONDS = 240.0
"""For whatever takes a few starts of processes on a machine where all plays are played at once."""

TIMINGS = Timings(stop_timeout_scale=0.05)  # of 120 s


@dataclass(frozen=True)
class Play:
    """One course of things; `act` returns the runs that took part, and raises what was wrong."""

    name: str
    act: Callable[[Stage], Sequence[Run]]


@dataclass(frozen=True)
class Played:
    """The runs of a play that came to its end, and how long it took."""

    runs: Sequence[Run]
    seconds: float

    def verdict(self) -> Verdict:
        return judge(*(run.cloud.observe(run.id) for run in self.runs))

    def told(self) -> str:
        """What is to be seen of the runs from the outside, for a failed test."""
        return "; ".join(f"{r.id}: {r.states()}, {len(r.containers())} tasks" for r in self.runs)


@dataclass(frozen=True)
class Playbill:
    """The plays under way, and the book in which their cases are written."""

    cloud: Cloud
    ledger: Ledger
    plays: dict[str, Future[Played]]

    def judge(self, play: Play) -> None:
        """Wait for the play's end; fail with what it found wrong, or the oracle."""
        played = self.plays[play.name].result()
        verdict = played.verdict()
        self.ledger.note(play.name, verdict, played.seconds)
        assert not verdict.findings, f"{verdict}; {played.told()}"

    def judge_all_again(self) -> None:
        """Once all is quiet and two more sweeps have come, nothing may look different."""
        began = time.monotonic()
        sweeps_pass(self.cloud, 2)
        runs = [run for played in self.plays.values() for run in played.result().runs]
        verdict = judge(*(self.cloud.observe(run.id) for run in runs))
        seconds = time.monotonic() - began
        self.ledger.note("all of these runs, once all was quiet", verdict, seconds, len(runs))
        assert not verdict.findings, verdict


@contextmanager
def played(
    stage: Stage, ledger: Ledger, items: Sequence[pytest.Item], plays: Sequence[Play]
) -> Iterator[Playbill]:
    """Play those of the plays for which a test was chosen."""
    chosen = {
        item.callspec.params.get("play")
        for item in items
        if isinstance(item, pytest.Function) and hasattr(item, "callspec")
    }
    stage.cloud.router.run_schedules(SWEEP_EVERY_SECONDS / SCHEDULE_SECONDS)
    with ThreadPoolExecutor(len(plays)) as pool:
        yield Playbill(
            stage.cloud,
            ledger,
            {p.name: pool.submit(_play, p, stage) for p in plays if p in chosen},
        )


def _play(play: Play, stage: Stage) -> Played:
    began = time.monotonic()
    runs = play.act(stage)
    return Played(runs, time.monotonic() - began)


def notes_of_a_child(stage: Stage) -> Path:
    """A file for the notes of a run that another one starts."""
    return stage.folder / f"child-{uuid4().hex[:8]}"


def becomes(run: Run, state_type: str) -> None:
    """Wait until the run is in that state, and its last container has gone or is at work."""

    def has_become() -> bool:
        return bool(run.cloud.prefect.run(run.id)["state_type"] == state_type)

    try:
        wait_for(f"{run.id} to be {state_type}", LONG_SECONDS, has_become)
    except TimeoutError as error:
        raise TimeoutError(f"{error}: {run.states()}") from None


def completes(run: Run, *, starts: int) -> None:
    """Wait for the good end, and see that the flow was started so often, each in its own task."""
    becomes(run, "COMPLETED")
    wait_for("the last exit", 60, lambda: not run.cloud.fargate.running(run.id))
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
