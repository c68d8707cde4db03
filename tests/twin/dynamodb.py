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
from typing import Any

from botocore.exceptions import ClientError

from chalicelib.adapters.records import packed, unpacked


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

    def run(self, jobs: Sequence[Callable[[], object]], *, at_once: int) -> None:
        """Do the jobs, in their order, so many of them at a time; raises what one of them did."""
        queue, turns = iter(jobs), [threading.Event() for _ in range(min(at_once, len(jobs)))]
        for turn in turns:
            heapq.heappush(self._waiting, (self.seconds, next(self._order), turn))

        def work(turn: threading.Event) -> None:
            turn.wait()
            try:
                for job in queue:
                    job()
            finally:
                self._next()

        with ThreadPoolExecutor(len(turns)) as threads:
            workers = [threads.submit(work, turn) for turn in turns]
            self._next()
        for worker in workers:
            worker.result()


@dataclass
class BusyDynamoDB:
    """A table of a DynamoDB client: what `BillTable` writes with, and reads by key.

    A transaction has its items for `transaction_seconds`. `item_of` names, by its key, the item
    that is taken: two keys of one name are one item, as far as conflicts go.
    """

    time: VirtualTime
    transaction_seconds: float = 0.02
    item_of: Callable[[str], str] = str
    items: dict[str, dict[str, Any]] = field(default_factory=dict)
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
        item = unpacked(request["Item"])
        self.items[item["pk"]] = item

    def get_paginator(self, name: str) -> Any:
        """Return itself: the only page of a scan."""
        assert name == "scan"
        return self

    def paginate(self, **request: Any) -> Any:
        [begins_with] = unpacked(request["ExpressionAttributeValues"]).values()
        found = [packed(item) for pk, item in self.items.items() if pk.startswith(begins_with)]
        return [{"Items": found}]

    def update_item(self, **update: Any) -> None:
        self._refuse_taken([update["Key"]["pk"]["S"]], "TransactionConflictException")
        self._update(update)

    def transact_write_items(self, **request: Any) -> None:
        writes = request["TransactItems"]
        puts = [unpacked(write["Put"]["Item"]) for write in writes if "Put" in write]
        updates = [write["Update"] for write in writes if "Update" in write]
        keys = [put["pk"] for put in puts] + [update["Key"]["pk"]["S"] for update in updates]
        self._refuse_taken(keys, "TransactionConflict")
        self._refuse(["ConditionalCheckFailed"] * any(put["pk"] in self.items for put in puts))
        items = set(map(self.item_of, keys))
        self._taken |= items
        self.time.sleep(self.transaction_seconds)
        self._taken -= items
        self.items |= {put["pk"]: put for put in puts}
        for update in updates:
            self._update(update)

    def _refuse_taken(self, keys: Iterable[str], code: str) -> None:
        taken = [code for pk in keys if self.item_of(pk) in self._taken]
        self.refused += len(taken)
        self._refuse(taken)

    def _refuse(self, codes: Sequence[str]) -> None:
        if codes:
            reasons = [{"Code": code} for code in codes]
            answer: Any = {"Error": {"Code": codes[0]}, "CancellationReasons": reasons}
            raise ClientError(answer, "TransactWriteItems")

    def _update(self, update: Mapping[str, Any]) -> None:
        values = unpacked(update["ExpressionAttributeValues"])
        item = self.items.setdefault(update["Key"]["pk"]["S"], unpacked(update["Key"]))
        sets, _word, adds = update["UpdateExpression"].removeprefix("SET ").partition(" ADD ")
        item |= {name: values[value] for name, value in re.findall(r"(\w+) = (:\w+)", sets)}
        for name, value in re.findall(r"(\w+) (:\w+)", adds):
            more = values[value]
            old = item.get(name)
            item[name] = (
                more if old is None else old | more if isinstance(more, set) else old + more
            )
