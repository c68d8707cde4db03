"""Part 1: prefect-spot against prefect-aws's observer, the only Prefect-native alternative.

An interruption is its STOPPED event here: the only one of its events on which both sides act.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

from lab.bench.comparison import OURS, RUNTIMES, THEIRS, Comparison
from lab.bench.interruptions import Interruption, Json, running_task_of, stop_of, task_of
from lab.bench.outcomes import PREFETCH
from lab.bench.part import Log, Measured
from lab.bench.servers import Aws, Prefect, deployed, fresh_aws, real_server, stand_in
from lab.tables import Row
from localcloud.processes import Supervisor

TITLE: Final = "Is it as quick as prefect-aws's observer?"

ON_STANDIN: Final = "On the stand-in for the Prefect API, 20 ms away"
ON_SERVER: Final = "On a Prefect server with PostgreSQL"
CORRECTNESS: Final = "What becomes of a run"
NOTES: Final = {
    ON_STANDIN: (
        "Seconds: from the first event until the last run is where the side leaves it (Crashed for"
        " the observer; due again, one in four of them on FARGATE, for prefect-spot), by Prefect's"
        " own timestamps. Settled: until every event is handled, annotations included. prefect-spot"
        f" has up to {RUNTIMES} runtimes; the observer is one process, without its worker."
        " Both are warm: a few interruptions came before. Requests to Prefect, and CPU seconds of"
        " the handling processes and of Prefect's, are per interruption; memory is one process's"
        " peak. An interruption is its last event, on which alone both sides act."
    ),
    ON_SERVER: "One server for all measurements, with new runs for each.",
    CORRECTNESS: (
        "On a Prefect server with PostgreSQL. Each side is judged by what it is for: the observer"
        " must leave an interrupted run Crashed, prefect-spot must have it started again, once."
    ),
}

ON_STANDIN_ROUNDS: Final = {100: 2, 1000: 1}
ON_SERVER_ROUNDS: Final = {100: 2, 1000: 1}
SHORT_ROUNDS: Final = {3: 1}
"""How often each number of interruptions is measured, on each side."""

RUNTIMES_HERE: Final = 2
"""For an event that comes twice at once."""

DUE_ONCE: Final = "AwaitingRetry, due"
"""A worker gets the run; it was parked once, and once made due."""


def answer(found: Mapping[str, Any]) -> str:
    """Return the sentence for the page."""
    ratios = found["observer"]
    on_server = (
        f", and on one real server, whose only process both wait for, {ratios['server_1000']} times"
        if "server_1000" in ratios
        else ""
    )
    return (
        f"With a Prefect 20 ms away it takes {ratios['standin_1000']} times as long until 1,000"
        " runs are due again as the observer takes to mark them Crashed and leave them so"
        f"{on_server}."
    )


def measure(log: Log, *, short: bool = False) -> Measured:
    """Measure both sides on both kinds of servers, and judge them in awkward cases.

    Targets are the ratios at the largest number that was measured; of CPU, the worse of the two.
    The short form compares on the stand-in only; on the real server it plays the awkward cases.
    """
    with Supervisor.open() as supervisor, deployed(supervisor) as stage:
        comparison = Comparison(stage, log)
        on_standin = partial(comparison.compare, partial(stand_in, supervisor))
        tables = {ON_STANDIN: on_standin(SHORT_ROUNDS if short else ON_STANDIN_ROUNDS)}
        last = {"standin_1000": tables[ON_STANDIN][-1]}
        with real_server(supervisor) as prefect:
            cases = judged_cases(comparison, prefect)  # before more are due than a worker is given
            if not short:
                on_server = partial(comparison.compare, lambda: nullcontext(prefect))
                tables[ON_SERVER] = on_server(ON_SERVER_ROUNDS)
                last["server_1000"] = tables[ON_SERVER][-1]
            tables[CORRECTNESS] = cases
    ratios = {key: row["seconds"] for key, row in last.items()}
    worse = max(row["CPU s"] or 0.0 for row in last.values())
    return Measured({"observer": {**ratios, "cpu_per_event": worse}}, tables)


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
