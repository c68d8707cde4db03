"""The handlers in this process, with stand-ins that answer at once: only our own work is left.

The product's own adapters, but for the connections of urllib3 and botocore: requests go to the same
stand-ins that serve both sides of the comparison, without sockets. Each is counted, and timed.
"""

import io
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final
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
from lab.bench.http_server import Request, body_of
from lab.bench.interruptions import Interruption, task_of
from lab.bench.prefect_standin import PrefectStandIn
from localcloud.aws import EmulatedAws
from localcloud.bootstrap import CLUSTER, STACK, WORK_POOL
from tests.laws.universe import Lines

_CREDENTIALS: Final = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing"}


@dataclass(frozen=True)
class _Response:
    """urllib3's answer, as far as `adapters/prefect_client.py` reads it."""

    status: int
    data: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


class _Raw(io.BytesIO):
    """What botocore reads an answer's body from."""

    def stream(self) -> Iterator[bytes]:
        yield self.read()


class InProcess:
    """Both stand-ins, and the context of an invocation that uses them.

    `requests` counts by service, "Prefect", "dynamodb" or "ecs"; `served_seconds` of CPU is what
    the stand-ins took to answer.
    """

    def __init__(self, heard: Callable[[Request], None] = lambda _: None) -> None:
        """`heard` is called with each request."""
        self._heard = heard
        self.prefect = PrefectStandIn()
        self.aws = AwsStandIn()
        self.requests: Counter[str] = Counter()
        self.served_seconds = 0.0
        self._names: dict[UUID, str] = {}
        self._dynamodb = self._client("dynamodb")
        self._ecs = self._client("ecs")

    def begin(self, planned: Interruption, **task: object) -> Interruption:
        """Start the planned run; `task`: what its task has otherwise in ECS."""
        run = self.prefect.create(planned.tags, planned.run_id, planned.task_started_at)
        run["infrastructure_pid"] = planned.pid
        for state_type in ("PENDING", "RUNNING"):
            self.prefect.enter(run, {"type": state_type}, planned.task_started_at)
        self.aws.tasks[planned.task_arn] = task_of(planned, **task)
        return planned

    def context(self) -> Context:
        """Return the context of one invocation."""
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
        request = Request(method, url, {}, body or b"")
        return _Response(*self._answered("Prefect", self.prefect.handle, request))

    def _client(self, service: str) -> Any:
        """Make a boto3 client whose requests end at the stand-in."""

        def send(request: AWSPreparedRequest, **_: object) -> AWSResponse:
            target, body = (_as_bytes(x) for x in (request.headers["X-Amz-Target"], request.body))
            asked = Request("POST", "/", {"x-amz-target": target.decode()}, body)
            status, data = self._answered(service, self.aws.handle, asked)
            return AWSResponse(request.url, status, HTTPHeaders(), _Raw(data))

        make: Any = boto3.client
        options = {"region_name": EmulatedAws.region, "endpoint_url": "http://aws", **_CREDENTIALS}
        client = make(service, config=AWS_CONFIG, **options)
        client.meta.events.register("before-send", send)
        return client

    def _answered(
        self, service: str, handle: Callable[[Request], object], request: Request
    ) -> tuple[int, bytes]:
        self.requests[service] += 1
        self._heard(request)
        began = time.process_time()
        answer = handle(request)
        assert isinstance(answer, tuple)
        data = body_of(answer)
        self.served_seconds += time.process_time() - began
        return answer[0], data


def _as_bytes(content: Any) -> bytes:
    return content.encode() if isinstance(content, str) else bytes(content or b"")
