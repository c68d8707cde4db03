"""What a sweep costs: requests and seconds, where nothing is stranded, and where some runs are."""

import time
from collections.abc import Sequence
from datetime import timedelta
from statistics import median
from typing import Final

from bench.in_process import MeteredUniverse
from bench.part import Figures, Log, Table
from chalicelib.functions.sweep import sweep

TITLE: Final = "Sweep: looking at every running run"

SIZES: Final = (100, 1_000, 10_000)
STRANDED_PER_THOUSAND: Final = (0, 10)
REPEATS: Final = 3
ANSWER_SECONDS: Final = 0.02
"""What a request takes in the column for a server across the internet."""


def measure(log: Log, *, short: bool = False) -> Figures:
    """Sweep over so many running runs, each time in a fresh universe."""
    sizes, repeats = (SIZES[:1], 1) if short else (SIZES, REPEATS)
    rows = []
    for size in sizes:
        for share in STRANDED_PER_THOUSAND:
            rows.append(_measure(size, size * share // 1000, repeats))
            log(
                f"{size} runs, {rows[-1]['stranded']} stranded: {rows[-1]['calls']} requests,"
                f" {rows[-1]['seconds']} s"
            )
    return {"repeats": repeats, "rows": rows}


def tables(figures: Figures) -> Sequence[Table]:
    """Return requests and seconds by size."""
    rows = [
        (
            row["runs"],
            row["stranded"],
            row["prefect"],
            row["ecs"],
            row["table"],
            row["seconds"],
            round(row["seconds"] + row["calls"] * ANSWER_SECONDS, 1),
        )
        for row in figures["rows"]
    ]
    columns = (
        *("running runs", "stranded", "to Prefect", "to ECS", "to the table"),
        *("own seconds", "seconds, with 20 ms per request"),
    )
    return [
        Table(
            "Requests of one sweep, and what it takes",
            columns,
            rows,
            "Own seconds: without what the stand-ins took to answer; the last column adds 20 ms for"
            f" each request. Medians of {figures['repeats']}. A stranded run is rescued on the"
            " spot. One invocation may take 120 s; a sweep that is not through by then leaves a"
            " bookmark, and the next one goes on from there.",
        )
    ]


def targets(_figures: Figures) -> Figures:
    """Nothing is promised of it."""
    return {}


def _measure(runs: int, stranded: int, repeats: int) -> Figures:
    found = [_sweep_once(runs, stranded) for _ in range(repeats)]
    calls = found[0]
    return {**calls, "seconds": round(median(each["seconds"] for each in found), 3)}


def _sweep_once(runs: int, stranded: int) -> Figures:
    universe = MeteredUniverse()
    tasks = [universe.start(universe.prefect.create_run()) for _ in range(runs)]
    universe.passes(timedelta(hours=2).total_seconds())
    for task in tasks[:stranded]:
        del universe.tasks[task.arn]  # ECS has forgotten it: nobody answered when it ended
    world, traffic = universe.metered_world(), universe.traffic
    began = time.process_time()
    report = sweep(world, {})
    seconds = time.process_time() - began - traffic.seconds
    if (report.finished, report.stranded, report.failed) != (True, stranded, 0):
        raise RuntimeError(f"a sweep over {runs} runs, {stranded} stranded, ended so: {report}")
    calls = {
        "prefect": traffic.of("Prefect"),
        "ecs": traffic.of("ECS"),
        "table": traffic.of("DynamoDB"),
    }
    return {
        "runs": runs,
        "stranded": report.stranded,
        **calls,
        "calls": sum(calls.values()),
        "seconds": seconds,
    }
