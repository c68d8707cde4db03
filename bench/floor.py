"""How far a warm rescue is from the requests it cannot do without, issued bare.

Both are Lambdas under AWS's own runtime client, each already warm, and take turns on runs of their
own: the deployed zip, and one that sends the bytes of `floor_requests.py` and decides nothing.
"""

import base64
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Final

from bench.deployed import AUTH_STRING, Deployed, answered, deployed
from bench.floor_requests import as_event, stages_of
from bench.part import Chart, Figures, Log, Table, ratio
from bench.running import RunAtWork, RunningRuns
from localcloud.postgres import Postgres
from localcloud.prefect_server import PrefectServer
from localcloud.processes import Household

TITLE: Final = "Floor: a warm rescue and the requests it cannot do without"

PROFILE: Final[Sequence[str]] = ()

RESCUES: Final = 40
"""Of each kind, and as many bare ones; the first few are not counted."""

WARM_UP: Final = 3
BARE: Final = "requests-alone"
BARE_SOURCE: Final = Path(__file__).parent / "bare" / "requests_alone.py"
KINDS: Final = {"Spot": 3, "FARGATE": 0}
"""Where the rerun goes, and how many interruptions on Spot the run is allowed for that."""

AWAITING: Final = "AwaitingRetry"


def measure(log: Log, *, short: bool = False) -> Figures:
    """Measure on a real server with PostgreSQL, and on the stand-in that is 20 ms away."""
    rescues = 2 if short else RESCUES
    figures: Figures = {"rescues": rescues, "needed": _needed()}
    log("on a real Prefect server, with PostgreSQL")
    with Household.open() as household, _real_prefect(household) as api_url:
        figures["server"] = _compare(household, api_url, rescues, log)
    return figures


def tables(figures: Figures) -> Sequence[Table]:
    """Return the lists of requests, and how the two compare."""
    return [_comparison(figures), *(_list(kind, figures["needed"][kind]) for kind in KINDS)]


def charts(_figures: Figures) -> Sequence[Chart]:
    """Nothing is drawn: it is two numbers."""
    return []


def targets(figures: Figures) -> Figures:
    """The worse of the two kinds, on the real server."""
    return {"warm_vs_floor": max(kind["ratio"] for kind in figures["server"].values())}


@contextmanager
def _real_prefect(household: Household) -> Iterator[str]:
    with ExitStack() as stack:
        postgres = stack.enter_context(Postgres(household.folder / "postgres", household.spawn))
        server = PrefectServer(
            household.folder / "prefect",
            household.spawn,
            database=postgres.create_database("prefect"),
            auth_string=AUTH_STRING,
        )
        yield stack.enter_context(server).api_url


def _compare(
    household: Household, api_url: str, rescues: int, log: Log
) -> Mapping[str, Mapping[str, float]]:
    with deployed(household, api_url) as stage:
        stage.add_function(BARE, BARE_SOURCE)
        runs = RunningRuns(api_url, AUTH_STRING)
        try:
            return _in_turn(stage, runs, api_url, rescues, log)
        finally:
            runs.close()


def _in_turn(
    stage: Deployed, runs: RunningRuns, api_url: str, rescues: int, log: Log
) -> Mapping[str, Mapping[str, float]]:
    ours, bare = stage.runtime(), stage.runtime(BARE)
    credential = base64.b64encode(AUTH_STRING.encode()).decode()
    seconds: dict[str, tuple[list[float], list[float]]] = {kind: ([], []) for kind in KINDS}
    for number in range(WARM_UP + rescues):
        for kind, allowed in KINDS.items():
            rescued = runs.start(interruptions_on_spot=allowed)
            ours_took = answered(ours, number, rescued.event).seconds
            moved = runs.start(interruptions_on_spot=allowed)
            stages = stages_of(moved, on_demand=kind == "FARGATE")
            event = as_event(
                stages,
                prefect_url=api_url,
                aws_url=stage.aws.endpoint_url,
                authorization=f"Basic {credential}",
            )
            bare_took = answered(bare, number, event).seconds
            for run in (rescued, moved):
                if runs.state_of(run) != AWAITING:
                    raise RuntimeError(f"a run was not made due: {runs.state_of(run)}")
            if number >= WARM_UP:
                seconds[kind][0].append(ours_took)
                seconds[kind][1].append(bare_took)
    for runtime in (ours, bare):
        runtime.end()
    medians = {kind: (median(a), median(b)) for kind, (a, b) in seconds.items()}
    for kind, (a, b) in medians.items():
        log(f"{kind}: a rescue {a * 1000:.0f} ms, its floor {b * 1000:.0f} ms")
    return {
        kind: {
            "rescue_ms": round(a * 1000, 1),
            "floor_ms": round(b * 1000, 1),
            "ratio": ratio(a, b),
        }
        for kind, (a, b) in medians.items()
    }


def _needed() -> Mapping[str, Sequence[Sequence[Mapping[str, str]]]]:
    nobody = RunAtWork("00000000-0000-4000-8000-000000000000", "arn:aws:ecs:none", {})
    return {
        kind: [
            [{"to": r.to, "name": r.name, "why": r.why} for r in stage]
            for stage in stages_of(nobody, on_demand=kind == "FARGATE")
        ]
        for kind in KINDS
    }


def _comparison(figures: Figures) -> Table:
    rows = [
        (where, kind, row["rescue_ms"], row["floor_ms"], row["ratio"])
        for where in ("server", "standin")
        for kind, row in figures.get(where, {}).items()
    ]
    names = {"server": "real server", "standin": "stand-in, 20 ms away"}
    return Table(
        "A warm rescue, and its floor",
        ("Prefect", "rerun on", "rescue, ms", "floor, ms", "rescue ÷ floor"),
        [(names[where], *rest) for where, *rest in rows],
        f"Medians of {figures['rescues']} each, in turn. A rescue is one event to the deployed zip"
        " until it answers, annotation included.",
    )


def _list(kind: str, stages: Sequence[Sequence[Mapping[str, str]]]) -> Table:
    rows = [
        (number, request["to"], request["name"], request["why"])
        for number, stage in enumerate(stages, start=1)
        for request in stage
    ]
    return Table(
        f"The requests that a rescue cannot do without: rerun on {kind}",
        ("stage", "to", "request", "because"),
        rows,
        "Those of one stage go at the same time.",
    )
