"""How far a warm rescue is from the requests it cannot do without, issued bare.

Both are Lambdas under AWS's own runtime client, each already warm, and take turns on runs of their
own: the deployed zip, and one that sends the bytes of `floor_requests.py` and decides nothing.
"""

from pathlib import Path
from statistics import median
from typing import Final

from lab.bench.deployed import Deployed, answered, deployed
from lab.bench.floor_requests import Floor, needed
from lab.bench.interruptions import Interruption, exit_of
from lab.bench.part import Log, Measured, ratio
from lab.bench.servers import Prefect, fresh_aws, real_server, stand_in
from lab.tables import Row
from localcloud.processes import Household

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
    """Measure on the stand-in that is 20 ms away, then on a real server with PostgreSQL.

    The target is the worse of the two kinds, on the real server; short, there is the stand-in only.
    """
    rescues, warm_up = (2, 1) if short else (RESCUES, WARM_UP)
    servers = {"stand-in, 20 ms away": stand_in, "real server": real_server}
    if short:
        del servers["real server"]
    rows: list[Row] = []
    with Household.open() as household, deployed(household) as stage:
        stage.add_function(BARE, BARE_SOURCE)
        for name, server in servers.items():
            with server(household) as prefect:
                for kind, on_demand in KINDS.items():
                    pair = _medians_ms(stage, prefect, on_demand, rescues, warm_up)
                    log(f"{name}, {kind}: a rescue {pair[0]:.0f} ms, its floor {pair[1]:.0f} ms")
                    row = {"rescue, ms": round(pair[0], 1), "floor, ms": round(pair[1], 1)}
                    rows.append(
                        {"Prefect": name, "rerun on": kind, **row, "rescue ÷ floor": ratio(*pair)}
                    )
    worse = max(row["rescue ÷ floor"] for row in rows[-len(KINDS) :])
    return Measured({"warm_vs_floor": worse}, {COMPARED: rows, NEEDED: needed()})


def _medians_ms(
    stage: Deployed, prefect: Prefect, on_demand: bool, rescues: int, warm_up: int
) -> tuple[float, float]:
    """Return the median milliseconds of a rescue, and of its floor, taken in turn."""
    number = warm_up + rescues
    began = prefect.begin_all([Interruption(on_demand) for _ in range(2 * number)])
    seconds: list[tuple[float, float]] = []
    with fresh_aws(stage.household) as aws:
        ours = stage.runtime(PREFECT_API_URL=prefect.api_url, AWS_ENDPOINT_URL=aws.url)
        bare = stage.runtime(BARE)
        floor = Floor()
        for turn, (rescued, moved) in enumerate(zip(began[:number], began[number:], strict=True)):
            event = floor.event(moved, prefect_url=prefect.api_url, aws_url=aws.url)
            rescue = answered(ours, turn, exit_of(rescued))
            seconds.append((rescue.seconds, answered(bare, turn, event).seconds))
        ours.end()
        bare.end()
    states = {run["state"]["name"] for run in prefect.runs(began)}
    if states != {"AwaitingRetry"}:
        raise RuntimeError(f"not every run was made due: {states}")
    rescue_s, floor_s = map(median, zip(*seconds[warm_up:], strict=True))
    return 1000 * rescue_s, 1000 * floor_s
