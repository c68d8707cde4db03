"""What becomes of a run in awkward cases, on either side, by what Prefect says afterwards."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from lab.bench.comparison import OURS, THEIRS, Comparison
from lab.bench.interruptions import Interruption, Json, running_task_of, stop_of, task_of
from lab.bench.servers import Aws, Prefect, fresh_aws
from lab.tables import Row

PREFETCH: Final = timedelta(seconds=10)
"""How far ahead Prefect's worker asks for runs."""

RUNTIMES_HERE: Final = 2
"""For an event that comes twice at once."""

DUE_ONCE: Final = "AwaitingRetry, due"
"""A worker gets the run; it was parked once, and once made due."""

Prepare = Callable[[Prefect, Aws], Interruption]


def running(prefect: Prefect, aws: Aws, retries: int = 0) -> Interruption:
    """Let a run be RUNNING in a task that ECS has."""
    began = prefect.begin(Interruption(), retries)
    aws.add("tasks", [task_of(began)])
    return began


def marked(state_type: str, retries: int = 0) -> Prepare:
    """Let the run's engine have set this state at SIGTERM."""

    def prepare(prefect: Prefect, aws: Aws) -> Interruption:
        began = running(prefect, aws, retries)
        prefect.move(began.run_id, state_type)
        return began

    return prepare


def on_its_next_task(prefect: Prefect, aws: Aws) -> Interruption:
    """Let the run be RUNNING in its second task; the interruption is its first one's."""
    began = running(prefect, aws)
    for state_type in ("SCHEDULED", "PENDING"):
        prefect.move(began.run_id, state_type)
    newer = Interruption(run_id=began.run_id)
    aws.add("tasks", [running_task_of(newer)])
    prefect.begin_again(began.run_id, newer)
    return began


@dataclass(frozen=True)
class Case:
    """How the run is before, which events come, and how either side is to leave it."""

    name: str
    prepare: Prepare = running
    events: Callable[[Interruption], Sequence[Json]] = lambda of: [stop_of(of)]
    ours: str = DUE_ONCE
    theirs: str = "Crashed"


CASES: Final = (
    Case("exit code 0", events=lambda of: [stop_of(of, 0)]),
    Case("no exit code", events=lambda of: [stop_of(of, None)]),
    Case("exit code 143", events=lambda of: [stop_of(of, 143)]),
    Case("stale event of an older task", on_its_next_task, ours="Running", theirs="Running"),
    Case("the same event twice", events=lambda of: [stop_of(of)] * 2),
    Case("already Crashed by its engine", marked("CRASHED")),
    # Prefect lets it wait for that retry: no worker gets it.
    Case("waiting for a retry in the process that is gone", marked("FAILED", retries=2)),
)


def judged_cases(comparison: Comparison, prefect: Prefect) -> list[Row]:
    """Play all cases on either side; return what Prefect says, and whether that is right."""
    found: dict[str, list[str]] = {OURS: [], THEIRS: []}
    for name, outcomes in found.items():
        with (
            fresh_aws(comparison.stage.supervisor) as aws,
            comparison.side(name, prefect, aws, RUNTIMES_HERE) as side,
        ):
            for case in CASES:
                interruption = case.prepare(prefect, aws)
                before = len(prefect.history(interruption.run_id))
                side.deliver(case.events(interruption))
                side.wait()
                outcomes.append(_outcome(prefect, interruption.run_id, before))
                comparison.log(f"{case.name}, {name}: {outcomes[-1]}")
    rows: list[Row] = []
    for case, *outcomes in zip(CASES, *found.values(), strict=True):
        rows.append({"": case.name})
        for name, outcome, meant in zip(found, outcomes, (case.ours, case.theirs), strict=True):
            rows[-1][f"{name}: Prefect says"] = outcome
            rows[-1][f"{name} as meant"] = "yes" if outcome == meant else "NO"
    return rows


def _outcome(prefect: Prefect, run_id: str, states_before: int) -> str:
    """Return the run's state; where workers get it, also its states if not those of one rerun."""
    states = [state["name"] for state in prefect.history(run_id)]
    if not prefect.is_given_to_workers(run_id, datetime.now(UTC) + PREFETCH):
        return str(states[-1])
    since = states[states_before:]
    once = since == ["AwaitingRetry", "AwaitingRetry"]
    return f"{states[-1]}, due" + ("" if once else f" after {', '.join(since)}")
