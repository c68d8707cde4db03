"""The bills and daily sums in DynamoDB, beside the run records, in the same table.

A bill is an item of its own, by task ARN, and is written in one transaction with what it adds to
its day's sum, on the condition that it is not there yet: so each task is counted once, however
often it is billed. Reports read the sums by key: never a scan, and no bill.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any, Final

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
from chalicelib.core.money.bill import Amounts, Bill, Deployment
from chalicelib.core.money.report import Counts, DailySum
from chalicelib.errors import LAMBDA_RETRIES, ThrottledError

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

BILLS_KEPT_FOR: Final = timedelta(days=90)
"""Longer than any event of a task can be late, or be redriven."""
SUMS_KEPT_FOR: Final = timedelta(days=400)
"""A year's report, and a month to make it in."""
_REPORTED: Final = "reported"
_OTHERS_WRITE: Final = {
    "ConditionalCheckFailed",
    "TransactionConflict",
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

        Reads, then writes on the condition that nothing was added since; reads again where
        something was. Raises ThrottledError.
        """
        bill_key, run_key = key("bill", bill.task_arn), key("billed-run", bill.flow_run_id)
        day_key = key("day", first.day)
        for attempt in range(MOST_TRIES):
            stored = self._items.get_many([bill_key, run_key, day_key])
            if bill_key in stored:
                return False
            writes = [self._put(bill_key, _values(bill), bill)]
            is_first = bill.flow_run_id is not None and run_key not in stored
            if is_first:
                writes.append(self._put(run_key, {}, bill))
            writes += self._additions(first if is_first else later, stored.get(day_key, {}))
            if self._is_written(writes):
                return True
            self._items.pause(attempt)
        what = "DynamoDB kept rejecting a bill: other handlers write to the same sums"
        raise ThrottledError(what, next_step=LAMBDA_RETRIES)

    def _is_written(self, writes: list[Any]) -> bool:
        """Whether the transaction took place; False where others were faster or are at it."""
        try:
            self._items.client.transact_write_items(TransactItems=writes)
        except ClientError as error:
            response: Mapping[str, Any] = error.response
            reasons = {reason.get("Code") for reason in response.get("CancellationReasons", ())}
            if not _OTHERS_WRITE & {response["Error"]["Code"], *reasons}:
                raise
            return False
        return True

    def read_sums(self, days: Sequence[date]) -> tuple[DailySum, ...]:
        """Return the sums of these days: a request per hundred days, and one per hundred sums."""
        items = self._items.get_many(key("day", day) for day in days)
        keys = {
            key("sum", day, deployment): (day, deployment)
            for day in days
            for deployment in items.get(key("day", day), {}).get("deployments", ())
        }
        sums = [
            # Counts of a newer release are ignored.
            DailySum(
                day,
                Deployment(deployment, item.get("deployment", "")),
                read(Counts, item),
                frozenset(items[key("day", day)].get("rates", ())),
            )
            for sum_key, item in self._items.get_many(keys).items()
            for day, deployment in [keys[sum_key]]
        ]
        return tuple(sorted(sums, key=lambda s: (s.day, s.deployment.title, s.deployment.key)))

    def read_bills(self) -> Iterator[Bill]:
        """Return every bill in the table, in no order. A scan: for a command, not for a Lambda."""
        pages = self._items.client.get_paginator("scan").paginate(
            TableName=self._items.name,
            FilterExpression="begins_with(pk, :bill)",
            ExpressionAttributeValues=packed({":bill": key("bill", "")}),
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

    def _additions(self, daily: DailySum, day: Mapping[str, Any]) -> list[Any]:
        """Add to the sum; note on its day the sums and rates there are: how a report finds them.

        As few writes as possible, for two to one item may conflict. The deployment's name is the
        one known last.
        """
        deployment = daily.deployment
        sets: dict[str, object] = {
            "expires_at": int((daily.day - date(1970, 1, 1) + SUMS_KEPT_FOR).total_seconds())
        }
        named = {**sets, "deployment": deployment.name} if deployment.name else sets
        counts = {name: count for name, count in daily.counts.as_mapping().items() if count}
        sum_key, day_key = key("sum", daily.day, deployment.key), key("day", daily.day)
        updates = [self._items.update(sum_key, named, counts)]
        is_listed = deployment.key in day.get("deployments", ())
        if not is_listed or not daily.rates <= day.get("rates", set()):
            rates = {"rates": set(daily.rates)} if daily.rates else {}
            listing = {"deployments": {deployment.key}, **rates}
            updates.append(self._items.update(day_key, sets, listing))
        return [{"Update": update} for update in updates]


def _values(bill: Bill) -> dict[str, object]:
    """The bill's attributes, None as empty text; its amounts are among them."""
    missing = dict.fromkeys(("flow_run_id", "began_at", "seconds"), "")
    amounts = values_of(bill.amounts) if bill.amounts else {}
    values = {**missing, **values_of(bill), **amounts, "deployment_id": bill.deployment.key}
    values["deployment"] = bill.deployment.name
    return {name: values[name] for name in values.keys() - {"task_arn", "amounts"}}


def _bill(item: Mapping[str, Any]) -> Bill:
    """Read what `_values` wrote; what an older release did not write is None."""
    return read(
        Bill,
        item,
        task_arn=item["pk"].removeprefix(key("bill", "")),
        deployment=Deployment(item["deployment_id"], item["deployment"]),
        amounts=read(Amounts, item) if "cost_usd" in item else None,
    )
