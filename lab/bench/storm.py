"""Very many interruptions at once, answered by the handlers in one process."""

import time
from typing import Final

from chalicelib.functions.react import react
from lab.bench.in_process import InProcess
from lab.bench.interruptions import exit_of, make_seeds, stop_of, warning_of
from lab.bench.part import Log, Measured, Row

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
    """Measure each storm on fresh stand-ins; the target is its CPU seconds, by its size."""
    rows = []
    for size in SIZES[:1] if short else SIZES:
        rows.append(storm(size))
        log(f"{size} interruptions: {rows[-1]['seconds']} s")
    seconds = {str(row["interruptions at once"]): row["seconds"] for row in rows}
    return Measured({"storm": seconds}, {"Storms": rows})


def storm(size: int) -> Row:
    """Answer all events of so many interruptions; return a row of the table."""
    place = InProcess()
    victims = [place.start(seed) for seed in make_seeds(size)]
    reactions, own = [], 0.0
    began = time.process_time()
    for news in (warning_of, exit_of, stop_of):
        for victim in victims:
            event, context = news(victim), place.context()
            served, started = place.served_seconds, time.process_time()
            react(context, event)
            ended = time.process_time()
            own += ended - started - (place.served_seconds - served)
            if news is exit_of:
                reactions.append(ended - began)
    seconds = time.process_time() - began
    lost = [victim for victim in victims if not place.prefect.is_due(victim.run_id)]
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
