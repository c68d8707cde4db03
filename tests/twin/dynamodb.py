"""DynamoDB in memory, for the storm: what `RunTable` asks of boto3's client, and nothing else.

moto takes 8 ms for a call, of which ten thousand interruptions make two hundred thousand. The
table's own tests are run on both. An expression that is not understood raises NotImplementedError.
"""

import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from functools import cache
from types import MappingProxyType
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
_UPDATE = re.compile(r"(?:SET (?P<set>.+?))?(?: ?REMOVE (?P<remove>.+))?")


class InMemoryDynamoDB:
    """A client; tables need not be created, and have the one key `pk`."""

    def __init__(self) -> None:
        self._tables: dict[str, dict[str, Item]] = {}

    def create_table(self, **_: object) -> None: ...

    def get_item(self, *, TableName: str, Key: Item, ConsistentRead: bool = False) -> Item:  # noqa: N803  # boto3's names
        item = self._items(TableName).get(Key["pk"]["S"])
        return {} if item is None else {"Item": dict(item)}

    def batch_get_item(self, *, RequestItems: Mapping[str, Any]) -> dict[str, Any]:  # noqa: N803
        found = {}
        for table, request in RequestItems.items():
            items = [self._items(table).get(key["pk"]["S"]) for key in request["Keys"]]
            found[table] = [dict(item) for item in items if item is not None]
        return {"Responses": found}

    def put_item(self, *, TableName: str, Item: Item) -> None:  # noqa: N803
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
        items = self._items(TableName)
        item = items.get(Key["pk"]["S"], {})
        if not _condition(ConditionExpression)(item, ExpressionAttributeValues):
            raise ClientError({"Error": {"Code": "ConditionalCheckFailedException"}}, "UpdateItem")
        assigned, removed = _update(UpdateExpression)
        new = {**item, **Key}
        new.update({name: ExpressionAttributeValues[value] for name, value in assigned})
        items[Key["pk"]["S"]] = {k: v for k, v in new.items() if k not in removed}
        return {"Attributes": dict(items[Key["pk"]["S"]])} if ReturnValues == "ALL_NEW" else {}

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


@cache
def _update(expression: str) -> tuple[list[tuple[str, str]], list[str]]:
    """What is assigned, from which value; and what is removed."""
    parts = _UPDATE.fullmatch(expression)
    assignments = parts["set"].split(", ") if parts and parts["set"] else []
    matches = [_ASSIGNMENT.fullmatch(text) for text in assignments]
    assigned = [(match[1], match[2]) for match in matches if match]
    if parts is None or len(assigned) != len(assignments):
        raise NotImplementedError(f"an update that is not emulated: {expression!r}")
    return assigned, parts["remove"].split(", ") if parts["remove"] else []


def _plain(value: Mapping[str, Any]) -> Any:
    [(kind, content)] = value.items()
    return Decimal(content) if kind == "N" else content
