"""Bills and daily sums: one contract for DynamoDB and the twin; both or neither, once, by key."""

import os
import random
from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import date, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from botocore.exceptions import ClientError

from chalicelib.adapters.bills import (
    BILLS_KEPT_FOR,
    MORE_DEPLOYMENTS,
    MOST_DEPLOYMENTS,
    SUMS_KEPT_FOR,
    BillTable,
    _listed_as,
)
from chalicelib.adapters.records import MOST_TRIES, Items
from chalicelib.core.model.ecs_task import Cause
from chalicelib.core.money.bill import (
    NO_FLOW_RUN,
    SAMPLE_OF_DRILLS,
    Bill,
    Deployment,
    RerunOutcome,
)
from chalicelib.core.money.report import Counts, DailySum, report_of, sum_of, total
from chalicelib.errors import ThrottledError
from spotctl.replay.history import join, runs_of
from tests.make import NOW, RUN_ID, TASK_ARN, make_table
from tests.twin.dynamodb import BusyDynamoDB, VirtualTime
from tests.twin.tables import InMemoryBills
from tests.unit.test_bill import ETL, SPOT, UNBORN, bill, stopped

TODAY = date(2026, 11, 23)


@pytest.fixture
def dynamodb(moto_dynamodb: Any) -> Any:
    make_table(moto_dynamodb, "books")
    return moto_dynamodb


@pytest.fixture(params=["DynamoDB", "in memory", "busy"])
def table(request: pytest.FixtureRequest) -> Any:
    if request.param == "in memory":
        return InMemoryBills()
    if request.param == "busy":
        return busy_table([])
    return BillTable(request.getfixturevalue("dynamodb"), "books")


def write(table: Any, made: Bill, outcome: RerunOutcome = RerunOutcome.NONE) -> bool:
    first, later = (sum_of(made, outcome, first_of_its_run=is_first) for is_first in (True, False))
    return bool(table.write(made, first, later))


def another(number: int, **changes: Any) -> Bill:
    return replace(bill(stopped(**changes)), task_arn=f"{TASK_ARN[:-4]}{number:04d}")


def test_a_bill_and_its_sum_are_written_and_found(table: Any) -> None:
    made = bill(stopped(), wasted=600)
    assert write(table, made, RerunOutcome.SPOT_RERUN)
    assert table.unbilled([TASK_ARN, "arn:another"]) == ("arn:another",)
    names = ("runs", "attempts", "interruptions", "spot_reruns", "first_interruptions")
    counted = dict.fromkeys(names, 1)
    times = {"spot_us": 3600 * 10**6, "first_spot_us": 3600 * 10**6, "wasted_us": 600 * 10**6}
    amounts = {"cost_e8": 1571925, "on_demand_e8": 4937000}
    amounts |= {"wasted_e8": 261988, "useful_e8": 4114167}
    assert table.read_sums([TODAY]) == (
        DailySum(
            TODAY,
            ETL,
            Counts(**counted, **times, **amounts),
            frozenset(map(str, made.rates)),
        ),
    )


def test_a_drilled_run_counts_with_its_rerun_and_the_drills_own_flow_counts_nowhere(
    table: Any,
) -> None:
    drilled = bill(stopped(), cause=Cause.DRILL)
    rerun = replace(another(1), cause=Cause.OTHER)
    sample = replace(rerun.deployment, name=SAMPLE_OF_DRILLS)
    of_sample = replace(another(2), cause=Cause.OTHER, flow_run_id=UUID(int=2), deployment=sample)
    for each in (drilled, rerun, of_sample):
        assert write(table, each)
    made = report_of(table.read_sums([TODAY]), TODAY, TODAY)
    assert [(row.deployment, row.counts.runs) for row in made.deployments] == [("etl/nightly", 1)]
    drills = made.drills.counts
    assert (drills.runs, drills.attempts, made.total.counts.attempts) == (0, 2, 1)
    assert [run.flow_run_id for run in join(runs_of(table.read_bills(), TODAY), {})] == [RUN_ID]


def test_bills_are_read_as_they_were_written(table: Any) -> None:
    made = [
        bill(stopped(), wasted=600),
        another(1, capacity_provider=""),
        another(2, pull_started_at=None, started_at=None),
        replace(another(3), flow_run_id=None, deployment=Deployment(NO_FLOW_RUN, work_pool="ml")),
    ]
    for each in made:
        assert write(table, each)
    assert {each.task_arn: each for each in table.read_bills()} == {
        each.task_arn: each for each in made
    }


def test_a_second_bill_of_the_same_task_changes_nothing(table: Any) -> None:
    made = bill(stopped())
    assert write(table, made)
    before = table.read_sums([TODAY])
    assert not write(table, made)
    assert table.read_sums([TODAY]) == before


def test_sums_are_by_day_deployment_and_pool_and_exact(table: Any) -> None:
    others = Deployment("other", "etl/hourly"), replace(ETL, work_pool="ml#2"), ETL
    bills = [another(n, stopped_at=NOW - timedelta(days=n % 3)) for n in range(30)]
    bills = [replace(b, deployment=others[n // 2 % 3]) for n, b in enumerate(bills)]
    for made in bills:
        assert write(table, made)
    days = [TODAY - timedelta(days=n) for n in range(4)]
    sums = table.read_sums(days)
    assert [(s.day, s.deployment) for s in sums] == sorted(
        {(b.ended_at.date(), b.deployment) for b in bills},
        key=lambda x: (x[0], x[1].name, x[1].work_pool),
    )
    paid = sum((b.amounts.cost_usd for b in bills if b.amounts), Decimal(0))
    assert total(sums).amounts.cost_usd == paid
    assert total(sums).runs == 1


def test_every_count_is_added_up_under_a_name_that_dynamodb_takes(table: Any) -> None:
    names = asdict(Counts())
    counts = Counts(**{name: 10 + place for place, name in enumerate(names)})
    for number in (1, 2):
        made = another(number)
        assert table.write(made, *[DailySum(TODAY, ETL, counts)] * 2)
    assert table.read_sums([TODAY])[0].counts == counts + counts


def test_a_rate_that_is_new_on_a_known_day_is_listed_too(table: Any) -> None:
    x86, arm = another(1), another(2, architecture="arm64")
    for made in (x86, arm):
        assert write(table, made)
    assert table.read_sums([TODAY])[0].rates == frozenset(map(str, (*x86.rates, *arm.rates)))


def test_a_deployment_has_the_name_that_was_last_to_be_had(table: Any) -> None:
    titles = []
    for number, name in enumerate(("", *"zyxabcdwv", "")):
        at = NOW + timedelta(seconds=number)
        made = replace(another(number), deployment=Deployment(ETL.key, name), ended_at=at)
        assert write(table, made)
        titles += [daily.deployment.title for daily in table.read_sums([TODAY])]
    assert titles == [f"({ETL.key})", *"zyxabcdwv", "v"]


def test_a_run_is_counted_with_its_first_attempt_and_not_with_a_failed_start(table: Any) -> None:
    numbers = []
    for number, times in enumerate((UNBORN, {}, UNBORN, {})):
        made = bill(stopped(**times), cause=Cause.FAILED_START if times else Cause.OTHER)
        assert write(table, replace(made, task_arn=f"prefect-spot:{number}"))
        [counts] = [daily.counts for daily in table.read_sums([TODAY])]
        numbers.append((counts.failed_starts, counts.runs, counts.attempts))
    assert numbers == [(1, 0, 0), (1, 1, 1), (2, 1, 1), (2, 1, 2)]
    assert [made.started for made in table.read_bills()].count(False) == 2


def test_many_tasks_are_looked_up_a_hundred_at_a_time(table: Any) -> None:
    assert write(table, another(5))
    arns = [another(n).task_arn for n in range(250)]
    assert set(arns) - set(table.unbilled(arns)) == {another(5).task_arn}


def test_the_day_of_the_last_report_is_kept(table: Any) -> None:
    assert table.read_reported() == ""
    table.save_reported("2026-11-23")
    assert table.read_reported() == "2026-11-23"


# What only DynamoDB has.


def item(dynamodb: Any, key: str) -> dict[str, Any]:
    stored: dict[str, Any] = dynamodb.get_item(TableName="books", Key={"pk": {"S": key}})["Item"]
    return stored


def test_all_bills_are_read_however_many_pages_it_takes(dynamodb: Any) -> None:
    table = BillTable(dynamodb, "books")
    long_name = Deployment(ETL.key, "x" * 40_000)  # DynamoDB returns a megabyte at a time
    for number in range(30):
        assert write(table, replace(another(number), deployment=long_name))
    assert len(list(table.read_bills())) == 30


def test_a_bill_of_an_older_release_lacks_its_beginning_and_its_end(dynamodb: Any) -> None:
    table, made = BillTable(dynamodb, "books"), bill(stopped())
    assert (made.availability_zone, made.ended_by) == (
        "us-east-1b", "SpotInterruption, Your Spot Task was interrupted.",
    )  # fmt: skip
    write(table, made)
    key = {"pk": {"S": f"bill#{TASK_ARN}"}}
    removed = "REMOVE began_at, availability_zone, ended_by"
    dynamodb.update_item(TableName="books", Key=key, UpdateExpression=removed)
    older = replace(made, began_at=None, availability_zone="", ended_by="")
    assert list(table.read_bills()) == list(table.read_bills(made.flow_run_id)) == [older]
    assert list(table.read_bills(UUID(int=1))) == []


def test_everything_is_stored_to_expire_but_not_before_it_is_of_no_use(dynamodb: Any) -> None:
    assert write(BillTable(dynamodb, "books"), bill(stopped()))
    sums_until, bills_until = NOW.replace(hour=0) + SUMS_KEPT_FOR, NOW + BILLS_KEPT_FOR
    stored = item(dynamodb, f"bill#{TASK_ARN}")
    assert stored["cost_usd"] == {"S": "0.01571925"}, "an exact amount"
    assert str(SPOT) in [line["S"] for line in stored["rates"]["L"]]
    kinds = {"bill": bills_until, "billed-run": bills_until, "sum": sums_until, "day": sums_until}
    items = dynamodb.scan(TableName="books")["Items"]
    assert {i["pk"]["S"].split("#")[0]: i["expires_at"]["N"] for i in items} == {
        kind: str(int(until.timestamp())) for kind, until in kinds.items()
    }


def test_a_report_reads_by_key_and_never_scans(dynamodb: Any) -> None:
    table = BillTable(dynamodb, "books")
    assert write(table, bill(stopped()))
    calls = calls_to(dynamodb)
    table.read_sums([TODAY - timedelta(days=n) for n in range(30)])
    assert [name for name, _ in calls] == ["BatchGetItem", "BatchGetItem"]


def calls_to(dynamodb: Any) -> list[tuple[str, str]]:
    """Names and bodies, as they are sent from now on."""
    calls: list[tuple[str, str]] = []
    dynamodb.meta.events.register(
        "before-call.dynamodb.*",
        lambda model, params, **_: calls.append((model.name, params["body"].decode())),
    )
    return calls


def test_a_bill_reads_three_items_however_many_sums_its_day_has(dynamodb: Any) -> None:
    table, others = BillTable(dynamodb, "books"), replace(ETL, key="others")
    for number in range(40):  # so all items of both deployments are there
        assert write(table, replace(another(number), deployment=others if number % 2 else ETL))
    calls = calls_to(dynamodb)
    assert write(table, another(40))
    assert [name for name, _ in calls] == ["BatchGetItem", "TransactWriteItems"]
    assert calls[0][1].count('"pk"') == 3


def test_a_sum_of_an_earlier_release_is_added_to_that_of_its_day(dynamodb: Any) -> None:
    put, gone = Items(dynamodb, "books", lambda _: None).put, Deployment("another-deployment")
    old = Counts(runs=1, attempts=7, cost_e8=123)
    put(f"sum#{TODAY}#{ETL.key}", deployment="etl/by-its-old-name", **asdict(old))
    put(f"sum#{TODAY}#{gone.key}", **asdict(old))
    put(f"day#{TODAY}", deployments={ETL.key, gone.key}, rates={"an|older|rate"})
    table, made = BillTable(dynamodb, "books"), bill(stopped(), wasted=600)
    of_pool = replace(another(1), deployment=replace(ETL, work_pool="ml"))
    assert write(table, made)
    assert write(table, of_pool)
    added = sum_of(made, RerunOutcome.NONE, first_of_its_run=True)
    later = sum_of(of_pool, RerunOutcome.NONE, first_of_its_run=False)
    rates = frozenset({"an|older|rate"})  # of all deployments, noted by the day
    sums = table.read_sums([TODAY])
    assert sums == (
        DailySum(TODAY, gone, old, rates),
        DailySum(TODAY, ETL, old + added.counts, added.rates | rates),
        replace(later, rates=added.rates | rates),
    )
    unrated = [replace(each, rates=frozenset()) for each in sums]
    by_pool = report_of(unrated, TODAY, TODAY, ("first", "ml")).work_pools
    assert [(row.work_pool, row.counts.attempts) for row in by_pool] == [("first", 15), ("ml", 1)]


def test_tags_that_name_ever_other_deployments_do_not_outgrow_their_day() -> None:
    """DynamoDB takes 400 KB, some 10,000 of them; `ecs:RunTask` is enough to name one."""
    table = busy_table([])
    named = {f"{UUID(int=number)}" for number in range(MOST_DEPLOYMENTS)}
    table._items.put(f"day#{TODAY}", spread={f"{key}#4" for key in named})
    for number, key in enumerate([f"{UUID(int=2**99)}", min(named), ETL.key]):
        assert write(table, replace(another(number), deployment=Deployment(key)))
    longest = _listed_as(Deployment(min(named), work_pool="p" * 9_999)) + f"#{4 << MOST_TRIES}"
    assert len(longest) * MOST_DEPLOYMENTS * MOST_TRIES < 400 * 1024
    counted = {each.deployment.key: each.counts.attempts for each in table.read_sums([TODAY])}
    assert counted == {min(named): 1, MORE_DEPLOYMENTS: 2}


class Late:
    """DynamoDB as it was, at the first look."""

    def __init__(self, dynamodb: Any) -> None:
        self._dynamodb, self._looks = dynamodb, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._dynamodb, name)

    def batch_get_item(self, **request: Any) -> Any:
        self._looks += 1
        return self._dynamodb.batch_get_item(**request) if self._looks > 1 else {"Responses": {}}


def test_a_task_or_run_that_another_billed_meanwhile_is_not_counted_twice(dynamodb: Any) -> None:
    table = BillTable(dynamodb, "books")
    assert write(table, another(1))
    for made, is_billed in ((another(1), False), (another(2), True)):
        late: Any = Late(dynamodb)
        assert write(BillTable(late, "books", sleep=lambda _: None), made) is is_billed
    counts = total(table.read_sums([TODAY]))
    assert (counts.runs, counts.attempts) == (1, 2)


def busy_table(cancels: list[str], sleep: Callable[[float], None] = lambda _: None) -> BillTable:
    busy: Any = BusyDynamoDB(VirtualTime(), cancels=cancels)
    return BillTable(busy, "books", sleep=sleep)


def test_conflicts_with_others_are_waited_out() -> None:
    slept: list[float] = []
    passing = ["TransactionConflict", "TransactionInProgressException", "ThrottlingError"]
    assert write(busy_table(passing, slept.append), bill(stopped()))
    assert len(slept) == 3
    assert slept == sorted(slept)


@pytest.mark.parametrize(
    ("code", "error", "said"),
    [
        ("TransactionConflict", ThrottledError, "other handlers write to the same sums"),
        ("ValidationError", ClientError, "TransactionCanceledException"),
    ],
)
def test_but_not_for_ever_and_nothing_else_is_waited_out(
    code: str, error: type[Exception], said: str
) -> None:
    table = busy_table([code] * MOST_TRIES)
    with pytest.raises(error, match=said):
        write(table, bill(stopped()))
    assert table.unbilled([TASK_ARN]) == (TASK_ARN,)


# Ten thousand stops of one deployment.

STOPS = int(os.environ.get("STORM") or 1_000)
AT_ONCE = 1_000
"""Handlers of one Lambda at a time, unless the account's quota was raised."""


def in_one_item(key: str) -> str:
    """The item that earlier releases would have written a key's values to."""
    return "#".join(key.split("#")[:3]) if key.startswith("sum#") else key


@pytest.mark.parametrize(
    ("item_of", "lost"),
    [(str, range(1)), (in_one_item, range(STOPS // 2, STOPS))],
    ids=["spread over items", "all in one item"],
)
def test_no_bill_of_a_storm_is_lost_where_the_sum_is_spread(item_of: Any, lost: range) -> None:
    random.seed(20261123)
    time = VirtualTime()
    dynamodb: Any = BusyDynamoDB(time, item_of=item_of)
    table, failed = BillTable(dynamodb, "books", sleep=time.sleep), []
    made = replace(bill(stopped()), wasted_seconds=Decimal(60))
    stops = [
        replace(made, task_arn=f"{TASK_ARN}{n}", flow_run_id=UUID(int=n)) for n in range(STOPS)
    ]

    def stop(each: Bill) -> None:
        try:
            assert write(table, each)
        except ThrottledError:
            failed.append(each)

    time.run(stop, stops, at_once=AT_ONCE)
    assert dynamodb.refused > STOPS // 10, "it was no storm"
    assert len(failed) in lost
    first = sum_of(made, RerunOutcome.NONE, first_of_its_run=True)
    billed = sum([first.counts] * (STOPS - len(failed)), Counts())
    assert table.read_sums([TODAY]) == (replace(first, counts=billed),)
