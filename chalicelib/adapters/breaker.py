"""The breaker of a work pool in DynamoDB: one item, beside the run records, in the same table.

A signal is an attribute of its own, named by its task: adding one needs no condition, loses to
nobody, and a second time changes nothing. Everything else is written on the condition that nobody
has changed it since it was read: of two that would, one has to look again.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from boto3.dynamodb.types import TypeDeserializer, TypeSerializer
from botocore.exceptions import ClientError

from chalicelib.core.guards.breaker import Breaker, BreakerState, Probe

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

KEPT_FOR: Final = timedelta(days=90)
"""How long DynamoDB keeps a breaker after its last signal."""

MOST_SIGNALS: Final = 100
"""Names in one request: DynamoDB takes an expression of 4 KB."""

_SIGNAL: Final = "signal_"
_CHANGED: Final = "ConditionalCheckFailedException"
_pack: Final = TypeSerializer().serialize
_unpack: Final = TypeDeserializer().deserialize


class BreakerTable:
    """The breaker of `work_pool` in the table `name`. Times are UTC, to the millisecond."""

    def __init__(self, client: "DynamoDBClient", name: str, work_pool: str) -> None:
        self._client = client
        self._name = name
        self._key = {"pk": _pack(f"breaker#{work_pool}")}

    def read(self) -> Breaker:
        """Return the breaker; a closed one where there is none yet."""
        answer = self._client.get_item(TableName=self._name, Key=self._key, ConsistentRead=True)
        return _breaker(answer.get("Item", {}))

    def signal(self, task: str, at: datetime) -> Breaker:
        """Add the signal of a task, and return the breaker with it; once more changes nothing."""
        answer = self._client.update_item(
            TableName=self._name,
            Key=self._key,
            UpdateExpression=f"SET {signal_key(task)} = :at, expires_at = :expires",
            ExpressionAttributeValues={
                ":at": _pack(_milliseconds(at)),
                ":expires": _pack(int((at + KEPT_FOR).timestamp())),
            },
            ReturnValues="ALL_NEW",
        )
        return _breaker(answer["Attributes"])

    def change(self, before: Breaker, after: Breaker) -> bool:
        """Write what `after` is, if all but the signals is still as in `before`; say whether.

        Signals that `after` does not have are removed, as many as one request can name.
        """
        values = {
            "breaker_state": after.state.value,
            "breaker_version": before.version + 1,
            "open_until": _optional_milliseconds(after.open_until),
            "closed_at": _optional_milliseconds(after.closed_at),
            "probe_run": str(after.probe.flow_run_id) if after.probe else None,
            "probe_after": after.probe.after_task if after.probe else None,
            "probe_since": _optional_milliseconds(after.probe.since if after.probe else None),
        }
        gone = [key for key in before.signals if key not in after.signals][:MOST_SIGNALS]
        removed = f" REMOVE {', '.join(gone)}" if gone else ""
        try:
            self._client.update_item(
                TableName=self._name,
                Key=self._key,
                UpdateExpression=f"SET {', '.join(f'{n} = :{n}' for n in values)}{removed}",
                ConditionExpression=(
                    "attribute_not_exists(breaker_version) OR breaker_version = :seen"
                ),
                ExpressionAttributeValues={
                    ":seen": _pack(before.version),
                    **{f":{name}": _pack(value) for name, value in values.items()},
                },
            )
        except ClientError as error:
            if error.response["Error"]["Code"] == _CHANGED:
                return False
            raise
        return True

    def forget(self, signals: Sequence[str]) -> None:
        """Remove signals, by their keys, that can count no more."""
        for start in range(0, len(signals), MOST_SIGNALS):
            self._client.update_item(
                TableName=self._name,
                Key=self._key,
                UpdateExpression=f"REMOVE {', '.join(signals[start : start + MOST_SIGNALS])}",
            )


def signal_key(task: str) -> str:
    """Name the signal of a task, as an attribute: an ARN is no name, and would be long."""
    return _SIGNAL + blake2b(task.encode(), digest_size=12).hexdigest()


def _breaker(item: Mapping[str, Any]) -> Breaker:
    values = {name: _unpack(value) for name, value in item.items()}
    since = _instant(values.get("probe_since"))
    return Breaker(
        state=BreakerState(values.get("breaker_state", BreakerState.CLOSED)),
        version=int(values.get("breaker_version", 0)),
        signals={
            name: datetime.fromtimestamp(int(at) / 1000, UTC)
            for name, at in values.items()
            if name.startswith(_SIGNAL)
        },
        open_until=_instant(values.get("open_until")),
        closed_at=_instant(values.get("closed_at")),
        probe=Probe(UUID(values["probe_run"]), values["probe_after"], since) if since else None,
    )


def _instant(milliseconds: Any) -> datetime | None:
    if milliseconds is None:
        return None
    return datetime.fromtimestamp(int(milliseconds) / 1000, UTC)


def _milliseconds(at: datetime) -> int:
    return int(at.timestamp() * 1000)


def _optional_milliseconds(at: datetime | None) -> int | None:
    return None if at is None else _milliseconds(at)
