"""How far a warm rescue is from the requests it cannot do without, issued bare.

Both are Lambdas under AWS's own runtime client, each already warm, and take turns on runs of their
own: the deployed zip, and one that sends the bytes of `floor_requests.py` and decides nothing.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Final

from bench.deployed import Deployed, answered, deployed
from bench.floor_requests import as_event, stages_of
from bench.handlers import fresh_aws
from bench.interruptions import Seed, Victim, exit_of, task_arn
from bench.part import Figures, Log, Table, ratio
from bench.servers import FreshPrefect, StandIns, prepared
from localcloud.lambda_environment import ExecutionEnvironment
from localcloud.processes import Household

TITLE: Final = "Floor: a warm rescue and the requests it cannot do without"

RESCUES: Final = 40
"""Of each kind, and as many bare ones."""

WARM_UP: Final = 3
"""Of each kind, before, not counted."""

BARE: Final = "requests-alone"
BARE_SOURCE: Final = Path(__file__).parent / "bare" / "requests_alone.py"
KINDS: Final = {"Spot": False, "FARGATE": True}
"""Where the rerun goes: whether on demand."""

AWAITING: Final = "AwaitingRetry"
NAMES: Final = {"server": "real server", "standin": "stand-in, 20 ms away"}

Comparison = Mapping[str, Mapping[str, float]]


def measure(log: Log, *, short: bool = False) -> Figures:
    """Measure on a real server with PostgreSQL, and on the stand-in that is 20 ms away."""
    rescues, warm_up = (2, 1) if short else (RESCUES, WARM_UP)
    seeds = [
        Seed(task_arn(), on_demand)
        for _ in range(warm_up + rescues)
        for on_demand in KINDS.values()
        for _ in ("rescued", "moved by its floor")
    ]
    figures: Figures = {"rescues": rescues, "needed": _needed()}
    with Household.open() as household, deployed(household) as stage:
        stage.add_function(BARE, BARE_SOURCE)
        log("on the stand-in")
        with StandIns(household, seeds).fresh(len(seeds)) as prefect:
            figures["standin"] = _compare(stage, prefect, warm_up, log)
        if not short:
            log(f"making {len(seeds)} runs on a real Prefect server, with PostgreSQL")
            with prepared(household, seeds) as servers, servers.fresh(len(seeds)) as prefect:
                figures["server"] = _compare(stage, prefect, warm_up, log)
    return figures


def tables(figures: Figures) -> Sequence[Table]:
    """Return the lists of requests, and how the two compare."""
    return [_comparison(figures), *(_list(kind, figures["needed"][kind]) for kind in KINDS)]


def targets(figures: Figures) -> Figures:
    """The worse of the two kinds, on the real server; the short form has the stand-in only."""
    compared: Comparison = figures.get("server") or figures["standin"]
    return {"warm_vs_floor": max(kind["ratio"] for kind in compared.values())}


def _compare(stage: Deployed, prefect: FreshPrefect, warm_up: int, log: Log) -> Comparison:
    """Let both sides take turns on the runs of a server; they are made in pairs, by kind."""
    seconds: dict[str, tuple[list[float], list[float]]] = {kind: ([], []) for kind in KINDS}
    with fresh_aws(stage.household, []) as aws:
        ours = stage.runtime(PREFECT_API_URL=prefect.api_url, AWS_ENDPOINT_URL=aws.url)
        bare = stage.runtime(BARE)
        victims = iter(prefect.victims)
        for number, (rescued, moved) in enumerate(zip(victims, victims, strict=True)):
            ours_took = _rescue(ours, number, rescued)
            bare_took = _move(bare, number, moved, prefect.api_url, aws.url)
            if number >= warm_up * len(KINDS):
                kept = seconds["FARGATE" if rescued.on_demand else "Spot"]
                kept[0].append(ours_took)
                kept[1].append(bare_took)
        ours.end()
        bare.end()
    _check(prefect)
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


def _rescue(runtime: ExecutionEnvironment, number: int, victim: Victim) -> float:
    return answered(runtime, number, exit_of(victim)).seconds


def _move(
    runtime: ExecutionEnvironment, number: int, victim: Victim, prefect_url: str, aws_url: str
) -> float:
    event = as_event(stages_of(victim), prefect_url=prefect_url, aws_url=aws_url)
    return answered(runtime, number, event).seconds


def _check(prefect: FreshPrefect) -> None:
    """Raise RuntimeError where either side left a run that is not due again."""
    ids = [victim.run_id for victim in prefect.victims]
    states = {run["state"]["name"] for run in prefect.runs(ids)}
    if states != {AWAITING}:
        raise RuntimeError(f"not every run was made due: {states}")


def _needed() -> Mapping[str, Sequence[Sequence[Mapping[str, str]]]]:
    nobody = "00000000-0000-4000-8000-000000000000"
    now = datetime.now(UTC)
    return {
        kind: [
            [{"to": r.to, "name": r.name, "why": r.why} for r in stage]
            for stage in stages_of(Victim(nobody, task_arn(), now, on_demand))
        ]
        for kind, on_demand in KINDS.items()
    }


def _comparison(figures: Figures) -> Table:
    rows = [
        (name, kind, row["rescue_ms"], row["floor_ms"], row["ratio"])
        for where, name in NAMES.items()
        for kind, row in figures.get(where, {}).items()
    ]
    return Table(
        "A warm rescue, and its floor",
        ("Prefect", "rerun on", "rescue, ms", "floor, ms", "rescue ÷ floor"),
        rows,
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
