"""Part 1: prefect-spot against prefect-aws's observer, the only Prefect-native alternative.

An interruption is its STOPPED event here: the only one of its events on which both sides act. The
whole stream (warning, exit, stop) is a measurement of its own.
"""

from contextlib import nullcontext
from functools import partial
from typing import Final

from lab.bench.comparison import RUNTIMES, Comparison, stream
from lab.bench.correctness import judged_cases
from lab.bench.deployed import deployed
from lab.bench.part import Log, Measured
from lab.bench.servers import real_server, stand_in
from localcloud.processes import Supervisor

TITLE: Final = "Against prefect-aws's observer"

ON_STANDIN: Final = "On the stand-in for the Prefect API, 20 ms away"
ON_SERVER: Final = "On a Prefect server with PostgreSQL"
STREAM: Final = "All events of an interruption, on the stand-in"
CORRECTNESS: Final = "What becomes of a run"
NOTES: Final = {
    ON_STANDIN: (
        "Seconds: from the first event until the last run is where the side leaves it (Crashed for"
        " the observer; due again, one in four of them on FARGATE, for prefect-spot), by Prefect's"
        " own timestamps. Settled: until every event is handled, annotations included. Ours are up"
        f" to {RUNTIMES} runtimes, the observer is one process, taken out of the worker it runs in."
        " Both are warm: a few interruptions came before. Requests to Prefect, and CPU seconds of"
        " the handling processes and of Prefect's, are per interruption; memory is one process's"
        " peak."
    ),
    ON_SERVER: "One server for all measurements, with new runs for each; the last is made once.",
    STREAM: (
        "An interruption here is three events: the warnings of all, then all exits, then all stops."
        " On AWS two minutes lie between the first and the others."
    ),
    CORRECTNESS: (
        "On a Prefect server with PostgreSQL. Each side is judged by what it is for: the observer"
        " is to leave an interrupted run Crashed, prefect-spot is to have it started again, once."
    ),
}

ON_STANDIN_ROUNDS: Final = {1: 3, 100: 3, 1000: 2}
ON_SERVER_ROUNDS: Final = {1: 3, 100: 3, 1000: 1}
STREAM_ROUNDS: Final = {30: 1}
SHORT_ROUNDS: Final = {3: 1}
"""How often each number of interruptions is measured, on each side."""


def measure(log: Log, *, short: bool = False) -> Measured:
    """Measure both sides on both kinds of servers, and judge them in awkward cases.

    Targets are the ratios at the largest number that was measured; of CPU, the worse of the two.
    The short form compares on the stand-in only; on the real server it plays the awkward cases.
    """
    with Supervisor.open() as supervisor, deployed(supervisor) as stage:
        comparison = Comparison(stage, log)
        on_standin = partial(comparison.compare, partial(stand_in, supervisor))
        tables = {ON_STANDIN: on_standin(SHORT_ROUNDS if short else ON_STANDIN_ROUNDS)}
        if not short:
            tables[STREAM] = on_standin(STREAM_ROUNDS, stream)
        with real_server(supervisor) as prefect:
            if not short:
                on_server = partial(comparison.compare, lambda: nullcontext(prefect))
                tables[ON_SERVER] = on_server(ON_SERVER_ROUNDS)
            tables[CORRECTNESS] = judged_cases(comparison, prefect)
    last = {
        key: tables[title][-1]
        for key, title in (("standin_1000", ON_STANDIN), ("server_1000", ON_SERVER))
        if title in tables
    }
    ratios = {key: row["seconds"] for key, row in last.items()}
    worse = max(row["CPU s"] or 0.0 for row in last.values())
    return Measured({"observer": {**ratios, "cpu_per_event": worse}}, tables)
