"""Part 1: prefect-spot against prefect-aws's observer, the only Prefect-native alternative.

An interruption is its STOPPED event here: the only one of its events on which both sides act. What
either of them makes of the whole stream (warning, exit, stop) is a measurement of its own.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from statistics import median
from typing import Any, Final

from bench.comparison import OURS, THEIRS, Comparison, Samples, stream
from bench.correctness import CASES, judge_all
from bench.deployed import deployed
from bench.handlers import RUNTIMES
from bench.interruptions import make_seeds
from bench.part import Cell, Chart, Figures, Log, Table, ratio
from bench.servers import StandIns, prepared
from localcloud.processes import Household

TITLE: Final = "Against prefect-aws's observer"
STANDIN: Final = "standin"
SERVER: Final = "server"
STREAM: Final = "stream"
CORRECTNESS: Final = "correctness"

ROUNDS: Final = {1: 3, 100: 3, 1000: 2}
"""How often each number of interruptions is measured, on each side."""

STREAM_ROUNDS: Final = {30: 1}
SHORT_ROUNDS: Final = {3: 1}
"""The short form compares on the stand-in only; on the real server it plays the awkward cases."""

_PER_EVENT: Final = ("requests", "cpu_seconds", "server_cpu_seconds")

_NOTE: Final = (
    "Seconds: from the first event until the last run is where the side leaves it (Crashed for the"
    " observer; due again, one in four of them on FARGATE, for prefect-spot), by Prefect's own"
    " timestamps. Settled: until every event is done with, what is written for people included."
    f" Ours are up to {RUNTIMES} runtimes, the observer is one process, taken out of the worker it"
    " runs in. Both are warm: a few interruptions came before. Requests to Prefect, and CPU seconds"
    " of the handling processes and of Prefect's, are per event; memory is one process's peak."
)
_STREAM_NOTE: Final = (
    "An interruption here is three events: the warnings of all, then all exits, then all stops."
    " On AWS two minutes lie between the first and the others."
)
_CORRECTNESS_NOTE: Final = (
    "On a Prefect server with PostgreSQL. Each side is judged by what it is for: the observer is to"
    " leave an interrupted run Crashed, prefect-spot is to have it started again, once."
)


def measure(log: Log, *, short: bool = False) -> Figures:
    """Measure both sides on both kinds of servers, and see what they do in awkward cases."""
    rounds = SHORT_ROUNDS if short else ROUNDS
    seeds = make_seeds(RUNTIMES + max(rounds))
    figures: Figures = {}
    with Household.open() as household, ExitStack() as stack:
        log("chalice deploy")
        comparison = Comparison(household, stack.enter_context(deployed(household)), log)
        stand_ins = StandIns(household, seeds)
        figures[STANDIN] = comparison.compare(stand_ins, rounds)
        figures[STREAM] = comparison.compare(stand_ins, {} if short else STREAM_ROUNDS, stream)
        log("making the runs on a Prefect server")
        servers = stack.enter_context(prepared(household, [] if short else seeds))
        figures[SERVER] = comparison.compare(servers, {} if short else rounds)
        with servers.fresh(0) as prefect:
            figures[CORRECTNESS] = {
                side: judge_all(comparison, side, prefect) for side in (OURS, THEIRS)
            }
    return figures


def tables(figures: Figures) -> Sequence[Table]:
    """Return what was measured by kind of server, and what was judged."""
    compared = [
        _table("On the stand-in for the Prefect API, 20 ms away", figures[STANDIN], _NOTE),
        _table("On a Prefect server with PostgreSQL", figures[SERVER], ""),
        _table("All events of an interruption, on the stand-in", figures[STREAM], _STREAM_NOTE),
    ]
    return [*(table for table in compared if table.rows), _correctness(figures[CORRECTNESS])]


def charts(figures: Figures) -> Sequence[Chart]:
    """Return the seconds by number of interruptions, for each kind of server."""
    drawn = {
        STANDIN: ("benchmark-observer-standin", "stand-in, 20 ms away"),
        SERVER: ("benchmark-observer-server", "Prefect server, PostgreSQL"),
    }
    return [
        Chart(
            file=file,
            title=f"Until the last of so many runs is where it is left: {name}",
            unit="seconds",
            labels=[f"{int(number):,}" for number in figures[kind]],
            series={
                side: [_median(sides[side], "seconds") for sides in figures[kind].values()]
                for side in (OURS, THEIRS)
            },
            logarithmic=True,
        )
        for kind, (file, name) in drawn.items()
        if figures[kind]
    ]


def targets(figures: Figures) -> Figures:
    """Return the ratios at the largest number that was measured; of CPU, the worse of the two."""
    kinds = [kind for kind in (STANDIN, SERVER) if figures[kind]]
    most = {kind: list(figures[kind].values())[-1] for kind in kinds}
    return {
        "observer": {
            **{f"{kind}_1000": _ratio(sides, "seconds") for kind, sides in most.items()},
            "cpu_per_event": max(_ratio(sides, "cpu_seconds") for sides in most.values()),
        }
    }


def _table(title: str, samples: Samples, note: str) -> Table:
    columns = (
        "interruptions",
        "side",
        "seconds",
        "settled",
        "requests",
        "CPU s",
        "Prefect's CPU s",
    )
    return Table(title, (*columns, "MiB"), list(_rows(samples)), note)


def _rows(samples: Samples) -> Iterator[Sequence[Cell]]:
    for number, sides in samples.items():
        found = {side: _figures(sides[side], int(number)) for side in (OURS, THEIRS)}
        for side, values in found.items():
            yield int(number), side, *values
        pairs = zip(found[OURS], found[THEIRS], strict=True)
        yield int(number), "ratio", *(ratio(a, b) if a and b else None for a, b in pairs)


def _figures(samples: Sequence[Mapping[str, Any]], number: int) -> Sequence[float | None]:
    times = [_median(samples, name) for name in ("seconds", "settled_seconds")]
    counted = samples[0]["requests"] is not None
    each = [
        _median(samples, name) / number if counted or name != "requests" else None
        for name in _PER_EVENT
    ]
    return [*times, *each, _median(samples, "peak_rss_mib")]


def _correctness(found: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> Table:
    rows = []
    for case in CASES:
        ours, theirs = found[OURS][case.name], found[THEIRS][case.name]
        rows.append(
            (case.name, ours["says"], _word(ours["right"]), theirs["says"], _word(theirs["right"]))
        )
    columns = ("", "prefect-spot: Prefect says", "as meant", "observer: Prefect says", "as meant")
    return Table("What becomes of a run", columns, rows, _CORRECTNESS_NOTE)


def _word(right: bool) -> str:
    return "yes" if right else "NO"


def _median(samples: Sequence[Mapping[str, Any]], name: str) -> float:
    return float(median(sample[name] for sample in samples))


def _ratio(sides: Mapping[str, Sequence[Mapping[str, Any]]], name: str) -> float:
    return ratio(_median(sides[OURS], name), _median(sides[THEIRS], name))
