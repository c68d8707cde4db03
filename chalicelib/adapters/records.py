"""The run records in DynamoDB, one item per flow run, under a lease.

The lease makes read-decide-write single: one conditional write takes it and returns the record,
every later write is conditional on still holding it. A handler that finds it held raises, and
Lambda retries the event. `adapters/bills.py` keeps its items in the same table, by the same means.
"""

import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from types import UnionType
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar, get_args, get_origin
from uuid import UUID

from boto3.dynamodb.types import TypeDeserializer, TypeSerializer
from botocore.exceptions import ClientError

from chalicelib.core.model.flow_run import Moved, RunRecord
from chalicelib.core.model.not_now import NotNow
from chalicelib.core.model.policy import Pause
from chalicelib.core.model.pricing import Rate, read_rate
from chalicelib.core.model.sweeping import SweepNotes
from chalicelib.errors import (
    LAMBDA_RETRIES,
    RETRY_LATER,
    LeaseHeldError,
    LeaseLostError,
    PrefectSpotError,
    ThrottledError,
)

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

KEPT_FOR: Final = timedelta(days=90)
"""How long DynamoDB keeps a record after its last change: longer than a run can wait."""
MOST_KEYS: Final = 100
"""What DynamoDB returns per request."""
MOST_TRIES: Final = 8

Sleep = Callable[[float], None]
"""Waits so many seconds."""
_SWEEP: Final = "sweep"
_PAUSE: Final = "pause"
_PREFECT: Final = "prefect"
_Kept = TypeVar("_Kept")
_pack: Final = TypeSerializer().serialize
_unpack: Final = TypeDeserializer().deserialize
_FROM_TEXT: Final = {datetime: datetime.fromisoformat, Rate: read_rate}


def values_of(kept: Any) -> dict[str, object]:
    """Return a dataclass's fields that are not None: times as ISO 8601, amounts, rates as text."""
    values = {f.name: getattr(kept, f.name) for f in fields(kept)}
    return {name: _value(value) for name, value in values.items() if value is not None}


def _value(value: Any) -> object:
    if isinstance(value, Mapping):
        return {str(name): _value(each) for name, each in value.items()}
    if isinstance(value, tuple | frozenset):
        return list(map(_value, value))
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, str | int):
        return value
    if is_dataclass(value) and not isinstance(value, Rate):
        return values_of(value)
    return f"{value:f}" if isinstance(value, Decimal) else str(value)


def read(kind: type[_Kept], item: Mapping[str, Any], **given: object) -> _Kept:
    """Return a dataclass of what `values_of` returned, and of the fields given.

    What the item lacks gets its default; what a newer release added is ignored.
    """
    for field in fields(kind):  # type: ignore[arg-type]  # dataclasses all
        if field.name in item and field.name not in given:
            given[field.name] = _read(field.type, item[field.name])
    return kind(**given)


def _read(form: Any, value: Any) -> Any:
    """Return a value of this type of what `_value` returned."""
    kind, of = get_origin(form), get_args(form)
    if value is None or (kind is UnionType and value == ""):  # a bill has None as ""
        return None
    if kind is UnionType:
        return _read(of[0], value)
    if kind is Mapping:
        return {_read(of[0], name): _read(of[1], each) for name, each in value.items()}
    if kind is not None:  # tuple or frozenset
        return kind(_read(of[0], each) for each in value)
    if isinstance(form, type) and is_dataclass(form) and form is not Rate:
        return read(form, value)
    return _FROM_TEXT.get(form, form)(value)


def key(kind: str, *parts: object) -> str:
    """Return the table's key of an item."""
    return "#".join((kind, *map(str, parts)))


def packed(values: Mapping[str, object]) -> dict[str, Any]:
    """Return an item, or a part of one, as DynamoDB's API takes it."""
    return {name: _pack(value) for name, value in values.items()}


def unpacked(item: Mapping[str, Any]) -> dict[str, Any]:
    """Return an item's plain values; its numbers are Decimal."""
    return {name: _unpack(value) for name, value in item.items()}


class Items:
    """Items of the table `name` by key, as plain values; reads are consistent."""

    def __init__(self, client: "DynamoDBClient", name: str, sleep: Sleep) -> None:
        self.client: Final = client
        self.name: Final = name
        self._sleep = sleep

    def get(self, pk: str) -> Mapping[str, Any]:
        """Return the item, empty where there is none."""
        answer = self.client.get_item(
            TableName=self.name, Key=packed({"pk": pk}), ConsistentRead=True
        )
        return unpacked(answer.get("Item", {}))

    def get_many(self, pks: Iterable[str]) -> Mapping[str, Mapping[str, Any]]:
        """Return the items that there are, by key, a hundred per request. Raises ThrottledError."""
        keys = [packed({"pk": pk}) for pk in dict.fromkeys(pks)]
        found: dict[str, Mapping[str, Any]] = {}
        for start in range(0, len(keys), MOST_KEYS):
            hundred = {"Keys": keys[start : start + MOST_KEYS], "ConsistentRead": True}
            wanted: Any = {self.name: hundred}
            for attempt in range(MOST_TRIES):
                answer = self.client.batch_get_item(RequestItems=wanted)
                items = map(unpacked, answer["Responses"].get(self.name, []))
                found |= {item["pk"]: item for item in items}
                wanted = answer.get("UnprocessedKeys")
                if not wanted:
                    break
                self.pause(attempt)
            else:
                raise ThrottledError("DynamoDB did not return all items", next_step=RETRY_LATER)
        return found

    def put(self, pk: str, **values: object) -> None:
        """Store an item, in place of one with its key."""
        self.client.put_item(TableName=self.name, Item=packed({"pk": pk, **values}))

    def update(
        self, pk: str, sets: Mapping[str, object], adds: Mapping[str, object], **more: object
    ) -> dict[str, Any]:
        """Return the arguments of an update; `more` are values for its condition, by name."""
        expression = "SET " + ", ".join(f"{name} = :{name}" for name in sets)
        if adds:
            expression += " ADD " + ", ".join(f"{name} :{name}" for name in adds)
        values = {f":{name}": value for name, value in {**sets, **adds, **more}.items()}
        return {
            "TableName": self.name,
            "Key": packed({"pk": pk}),
            "UpdateExpression": expression,
            "ExpressionAttributeValues": packed(values),
        }

    def pause(self, attempt: int) -> None:
        """Wait before another try: exponentially longer, up to 1 s, jittered; `attempt` from 0."""
        self._sleep(min(1.0, 0.05 * 2**attempt) * random.uniform(0.5, 1.0))


class RunTable:
    """`core.ports.Records` in the table `name`. `owner` names this invocation; times are UTC."""

    def __init__(
        self, client: "DynamoDBClient", name: str, owner: str, *, sleep: Sleep = time.sleep
    ) -> None:
        self._items = Items(client, name, sleep)
        self._owner = owner

    def read(self, flow_run_id: UUID) -> RunRecord:
        """Return the record as it is, without a lease; an empty one for an unknown run."""
        return _record(flow_run_id, self._items.get(key("run", flow_run_id)))

    def read_many(self, flow_run_ids: Sequence[UUID]) -> Mapping[UUID, RunRecord]:
        """Return the records that there are. Raises ThrottledError as `Items.get_many` does."""
        items = self._items.get_many(key("run", run) for run in flow_run_ids)
        found = {run: items[key("run", run)] for run in flow_run_ids if key("run", run) in items}
        return {run: _record(run, item) for run, item in found.items()}

    def read_sweep(self) -> SweepNotes:
        """Return what the last sweep left; of the first release's items, the time."""
        items = self._items.get_many([_SWEEP, _PAUSE])
        return read(SweepNotes, items.get(_SWEEP, {}), pause=_pause(items.get(_PAUSE, {})))

    def save_sweep(self, notes: SweepNotes) -> None:
        """Write what a sweep leaves, in place of what is there."""
        self._items.put(_SWEEP, **values_of(replace(notes, pause=None)))

    def read_pause(self) -> Pause | None:
        """Return the stage's pause; None when it is not paused."""
        return _pause(self._items.get(_PAUSE))

    def pause(self, pause: Pause) -> Pause | None:
        """Pause the stage; return the pause that holds, which is an earlier one if there is one."""
        values = values_of(pause)
        sets = ", ".join(f"{name} = if_not_exists({name}, :{name})" for name in values)
        given = packed({f":{name}": value for name, value in values.items()})
        return self._set_pause(f"SET {sets}", "ALL_NEW", ExpressionAttributeValues=given)

    def resume(self) -> Pause | None:
        """End the stage's pause, and return it."""
        names = ", ".join(each.name for each in fields(Pause))
        return self._set_pause(f"REMOVE {names}", "ALL_OLD")

    def _set_pause(self, expression: str, returned: Any, **more: Any) -> Pause | None:
        answer = self._items.client.update_item(
            TableName=self._items.name,
            Key=packed({"pk": _PAUSE}),
            UpdateExpression=expression,
            ReturnValues=returned,
            **more,
        )
        return _pause(unpacked(answer.get("Attributes", {})))

    def read_not_now(self) -> NotNow | None:
        """Return what Prefect asked for last; None for nothing."""
        item = self._items.get(_PREFECT)
        return read(NotNow, item) if item else None

    def save_not_now(self, kept: NotNow) -> None:
        """Write it, in place of what is there."""
        self._items.client.update_item(**self._items.update(_PREFECT, values_of(kept), {}))

    def acquire(self, flow_run_id: UUID, now: datetime, lease: timedelta) -> RunRecord:
        """Take the run's lease until `now + lease` and return its record. Raises LeaseHeldError."""
        taken = {
            "lease_owner": self._owner,
            "lease_until": _milliseconds(now + lease),
            "expires_at": int((now + KEPT_FOR).timestamp()),
        }
        values = {"me": self._owner, "now": _milliseconds(now)}
        update = self._items.update(key("run", flow_run_id), taken, {}, **values)
        # Our own: the answer was lost, and botocore sent the request again.
        free = "attribute_not_exists(lease_until) OR lease_until < :now OR lease_owner = :me"
        held = f"another handler holds the lease on flow run {flow_run_id}"
        item = self._change(update, free, LeaseHeldError(held, LAMBDA_RETRIES), "ALL_NEW")
        return _record(flow_run_id, unpacked(item))

    def save(self, record: RunRecord) -> None:
        """Write the record. Raises LeaseLostError when the lease has passed to another."""
        self._write(record)

    def release(self, record: RunRecord) -> None:
        """Write the record and release the lease, in one. Raises LeaseLostError like `save`."""
        self._write(record, " REMOVE lease_owner, lease_until")

    def _write(self, record: RunRecord, remove: str = "") -> None:
        run, moved = record.flow_run_id, record.moved
        values = {
            "interruptions": _value(record.interruptions),
            "failed_starts": _value(record.failed_starts),
            "subflows": _value(record.subflows),
            "lost_before": record.lost_before,
            "own_retries": record.own_retries,
            "next_capacity": record.next_capacity,
            "moved": moved and {"guard": moved.guard, "reason": moved.reason},
            "moved_annotated": bool(moved and moved.annotated),
        }
        update = self._items.update(key("run", run), values, {}, me=self._owner)
        update["UpdateExpression"] += remove
        lost = f"the lease on flow run {run} expired, and another handler took it"
        self._change(update, "lease_owner = :me", LeaseLostError(lost, LAMBDA_RETRIES))

    def _change(
        self,
        update: Mapping[str, Any],
        condition: str,
        otherwise: PrefectSpotError,
        returned: Literal["NONE", "ALL_NEW"] = "NONE",
    ) -> Mapping[str, Any]:
        """Return what is asked for; raises `otherwise` where the condition does not hold."""
        try:
            answer = self._items.client.update_item(
                **update, ConditionExpression=condition, ReturnValues=returned
            )
        except ClientError as error:
            if error.response["Error"]["Code"] == "ConditionalCheckFailedException":
                raise otherwise from error
            raise
        return answer.get("Attributes", {})


def _record(flow_run_id: UUID, item: Mapping[str, Any]) -> RunRecord:
    moved, annotated = item.get("moved"), item.get("moved_annotated", False)
    moved = Moved(moved["guard"], moved["reason"], annotated) if moved else None
    return read(RunRecord, item, flow_run_id=flow_run_id, moved=moved)


def _pause(item: Mapping[str, Any]) -> Pause | None:
    return read(Pause, item) if "paused_at" in item else None


def _milliseconds(at: datetime) -> int:
    return int(at.timestamp() * 1000)
