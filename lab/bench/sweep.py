"""What a sweep costs: requests and seconds, without orphaned runs, and with some."""

import time
from datetime import UTC, datetime, timedelta
from typing import Final

from chalicelib.functions.sweep import sweep
from lab.bench.in_process import InProcess
from lab.bench.interruptions import Interruption
from lab.bench.part import Log, Measured
from lab.tables import Row

TITLE: Final = "Sweep: looking at every running run"
SIZES: Final = (100, 1_000, 10_000)
ORPHANED_PER_THOUSAND: Final = (0, 10)
SPACING: Final = timedelta(milliseconds=1)
ANSWER_SECONDS: Final = 0.02
"""What a request takes in the column for a server across the internet."""

RUNNING: Final = {
    "lastStatus": "RUNNING",
    "desiredStatus": "RUNNING",
    "stopCode": None,
    "executionStoppedAt": None,
    "containers": [{"name": "prefect", "lastStatus": "RUNNING"}],
}
NOTES: Final = {
    "Requests of one sweep, and what it takes": (
        "Own seconds: without what the stand-ins took to answer; the last column adds 20 ms for"
        " each request. Of those to the table, three are for the savings. An orphaned run is"
        " rescued at once. One invocation may take 120 s; a sweep that is not through by then"
        " leaves a bookmark, and the next one goes on from there."
    )
}


def measure(log: Log, *, short: bool = False) -> Measured:
    """Sweep over so many running runs, each time on fresh stand-ins; it has no target."""
    rows = []
    for size in SIZES[:1] if short else SIZES:
        for share in ORPHANED_PER_THOUSAND:
            rows.append(sweep_once(size, size * share // 1000))
            log(f"{size} runs: {rows[-1]['own seconds']} s")
    return Measured({}, dict.fromkeys(NOTES, rows))


def sweep_once(runs: int, orphaned: int) -> Row:
    """Sweep over so many runs, of which so many have no task any more; return a row."""
    place = InProcess()
    first = datetime.now(UTC) - timedelta(hours=2)
    planned = [Interruption(task_started_at=first + n * SPACING) for n in range(runs)]
    began = [place.begin(each, **RUNNING) for each in planned]
    for each in began[:orphaned]:
        del place.aws.tasks[each.task_arn]  # ECS has forgotten it, and no event was handled
    context = place.context()
    started = time.process_time()
    report = sweep(context, {})
    seconds = time.process_time() - started - place.served_seconds
    if (report.finished, report.stranded, report.failed) != (True, orphaned, 0):
        raise RuntimeError(f"a sweep over {runs} runs, {orphaned} orphaned, ended so: {report}")
    return {
        "running runs": runs,
        "orphaned": orphaned,
        "to Prefect": place.requests["Prefect"],
        "to ECS": place.requests["ecs"],
        "to the table": place.requests["dynamodb"],
        "own seconds": round(seconds, 3),
        "seconds, with 20 ms per request": round(
            seconds + place.requests.total() * ANSWER_SECONDS, 1
        ),
    }
