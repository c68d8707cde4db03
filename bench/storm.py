"""Very many interruptions at once, answered by the handlers in one process."""

import time
from collections.abc import Sequence
from typing import Any, Final

from bench.in_process import MeteredUniverse
from bench.part import Figures, Log, Table
from chalicelib.core.task import Task
from chalicelib.functions.react import react

TITLE: Final = "Storm: very many interruptions at once"

SIZES: Final = (100, 1_000, 10_000)
BUDGETS: Final = (3, 3, 3, 0)
"""One in four moves to FARGATE."""


def measure(log: Log, *, short: bool = False) -> Figures:
    """Let each storm break over a fresh universe."""
    storms = {}
    for size in SIZES[:1] if short else SIZES:
        storms[str(size)] = _storm(size)
        log(f"{size} interruptions: {storms[str(size)]['seconds']} s")
    return {"storms": storms}


def tables(figures: Figures) -> Sequence[Table]:
    """Return throughput, reaction and Lambda-seconds by size."""
    rows = [
        (
            int(size),
            storm["seconds"],
            storm["per_second"],
            storm["reaction_p99_s"],
            storm["lambda_seconds_per_thousand"],
            storm["requests_per_interruption"],
        )
        for size, storm in figures["storms"].items()
    ]
    columns = (
        *("interruptions at once", "seconds", "per second", "99th percentile reaction, s"),
        *("Lambda-seconds per thousand", "requests per interruption"),
    )
    return [Table("Storms", columns, rows, _NOTE)]


_NOTE: Final = (
    "Three events for each interruption (warning, exit, stop), all of them there at the beginning,"
    " answered one after the other by the handlers in one process; Prefect, table and ECS are"
    " stand-ins in it that answer at once. So it is our own work, on one processor; on Lambda, ten"
    " runtimes share it and wait for their servers. Reaction: from the storm's beginning to the run"
    " being due, so it is mostly the queue. Lambda-seconds: the handlers' time, without what the"
    " stand-ins took."
)


def targets(figures: Figures) -> Figures:
    """Seconds by number of interruptions."""
    return {"storm": {size: storm["seconds"] for size, storm in figures["storms"].items()}}


def _storm(size: int) -> Figures:
    universe = MeteredUniverse()
    tasks = [_begin(universe, number) for number in range(size)]
    interrupted = [_interrupt(universe, task) for task in tasks]
    reactions, own = [], 0.0
    began = time.process_time()
    for wave in range(3):
        for events in interrupted:
            served, started = universe.traffic.seconds, time.process_time()
            react(universe.metered_world(), events[wave])
            ended = time.process_time()
            own += ended - started - (universe.traffic.seconds - served)
            if wave == 1:
                reactions.append(ended - began)
    seconds = time.process_time() - began
    runs = [task.flow_run_id for task in tasks if task.flow_run_id]
    lost = [run_id for run_id in runs if not universe.prefect.is_due(run_id)]
    if lost:
        raise RuntimeError(f"{len(lost)} of {size} runs were not made due")
    return {
        "seconds": round(seconds, 2),
        "per_second": round(size / seconds, 1),
        "reaction_p99_s": round(sorted(reactions)[int(0.99 * (size - 1))], 2),
        "lambda_seconds_per_thousand": round(1000 * own / size, 2),
        "requests_per_interruption": round(sum(universe.traffic.requests.values()) / size, 1),
    }


def _begin(universe: MeteredUniverse, number: int) -> Task:
    budget = BUDGETS[number % len(BUDGETS)]
    run_id = universe.prefect.create_run(tags=(f"spot-retries:{budget}",))
    return universe.start(run_id, retries=2)


def _interrupt(universe: MeteredUniverse, task: Task) -> Sequence[dict[str, Any]]:
    """Have Spot take a task; return the three events about it."""
    at = universe.now.isoformat()
    warning = universe.warning(task)
    universe.stops(task)
    return [
        warning,
        universe.event(task, lastStatus="DEPROVISIONING", executionStoppedAt=at),
        universe.event(task, lastStatus="STOPPED", executionStoppedAt=at),
    ]
