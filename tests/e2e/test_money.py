"""What the deployed zip bills, sums and prints, held against ECS's times and the price table."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any

import pytest

import infra
from localcloud.bootstrap import STACK
from localcloud.cloud import REACT, SWEEP, wait_for
from spotctl.report import read_report
from tests.e2e.scenario import Run, Stage
from tests.unit.emf import Datum, printed_data, total_of

STEP_SECONDS = 6
SIZE = {"cpu": 256, "memory": 512}
"""CPU units and MiB of the run's tasks: a quarter of a vCPU, half a GiB."""
BY_POOL = ("Stage", "WorkPool")
BY_DEPLOYMENT = (*BY_POOL, "Deployment")
METER = REACT.replace("react", "meter")
SMALLEST = Decimal("0.00000001")


@dataclass(frozen=True)
class Books:
    """A run that Spot interrupted twice, with all that was written and printed about it."""

    stage: Stage
    run: Run
    bills: list[dict[str, Any]]
    data: list[Datum]

    @property
    def deployment(self) -> str:
        return self.stage.deployments["steps"]


@pytest.fixture(scope="module")
def books(stage: Stage) -> Books:
    run = stage.start("steps", job_variables=SIZE, count=3, seconds=STEP_SECONDS)
    prefect = stage.cloud.prefect
    wait_for("a step that is kept", 60, lambda: is_completed(prefect.task_runs(run.id)))
    wait_for("a step under way", 20, lambda: len(prefect.task_runs(run.id)) >= 2)
    run.interrupt()
    run.wait_for_start(2)
    wait_for("a step under way", 20, lambda: len(stage.cloud.prefect.task_runs(run.id)) >= 4)
    run.interrupt()
    assert run.wait_for_end()["state_type"] == "COMPLETED"
    tasks = stage.cloud.tasks(run.id)
    assert len(tasks) == 3
    ecs = stage.cloud.aws.client("ecs")

    def all_stopped() -> bool:
        described = ecs.describe_tasks(cluster=STACK, tasks=tasks)["tasks"]
        return all(task["lastStatus"] == "STOPPED" for task in described)

    wait_for("the last task's end", 30, all_stopped)
    stage.cloud.lambdas.wait_idle(60)
    return Books(stage, run, [bill_of(stage, task) for task in tasks], printed(stage))


def is_completed(task_runs: list[dict[str, Any]]) -> bool:
    return any(task_run["state_type"] == "COMPLETED" for task_run in task_runs)


def bill_of(stage: Stage, task: str) -> dict[str, Any]:
    dynamodb = stage.cloud.aws.client("dynamodb")
    key = {"pk": {"S": f"bill#{task}"}}
    item = dynamodb.get_item(TableName=STACK, Key=key).get("Item", {})
    return {name: next(iter(value.values())) for name, value in item.items()}


def printed(stage: Stage) -> list[Datum]:
    lines = [line for i in stage.cloud.lambdas.invocations for line in i.logs]
    return printed_data("\n".join(lines))


def charged(stage: Stage, task: str) -> Decimal:
    """Seconds from the image pull to the end, as ECS tells them, and a minute at least."""
    ecs = stage.cloud.aws.client("ecs")
    [told] = ecs.describe_tasks(cluster=STACK, tasks=[task])["tasks"]
    seconds = (told["stoppedAt"] - told["pullStartedAt"]).total_seconds()
    return max(Decimal(60), Decimal(str(round(seconds, 3))))


def price(seconds: Decimal, capacity: str) -> Decimal:
    """What tasks of that size cost, by the shipped table."""
    [row] = [
        row
        for row in infra.load("prices.json")["rates"]
        if (row["region"], row["architecture"], row["capacity"])
        == ("us-east-1", "x86_64", capacity)
    ]
    hourly = Decimal(row["vcpu_hour_usd"]) / 4 + Decimal(row["gb_hour_usd"]) / 2
    return (hourly * seconds / 3600).quantize(SMALLEST, ROUND_HALF_EVEN)


def test_each_task_is_billed_by_ecs_own_times(books: Books) -> None:
    for bill, task in zip(books.bills, books.stage.cloud.tasks(books.run.id), strict=True):
        seconds = charged(books.stage, task)
        assert Decimal(bill["seconds"]) == seconds
        assert Decimal(bill["cost_usd"]) == price(seconds, "FARGATE_SPOT")
        assert Decimal(bill["on_demand_usd"]) == price(seconds, "FARGATE")
        assert bill["shortcomings"] == []


def test_persisted_and_cached_steps_are_not_counted_as_in_vain(books: Books) -> None:
    """Each of the interrupted attempts had a step under way, and one before it that is kept."""
    first, second, last = (Decimal(bill["wasted_seconds"]) for bill in books.bills)
    assert 0 < first < 60
    assert 0 < second < 60
    assert last == 0
    for bill in books.bills[:2]:
        wasted = Decimal(bill["wasted_seconds"])
        assert Decimal(bill["wasted_usd"]) == price(wasted, "FARGATE_SPOT")


def test_bills_sums_report_and_metrics_agree_to_the_last_digit(books: Books) -> None:
    report = read_report(books.stage.cloud.aws.client("dynamodb"), STACK, "2d")
    ours = [b for b in all_bills(books.stage) if b["deployment_id"] == books.deployment]
    assert {bill["pk"] for bill in books.bills} <= {bill["pk"] for bill in ours}
    name = ours[0]["deployment"]
    [row] = [row for row in report.deployments if row.deployment == name]
    data = [d for d in printed(books.stage) if ("Deployment", name) in d.dimensions]
    for metric, column, figure in (
        ("TaskCost", "cost_usd", row.counts.cost_usd),
        ("OnDemandEquivalentCost", "on_demand_usd", row.counts.on_demand_usd),
        ("WastedCost", "wasted_usd", row.counts.wasted_usd),
    ):
        billed = sum((Decimal(bill[column]) for bill in ours), Decimal(0))
        assert billed == figure, column
        told = total_of(data, metric, *BY_DEPLOYMENT)
        assert abs(Decimal(told) - billed) < SMALLEST * len(ours), metric
    net = total_of(data, "NetSavings", *BY_DEPLOYMENT)
    assert abs(Decimal(net) - row.counts.net_savings_usd) < SMALLEST * len(ours)
    assert row.counts.spot_reruns >= 2
    assert all(rate.source and rate.date for rate in report.rates)


def all_bills(stage: Stage) -> list[dict[str, Any]]:
    """A test may scan."""
    pages = stage.cloud.aws.client("dynamodb").get_paginator("scan").paginate(TableName=STACK)
    items = [item for page in pages for item in page["Items"]]
    plain = [{k: next(iter(v.values())) for k, v in item.items()} for item in items]
    return [item for item in plain if item["pk"].startswith("bill#")]


def test_what_is_printed_has_the_dimensions_that_dashboards_ask_for(books: Books) -> None:
    names = {tuple(name for name, _ in datum.dimensions) for datum in books.data}
    assert names == {BY_POOL, BY_DEPLOYMENT}
    assert {datum.namespace for datum in books.data} == {"PrefectSpot"}
    metrics = {datum.metric for datum in books.data}
    assert {"SpotInterruptions", "SpotReruns", "ReactionSeconds", "TaskCost"} <= metrics
    pools = {dict(datum.dimensions)["WorkPool"] for datum in books.data}
    assert pools == {"fargate-spot-dev"}


def test_an_event_twice_is_no_second_bill(books: Books) -> None:
    [event, *_] = [
        i.event
        for i in books.stage.cloud.lambdas.invocations
        if i.function == METER and books.run.containers()[0].task_arn in json.dumps(i.event)
    ]
    answer = books.stage.cloud.lambdas.invoke(METER, event)
    assert answer.answer["metering"] == "billed before"
    assert not printed_data("\n".join(answer.logs))


def test_the_sweep_bills_a_missed_task_and_shows_the_savings_in_prefect(books: Books) -> None:
    stage = books.stage
    task = stage.cloud.tasks(books.run.id)[-1]
    dynamodb = stage.cloud.aws.client("dynamodb")
    for key in (f"bill#{task}", "reported"):
        dynamodb.delete_item(TableName=STACK, Key={"pk": {"S": key}})
    wait_for("the grace", 15, lambda: age_of(stage, task) > timedelta(seconds=6))
    answer = stage.cloud.lambdas.invoke(SWEEP, {})
    assert answer.answer["billed"] >= 1, answer
    assert bill_of(stage, task)["cost_usd"] == books.bills[-1]["cost_usd"]
    found = stage.cloud.prefect._send("POST", "/artifacts/filter", {})
    tables = [artifact for artifact in found if artifact["key"] == "spot-savings"]
    newest = max(tables, key=lambda artifact: str(artifact["created"]))
    rows = json.loads(newest["data"])
    assert rows[-1]["deployment"] == "all"
    assert rows[-1]["paid USD"] > 0


def age_of(stage: Stage, task: str) -> timedelta:
    ecs = stage.cloud.aws.client("ecs")
    stopped: datetime = ecs.describe_tasks(cluster=STACK, tasks=[task])["tasks"][0]["stoppedAt"]
    return datetime.now(UTC) - stopped
