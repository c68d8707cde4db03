"""How far a warm rescue is from the requests it cannot do without, issued bare.

Both are Lambdas under AWS's own runtime client, each already warm, and take turns on runs of their
own: the deployed zip, and one that sends the bytes of `floor_requests.py` and decides nothing.
"""

from pathlib import Path
from statistics import median
from typing import Final

from lab.bench.deployed import Deployed, answered, deployed
from lab.bench.floor_requests import Floor, needed
from lab.bench.interruptions import Seed, exit_of, task_arn
from lab.bench.part import Log, Measured, Row, ratio
from lab.bench.servers import FreshPrefect, StandIns, fresh_aws, prepared
from localcloud.processes import Supervisor

TITLE: Final = "Floor: a warm rescue and the requests it cannot do without"
COMPARED: Final = "A warm rescue, and its floor"
NEEDED: Final = "The requests that a rescue cannot do without"
RESCUES: Final = 40
"""Of each kind, and as many bare ones."""

WARM_UP: Final = 3
"""Of each kind, before, not counted."""

NOTES: Final = {
    COMPARED: (
        f"Medians of {RESCUES} each, in turn. A rescue is one event to the deployed zip until it"
        " answers, annotation included."
    ),
    NEEDED: (
        "Those of one stage go at the same time. A move to FARGATE takes as many: its change holds"
        " the capacity as well."
    ),
}

BARE: Final = "requests-alone"
BARE_SOURCE: Final = Path(__file__).parent / "bare" / "requests_alone.py"
KINDS: Final = {"Spot": False, "FARGATE": True}
"""Where the rerun goes: whether on demand."""


def measure(log: Log, *, short: bool = False) -> Measured:
    """Measure on a real server with PostgreSQL, and on the stand-in that is 20 ms away.

    The target is the worse of the two kinds, on the real server; short, there is the stand-in only.
    """
    rescues, warm_up = (2, 1) if short else (RESCUES, WARM_UP)
    seeds = [
        Seed(task_arn(), on_demand)
        for _ in range(warm_up + rescues)
        for on_demand in KINDS.values()
        for _ in ("rescued", "moved by its floor")
    ]
    rows: list[Row] = []
    with Supervisor.open() as supervisor, deployed(supervisor) as stage:
        stage.add_function(BARE, BARE_SOURCE)
        with StandIns(supervisor, seeds).fresh(len(seeds)) as prefect:
            rows += _compare("stand-in, 20 ms away", stage, prefect, warm_up, log)
        if not short:
            log(f"making {len(seeds)} runs on a real Prefect server, with PostgreSQL")
            with prepared(supervisor, seeds) as servers, servers.fresh(len(seeds)) as prefect:
                rows += _compare("real server", stage, prefect, warm_up, log)
    worse = max(row["rescue ÷ floor"] for row in rows[-len(KINDS) :])
    return Measured({"warm_vs_floor": worse}, {COMPARED: rows, NEEDED: needed()})


def _compare(
    name: str, stage: Deployed, prefect: FreshPrefect, warm_up: int, log: Log
) -> list[Row]:
    """Let both sides take turns on the runs of a server; they are made in pairs, by kind."""
    seconds: dict[bool, list[tuple[float, float]]] = {kind: [] for kind in KINDS.values()}
    with fresh_aws(stage.supervisor) as aws:
        ours = stage.runtime(PREFECT_API_URL=prefect.api_url, AWS_ENDPOINT_URL=aws.url)
        bare = stage.runtime(BARE)
        floor, victims = Floor(), iter(prefect.victims)
        for number, (rescued, moved) in enumerate(zip(victims, victims, strict=True)):
            event = floor.event(moved, prefect_url=prefect.api_url, aws_url=aws.url)
            seconds[rescued.on_demand].append(
                (
                    answered(ours, number, exit_of(rescued)).seconds,
                    answered(bare, number, event).seconds,
                )
            )
        ours.end()
        bare.end()
    states = {run["state"]["name"] for run in prefect.runs([v.run_id for v in prefect.victims])}
    if states != {"AwaitingRetry"}:
        raise RuntimeError(f"not every run was made due: {states}")
    rows = []
    for kind, on_demand in KINDS.items():
        ours_s, bare_s = map(median, zip(*seconds[on_demand][warm_up:], strict=True))
        log(f"{name}, {kind}: a rescue {ours_s * 1000:.0f} ms, its floor {bare_s * 1000:.0f} ms")
        rows.append(
            {
                "Prefect": name,
                "rerun on": kind,
                "rescue, ms": round(ours_s * 1000, 1),
                "floor, ms": round(bare_s * 1000, 1),
                "rescue ÷ floor": ratio(ours_s, bare_s),
            }
        )
    return rows
