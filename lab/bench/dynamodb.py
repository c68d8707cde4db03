"""DynamoDB in memory, as far as `react` and `sweep` need it for run records and daily sums.

moto takes 8 ms for a call: the benchmark would measure that. The run records' own tests pass on
this. Raises NotImplementedError for an expression that it does not know.
"""

import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from functools import cache
from typing import Any, Final

from botocore.exceptions import ClientError

Item = dict[str, Any]
Values = Mapping[str, Any]
Condition = Callable[[Item, Values], bool]

_COMPARISONS: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "=": lambda a, b: bool(a == b),
    "<": lambda a, b: bool(a < b),
}
_EXISTENCE: Final = re.compile(r"attribute_not_exists\((\w+)\)")
_COMPARISON: Final = re.compile(r"(\w+) ([=<]) (:\w+)")
_UPDATE: Final = re.compile(r"SET (?P<set>.+?)(?: REMOVE (?P<remove>.+))?")


class InMemoryDynamoDB:
    """A client; tables need not be created, and have the one key `pk`."""

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
        ConditionExpression: str,  # noqa: N803
        ExpressionAttributeValues: Values,  # noqa: N803
        **_: object,
    ) -> dict[str, Any]:
        """Change the item, or make it; raises ClientError where the condition does not hold."""
        items, key, values = self._items(TableName), Key["pk"]["S"], ExpressionAttributeValues
        item = items.get(key, {})
        clauses = map(_clause, ConditionExpression.split(" OR "))
        if not any(clause(item, values) for clause in clauses):
            raise ClientError({"Error": {"Code": "ConditionalCheckFailedException"}}, "UpdateItem")
        assigned, removed = _update(UpdateExpression)
        new = {**item, **Key, **{name: values[value] for name, value in assigned}}
        items[key] = {name: value for name, value in new.items() if name not in removed}
        return {"Attributes": dict(items[key])}

    def _items(self, table: str) -> dict[str, Item]:
        return self._tables.setdefault(table, {})


@cache
def _clause(text: str) -> Condition:
    """Return one clause of a condition; there are no braces, and no AND."""
    if existence := _EXISTENCE.fullmatch(text):
        return lambda item, _: existence[1] not in item
    if comparison := _COMPARISON.fullmatch(text):
        name, sign, value = comparison.groups()
        return lambda item, values: (
            name in item and _COMPARISONS[sign](_plain(item[name]), _plain(values[value]))
        )
    raise NotImplementedError(f"a condition that is not emulated: {text!r}")


@cache
def _update(expression: str) -> tuple[tuple[tuple[str, str], ...], frozenset[str]]:
    """Return names and the values they are set to, and the names that are removed."""
    parts = _UPDATE.fullmatch(expression)
    if parts is None or " ADD " in expression:
        raise NotImplementedError(f"an update that is not emulated: {expression!r}")
    assigned = [tuple(text.split(" = ")) for text in parts["set"].split(", ")]
    removed = parts["remove"].split(", ") if parts["remove"] else []
    return tuple((name, value) for name, value in assigned), frozenset(removed)


def _plain(value: Mapping[str, Any]) -> Any:
    [(kind, content)] = value.items()
    return Decimal(content) if kind == "N" else content
