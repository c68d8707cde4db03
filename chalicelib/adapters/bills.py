"""The bills and daily sums in DynamoDB, beside the run records, in the same table.

A bill is an item of its own, by task ARN, and is written in one transaction with what it adds to
its day's sum, on the condition that it is not there yet: so each task is counted once, however
often it is billed. Reports read the sums by key: never a scan, and no bill.

DynamoDB lets one transaction at a time have an item, so a day's sum is spread over several, by a
hash of the task's ARN, and added up when it is read. Its price is more items to read: see
`FEWEST_ITEMS`.
"""

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import date, timedelta
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from botocore.exceptions import ClientError

from chalicelib.adapters.records import (
    MOST_TRIES,
    Items,
    Sleep,
    key,
    packed,
    read,
    unpacked,
    values_of,
)
from chalicelib.core.model.text import kept
from chalicelib.core.money.bill import Amounts, Bill, Deployment
from chalicelib.core.money.report import Counts, DailySum, by_day_and_name
from chalicelib.errors import LAMBDA_RETRIES, ThrottledError

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

BILLS_KEPT_FOR: Final = timedelta(days=90)
"""Longer than any event of a task can be late, or be redriven."""
SUMS_KEPT_FOR: Final = timedelta(days=400)
"""A year's report, and a month to make it in."""
FEWEST_ITEMS: Final = 4
"""Over so many items a deployment's day is spread, and over twice as many new ones at each try.

A transaction has its items for 10 to 50 ms, and Lambda runs a thousand handlers at once. Simulated
with 50 ms (tests/unit/test_bills_table.py does with 20): of ten thousand stops of one deployment
the eight tries of `write` lose 9,400 in one item, 450 in 128 items, and at most 2 in 4 items that
become 512; Lambda repeats those. Where stops do not collide, a report reads 4 items per deployment
and day: 400 days of 20 deployments take 320 requests, the savings table's 30 days 24. With 128
items for all they would take 10,240 and 768.
"""
MOST_DEPLOYMENTS: Final = 1_000
"""Of one day, or its list would outgrow DynamoDB's 400 KB, and reports read for minutes: a tag of a
task names its deployment, and anyone who may run tasks can set it."""
MORE_DEPLOYMENTS: Final = "more-deployments"
"""Stands for all others in the day's sums; a bill has its own."""
_REPORTED: Final = "reported"
_OTHERS_WRITE: Final = {
    "ConditionalCheckFailed",
    "TransactionConflict",
    "TransactionConflictException",
    "ThrottlingError",
    "TransactionInProgressException",
}


class BillTable:
    """`core.ports.Bills` in the table `name`. All times and days are UTC."""

    def __init__(self, client: "DynamoDBClient", name: str, *, sleep: Sleep = time.sleep) -> None:
        self._items = Items(client, name, sleep)

    def unbilled(self, task_arns: Sequence[str]) -> tuple[str, ...]:
        """Return those of the tasks that have no bill; a request per hundred."""
        billed = self._items.get_many(key("bill", arn) for arn in task_arns)
        return tuple(arn for arn in task_arns if key("bill", arn) not in billed)

    def write(self, bill: Bill, first: DailySum, later: DailySum) -> bool:
        """Store the bill and add its sum, both or neither; False: the task has a bill already.

        Reads, then writes on the condition that nothing was added since; where it was, or where
        another handler has the sum's item, tries again with another item. Raises ThrottledError.
        """
        bill_key, run_key = key("bill", bill.task_arn), key("billed-run", bill.flow_run_id)
        for attempt in range(MOST_TRIES):
            if attempt:
                self._items.pause(attempt - 1)
            sum_key, spread = _item_of(first, bill.task_arn, attempt)
            stored = self._items.get_many([bill_key, run_key, sum_key])
            if bill_key in stored:
                return False
            if sum_key not in stored and self._is_full(first):
                rest = Deployment(MORE_DEPLOYMENTS, work_pool=first.deployment.work_pool)
                first, later = replace(first, deployment=rest), replace(later, deployment=rest)
                continue
            writes = [self._put(bill_key, _values(bill), bill)]
            is_first = bill.counts_its_run and run_key not in stored
            if is_first:
                writes.append(self._put(run_key, {}, bill))
            writes.append(self._addition(sum_key, first if is_first else later, bill))
            if self._is_written(writes, None if sum_key in stored else (first.day, spread)):
                return True
        what = "DynamoDB kept rejecting a bill: other handlers write to the same sums"
        raise ThrottledError(what, next_step=LAMBDA_RETRIES)

    def _is_written(self, writes: list[Any], unlisted: tuple[date, str] | None) -> bool:
        """Whether the transaction took place; False where others were faster or are at it."""
        try:
            if unlisted:
                self._list(*unlisted)
            self._items.client.transact_write_items(TransactItems=writes)
        except ClientError as error:
            response: Mapping[str, Any] = error.response
            reasons = {reason.get("Code") for reason in response.get("CancellationReasons", ())}
            if not _OTHERS_WRITE & {response["Error"]["Code"], *reasons}:
                raise
            return False
        return True

    def _is_full(self, daily: DailySum) -> bool:
        """Whether its day has sums of so many other deployments that this one gets none."""
        spread = self._items.get(key("day", daily.day)).get("spread", ())
        listed, of = {each.rpartition("#")[0] for each in spread}, daily.deployment
        is_new = of.key != MORE_DEPLOYMENTS and _listed_as(of) not in listed
        return is_new and len(listed) >= MOST_DEPLOYMENTS

    def _list(self, day: date, spread: str) -> None:
        """Note on its day how a sum is spread: how a report finds its items.

        Before the transaction, and apart from it: writes of one item each wait for one another,
        where transactions are refused. A report may find an item listed that is not there yet.
        """
        day_key = key("day", day)
        if spread not in self._items.get(day_key).get("spread", ()):
            update = self._items.update(day_key, _expiry(day), {"spread": {spread}})
            self._items.client.update_item(**update)

    def read_sums(self, days: Sequence[date]) -> tuple[DailySum, ...]:
        """Return the sums of these days: a request per hundred days, and per hundred sums' items.

        Counts of a newer release are ignored.
        """
        found = self._items.get_many(key("day", day) for day in days)
        listed = {day: found[key("day", day)] for day in days if key("day", day) in found}
        keys = {
            sum_key: (day, deployment)
            for day in listed
            for sum_key, deployment in _items_of(day, listed[day])
        }
        items = defaultdict[tuple[date, str, str], list[Any]](list)
        for sum_key, item in self._items.get_many(keys).items():
            items[*keys[sum_key], str(item.get("work_pool", ""))].append(item)
        sums = [
            DailySum(
                day,
                Deployment(deployment, _newest_name(parts), pool),
                sum((read(Counts, part) for part in parts), Counts()),
                frozenset().union(*(part.get("rates", ()) for part in (*parts, listed[day]))),
            )
            for (day, deployment, pool), parts in items.items()
        ]
        return tuple(sorted(sums, key=by_day_and_name))

    def read_bills(self, flow_run_id: UUID | None = None) -> Iterator[Bill]:
        """Return every bill in the table, or those of a run, in no order.

        A scan: for a command, not for a Lambda.
        """
        values, condition = {":bill": key("bill", "")}, "begins_with(pk, :bill)"
        if flow_run_id is not None:
            values[":run"], condition = str(flow_run_id), f"{condition} AND flow_run_id = :run"
        pages = self._items.client.get_paginator("scan").paginate(
            TableName=self._items.name,
            FilterExpression=condition,
            ExpressionAttributeValues=packed(values),
        )
        for page in pages:
            yield from map(_bill, map(unpacked, page["Items"]))

    def read_reported(self) -> str:
        """Return the day that the savings were last put into Prefect; empty: never."""
        return str(self._items.get(_REPORTED).get("day", ""))

    def save_reported(self, day: str) -> None:
        """Note the day that the savings were put into Prefect."""
        self._items.put(_REPORTED, day=day)

    def _put(self, pk: str, values: Mapping[str, object], bill: Bill) -> dict[str, Any]:
        expires = int((bill.ended_at + BILLS_KEPT_FOR).timestamp())
        return {
            "Put": {
                "TableName": self._items.name,
                "Item": packed({"pk": pk, **values, "expires_at": expires}),
                "ConditionExpression": "attribute_not_exists(pk)",
            }
        }

    def _addition(self, sum_key: str, daily: DailySum, bill: Bill) -> dict[str, Any]:
        """Add to the sum. The deployment's name is the one known last."""
        name, pool = daily.deployment.name, daily.deployment.work_pool
        named = {"deployment": name, "named_at": bill.ended_at.isoformat()} if name else {}
        named |= {"work_pool": pool} if pool else {}
        counts = {name: count for name, count in asdict(daily.counts).items() if count}
        rates = {"rates": set(daily.rates)} if daily.rates else {}
        return {
            "Update": self._items.update(sum_key, {**_expiry(daily.day), **named}, counts | rates)
        }


def _expiry(day: date) -> dict[str, object]:
    return {"expires_at": int((day - date(1970, 1, 1) + SUMS_KEPT_FOR).total_seconds())}


def _item_of(daily: DailySum, task_arn: str, attempt: int) -> tuple[str, str]:
    """The item that a task adds to, and how its day lists it, with the number of its items.

    Each try goes to items of its own, so that a loser does not meet who comes first.
    """
    number = FEWEST_ITEMS << attempt
    place = int.from_bytes(blake2b(task_arn.encode(), digest_size=8).digest()) % number
    spread = f"{_listed_as(daily.deployment)}#{number}"
    return key("sum", daily.day, spread, place), spread


def _listed_as(deployment: Deployment) -> str:
    """How a day lists a deployment: by a hash of its work pool, since a pool's name may be long."""
    pool = blake2b(deployment.work_pool.encode(), digest_size=3).hexdigest()
    return f"{pool}#{deployment.key}" if deployment.work_pool else deployment.key


def _items_of(day: date, listed: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The keys of the day's sums, each with its deployment. Earlier releases had one item each."""
    for deployment in listed.get("deployments", ()):
        yield key("sum", day, deployment), deployment
    for spread in listed.get("spread", ()):
        deployment, _, number = spread.rpartition("#")
        for place in range(int(number)):
            yield key("sum", day, spread, place), deployment.rpartition("#")[2]


def _newest_name(parts: Sequence[Mapping[str, Any]]) -> str:
    name = max((part.get("named_at", ""), part.get("deployment", "")) for part in parts)[1]
    return kept(str(name))  # an earlier release stored it whole


def _values(bill: Bill) -> dict[str, object]:
    """The bill's attributes, None as empty text; its amounts are among them."""
    missing = dict.fromkeys(("flow_run_id", "began_at", "seconds"), "")
    amounts = values_of(bill.amounts) if bill.amounts else {}
    values = {**missing, **values_of(bill), **amounts, "deployment_id": bill.deployment.key}
    values |= {"deployment": bill.deployment.name, "work_pool": bill.deployment.work_pool}
    return {name: values[name] for name in values.keys() - {"task_arn", "amounts"}}


def _bill(item: Mapping[str, Any]) -> Bill:
    """Read what `_values` wrote; what an older release did not write is None."""
    return read(
        Bill,
        item,
        task_arn=item["pk"].removeprefix(key("bill", "")),
        deployment=Deployment(item["deployment_id"], item["deployment"], item.get("work_pool", "")),
        amounts=read(Amounts, item) if "cost_usd" in item else None,
    )
