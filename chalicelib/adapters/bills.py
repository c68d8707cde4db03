"""The bills and daily sums in DynamoDB, beside the run records, in the same table.

A bill is an item of its own, by task ARN, and is written in one transaction with what it adds to
its day's sum, on the condition that it is not there yet: so each task is counted once, however
often it is billed. Reports read the sums by key: never a scan, and no bill.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import ClientError

from chalicelib.adapters.records import MOST_TRIES, Items, packed, read, unpacked, values_of
from chalicelib.core.money.bill import Amounts, Bill, Deployment
from chalicelib.core.money.daily_sums import Counts, DailySum
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

    def __init__(
        self,
        client: "DynamoDBClient",
        name: str,
        *,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._items = Items(client, name, sleep)

    def unbilled(self, task_arns: Sequence[str]) -> tuple[str, ...]:
        """Return those of the tasks that have no bill; a request per hundred."""
        billed = self._items.get_many(map(_bill_key, task_arns))
        return tuple(arn for arn in task_arns if _bill_key(arn) not in billed)

    def write(self, bill: Bill, first: DailySum, later: DailySum) -> bool:
        """Store the bill and add its sum, both or neither; False: the task has a bill already.

        `first` is added where this is the run's first bill, `later` where it is not. Reads, then
        writes on the condition that nothing was added since; reads again where something was.

        Raises:
            ThrottledError: others write to the same sums, for longer than it pays to wait.
        """
        keys = [_bill_key(bill.task_arn), _run_key(bill), _day_key(first.day)]
        for attempt in range(MOST_TRIES):
            stored = self._items.get_many(keys)
            if _bill_key(bill.task_arn) in stored:
                return False
            if self._is_written(self._writes(bill, first, later, stored)):
                return True
            self._items.pause(attempt)
        raise ThrottledError(
            "DynamoDB kept rejecting a bill: other handlers write to the same sums",
            next_step=LAMBDA_RETRIES,
        )

    def _writes(
        self, bill: Bill, first: DailySum, later: DailySum, stored: Mapping[str, Mapping[str, Any]]
    ) -> list[Any]:
        """The transaction; as few writes as possible, for two to one item may conflict."""
        writes = [self._put(_bill_key(bill.task_arn), _values(bill), bill)]
        is_first = bill.flow_run_id is not None and _run_key(bill) not in stored
        if is_first:
            writes.append(self._put(_run_key(bill), {}, bill))
        daily = first if is_first else later
        writes.append(self._addition(daily))
        day = stored.get(_day_key(daily.day), {})
        is_listed = daily.deployment.key in day.get("deployments", ())
        if not is_listed or not daily.rates <= day.get("rates", set()):
            writes.append(self._listing(daily))
        return writes

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
        """Return the sums of these days, by day and deployment.

        A request per hundred days, and one per hundred sums.
        """
        items = self._items.get_many(map(_day_key, days))
        keys = {
            _sum_key(day, deployment): (day, deployment)
            for day in days
            for deployment in items.get(_day_key(day), {}).get("deployments", ())
        }
        sums = [
            _daily_sum(day, deployment, item, items[_day_key(day)].get("rates", ()))
            for key, item in self._items.get_many(keys).items()
            for day, deployment in [keys[key]]
        ]
        return tuple(sorted(sums, key=lambda s: (s.day, s.deployment.title, s.deployment.key)))

    def read_bills(self) -> Iterator[Bill]:
        """Return every bill in the table, in no order. A scan: for a command, not for a Lambda."""
        pages = self._items.client.get_paginator("scan").paginate(
            TableName=self._items.name,
            FilterExpression="begins_with(pk, :bill)",
            ExpressionAttributeValues=packed({":bill": _bill_key("")}),
        )
        for page in pages:
            yield from map(_bill, map(unpacked, page["Items"]))

    def read_reported(self) -> str:
        """Return the day that the savings were last put into Prefect; empty: never."""
        return str(self._items.get(_REPORTED).get("day", ""))

    def save_reported(self, day: str) -> None:
        """Note the day that the savings were put into Prefect."""
        self._items.put(_REPORTED, day=day)

    def _put(self, key: str, values: Mapping[str, object], bill: Bill) -> dict[str, Any]:
        expires = int((bill.ended_at + BILLS_KEPT_FOR).timestamp())
        return {
            "Put": {
                "TableName": self._items.name,
                "Item": packed({"pk": key, **values, "expires_at": expires}),
                "ConditionExpression": "attribute_not_exists(pk)",
            }
        }

    def _addition(self, daily: DailySum) -> dict[str, Any]:
        """Add to the sum; the deployment's name is the one known last."""
        sets: dict[str, object] = {"expires_at": _sum_expires(daily.day)}
        if daily.deployment.name:
            sets["deployment"] = daily.deployment.name
        adds = {name: value for name, value in daily.counts.as_mapping().items() if value}
        key = _sum_key(daily.day, daily.deployment.key)
        return {"Update": self._items.update(key, sets, adds)}

    def _listing(self, daily: DailySum) -> dict[str, Any]:
        """Note on the day whose sums and which rates there are: how a report knows its keys."""
        adds: dict[str, object] = {"deployments": {daily.deployment.key}}
        if daily.rates:
            adds["rates"] = set(daily.rates)
        sets = {"expires_at": _sum_expires(daily.day)}
        return {"Update": self._items.update(_day_key(daily.day), sets, adds)}


def _bill_key(task_arn: str) -> str:
    return f"bill#{task_arn}"


def _run_key(bill: Bill) -> str:
    return f"billed-run#{bill.flow_run_id}"


def _day_key(day: date) -> str:
    return f"day#{day.isoformat()}"


def _sum_key(day: date, deployment: str) -> str:
    return f"sum#{day.isoformat()}#{deployment}"


def _sum_expires(day: date) -> int:
    return int((day - date(1970, 1, 1) + SUMS_KEPT_FOR).total_seconds())


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
        task_arn=item["pk"].removeprefix(_bill_key("")),
        deployment=Deployment(item["deployment_id"], item["deployment"]),
        amounts=read(Amounts, item) if "cost_usd" in item else None,
    )


def _daily_sum(
    day: date, deployment: str, item: Mapping[str, Any], rates: Iterable[str]
) -> DailySum:
    """Read what `_addition` added up; counts of a newer release are ignored."""
    name = item.get("deployment", "")
    return DailySum(day, Deployment(deployment, name), read(Counts, item), frozenset(rates))
