"""Prints what prefect-spot itself costs in a month, as docs/costs.md has it.

    python -m tools.costs

What there is comes from the stack's template, the settings' defaults, `app.py` and the metrics'
own list; Fargate's rates from `infra/prices.json`; the other prices stand here, with their source.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import infra
from chalicelib.core.metrics import Metric
from chalicelib.settings import read_settings
from tools.settings_page import REQUIRED

ROOT: Final = Path(__file__).resolve().parent.parent
REGION: Final = "us-east-1"

HOURS: Final = 730
"""In a month, as AWS's own calculator counts."""

MINUTES: Final = HOURS * 60
OF_POOLS_ONLY: Final = {Metric.SWEEP_UNJUDGED, Metric.PAUSED_SECONDS}
DEPLOYMENTS: Final = 10
"""In the example with DEPLOYMENT_METRICS."""
TASK_VCPU: Final = 1
TASK_GIB: Final = 2
"""Of the example's task."""
WORKER_ONLY: Final = "\N{NO-BREAK SPACE}¹"
"""Marks what a stage with a worker of its own does not have."""
NBSP: Final = "\N{NO-BREAK SPACE}"
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


def rows() -> Iterator[tuple[str, str, str]]:
    """Return what there is, USD a month, and the price; with the sum at the end."""
    found = list(costs())
    yield from found
    yield "**in all**", f"**{_total(found):.2f}**", ""


def break_even() -> Iterator[tuple[str, ...]]:
    """Return each kind of stage, USD a month, and the task-hours on Spot that save as much.

    Both without DEPLOYMENT_METRICS, then with it. A task-hour saves on-demand's rate less Spot's.
    """
    metrics = METRIC_USD * (len(Metric) - len(OF_POOLS_ONLY)) * DEPLOYMENTS
    per_hour = _task_usd("FARGATE") - _task_usd("FARGATE_SPOT")
    for kind, is_full in (("rescue-only", False), ("full", True)):
        usd = _total(row for row in costs(is_full=is_full))
        each = (usd, usd + metrics)
        cells = [text for cost in each for text in (f"{cost:.2f}", f"{cost / per_hour:,.0f}")]
        yield f"`PROVISION={kind}`", *cells


def _total(found: Iterable[tuple[str, str, str]]) -> Decimal:
    return sum((Decimal(usd) for _, usd, _ in found), Decimal(0))


def _task_usd(capacity: str) -> Decimal:
    """Return what an hour of a task of TASK_VCPU and TASK_GIB costs, in USD."""
    rate = _rate(capacity)
    return TASK_VCPU * Decimal(rate["vcpu_hour_usd"]) + TASK_GIB * Decimal(rate["gb_hour_usd"])


def costs(*, is_full: bool = True) -> Iterator[tuple[str, str, str]]:
    """Return what there is, USD a month, and the price, of a stage with its defaults.

    `is_full`: with a worker of its own.
    """
    if is_full:
        yield from _worker_costs()
    alarms, watched = _alarms(is_full=is_full)
    a_metric = f"{ALARM_METRIC_USD} a metric, {CLOUDWATCH}"
    yield f"{alarms} alarms, on {watched} metrics", f"{ALARM_METRIC_USD * watched:.2f}", a_metric
    metrics, a_metric = len(Metric), f"{METRIC_USD} a metric, {CLOUDWATCH}"
    yield f"{metrics} metrics of the work pool", f"{METRIC_USD * metrics:.2f}", a_metric
    yield "the dashboard", f"{DASHBOARD_USD:.2f}", CLOUDWATCH
    calls = _scheduled_calls()
    gb_seconds = calls * SECONDS_PER_CALL * Decimal(_lambda_mib()) / 1024
    usd = calls * LAMBDA_REQUEST_USD + gb_seconds * LAMBDA_GB_SECOND_USD
    if_each = f"if each takes {SECONDS_PER_CALL}{NBSP}s{NBSP}²"
    yield f"{calls:,} calls of `sweep` and `provision`, {if_each}", f"{usd:.2f}", LAMBDA


def _worker_costs() -> Iterator[tuple[str, str, str]]:
    worker = read_settings(REQUIRED)
    vcpu, gib = Decimal(worker.worker_cpu) / 1024, Decimal(worker.worker_memory) / 1024
    rate = _rate("FARGATE")
    hour = vcpu * Decimal(rate["vcpu_hour_usd"]) + gib * Decimal(rate["gb_hour_usd"])
    worker_text = f"the worker: {vcpu} vCPU and {gib} GiB on FARGATE, day and night{WORKER_ONLY}"
    yield worker_text, f"{hour * HOURS:.2f}", FARGATE
    ipv4 = f"{IPV4_HOUR_USD} an hour, {VPC}"
    yield f"its public IPv4 address{WORKER_ONLY}", f"{IPV4_HOUR_USD * HOURS:.2f}", ipv4


def table() -> str:
    """Return the rows as a Markdown table."""
    return _markdown(("what", "USD a month", "price"), rows())


def table_of_break_even() -> str:
    """Return when a stage has paid for itself, as a Markdown table."""
    metrics = f"with `DEPLOYMENT_METRICS` for {DEPLOYMENTS} deployments, USD a month"
    return _markdown(
        ("stage", "USD a month", "break-even, task-hours", metrics, "break-even, task-hours"),
        break_even(),
    )


def _markdown(head: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(line)} |" for line in (head, *body)]
    return "\n".join([lines[0], f"|{'---|' * len(head)}", *lines[1:]])


def _rate(capacity: str) -> Mapping[str, str]:
    rates = infra.load("prices.json")["rates"]
    wanted = (REGION, "x86_64", capacity)
    return next(r for r in rates if (r["region"], r["architecture"], r["capacity"]) == wanted)


def _alarms(*, is_full: bool) -> tuple[int, int]:
    """Return the number of the stack's alarms, and of the metrics they watch, which are charged."""
    resources: Mapping[str, Any] = infra.load("stack.json")["Resources"]
    alarms = [
        r["Properties"]
        for r in resources.values()
        if r["Type"] == "AWS::CloudWatch::Alarm" and (is_full or r.get("Condition") != "Full")
    ]
    watched = [
        metric
        for alarm in alarms
        for metric in alarm.get("Metrics", [{"MetricStat": alarm}])
        if "MetricStat" in metric
    ]
    return len(alarms), len(watched)


def _scheduled_calls() -> int:
    """Return how many calls a month the schedules in `app.py` make."""
    rates = re.findall(r"Rate\((\d+), unit=Rate\.MINUTES\)", (ROOT / "app.py").read_text())
    return sum(MINUTES // int(minutes) for minutes in rates)


def _lambda_mib() -> int:
    config = json.loads((ROOT / ".chalice" / "config.json").read_text())
    return int(config["stages"]["dev"]["lambda_memory_size"])


if __name__ == "__main__":
    print(table(), table_of_break_even(), sep="\n\n")
