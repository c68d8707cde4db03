"""The run records in DynamoDB, one item per flow run, under a lease.

The lease makes read-decide-write single: one conditional write takes it and returns the record,
every later write is conditional on still holding it. A handler that finds it held raises, and
Lambda retries the event.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from boto3.dynamodb.types import TypeDeserializer, TypeSerializer
from botocore.exceptions import ClientError

from chalicelib.core.model.run_record import Interruption, Moved, RunRecord
from chalicelib.errors import (
    LAMBDA_RETRIES,
    RETRY_LATER,
    LeaseHeldError,
    LeaseLostError,
    ThrottledError,
)

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

KEPT_FOR: Final = timedelta(days=90)
"""How long DynamoDB keeps a record after its last change: longer than a run can wait."""

_HELD_OR_LOST: Final = "ConditionalCheckFailedException"
_pack: Final = TypeSerializer().serialize
_unpack: Final = TypeDeserializer().deserialize
_BOOKMARK: Final = {"pk": _pack("sweep")}
_TIMES: Final = {"recorded_at", "billed_from", "exited_at"}


class RunTable:
    """Run records in the table `name`. `owner` names this invocation; times are UTC."""

    def __init__(self, client: "DynamoDBClient", name: str, owner: str) -> None:
        self._client = client
        self._name = name
        self._owner = owner

    def read(self, flow_run_id: UUID) -> RunRecord:
        """Return the record as it is, without a lease; an empty one for an unknown run."""
        answer = self._client.get_item(
            TableName=self._name, Key=_key(flow_run_id), ConsistentRead=True
        )
        return _record(flow_run_id, answer.get("Item", {}))

    def read_many(self, flow_run_ids: Sequence[UUID]) -> Mapping[UUID, RunRecord]:
        """Return the records that there are, of a hundred runs at most, in one request.

        Raises:
            ThrottledError: DynamoDB left some of them out; retryable.
        """
        if not flow_run_ids:
            return {}
        keys = [_key(flow_run_id) for flow_run_id in flow_run_ids]
        answer = self._client.batch_get_item(
            RequestItems={self._name: {"Keys": keys, "ConsistentRead": True}}
        )
        if answer.get("UnprocessedKeys"):
            raise ThrottledError("DynamoDB did not return all run records", next_step=RETRY_LATER)
        items = answer["Responses"].get(self._name, [])
        ids = {_unpack(item["pk"]): item for item in items}
        return {run: _record(run, ids[f"run#{run}"]) for run in flow_run_ids if f"run#{run}" in ids}

    def read_bookmark(self) -> str:
        """Return where the last sweep stopped, empty when it came to its end."""
        return str(self._bookmark().get("place", ""))

    def swept_at(self) -> datetime | None:
        """Return when the last sweep stopped (UTC), None when there was none."""
        at = self._bookmark().get("swept_at")
        return datetime.fromisoformat(at) if at else None

    def _bookmark(self) -> Mapping[str, Any]:
        answer = self._client.get_item(TableName=self._name, Key=_BOOKMARK, ConsistentRead=True)
        return _plain(answer.get("Item", {}))

    def save_bookmark(self, bookmark: str, now: datetime) -> None:
        """Note where a sweep stopped, and when."""
        item = {**_BOOKMARK, "place": _pack(bookmark), "swept_at": _pack(now.isoformat())}
        self._client.put_item(TableName=self._name, Item=item)

    def acquire(self, flow_run_id: UUID, now: datetime, lease: timedelta) -> RunRecord:
        """Take the run's lease until `now + lease` and return its record.

        Raises:
            LeaseHeldError: another handler has it; nothing was changed.
        """
        try:
            answer = self._client.update_item(
                TableName=self._name,
                Key=_key(flow_run_id),
                UpdateExpression=(
                    "SET lease_owner = :me, lease_until = :until, expires_at = :expires"
                ),
                # Our own: the answer was lost, and botocore sent the request again.
                ConditionExpression=(
                    "attribute_not_exists(lease_until) OR lease_until < :now OR lease_owner = :me"
                ),
                ExpressionAttributeValues={
                    ":me": _pack(self._owner),
                    ":now": _pack(_milliseconds(now)),
                    ":until": _pack(_milliseconds(now + lease)),
                    ":expires": _pack(int((now + KEPT_FOR).timestamp())),
                },
                ReturnValues="ALL_NEW",
            )
        except ClientError as error:
            if error.response["Error"]["Code"] == _HELD_OR_LOST:
                raise LeaseHeldError(
                    f"another handler holds the lease on flow run {flow_run_id}",
                    next_step=LAMBDA_RETRIES,
                ) from error
            raise
        return _record(flow_run_id, answer["Attributes"])

    def save(self, record: RunRecord) -> None:
        """Write the record. Raises LeaseLostError when the lease has passed to another."""
        self._write(record, release=False)

    def release(self, record: RunRecord) -> None:
        """Write the record and release the lease, in one. Raises LeaseLostError like `save`."""
        self._write(record, release=True)

    def _write(self, record: RunRecord, *, release: bool) -> None:
        interruptions = {arn: _item(i) for arn, i in record.interruptions.items()}
        remove_lease = " REMOVE lease_owner, lease_until" if release else ""
        moved = record.moved
        try:
            self._client.update_item(
                TableName=self._name,
                Key=_key(record.flow_run_id),
                UpdateExpression=(
                    "SET interruptions = :interruptions, own_retries = :own_retries,"
                    " next_capacity = :next_capacity, moved = :moved,"
                    " moved_annotated = :moved_annotated" + remove_lease
                ),
                ConditionExpression="lease_owner = :me",
                ExpressionAttributeValues={
                    ":me": _pack(self._owner),
                    ":interruptions": _pack(interruptions),
                    ":own_retries": _pack(record.own_retries),
                    ":next_capacity": _pack(record.next_capacity),
                    ":moved": _pack(moved and {"guard": moved.guard, "reason": moved.reason}),
                    ":moved_annotated": _pack(bool(moved and moved.annotated)),
                },
            )
        except ClientError as error:
            if error.response["Error"]["Code"] == _HELD_OR_LOST:
                run = record.flow_run_id
                raise LeaseLostError(
                    f"the lease on flow run {run} expired, and another handler took it",
                    next_step=LAMBDA_RETRIES,
                ) from error
            raise


def _key(flow_run_id: UUID) -> dict[str, Any]:
    return {"pk": _pack(f"run#{flow_run_id}")}


def _plain(item: Mapping[str, Any]) -> Mapping[str, Any]:
    return {name: _unpack(value) for name, value in item.items()}


def _record(flow_run_id: UUID, item: Mapping[str, Any]) -> RunRecord:
    values = _plain(item)
    own_retries, moved = values.get("own_retries"), values.get("moved")
    is_annotated = values.get("moved_annotated", False)
    return RunRecord(
        flow_run_id=flow_run_id,
        interruptions={
            arn: _interruption(stored) for arn, stored in values.get("interruptions", {}).items()
        },
        own_retries=None if own_retries is None else int(own_retries),
        next_capacity=values.get("next_capacity", ""),
        moved=Moved(moved["guard"], moved["reason"], is_annotated) if moved else None,
    )


def _item(interruption: Interruption) -> dict[str, object]:
    """Fields that hold something, times as ISO 8601; DynamoDB has no type for them."""
    return {
        name: value.isoformat() if isinstance(value, datetime) else value
        for name, value in asdict(interruption).items()
        if value is not None
    }


def _interruption(stored: Mapping[str, Any]) -> Interruption:
    """Read what `_item` wrote; fields of a newer release are ignored."""
    known = {f.name for f in fields(Interruption)}
    values: dict[str, Any] = {
        name: int(value) if isinstance(value, Decimal) else value
        for name, value in stored.items()
        if name in known
    }
    for name in _TIMES & set(values):
        values[name] = datetime.fromisoformat(values[name]).astimezone(UTC)
    values["tags"] = tuple(values.get("tags", ()))
    return replace(Interruption(task_arn="", number=0, cause="", capacity=""), **values)


def _milliseconds(at: datetime) -> int:
    return int(at.timestamp() * 1000)
