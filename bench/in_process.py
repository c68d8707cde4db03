"""The handlers in this process, before stand-ins that answer at once: all that is left is our work.

Between them and Prefect's twin is the product's own REST client, without sockets; the table is the
tests' DynamoDB in memory, and ECS a dictionary. Every request is counted, and timed.
"""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from bench.http_server import Answer, Request
from bench.standin import StandIn
from chalicelib.adapters.ecs import EcsTasks
from chalicelib.adapters.prefect import PrefectRest
from chalicelib.adapters.table import RunTable
from chalicelib.core.task import Task
from chalicelib.core.world import World
from tests.laws.universe import Universe
from tests.twin.dynamodb import InMemoryDynamoDB

TABLE = "bench"


@dataclass
class Traffic:
    """How often was asked for what, and how many seconds the stand-ins took to answer."""

    requests: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    def note(self, name: str, answer: Callable[[], Any]) -> Any:
        """Answer, and note it."""
        self.requests[name] += 1
        began = time.process_time()
        try:
            return answer()
        finally:
            self.seconds += time.process_time() - began

    def of(self, service: str) -> int:
        """How many requests a service got."""
        return sum(n for name, n in self.requests.items() if name.startswith(service))


@dataclass(frozen=True)
class _Response:
    status: int
    data: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Pool:
    """What `adapters/http.py` asks of urllib3, answered by the stand-in."""

    stand_in: StandIn
    traffic: Traffic

    def urlopen(
        self, method: str, url: str, *, body: bytes | None, headers: Mapping[str, str], **_: object
    ) -> _Response:
        address = urlsplit(url)
        lower = {name.lower(): value for name, value in headers.items()}
        request = Request(method, address.path, address.query, lower, body or b"")

        def answer() -> _Response:
            said = self.stand_in.handle(request)
            assert isinstance(said, Answer)
            data = b"" if said.body is None else json.dumps(said.body).encode()
            return _Response(said.status, data)

        response: _Response = self.traffic.note("Prefect", answer)
        return response


@dataclass(frozen=True)
class _Client:
    """A boto3 client whose calls are counted."""

    client: object
    traffic: Traffic
    service: str

    def __getattr__(self, operation: str) -> Callable[..., Any]:
        call = getattr(self.client, operation)
        return lambda **arguments: self.traffic.note(self.service, lambda: call(**arguments))


@dataclass(frozen=True)
class _Ecs:
    """ECS as `adapters/ecs.py` asks it, out of a universe's tasks."""

    tasks: Mapping[str, Task]
    traffic: Traffic

    def describe_tasks(
        self,
        *,
        tasks: Sequence[str],
        **_: object,
    ) -> Mapping[str, Any]:
        known = [self.tasks[arn] for arn in tasks if arn in self.tasks]
        missing = [{"arn": arn, "reason": "MISSING"} for arn in tasks if arn not in self.tasks]

        def answer() -> Mapping[str, Any]:
            return {"tasks": [_described(task) for task in known], "failures": missing}

        said: Mapping[str, Any] = self.traffic.note("ECS", answer)
        return said

    def get_paginator(self, _operation: str) -> "_Ecs":
        return self

    def paginate(
        self,
        *,
        desiredStatus: str,  # noqa: N803  # boto3's names
        PaginationConfig: Mapping[str, int],  # noqa: N803  # as above
        **_: object,
    ) -> Iterator[Mapping[str, Any]]:
        size = PaginationConfig["PageSize"]
        stopped = desiredStatus == "STOPPED"
        arns = [arn for arn, task in self.tasks.items() if task.exited is stopped]
        for start in range(0, max(1, len(arns)), size):
            page = {"taskArns": arns[start : start + size]}
            yield self.traffic.note("ECS", partial(dict, page))


def _described(task: Task) -> Mapping[str, Any]:
    return {
        "taskArn": task.arn,
        "clusterArn": task.cluster_arn,
        "lastStatus": task.last_status,
        "desiredStatus": task.desired_status,
        "stopCode": task.stop_code,
        "stoppedReason": task.stopped_reason,
        "launchType": "FARGATE",
        "capacityProviderName": task.capacity_provider,
        "cpu": str(task.cpu_units),
        "memory": str(task.memory_mib),
        "createdAt": task.created_at,
        "startedAt": task.started_at,
        "executionStoppedAt": task.execution_stopped_at,
        "tags": [{"key": "prefect.io/flow-run-id", "value": str(task.flow_run_id)}],
    }


class MeteredUniverse(Universe):
    """The laws' universe, with the real adapters in it."""

    def __init__(self) -> None:
        super().__init__(InMemoryDynamoDB(), TABLE, shows_stopped=False)
        self.traffic = Traffic()
        self._names: dict[UUID, str] = {}
        self._stand_in = StandIn(self.prefect)

    def metered_world(self) -> World:
        """The world as one invocation sees it."""
        pool: Any = _Pool(self._stand_in, self.traffic)
        dynamodb: Any = _Client(self.dynamodb, self.traffic, "DynamoDB")
        ecs: Any = _Ecs(self.tasks, self.traffic)
        return replace(
            self.world(),
            prefect=PrefectRest(
                "http://prefect/api",
                lambda _fresh: None,
                lambda: 60.0,
                pool=pool,
                deployment_names=self._names,
            ),
            records=RunTable(dynamodb, TABLE, owner=str(len(self.traffic.requests))),
            tasks=EcsTasks(ecs),
        )
