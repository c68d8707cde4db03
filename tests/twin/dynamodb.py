"""DynamoDB in memory, where it is busy: as many clients at once as a test likes, in virtual time.

DynamoDB lets one transaction at a time have an item and refuses another that comes meanwhile (AWS,
"Amazon DynamoDB Transactions: How it works", *Transaction conflict handling*); moto refuses none.
"""

import heapq
import itertools
import re
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

from botocore.exceptions import ClientError

from chalicelib.adapters.records import packed, unpacked

T = TypeVar("T")


MOST_BYTES = 400 * 1024
"""Of an item, names included (Amazon DynamoDB, *Constraints*)."""


def check(values: Mapping[str, object]) -> None:
    """Raise what DynamoDB, or boto3 before it, raises for an item of these values, if anything.

    It takes no empty name and no empty key, no number of more than 38 digits, and no larger item.
    """
    if _bytes_of({"M": packed(values)}) > MOST_BYTES:
        raise _invalid("Item size has exceeded the maximum allowed size")
    if not values.get("pk", "its twins have none"):
        raise _invalid("One or more parameter values are not valid: an empty key")


def _bytes_of(value: Mapping[str, Any]) -> int:
    [(kind, held)] = value.items()
    if kind == "M":
        if not all(held):
            raise _invalid("Empty attribute name")
        return 3 + sum(1 + len(name.encode()) + _bytes_of(each) for name, each in held.items())
    if kind == "L":
        return 3 + sum(1 + _bytes_of(each) for each in held)
    if kind in ("SS", "NS"):
        return sum(len(each.encode()) for each in held)
    return len(held.encode()) if isinstance(held, str) else 1


def _invalid(why: str) -> ClientError:
    return ClientError({"Error": {"Code": "ValidationException", "Message": why}}, "PutItem")


class VirtualTime:
    """A clock for threads that take turns: the one whose wait ends first runs, and no other."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._waiting: list[tuple[float, int, threading.Event]] = []
        self._order = itertools.count()

    def sleep(self, seconds: float) -> None:
        """Let the others run for so long."""
        turn = threading.Event()
        heapq.heappush(self._waiting, (self.seconds + seconds, next(self._order), turn))
        self._next()
        turn.wait()

    def _next(self) -> None:
        if self._waiting:
            self.seconds, _, turn = heapq.heappop(self._waiting)
            turn.set()

    def run(self, job: Callable[[T], object], inputs: Sequence[T], *, at_once: int) -> None:
        """Do the job with each input, in their order, so many at a time; raises what a job did."""
        queue, turns = iter(inputs), [threading.Event() for _ in range(at_once)]
        self._waiting = [(self.seconds, next(self._order), turn) for turn in turns]

        def work(turn: threading.Event) -> None:
            turn.wait()
            try:
                for each in queue:
                    job(each)
            finally:
                self._next()

        with ThreadPoolExecutor(at_once) as threads:
            done = threads.map(work, turns)
            self._next()
            list(done)


@dataclass
class BusyDynamoDB:
    """A table of a DynamoDB client: what `BillTable` writes with, and reads by key.

    A transaction has its items for `transaction_seconds`. `item_of` names, by its key, the item
    that is taken: two keys of one name are one item, as far as conflicts go. `cancels`: the next
    transactions are refused for these reasons.
    """

    time: VirtualTime
    transaction_seconds: float = 0.02
    item_of: Callable[[str], str] = str
    items: dict[str, dict[str, Any]] = field(default_factory=dict)
    cancels: list[str] = field(default_factory=list)
    refused: int = 0
    _taken: set[str] = field(default_factory=set)

    def batch_get_item(self, **request: Any) -> Any:
        [(name, wanted)] = request["RequestItems"].items()
        keys = [key["pk"]["S"] for key in wanted["Keys"]]
        assert len(keys) <= 100, "DynamoDB takes no more"
        return {"Responses": {name: [packed(self.items[pk]) for pk in keys if pk in self.items]}}

    def get_item(self, **request: Any) -> Any:
        pk = request["Key"]["pk"]["S"]
        return {"Item": packed(self.items[pk])} if pk in self.items else {}

    def put_item(self, **request: Any) -> None:
        self.items |= _by_key([request])

    def get_paginator(self, name: str) -> Any:
        """Return itself: the only page of a scan."""
        assert name == "scan"
        return self

    def paginate(self, **request: Any) -> Any:
        [begins_with] = unpacked(request["ExpressionAttributeValues"]).values()
        found = [packed(item) for pk, item in self.items.items() if pk.startswith(begins_with)]
        return [{"Items": found}]

    def update_item(self, **update: Any) -> None:
        pk = update["Key"]["pk"]["S"]
        self._refuse("TransactionConflictException", self._taken & {self.item_of(pk)})
        self._update(update)

    def transact_write_items(self, **request: Any) -> None:
        writes = request["TransactItems"]
        puts = _by_key(write["Put"] for write in writes if "Put" in write)
        updates = [write["Update"] for write in writes if "Update" in write]
        items = set(map(self.item_of, [*puts, *(each["Key"]["pk"]["S"] for each in updates)]))
        if self.cancels:
            self._refuse(self.cancels.pop(0), items)
        self._refuse("TransactionConflict", self._taken & items)
        self._refuse("ConditionalCheckFailed", puts.keys() & self.items)
        self._taken |= items
        self.time.sleep(self.transaction_seconds)
        self._taken -= items
        self.items |= puts
        for update in updates:
            self._update(update)

    def _refuse(self, code: str, items: Iterable[str]) -> None:
        """Refuse a write because of these items, if there are any."""
        if reasons := [{"Code": code} for _ in items]:
            self.refused += 1
            error = code if code.endswith("Exception") else "TransactionCanceledException"
            answer: Any = {"Error": {"Code": error}, "CancellationReasons": reasons}
            raise ClientError(answer, "TransactWriteItems")

    def _update(self, update: Mapping[str, Any]) -> None:
        values = unpacked(update["ExpressionAttributeValues"])
        item = self.items.setdefault(update["Key"]["pk"]["S"], unpacked(update["Key"]))
        sets, _word, adds = update["UpdateExpression"].removeprefix("SET ").partition(" ADD ")
        item |= {name: values[value] for name, value in re.findall(r"(\w+) = (:\w+)", sets)}
        for name, value in re.findall(r"(\w+) (:\w+)", adds):
            more = values[value]
            old = item.get(name, type(more)())
            item[name] = old | more if isinstance(more, set) else old + more
        check(item)


def _by_key(puts: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    items = [unpacked(put["Item"]) for put in puts]
    for item in items:
        check(item)
    return {item["pk"]: item for item in items}
