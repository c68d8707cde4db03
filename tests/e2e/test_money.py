"""What the deployed zip bills, sums and prints, held against ECS's times and the price table."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any

import infra
from localcloud.bootstrap import STACK
from localcloud.cloud import SWEEP, wait_for
from spotctl.report import read_report
from tests.e2e.scenario import API_SECONDS, ATTEMPT_SECONDS, Run, Stage
from tests.e2e.stories import story
from tests.unit.emf import Datum, printed_data, total_of

SIZE = {"cpu": 256, "memory": 512}
"""CPU units and MiB of the run's tasks: a quarter of a vCPU, half a GiB."""
BY_POOL = ("Stage", "WorkPool")
BY_DEPLOYMENT = (*BY_POOL, "Deployment")
SMALLEST = Decimal("0.00000001")


@dataclass(frozen=True)
class Books:
    """A run that Spot interrupted twice, with the bills of its tasks."""

    stage: Stage
    run: Run
    bills: list[dict[str, Any]]


@story
def books(stage: Stage) -> Books:
    """Interrupted in its second step, and then in its third; what was done before is stored."""
    run = stage.start("steps", job_variables=SIZE, count=3, interruptions=2)
    run.wait_for_note("stored 0")
    wait_for_task_runs(run, completed=1, begun=2)
    run.interrupt()
    run.wait_for_note("stored 1")
    wait_for_task_runs(run, completed=1 + 2, begun=2 + 3)  # a step that was done is cached now
    run.interrupt()
    run.completes(starts=3)
    tasks = stage.cloud.tasks(run.id)
    if not bills_of(stage).keys() >= set(tasks):
        stage.sweep()  # a task that stopped before its interruption was answered is left to it
    run.wait_until_handled()
    bills = bills_of(stage)
    return Books(stage, run, [bills[task] for task in tasks])


def wait_for_task_runs(run: Run, *, completed: int, begun: int) -> None:
    """Wait until Prefect knows of as many, those of earlier attempts included."""

    def are_known() -> bool:
        known = [task_run["state_type"] for task_run in run.cloud.prefect.task_runs(run.id)]
        return known.count("COMPLETED") >= completed and len(known) >= begun

    wait_for("the task runs in Prefect", ATTEMPT_SECONDS, are_known, API_SECONDS)


def bills_of(stage: Stage) -> dict[str, dict[str, Any]]:
    """All bills in the table, by task ARN. The product never scans; a test may."""
    pages = stage.cloud.aws.client("dynamodb").get_paginator("scan").paginate(TableName=STACK)
    items = [item for page in pages for item in page["Items"]]
    plain = [{k: next(iter(v.values())) for k, v in item.items()} for item in items]
    return {i["pk"].removeprefix("bill#"): i for i in plain if i["pk"].startswith("bill#")}


def printed_by_the_stage(stage: Stage) -> list[Datum]:
    """What the deployed functions printed; those of `test_zip.py` have a pool of their own."""
    deployed = [i for i in stage.cloud.lambdas.invocations if i.function.startswith(STACK)]
    return printed_data("\n".join(line for i in deployed for line in i.logs))


def charged(stage: Stage, task: str) -> Decimal:
    """Seconds from the image pull to the end, as ECS says, and a minute at least."""
    ecs = stage.cloud.aws.client("ecs")
    [task_of_ecs] = ecs.describe_tasks(cluster=STACK, tasks=[task])["tasks"]
    seconds = (task_of_ecs["stoppedAt"] - task_of_ecs["pullStartedAt"]).total_seconds()
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


def test_row_lazarus_an_interrupted_run_resumes_on_spot(books: Books) -> None:
    run = books.run
    assert run.capacities() == ["FARGATE_SPOT"] * 3
    done = [line for line in run.notes() if line.startswith("step")]
    assert done == ["step 0", "step 1", "step 2"], "a persisted step was done again"
    assert not run.verdict(budget=3).findings


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
    assert 0 < first < Decimal(books.bills[0]["seconds"])
    assert 0 < second < Decimal(books.bills[1]["seconds"])
    assert last == 0
    for bill in books.bills[:2]:
        wasted = Decimal(bill["wasted_seconds"])
        assert Decimal(bill["wasted_usd"]) == price(wasted, "FARGATE_SPOT")


def test_bills_sums_report_and_metrics_agree_to_the_last_digit(books: Books) -> None:
    today = datetime.now(UTC).date()
    report = read_report(books.stage.cloud.aws.client("dynamodb"), STACK, "2d", today)
    deployment_id = books.stage.deployments["steps"]
    ours = [b for b in bills_of(books.stage).values() if b["deployment_id"] == deployment_id]
    assert {bill["pk"] for bill in books.bills} <= {bill["pk"] for bill in ours}
    name = ours[0]["deployment"]
    [row] = [row for row in report.deployments if row.deployment == name]
    data = [d for d in printed_by_the_stage(books.stage) if ("Deployment", name) in d.dimensions]
    for metric, column, figure in (
        ("TaskCost", "cost_usd", row.counts.amounts.cost_usd),
        ("OnDemandEquivalentCost", "on_demand_usd", row.counts.amounts.on_demand_usd),
        ("WastedCost", "wasted_usd", row.counts.amounts.wasted_usd),
    ):
        billed = sum((Decimal(bill[column]) for bill in ours), Decimal(0))
        assert billed == figure, column
        printed = total_of(data, metric, *BY_DEPLOYMENT)
        assert abs(Decimal(printed) - billed) < SMALLEST * len(ours), metric
    net = total_of(data, "NetSavings", *BY_DEPLOYMENT)
    assert abs(Decimal(net) - row.counts.amounts.net_savings_usd) < SMALLEST * len(ours)
    assert row.counts.spot_reruns >= 2
    assert all(rate.source and rate.date for rate in report.rates)


def test_what_is_printed_has_the_dimensions_that_dashboards_ask_for(books: Books) -> None:
    data = printed_by_the_stage(books.stage)
    names = {tuple(name for name, _ in datum.dimensions) for datum in data}
    assert names == {BY_POOL, BY_DEPLOYMENT}
    assert {datum.namespace for datum in data} == {"PrefectSpot"}
    metrics = {datum.metric for datum in data}
    assert {"SpotInterruptions", "SpotReruns", "ReactionSeconds", "TaskCost"} <= metrics
    pools = {dict(datum.dimensions)["WorkPool"] for datum in data}
    assert pools == {"fargate-spot-dev"}


def test_the_sweep_shows_the_savings_in_prefect(books: Books, everything_is_over: None) -> None:
    cloud = books.stage.cloud
    # As on the next day: today's table may have been written by a story's sweep.
    cloud.aws.client("dynamodb").delete_item(TableName=STACK, Key={"pk": {"S": "reported"}})
    answer = cloud.lambdas.invoke(SWEEP, {})
    assert answer.status == "ok", answer.error
    found = cloud.prefect.send("POST", "/artifacts/filter", {})
    tables = [artifact for artifact in found if artifact["key"] == "spot-savings"]
    newest = max(tables, key=lambda artifact: str(artifact["created"]))
    rows = json.loads(newest["data"])
    assert rows[-1]["deployment"] == "all"
    assert rows[-1]["paid USD"] > 0
