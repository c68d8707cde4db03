"""What becomes of a run in awkward cases, on either side, by what Prefect says afterwards."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from lab.bench.comparison import Comparison
from lab.bench.interruptions import Interruption, running_task_of, stop_of, task_of
from lab.bench.servers import Aws, Prefect, fresh_aws
from lab.bench.sides import OURS, THEIRS, Event
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


def crashed(prefect: Prefect, aws: Aws) -> Interruption:
    """Let the run's engine have marked it Crashed at SIGTERM."""
    began = running(prefect, aws)
    prefect.move(began.run_id, "CRASHED")
    return began


def awaiting_own_retry(prefect: Prefect, aws: Aws) -> Interruption:
    """Let the run wait for a retry in the process that is gone: no worker gets it."""
    began = running(prefect, aws, retries=2)
    prefect.move(began.run_id, "FAILED")
    return began


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
    events: Callable[[Interruption], Sequence[Event]] = lambda of: [stop_of(of)]
    ours: str = DUE_ONCE
    theirs: str = "Crashed"


CASES: Final = (
    Case("exit code 0", events=lambda of: [stop_of(of, 0)]),
    Case("no exit code", events=lambda of: [stop_of(of, None)]),
    Case("exit code 143", events=lambda of: [stop_of(of, 143)]),
    Case("stale event of an older task", on_its_next_task, ours="Running", theirs="Running"),
    Case("the same event twice", events=lambda of: [stop_of(of)] * 2),
    Case("already Crashed by its engine", crashed),
    Case("waiting for a retry in the process that is gone", awaiting_own_retry),
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
    return [
        {
            "": case.name,
            "prefect-spot: Prefect says": our,
            "prefect-spot as meant": "yes" if our == case.ours else "NO",
            "observer: Prefect says": their,
            "observer as meant": "yes" if their == case.theirs else "NO",
        }
        for case, our, their in zip(CASES, found[OURS], found[THEIRS], strict=True)
    ]


def _outcome(prefect: Prefect, run_id: str, states_before: int) -> str:
    """Return the run's state; where workers get it, also its states if not those of one rerun."""
    states = [state["name"] for state in prefect.history(run_id)]
    if not prefect.is_given_to_workers(run_id, datetime.now(UTC) + PREFETCH):
        return str(states[-1])
    since = states[states_before:]
    once = since == ["AwaitingRetry", "AwaitingRetry"]
    return f"{states[-1]}, due" + ("" if once else f" after {', '.join(since)}")
