"""The bills and daily sums in DynamoDB, beside the run records, in the same table.

A bill is an item of its own, by task ARN, and is written in one transaction with what it adds to
its day's sum, on the condition that it is not there yet: so each task is counted once, however
often it is billed. Reports read the sums by key: never a scan, and no bill.
"""

import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from boto3.dynamodb.types import TypeDeserializer, TypeSerializer
from botocore.exceptions import ClientError

from chalicelib.core.model.ecs_task import Cause
from chalicelib.core.model.pricing import read_rate
from chalicelib.core.money.bill import Amounts, Bill, Deployment
from chalicelib.core.money.report import Counts, DailySum
from chalicelib.errors import LAMBDA_RETRIES, RETRY_LATER, ThrottledError

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

BILLS_KEPT_FOR: Final = timedelta(days=90)
"""Longer than any event of a task can be late, or be redriven."""

SUMS_KEPT_FOR: Final = timedelta(days=400)
"""A year's report, and a month to make it in."""

MOST_KEYS: Final = 100
"""What DynamoDB returns per request."""

MOST_TRIES: Final = 8
FIRST_PAUSE_SECONDS: Final = 0.05
LONGEST_PAUSE_SECONDS: Final = 1.0

_pack: Final = TypeSerializer().serialize
_unpack: Final = TypeDeserializer().deserialize
_REPORTED: Final = "reported"
_OTHERS_WRITE: Final = {"ConditionalCheckFailed", "TransactionConflict", "ThrottlingError"}


class BillTable:
    """Bills and sums in the table `name`. All times and days are UTC."""

    def __init__(
        self,
        client: "DynamoDBClient",
        name: str,
        *,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._client = client
        self._name = name
        self._sleep = sleep

    def unbilled(self, task_arns: Sequence[str]) -> tuple[str, ...]:
        """Return those of the tasks that have no bill; a request per hundred."""
        billed = self._read([_bill_key(arn) for arn in task_arns])
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
            stored = self._read(keys)
            if _bill_key(bill.task_arn) in stored:
                return False
            if self._is_written(self._writes(bill, first, later, stored)):
                return True
            self._pause(attempt)
        raise ThrottledError(
            "DynamoDB kept rejecting a bill: other handlers write to the same sums",
            next_step=LAMBDA_RETRIES,
        )

    def _writes(
        self, bill: Bill, first: DailySum, later: DailySum, stored: Mapping[str, Mapping[str, Any]]
    ) -> list[Any]:
        """The transaction; as few writes as possible, for two to one item may conflict."""
        writes = [self._put(_bill_key(bill.task_arn), _item(bill), bill)]
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
            self._client.transact_write_items(TransactItems=writes)
        except self._client.exceptions.TransactionCanceledException as error:
            reasons = {reason.get("Code") for reason in error.response["CancellationReasons"]}
            if not reasons & _OTHERS_WRITE:
                raise
            return False
        except ClientError as error:
            if error.response["Error"]["Code"] != "TransactionInProgressException":
                raise
            return False
        return True

    def read_sums(self, days: Sequence[date]) -> tuple[DailySum, ...]:
        """Return the sums of these days, by day and deployment.

        A request per hundred days, and one per hundred sums.
        """
        items = self._read([_day_key(day) for day in days])
        lists = {day: items[_day_key(day)] for day in days if _day_key(day) in items}
        keys = {
            _sum_key(day, deployment): (day, deployment)
            for day, listed in lists.items()
            for deployment in listed["deployments"]
        }
        sums = [
            _daily_sum(day, deployment, item, lists[day].get("rates", ()))
            for key, item in self._read(list(keys)).items()
            for day, deployment in [keys[key]]
        ]
        return tuple(sorted(sums, key=lambda s: (s.day, s.deployment.title, s.deployment.key)))

    def read_bills(self) -> Iterator[Bill]:
        """Return every bill in the table, in no order. A scan: for a command, not for a Lambda."""
        pages = self._client.get_paginator("scan").paginate(
            TableName=self._name,
            FilterExpression="begins_with(pk, :bill)",
            ExpressionAttributeValues={":bill": _pack(_bill_key(""))},
        )
        for page in pages:
            for item in page["Items"]:
                yield _bill({name: _unpack(value) for name, value in item.items()})

    def read_reported(self) -> str:
        """Return the day that the savings were last put into Prefect; empty: never."""
        return str(self._read([_REPORTED]).get(_REPORTED, {}).get("day", ""))

    def save_reported(self, day: str) -> None:
        """Note the day that the savings were put into Prefect."""
        self._client.put_item(
            TableName=self._name, Item={"pk": _pack(_REPORTED), "day": _pack(day)}
        )

    def _put(self, key: str, item: Mapping[str, object], bill: Bill) -> dict[str, Any]:
        expires = int(bill.ended_at.timestamp() + BILLS_KEPT_FOR.total_seconds())
        whole = {"pk": key, **item, "expires_at": expires}
        return {
            "Put": {
                "TableName": self._name,
                "Item": {name: _pack(value) for name, value in whole.items()},
                "ConditionExpression": "attribute_not_exists(pk)",
            }
        }

    def _addition(self, daily: DailySum) -> dict[str, Any]:
        """Add to the sum; the deployment's name is the one known last."""
        sets: dict[str, object] = {"expires_at": _sum_expires(daily.day)}
        if daily.deployment.name:
            sets["deployment"] = daily.deployment.name
        adds = {name: value for name, value in daily.counts.as_mapping().items() if value}
        return self._update(_sum_key(daily.day, daily.deployment.key), sets, adds)

    def _listing(self, daily: DailySum) -> dict[str, Any]:
        """Note on the day whose sums and which rates there are: how a report knows its keys."""
        adds: dict[str, object] = {"deployments": {daily.deployment.key}}
        if daily.rates:
            adds["rates"] = set(daily.rates)
        return self._update(_day_key(daily.day), {"expires_at": _sum_expires(daily.day)}, adds)

    def _update(
        self, key: str, sets: Mapping[str, object], adds: Mapping[str, object]
    ) -> dict[str, Any]:
        expression = "SET " + ", ".join(f"{name} = :{name}" for name in sets)
        if adds:
            expression += " ADD " + ", ".join(f"{name} :{name}" for name in adds)
        values = {f":{name}": _pack(value) for name, value in {**sets, **adds}.items()}
        return {
            "Update": {
                "TableName": self._name,
                "Key": {"pk": _pack(key)},
                "UpdateExpression": expression,
                "ExpressionAttributeValues": values,
            }
        }

    def _read(self, keys: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Return the items that there are, by key: a hundred per request."""
        found: dict[str, dict[str, Any]] = {}
        for hundred in _hundreds(list(dict.fromkeys(keys))):
            wanted: Any = {self._name: {"Keys": hundred, "ConsistentRead": True}}
            for attempt in range(MOST_TRIES):
                answer = self._client.batch_get_item(RequestItems=wanted)
                for item in answer["Responses"].get(self._name, []):
                    plain = {name: _unpack(value) for name, value in item.items()}
                    found[plain["pk"]] = plain
                wanted = answer.get("UnprocessedKeys")
                if not wanted:
                    break
                self._pause(attempt)
            else:
                raise ThrottledError("DynamoDB did not return all sums", next_step=RETRY_LATER)
        return found

    def _pause(self, attempt: int) -> None:
        longest = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2**attempt)
        self._sleep(longest * random.uniform(0.5, 1.0))


def _hundreds(keys: Sequence[str]) -> Iterator[list[dict[str, Any]]]:
    for start in range(0, len(keys), MOST_KEYS):
        yield [{"pk": _pack(key)} for key in keys[start : start + MOST_KEYS]]


def _bill_key(task_arn: str) -> str:
    return f"bill#{task_arn}"


def _run_key(bill: Bill) -> str:
    return f"billed-run#{bill.flow_run_id}"


def _day_key(day: date) -> str:
    return f"day#{day.isoformat()}"


def _sum_key(day: date, deployment: str) -> str:
    return f"sum#{day.isoformat()}#{deployment}"


def _sum_expires(day: date) -> int:
    since_epoch = timedelta(days=day.toordinal() - date(1970, 1, 1).toordinal())
    return int((since_epoch + SUMS_KEPT_FOR).total_seconds())


def _item(bill: Bill) -> dict[str, object]:
    """The bill's attributes; amounts as text, as they were rounded."""
    amounts = bill.amounts
    values: dict[str, object] = {
        "flow_run_id": str(bill.flow_run_id or ""),
        "deployment_id": bill.deployment.key,
        "deployment": bill.deployment.name,
        "began_at": bill.began_at.isoformat() if bill.began_at else "",
        "ended_at": bill.ended_at.isoformat(),
        "capacity": bill.capacity,
        "cause": bill.cause.value,
        "seconds": "" if bill.seconds is None else f"{bill.seconds:f}",
        "wasted_seconds": f"{bill.wasted_seconds:f}",
        "rates": list(map(str, bill.rates)),
        "shortcomings": list(bill.shortcomings),
    }
    if amounts is not None:
        values |= {f.name: f"{getattr(amounts, f.name):f}" for f in fields(Amounts)}
    return values


def _bill(item: Mapping[str, Any]) -> Bill:
    """Read what `_item` wrote; what an older release did not write is None."""
    amounts = None
    if "cost_usd" in item:
        amounts = Amounts(**{f.name: Decimal(item[f.name]) for f in fields(Amounts)})
    return Bill(
        task_arn=item["pk"].removeprefix(_bill_key("")),
        flow_run_id=UUID(item["flow_run_id"]) if item["flow_run_id"] else None,
        deployment=Deployment(item["deployment_id"], item["deployment"]),
        ended_at=datetime.fromisoformat(item["ended_at"]),
        capacity=item["capacity"],
        cause=Cause(item["cause"]),
        seconds=Decimal(item["seconds"]) if item["seconds"] else None,
        wasted_seconds=Decimal(item["wasted_seconds"]),
        amounts=amounts,
        rates=tuple(map(read_rate, item["rates"])),
        shortcomings=tuple(item["shortcomings"]),
        began_at=datetime.fromisoformat(item["began_at"]) if item.get("began_at") else None,
    )


def _daily_sum(
    day: date, deployment: str, item: Mapping[str, Any], rates: Iterable[str]
) -> DailySum:
    """Read what `_addition` added up; counts of a newer release are ignored."""
    known = Counts().as_mapping()
    counts = {name: int(Decimal(item[name])) for name in known if name in item}
    return DailySum(
        day=day,
        deployment=Deployment(deployment, item.get("deployment", "")),
        counts=Counts(**counts),
        rates=frozenset(rates),
    )
