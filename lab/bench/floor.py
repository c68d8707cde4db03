"""How far a warm rescue is from the requests it cannot do without, issued bare.

Both are Lambdas under AWS's own runtime client, each already warm, and take turns on runs of their
own: the deployed zip, and one that sends what the zip has sent for another run, and decides
nothing. One request more or less than NEEDED has, and there is no floor.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any, Final
from urllib.parse import urlsplit

from lab.bench.interruptions import Interruption, exit_of
from lab.bench.part import Log, Measured, ratio
from lab.bench.servers import (
    Deployed,
    Prefect,
    answered,
    deployed,
    fresh_aws,
    real_server,
    stand_in,
)
from lab.tables import Row
from localcloud.cloud import REACT
from localcloud.processes import Supervisor

TITLE: Final = "How much of a rescue could be left out?"
COMPARED: Final = "A warm rescue, and its floor"
RESCUES: Final = 20
"""Of each kind, and as many bare ones."""

WARM_UP: Final = 3
"""Of each kind, before, not counted."""

NOTES: Final = {
    COMPARED: (
        f"Medians of {RESCUES} each, in turn. A rescue is one event to the deployed zip until it"
        " answers, annotation included. Which requests these are, and what each is for, stands in"
        " `lab/bench/floor.py`: those that do not depend on each other go at the same time."
    ),
}

BARE: Final = "requests-alone"
BARE_SOURCE: Final = Path(__file__).parent / "bare" / "requests_alone.py"
KINDS: Final = {"Spot": False, "FARGATE": True}
"""Where the rerun goes: whether on demand."""

TABLE: Final = "the table"
PREFECT: Final = "Prefect"
NEEDED: Final[tuple[tuple[int, str, str, str], ...]] = (
    (1, TABLE, "take the lease", "Prefect cannot compare and swap; the answer is the record"),
    (2, TABLE, "read what Prefect asked for", "a Retry-After holds for every function"),
    (3, PREFECT, "read its states", "whether this very interruption was handled before"),
    (3, PREFECT, "read the run", "whether it may be rerun, and how often it was"),
    (4, TABLE, "record the interruption", "before the run moves on: else a crash loses the count"),
    (5, PREFECT, "park", "Prefect changes only a scheduled run, which no worker may get meanwhile"),
    (6, PREFECT, "read its states again", "whether the run had ended while it was being parked"),
    (6, PREFECT, "read the run again", "a change replaces whole fields: it needs a fresh read"),
    (6, PREFECT, "read the deployment", "one that is gone can have no rerun"),
    (6, PREFECT, "read the pool's defaults", "a strategy there would win over FARGATE"),
    (6, PREFECT, "read its task runs", "they hold slots of tag limits; subflows lost a retry"),
    (7, PREFECT, "change", "the retry that the rerun would take, and the tag"),
    (8, PREFECT, "make due", "the rerun itself"),
    (9, PREFECT, "read its states at last", "whether others moved the run meanwhile"),
    (10, PREFECT, "log", "people look there first"),
    (10, PREFECT, "artifact", "the whole story, on the run"),
    (10, PREFECT, "events", "users' automations wait for them; both in one request"),
    (10, PREFECT, "labels", "runs are searched by them"),
    (11, TABLE, "release the lease", "the next event need not wait, nor annotate a second time"),
)
"""Stage, service, name, and reason; a move to FARGATE reads one thing more."""
ONLY_ON_DEMAND: Final = "read the pool's defaults"
OF_ANY: Final = '"pause"'
"""In the one request that is no rescue's: every ten seconds, whether the stage is paused."""


def answer(found: Mapping[str, Any]) -> str:
    """Return the sentence for the page."""
    return (
        f"Next to nothing: a warm rescue takes {found['warm_vs_floor']} times as long as the"
        " requests that it cannot do without, issued bare."
    )


def measure(log: Log, *, short: bool = False) -> Measured:
    """Measure on the stand-in that is 20 ms away, then on a real server with PostgreSQL.

    The target is the worse of the two kinds, on the real server; short, there is the stand-in only.
    """
    rescues, warm_up = (2, 1) if short else (RESCUES, WARM_UP)
    servers = {"stand-in, 20 ms away": stand_in, "real server": real_server}
    rows: list[Row] = []
    with Supervisor.open() as supervisor, deployed(supervisor) as stage:
        stage.add_function(BARE, BARE_SOURCE)
        floors = {kind: Floor(stage, on_demand) for kind, on_demand in KINDS.items()}
        for name, server in list(servers.items())[: 1 if short else None]:
            with server(supervisor) as prefect:
                for kind, floor in floors.items():
                    figures = floor.compare(prefect, rescues, warm_up)
                    log(f"{name}, {kind}: {figures}")
                    rows.append({"Prefect": name, "rerun on": kind, **figures})
    worse = max(row["rescue ÷ floor"] for row in rows[-len(KINDS) :])
    return Measured({"warm_vs_floor": worse}, {COMPARED: rows})


class Floor:
    """The requests of a warm rescue, for `bare/requests_alone.py`."""

    def __init__(self, stage: Deployed, on_demand: bool) -> None:
        """Let the deployed zip rescue two runs, and keep what it sent for the second.

        Raises ValueError: it sent more requests than are needed, or fewer.
        """
        self._stage: Final = stage
        self._on_demand: Final = on_demand
        with stand_in(stage.supervisor) as prefect, fresh_aws(stage.supervisor) as aws:
            runtime, self._deployment_id = stage.runtime(REACT, prefect, aws), prefect.deployment_id
            cold, self._rescued = prefect.begin_all([Interruption(on_demand) for _ in range(2)])
            answered(runtime, exit_of(cold))
            stand_ins = {PREFECT: prefect.usage, TABLE: aws}
            before = {to: each.requests() for to, each in stand_ins.items()}
            answered(runtime, exit_of(self._rescued))
            runtime.end()
            sent = {
                to: [
                    each
                    for each in its.newest(its.requests() - before[to])
                    if OF_ANY not in each["body"]
                ]
                for to, its in stand_ins.items()
            }
        in_turn = {to: iter(requests) for to, requests in sent.items()}
        needed = [each for each in NEEDED if on_demand or each[2] != ONLY_ON_DEMAND]
        if any(len(sent[to]) != sum(each[1] == to for each in needed) for to in sent):
            raise ValueError(f"a rescue needs {len(needed)} requests, and sent {sent}")
        stages: dict[int, list[Mapping[str, str]]] = {}
        for stage_number, to, *_ in needed:
            stages.setdefault(stage_number, []).append({"to": to, **next(in_turn[to])})
        self._stages = json.dumps(list(stages.values()))

    def compare(self, prefect: Prefect, rescues: int, warm_up: int) -> Row:
        """Return the median milliseconds of a rescue, and of its floor, taken in turn."""
        number = warm_up + rescues
        began = prefect.begin_all([Interruption(self._on_demand) for _ in range(2 * number)])
        seconds: list[tuple[float, float]] = []
        with fresh_aws(self._stage.supervisor) as aws:
            hosts = {PREFECT: urlsplit(prefect.usage.url).netloc, TABLE: urlsplit(aws.url).netloc}
            ours, bare = self._stage.runtime(REACT, prefect, aws), self._stage.runtime(BARE)
            for rescued, moved in zip(began[:number], began[number:], strict=True):
                rescue = answered(ours, exit_of(rescued))
                moves = answered(bare, {"hosts": hosts, "stages": self.stages_for(moved, prefect)})
                seconds.append((rescue.seconds, moves.seconds))
            ours.end()
            bare.end()
        states = {run["state"]["name"] for run in prefect.runs(began)}
        if states != {"AwaitingRetry"}:
            raise RuntimeError(f"not every run was made due: {states}")
        rescue_ms, floor_ms = (1000 * median(x) for x in zip(*seconds[warm_up:], strict=True))
        return {
            "rescue, ms": round(rescue_ms, 1),
            "floor, ms": round(floor_ms, 1),
            "rescue ÷ floor": ratio(rescue_ms, floor_ms),
        }

    def stages_for(self, of: Interruption, prefect: Prefect) -> list[Any]:
        """Return what moves this run from RUNNING to due again there, with its annotation."""
        stages = self._stages.replace(self._rescued.run_id, of.run_id)
        stages = stages.replace(self._deployment_id, prefect.deployment_id)
        return list(json.loads(stages.replace(self._rescued.task_arn, of.task_arn)))
