"""The handlers in this process, before stand-ins that answer at once: all that is left is our work.

The product's own adapters, urllib3 and botocore's connections apart: requests go to the same
stand-ins that serve both sides of the comparison, without sockets. Each is counted, and timed.
"""

import io
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import boto3
from botocore.awsrequest import AWSPreparedRequest, AWSResponse, HTTPHeaders

from chalicelib.adapters.bills import BillTable
from chalicelib.adapters.ecs import EcsTasks
from chalicelib.adapters.prefect_api import PrefectRest
from chalicelib.adapters.records import RunTable
from chalicelib.core.context import Context
from chalicelib.core.model.policy import Policy
from chalicelib.wiring import AWS_CONFIG
from lab.bench.aws_standin import AwsStandIn
from lab.bench.http_server import Answer, Request
from lab.bench.interruptions import Seed, Victim, task_of
from lab.bench.prefect_standin import PrefectStandIn
from localcloud.aws import EmulatedAws
from localcloud.bootstrap import CLUSTER, STACK, WORK_POOL
from tests.laws.universe import Lines

_ACCESS: Final = {
    "aws_access_key_id": "testing",
    "aws_secret_access_key": "testing",
    "endpoint_url": "http://aws",
}


@dataclass(frozen=True)
class _Response:
    """What `adapters/prefect_client.py` reads of urllib3's answer."""

    status: int
    data: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


class _Raw(io.BytesIO):
    def stream(self) -> Iterator[bytes]:
        yield self.read()


class InProcess:
    """Both stand-ins, and the world of one invocation before them.

    `requests` counts by service, "Prefect", "dynamodb" or "ecs"; `served_seconds` of CPU is what
    the stand-ins took to answer.
    """

    def __init__(self, heard: Callable[[str, Request], None] = lambda *_: None) -> None:
        """`heard` is called with service and request, for each."""
        self._heard = heard
        self.prefect = PrefectStandIn()
        self.aws = AwsStandIn()
        self.requests: Counter[str] = Counter()
        self.served_seconds = 0.0
        self._names: dict[UUID, str] = {}
        self._dynamodb = self._client("dynamodb")
        self._ecs = self._client("ecs")

    def start(
        self,
        seed: Seed,
        at: datetime | None = None,
        run_id: str = "",
        task: Mapping[str, object] | None = None,
    ) -> Victim:
        """Have a run RUNNING since `at` (now), in a task that ECS knows; `task`: what of it."""
        run = self.prefect.start(seed.pid, seed.tags, at, run_id)
        started_at = datetime.fromisoformat(run["expected_start_time"])
        victim = Victim(run["id"], seed.task_arn, started_at, seed.on_demand)
        self.aws.tasks[seed.task_arn] = task_of(victim, **(task or {}))
        return victim

    def context(self) -> Context:
        """The context as one invocation sees it."""
        pool: Any = self
        return Context(
            prefect=PrefectRest(
                "http://prefect/api",
                lambda _fresh: None,
                lambda: 60.0,
                pool=pool,
                deployment_names=self._names,
            ),
            records=RunTable(self._dynamodb, STACK, owner=str(uuid4())),
            bills=BillTable(self._dynamodb, STACK),
            tasks=EcsTasks(self._ecs),
            log=Lines(),
            now=lambda: datetime.now(UTC),
            lease=timedelta(seconds=35),
            policy=Policy(),
            clusters=(CLUSTER,),
            account="",
            work_pool=WORK_POOL,
        )

    def urlopen(self, method: str, url: str, *, body: bytes | None, **_: object) -> _Response:
        """Answer as urllib3's pool of connections to Prefect does."""
        address = urlsplit(url)
        request = Request(method, address.path, address.query, {}, body or b"")
        return _Response(*self._answered("Prefect", self.prefect.handle, request))

    def _client(self, service: str) -> Any:
        """Make a boto3 client whose requests end at the stand-in."""

        def send(request: AWSPreparedRequest, **_: object) -> AWSResponse:
            headers = {name.lower(): _text(value) for name, value in request.headers.items()}
            asked = Request("POST", "/", "", headers, _bytes(request.body))
            status, data = self._answered(service, self.aws.handle, asked)
            return AWSResponse(request.url, status, HTTPHeaders(), _Raw(data))

        make: Any = boto3.client
        client = make(service, region_name=EmulatedAws.region, config=AWS_CONFIG, **_ACCESS)
        client.meta.events.register("before-send", send)
        return client

    def _answered(
        self, service: str, handle: Callable[[Request], object], request: Request
    ) -> tuple[int, bytes]:
        self.requests[service] += 1
        self._heard(service, request)
        began = time.process_time()
        answer = handle(request)
        assert isinstance(answer, Answer)
        data = b"" if answer.body is None else json.dumps(answer.body).encode()
        self.served_seconds += time.process_time() - began
        return answer.status, data


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _bytes(value: Any) -> bytes:
    return value.encode() if isinstance(value, str) else bytes(value or b"")
