"""What a sweep of the deployed zip costs, without orphaned runs, and with some."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import psutil

from lab.bench.interruptions import Interruption, Json, running_task_of
from lab.bench.part import Log, Measured, cpu_seconds
from lab.bench.servers import Deployed, Prefect, answered, deployed, fresh_aws, stand_in
from lab.tables import Row
from localcloud.cloud import SWEEP
from localcloud.processes import Supervisor

TITLE: Final = "What does a sweep cost?"
SWEEPS: Final = "Requests of one sweep, and what it takes"
SIZES: Final = (1_000, 10_000)
SHORT_SIZES: Final = (100,)
ORPHANED_PER_THOUSAND: Final = (0, 10)
AGE_SECONDS: Final = 2 * 60 * 60
"""Of the runs: long past the grace that `sweep` gives to events."""

NOTES: Final = {
    SWEEPS: (
        "The deployed zip and the stand-in 20 ms away, the cold start included in CPU seconds only."
        " Of the requests to the table, three are for the savings. An orphaned run is rescued at"
        " once. One invocation may take 120 s; a sweep that is not through by then leaves a"
        " bookmark, and the next one goes on from there."
    )
}


def answer(found: Mapping[str, Any]) -> str:
    """Return the sentence for the page."""
    *_, healthy, _ = found["measured"]["sweep"]["figures"][SWEEPS]
    return (
        f"Over {healthy['running runs']:,} running runs, {healthy['to Prefect']} requests to"
        f" Prefect and {healthy['seconds']} s."
    )


def measure(log: Log, *, short: bool = False) -> Measured:
    """Sweep over so many running runs, first with all their tasks; it has no target."""
    rows = []
    with Supervisor.open() as supervisor, deployed(supervisor) as stage:
        for size in SHORT_SIZES if short else SIZES:
            with stand_in(supervisor, AGE_SECONDS) as prefect:
                began = prefect.begin_all([Interruption() for _ in range(size)])
                tasks = [running_task_of(each) for each in began]
                for share in ORPHANED_PER_THOUSAND:
                    rows.append(_sweep(stage, prefect, tasks, size * share // 1000))
                    log(f"{size} runs: {rows[-1]['seconds']} s")
    return Measured({}, {SWEEPS: rows})


def _sweep(stage: Deployed, prefect: Prefect, tasks: Sequence[Json], orphaned: int) -> Row:
    """Sweep where ECS has forgotten so many of the tasks; return a row."""
    with fresh_aws(stage.supervisor, tasks[orphaned:]) as aws:
        before = prefect.usage.requests()
        runtime = stage.runtime(SWEEP, prefect, aws)
        answer = answered(runtime, {})
        cpu = cpu_seconds([psutil.Process(runtime.pid)])
        runtime.end()
        report = answer.answer
        if (report["finished"], report["stranded"], report["failed"]) != (True, orphaned, 0):
            raise RuntimeError(f"{len(tasks)} runs, {orphaned} orphaned, ended so: {report}")
        return {
            "running runs": len(tasks),
            "orphaned": orphaned,
            "to Prefect": prefect.usage.requests() - before,
            "to ECS": aws.requests("ContainerService"),
            "to the table": aws.requests("DynamoDB"),
            "CPU seconds": round(cpu, 3),
            "seconds": round(answer.seconds, 1),
        }
