"""Very many interruptions at once, answered by the handlers in one process."""

import time
from typing import Final

from chalicelib.functions.react import react
from lab.bench.comparison import is_due
from lab.bench.in_process import InProcess
from lab.bench.interruptions import exit_of, interruptions, stop_of, warning_of
from lab.bench.part import Log, Measured, ratio
from lab.tables import Row

TITLE: Final = "Storm: very many interruptions at once"
SIZES: Final = (100, 1_000, 10_000)
NOTES: Final = {
    "Storms": (
        "Three events for each interruption (warning, exit, stop), all of them there at the"
        " beginning, answered one after the other by the handlers in one process; Prefect, table"
        " and ECS are stand-ins in it that answer at once. So it is our own work, on one processor;"
        " on Lambda, ten runtimes share it and wait for their servers. One in four moves to"
        " FARGATE. Reaction: from the storm's beginning to the run being due, so it is mostly the"
        " queue. Lambda-seconds: the handlers' time, without what the stand-ins took."
    )
}


def measure(log: Log, *, short: bool = False) -> Measured:
    """Measure each storm on fresh stand-ins; targets: CPU seconds by size, and how they grow."""
    rows = []
    for size in SIZES[:1] if short else SIZES:
        rows.append(storm(size))
        log(f"{size} interruptions: {rows[-1]['seconds']} s")
    seconds = {str(row["interruptions at once"]): row["seconds"] for row in rows}
    targets: dict[str, object] = {"storm": seconds}
    if not short:
        targets["storm_growth"] = ratio(rows[-1]["seconds"], rows[-2]["seconds"])
    return Measured(targets, {"Storms": rows})


def storm(size: int) -> Row:
    """Answer all events of so many interruptions; return a row of the table."""
    place = InProcess()
    began = [place.begin(each) for each in interruptions(size)]
    reactions, own = [], 0.0
    started = time.process_time()
    for event_of in (warning_of, exit_of, stop_of):
        for each in began:
            event, context = event_of(each), place.context()
            served, called = place.served_seconds, time.process_time()
            react(context, event)
            ended = time.process_time()
            own += ended - called - (place.served_seconds - served)
            if event_of is exit_of:
                reactions.append(ended - started)
    seconds = time.process_time() - started
    lost = [each for each in began if not is_due(place.prefect.runs[each.run_id])]
    if lost:
        raise RuntimeError(f"{len(lost)} of {size} runs were not made due")
    return {
        "interruptions at once": size,
        "seconds": round(seconds, 2),
        "per second": round(size / seconds, 1),
        "99th percentile reaction, s": round(sorted(reactions)[int(0.99 * (size - 1))], 2),
        "Lambda-seconds per thousand": round(1000 * own / size, 2),
        "requests per interruption": round(place.requests.total() / size, 1),
    }
