"""What a million stopped tasks cost in Lambda, EventBridge and DynamoDB, from what was measured.

Each kind of event is answered by the deployed zip, warm, with Prefect 20 ms away and moto as AWS;
its requests to the table are counted on the wire, in DynamoDB's units.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from statistics import median
from typing import Any, Final

from bench.cold import stop_without_warning
from bench.deployed import Deployed, answered, deployed
from bench.interruptions import Seed, Victim, exit_of, stop_of, task_arn, warning_of
from bench.machine import ROOT
from bench.part import Figures, Table
from bench.servers import StandIns
from localcloud.bootstrap import CLUSTER, STAGE
from localcloud.cloud import REACT
from localcloud.fault_proxy import Fault, FaultProxy, ProxiedRequest
from localcloud.processes import Household

METER: Final = f"prefect-spot-{STAGE}-meter"
INTERRUPTED_SHARE: Final = Decimal("0.05")
"""Of the stops. Spot's own figure differs by region and size: state yours."""

REPEATS: Final = 15
WARM_UP: Final = 2
MILLION: Final = 10**6

EVENTS_OF_A_STOP: Final[Mapping[str, int]] = {"react: no interruption": 2, "meter: a stop": 1}
"""A Spot task that ends by itself is told of in DEPROVISIONING, and when it has STOPPED."""

EVENTS_OF_AN_INTERRUPTION: Final[Mapping[str, int]] = {
    "react: the warning": 1,
    "react: the exit": 1,
    "react: the stop, answered before": 1,
    "meter: an interruption": 1,
}


@dataclass
class Units:
    """DynamoDB's units, counted from requests. Items of a run are below 1 KB for a first rerun."""

    reads: int = 0
    writes: int = 0

    def count(self, request: ProxiedRequest) -> Fault | None:
        """Count a request, and let it pass."""
        body = json.loads(request.body) if request.body else {}
        match request.target.rpartition(".")[2]:
            case "GetItem":
                self.reads += 1  # strongly consistent, up to 4 KB
            case "BatchGetItem":
                self.reads += sum(len(asked["Keys"]) for asked in body["RequestItems"].values())
            case "UpdateItem" | "PutItem":
                self.writes += 1
            case "TransactWriteItems":
                self.writes += 2 * len(body["TransactItems"])
        return None


@dataclass
class Measured:
    """One kind of event: how long it was answered, and what it asked of the table."""

    milliseconds: list[float] = field(default_factory=list)
    units: Units = field(default_factory=Units)

    def row(self) -> Figures:
        """Medians, and units per event."""
        times = len(self.milliseconds)
        return {
            "ms": round(median(self.milliseconds), 1),
            "reads": round(self.units.reads / times, 1),
            "writes": round(self.units.writes / times, 1),
        }


def measure_events(repeats: int) -> Figures:
    """Answer each kind of event so often, and return what it takes."""
    seeds = [Seed(task_arn(), on_demand=False) for _ in range(WARM_UP + repeats)]
    with (
        Household.open() as household,
        StandIns(household, seeds).fresh(len(seeds)) as prefect,
        deployed(household, prefect.api_url) as stage,
        FaultProxy(stage.aws.endpoint_url) as aws,
    ):
        stage.aws.client("ecs").create_cluster(clusterName=CLUSTER)
        found = _answer_all(stage, aws, prefect.victims)
    return {kind: measured.row() for kind, measured in found.items()}


def _answer_all(
    stage: Deployed, aws: FaultProxy, victims: Sequence[Victim]
) -> Mapping[str, Measured]:
    found = {kind: Measured() for kind in (*EVENTS_OF_A_STOP, *EVENTS_OF_AN_INTERRUPTION)}
    runtimes = {name: stage.runtime(name, AWS_ENDPOINT_URL=aws.url) for name in (REACT, METER)}
    for number, victim in enumerate(victims):
        for kind, event in _events(victim):
            units = Units()
            aws.plan = units.count
            runtime = runtimes[REACT if kind.startswith("react") else METER]
            took = answered(runtime, number, event).seconds
            if number >= WARM_UP:
                measured = found[kind]
                measured.milliseconds.append(took * 1000)
                measured.units.reads += units.reads
                measured.units.writes += units.writes
    for runtime in runtimes.values():
        runtime.end()
    return found


def _events(victim: Victim) -> Sequence[tuple[str, Mapping[str, Any]]]:
    """In the order of an interruption; its bill comes when it has been answered."""
    stop = stop_without_warning()
    ended = {**stop, "detail": {**stop["detail"], **_billable()}}
    interrupted = stop_of(victim)
    return [
        ("react: no interruption", stop),
        ("meter: a stop", ended),
        ("react: the warning", warning_of(victim)),
        ("react: the exit", exit_of(victim)),
        ("react: the stop, answered before", interrupted),
        (
            "meter: an interruption",
            {**interrupted, "detail": {**interrupted["detail"], **_billable()}},
        ),
    ]


def _billable() -> Mapping[str, str]:
    return {"lastStatus": "STOPPED", "stoppedAt": datetime.now(UTC).isoformat()}


def bill_of_a_million(events: Figures) -> Figures:
    """Return USD per million stops, by service; amounts as text."""
    prices = _prices()
    gib = Decimal(_memory_mib()) / 1024
    shares = (
        (1 - INTERRUPTED_SHARE, EVENTS_OF_A_STOP),
        (INTERRUPTED_SHARE, EVENTS_OF_AN_INTERRUPTION),
    )
    invocations = reads = writes = gb_seconds = Decimal(0)
    for share, kinds in shares:
        for kind, times in kinds.items():
            event, often = events[kind], share * times
            invocations += often
            gb_seconds += often * math.ceil(event["ms"]) / 1000 * gib
            reads += often * Decimal(str(event["reads"]))
            writes += often * Decimal(str(event["writes"]))
    return {
        "Lambda, requests": _usd(invocations * prices["lambda_usd_per_million_requests"]),
        "Lambda, time": _usd(MILLION * gb_seconds * prices["lambda_usd_per_gb_second"]),
        "EventBridge": _usd(
            invocations * prices["eventbridge_usd_per_million_events_of_aws_services"]
        ),
        "DynamoDB, reads": _usd(reads * prices["dynamodb_usd_per_million_read_units"]),
        "DynamoDB, writes": _usd(writes * prices["dynamodb_usd_per_million_write_units"]),
    }


def tables(figures: Figures) -> Sequence[Table]:
    """Return the bill with its assumptions, and the events it is made of."""
    events, bill = figures["events"], figures["usd_per_million_stops"]
    raw = json.loads((Path(__file__).parent / "prices.json").read_text())
    reads, writes = (raw[f"dynamodb_usd_per_million_{unit}_units"] for unit in ("read", "write"))
    why = {
        "Lambda, requests": f"{raw['lambda_usd_per_million_requests']} USD per million requests",
        "Lambda, time": (
            f"{raw['lambda_usd_per_gb_second']} USD per GB-second, {_memory_mib()} MiB (as in"
            " .chalice/config.json), x86, each invocation rounded up to 1 ms, all of them warm"
        ),
        "EventBridge": "events of AWS services on the default bus are free",
        "DynamoDB, reads": f"{reads} USD per million units; strongly consistent, items below 4 KB",
        "DynamoDB, writes": (
            f"{writes} USD per million units; items below 1 KB, a transaction counts twice"
        ),
    }
    total = sum((Decimal(amount) for amount in bill.values()), Decimal(0))
    share = f"{INTERRUPTED_SHARE:.0%}"
    return [
        Table(
            "USD per million stopped Spot tasks",
            ("service", "USD", "assumed"),
            [
                *((service, float(amount), why[service]) for service, amount in bill.items()),
                (
                    "all",
                    float(total),
                    f"{share} of the stops are interruptions, each with a warning",
                ),
            ],
            f"List prices of {raw['region']} on {raw['date']}: {', '.join(raw['sources'])}. Not in"
            " it: free tiers, the schedules of sweep and provision, logs, storage, the worker.",
        ),
        Table(
            "What an event takes",
            ("event", "ms", "units read", "units written"),
            [(kind, row["ms"], row["reads"], row["writes"]) for kind, row in events.items()],
            "Medians of the deployed zip, warm, with Prefect 20 ms away. AWS is moto behind a proxy"
            " that counts: slower than DynamoDB, so time is rather too much than too little.",
        ),
    ]


def _prices() -> Mapping[str, Decimal]:
    raw = json.loads((Path(__file__).parent / "prices.json").read_text())
    return {name: Decimal(value) for name, value in raw.items() if "usd" in name}


def _memory_mib() -> int:
    config = json.loads((ROOT / ".chalice" / "config.json").read_text())
    return int(config["stages"][STAGE]["lambda_memory_size"])


def _usd(amount: Decimal) -> str:
    return f"{amount:.3f}"
