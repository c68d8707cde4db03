"""DynamoDB in memory, as far as the Lambdas' run records and bills need it.

moto takes 8 ms for a call and copies the table for each transaction: the benchmark would measure
that. The run records' own tests pass on this. Raises NotImplementedError for an expression that it
does not know.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from types import MappingProxyType, SimpleNamespace
from typing import Any

from botocore.exceptions import ClientError

Item = dict[str, Any]
Values = Mapping[str, Any]
Condition = Callable[[Item, Values], bool]

_COMPARISONS: Mapping[str, Callable[[Any, Any], bool]] = {
    "=": lambda a, b: bool(a == b),
    "<": lambda a, b: bool(a < b),
    ">": lambda a, b: bool(a > b),
}
_EXISTENCE = re.compile(r"attribute_(not_)?exists\((\w+)\)")
_COMPARISON = re.compile(r"(\w+) ([=<>]) (:\w+)")
_ASSIGNMENT = re.compile(r"(\w+) = (:\w+)")
_ADDITION = re.compile(r"(\w+) (:\w+)")
_UPDATE = re.compile(r"(?:SET (?P<set>.+?))?(?: ?ADD (?P<add>.+?))?(?: ?REMOVE (?P<remove>.+))?")


class TransactionCanceledException(ClientError):  # noqa: N818  # boto3's name
    """A condition of one of the writes did not hold: none was made."""


class InMemoryDynamoDB:
    """A client; tables need not be created, and have the one key `pk`."""

    exceptions = SimpleNamespace(TransactionCanceledException=TransactionCanceledException)

    def __init__(self) -> None:
        self._tables: dict[str, dict[str, Item]] = {}

    def get_item(self, *, TableName: str, Key: Item, **_: object) -> Item:  # noqa: N803  # boto3's names
        """Return a copy of the item, under "Item"; nothing where there is none."""
        item = self._items(TableName).get(Key["pk"]["S"])
        return {} if item is None else {"Item": dict(item)}

    def batch_get_item(self, *, RequestItems: Mapping[str, Any]) -> dict[str, Any]:  # noqa: N803
        """Return copies of the items that there are, by table."""
        found = {}
        for table, request in RequestItems.items():
            items = [self._items(table).get(key["pk"]["S"]) for key in request["Keys"]]
            found[table] = [dict(item) for item in items if item is not None]
        return {"Responses": found}

    def put_item(self, *, TableName: str, Item: Item) -> None:  # noqa: N803
        """Store the item, in place of one with its key."""
        self._items(TableName)[Item["pk"]["S"]] = dict(Item)

    def update_item(
        self,
        *,
        TableName: str,  # noqa: N803
        Key: Item,  # noqa: N803
        UpdateExpression: str,  # noqa: N803
        ExpressionAttributeValues: Values = MappingProxyType({}),  # noqa: N803
        ConditionExpression: str = "",  # noqa: N803
        ReturnValues: str = "NONE",  # noqa: N803
    ) -> dict[str, Any]:
        """Change the item, or make it; raises ClientError where the condition does not hold."""
        items = self._items(TableName)
        item = items.get(Key["pk"]["S"], {})
        if not _condition(ConditionExpression)(item, ExpressionAttributeValues):
            raise ClientError({"Error": {"Code": "ConditionalCheckFailedException"}}, "UpdateItem")
        items[Key["pk"]["S"]] = _updated(
            {**item, **Key}, UpdateExpression, ExpressionAttributeValues
        )
        return {"Attributes": dict(items[Key["pk"]["S"]])} if ReturnValues == "ALL_NEW" else {}

    def transact_write_items(self, *, TransactItems: Sequence[Mapping[str, Any]]) -> None:  # noqa: N803
        """Make all of the writes, Put and Update, or none; an Update has no condition."""
        puts = [write["Put"] for write in TransactItems if "Put" in write]
        updates = [write["Update"] for write in TransactItems if "Update" in write]
        if len(puts) + len(updates) != len(TransactItems):
            raise NotImplementedError("a transaction that is not of Put and Update alone")
        failed = [
            not _condition(put["ConditionExpression"])(
                self._items(put["TableName"]).get(put["Item"]["pk"]["S"], {}), {}
            )
            for put in puts
        ]
        if any(failed):
            reasons = [{"Code": "ConditionalCheckFailed" if f else "None"} for f in failed]
            answer: Any = {
                "Error": {"Code": "TransactionCanceledException"},
                "CancellationReasons": reasons,
            }
            raise TransactionCanceledException(answer, "TransactWriteItems")
        for put in puts:
            self.put_item(TableName=put["TableName"], Item=put["Item"])
        for update in updates:
            self.update_item(**update)

    def _items(self, table: str) -> dict[str, Item]:
        return self._tables.setdefault(table, {})


@cache
def _condition(expression: str) -> Condition:
    """One of several clauses has to hold; there are no braces, and no AND."""
    if not expression:
        return lambda _item, _values: True
    clauses = [_clause(text) for text in expression.split(" OR ")]
    return lambda item, values: any(clause(item, values) for clause in clauses)


def _clause(text: str) -> Condition:
    if existence := _EXISTENCE.fullmatch(text):
        is_not, name = existence.groups()
        return lambda item, _: (name in item) is not bool(is_not)
    if comparison := _COMPARISON.fullmatch(text):
        name, sign, value = comparison.groups()
        return lambda item, values: (
            name in item and _COMPARISONS[sign](_plain(item[name]), _plain(values[value]))
        )
    raise NotImplementedError(f"a condition that is not emulated: {text!r}")


@dataclass(frozen=True)
class _Update:
    """Names, and from which values they are assigned or added to; and what is removed."""

    assigned: tuple[tuple[str, str], ...]
    added: tuple[tuple[str, str], ...]
    removed: frozenset[str]


@cache
def _update(expression: str) -> _Update:
    parts = _UPDATE.fullmatch(expression)
    if parts is None:
        raise NotImplementedError(f"an update that is not emulated: {expression!r}")
    removed = parts["remove"].split(", ") if parts["remove"] else []
    return _Update(
        _clauses(_ASSIGNMENT, parts["set"], expression),
        _clauses(_ADDITION, parts["add"], expression),
        frozenset(removed),
    )


def _clauses(
    form: re.Pattern[str], clauses: str | None, expression: str
) -> tuple[tuple[str, str], ...]:
    matches = [form.fullmatch(text) for text in clauses.split(", ")] if clauses else []
    if None in matches:
        raise NotImplementedError(f"an update that is not emulated: {expression!r}")
    return tuple((match[1], match[2]) for match in matches if match)


def _updated(item: Item, expression: str, values: Values) -> Item:
    update = _update(expression)
    new = {**item, **{name: values[value] for name, value in update.assigned}}
    for name, value in update.added:
        new[name] = _sum(new[name], values[value]) if name in new else values[value]
    return {name: value for name, value in new.items() if name not in update.removed}


def _sum(old: Mapping[str, Any], added: Mapping[str, Any]) -> dict[str, Any]:
    [(kind, content)] = added.items()
    if kind == "N":
        return {"N": str(Decimal(old["N"]) + Decimal(content))}
    if kind == "SS":
        return {"SS": sorted({*old["SS"], *content})}
    raise NotImplementedError(f"an ADD of {kind!r} is not emulated")


def _plain(value: Mapping[str, Any]) -> Any:
    [(kind, content)] = value.items()
    return Decimal(content) if kind == "N" else content
