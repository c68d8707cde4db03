"""Prints what prefect-spot itself costs in a month, as README.md and docs/money.md have it.

    python -m tools.costs

What there is comes from the stack's template, the settings' defaults, `app.py` and the metrics'
own list; Fargate's rates from `infra/prices.json`; the other prices stand here, with their source.
"""

import ast
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from chalicelib.core.metrics import Metric
from chalicelib.settings import read_settings
from tools.settings_page import REQUIRED

ROOT: Final = Path(__file__).resolve().parent.parent
REGION: Final = "us-east-1"

HOURS: Final = 730
"""In a month, as AWS's own calculator counts."""

MINUTES: Final = HOURS * 60
SECONDS_PER_CALL: Final = 1
"""Of the scheduled Lambdas; not measured on AWS."""

IPV4_HOUR_USD: Final = Decimal("0.005")
ALARM_METRIC_USD: Final = Decimal("0.10")
METRIC_USD: Final = Decimal("0.30")
DASHBOARD_USD: Final = Decimal("3")
LAMBDA_REQUEST_USD: Final = Decimal("0.20") / 1_000_000
LAMBDA_GB_SECOND_USD: Final = Decimal("0.0000166667")

FARGATE: Final = "[`infra/prices.json`](https://aws.amazon.com/fargate/pricing/)"
VPC: Final = "[VPC](https://aws.amazon.com/vpc/pricing/)"
CLOUDWATCH: Final = "[CloudWatch](https://aws.amazon.com/cloudwatch/pricing/)"
LAMBDA: Final = "[Lambda](https://aws.amazon.com/lambda/pricing/)"


@dataclass(frozen=True)
class Cost:
    """A row: `usd` a month, `each`: as much again for each deployment."""

    what: str
    usd: Decimal
    price: str
    each: bool = False


def costs() -> Iterator[Cost]:
    """Return the rows, of a stage with its defaults in us-east-1."""
    worker = read_settings(REQUIRED)
    vcpu, gib = Decimal(worker.worker_cpu) / 1024, Decimal(worker.worker_memory) / 1024
    rate = _fargate_rate()
    hour = vcpu * Decimal(rate["vcpu_hour_usd"]) + gib * Decimal(rate["gb_hour_usd"])
    yield Cost(
        f"the worker: {vcpu} vCPU and {gib} GiB on FARGATE, day and night\N{NO-BREAK SPACE}¹",
        hour * HOURS,
        FARGATE,
    )
    yield Cost(
        "its public IPv4 address\N{NO-BREAK SPACE}¹",
        IPV4_HOUR_USD * HOURS,
        f"{IPV4_HOUR_USD} an hour, {VPC}",
    )
    alarms, watched = _alarms()
    price = f"{ALARM_METRIC_USD} a metric, {CLOUDWATCH}"
    yield Cost(f"{alarms} alarms, on {watched} metrics", ALARM_METRIC_USD * watched, price)
    metrics = len(Metric)
    price = f"{METRIC_USD} a metric, {CLOUDWATCH}"
    yield Cost(f"{metrics} metrics of the work pool", METRIC_USD * metrics, price)
    yield Cost(f"up to {metrics} of a deployment", METRIC_USD * metrics, price, each=True)
    yield Cost("the dashboard", DASHBOARD_USD, CLOUDWATCH)
    calls = _scheduled_calls()
    gb_seconds = calls * SECONDS_PER_CALL * Decimal(_lambda_mib()) / 1024
    yield Cost(
        f"{calls:,} calls of `sweep` and `provision`, if each takes {SECONDS_PER_CALL}"
        "\N{NO-BREAK SPACE}s\N{NO-BREAK SPACE}²",
        calls * LAMBDA_REQUEST_USD + gb_seconds * LAMBDA_GB_SECOND_USD,
        LAMBDA,
    )


def table() -> str:
    """Return the rows as a Markdown table."""
    rows = [
        f"| {cost.what} | {cost.usd:.2f}{' for each' if cost.each else ''} | {cost.price} |"
        for cost in costs()
    ]
    return "\n".join(["| what | USD a month | price |", "|---|---|---|", *rows])


def _fargate_rate() -> Mapping[str, str]:
    rates = json.loads((ROOT / "infra" / "prices.json").read_text())["rates"]
    wanted = (REGION, "x86_64", "FARGATE")
    return next(r for r in rates if (r["region"], r["architecture"], r["capacity"]) == wanted)


def _alarms() -> tuple[int, int]:
    """How many alarms the stack has, and how many metrics they look at: those are charged for."""
    resources: Mapping[str, Any] = json.loads((ROOT / "infra" / "stack.json").read_text())
    alarms = [
        resource["Properties"]
        for resource in resources["Resources"].values()
        if resource["Type"] == "AWS::CloudWatch::Alarm"
    ]
    watched = [
        sum("MetricStat" in metric for metric in alarm["Metrics"]) if "Metrics" in alarm else 1
        for alarm in alarms
    ]
    return len(alarms), sum(watched)


def _scheduled_calls() -> int:
    """How many calls a month the schedules in `app.py` make."""
    found = 0
    for node in ast.walk(ast.parse((ROOT / "app.py").read_text())):
        match node:
            case ast.Call(func=ast.Name("Rate"), args=[ast.Constant(value=int(minutes))]):
                found += MINUTES // minutes
    return found


def _lambda_mib() -> int:
    config = json.loads((ROOT / ".chalice" / "config.json").read_text())
    return int(config["stages"]["dev"]["lambda_memory_size"])


if __name__ == "__main__":
    print(table())
