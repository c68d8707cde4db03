"""Part 1: prefect-spot against prefect-aws's observer, the only Prefect-native alternative.

An interruption is its STOPPED event here: the only one of its events on which both sides act. What
either of them makes of the whole stream (warning, exit, stop) is a measurement of its own.
"""

from typing import Final

from lab.bench.comparison import Comparison, stream
from lab.bench.correctness import judged_cases
from lab.bench.deployed import deployed
from lab.bench.interruptions import make_seeds
from lab.bench.part import Log, Measured
from lab.bench.servers import StandIns, prepared
from lab.bench.sides import RUNTIMES
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
        " own timestamps. Settled: until every event is done with, what is written for people"
        f" included. Ours are up to {RUNTIMES} runtimes, the observer is one process, taken out of"
        " the worker it runs in. Both are warm: a few interruptions came before. Requests to"
        " Prefect, and CPU seconds of the handling processes and of Prefect's, are per"
        " interruption; memory is one process's peak."
    ),
    STREAM: (
        "An interruption here is three events: the warnings of all, then all exits, then all stops."
        " On AWS two minutes lie between the first and the others."
    ),
    CORRECTNESS: (
        "On a Prefect server with PostgreSQL. Each side is judged by what it is for: the observer"
        " is to leave an interrupted run Crashed, prefect-spot is to have it started again, once."
    ),
}

ROUNDS: Final = {1: 3, 100: 3, 1000: 2}
"""How often each number of interruptions is measured, on each side."""

STREAM_ROUNDS: Final = {30: 1}
SHORT_ROUNDS: Final = {3: 1}
"""The short form compares on the stand-in only; on the real server it plays the awkward cases."""


def measure(log: Log, *, short: bool = False) -> Measured:
    """Measure both sides on both kinds of servers, and see what they do in awkward cases.

    Targets are the ratios at the largest number that was measured; of CPU, the worse of the two.
    """
    rounds = SHORT_ROUNDS if short else ROUNDS
    seeds = make_seeds(RUNTIMES + max(rounds))
    with Supervisor.open() as supervisor, deployed(supervisor) as deployment:
        comparison = Comparison(deployment, log)
        stand_ins = StandIns(supervisor, seeds)
        tables = {ON_STANDIN: comparison.compare(stand_ins, rounds)}
        if not short:
            tables[STREAM] = comparison.compare(stand_ins, STREAM_ROUNDS, stream)
        log("making the runs on a Prefect server")
        with prepared(supervisor, [] if short else seeds) as servers:
            if not short:
                tables[ON_SERVER] = comparison.compare(servers, rounds)
            with servers.fresh(0) as prefect:
                tables[CORRECTNESS] = judged_cases(comparison, prefect)
    last = {
        key: tables[title][-1]
        for key, title in (("standin_1000", ON_STANDIN), ("server_1000", ON_SERVER))
        if title in tables
    }
    ratios = {key: row["seconds"] for key, row in last.items()}
    worse = max(row["CPU s"] or 0.0 for row in last.values())
    return Measured({"observer": {**ratios, "cpu_per_event": worse}}, {**tables})
