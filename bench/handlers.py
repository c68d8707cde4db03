"""The two sides: prefect-spot's `react` as deployed, and prefect-aws's observer as it ships."""

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Protocol

import psutil

from bench.deployed import LONG_SECONDS
from bench.http_client import Http
from bench.machine import ROOT
from bench.servers import START_SECONDS, served
from bench.usage import children_that_run
from localcloud.aws import EmulatedAws
from localcloud.cloud import REACT, wait_for
from localcloud.lambdas import LambdaService
from localcloud.processes import Household

RUNTIMES: Final = 10
"""As many as are reserved for `react` in `.chalice/config.json`."""

QUEUE: Final = "prefect-ecs-tasks-events"

Event = Mapping[str, Any]


class Side(Protocol):
    """Who answers ECS's news."""

    name: str

    @property
    def processes(self) -> Sequence[psutil.Process]:
        """Those that handle news."""

    def deliver(self, events: Sequence[Event]) -> None:
        """Hand over news, all at once; return before they are handled."""

    def wait(self) -> None:
        """Wait until all of them are handled. Raises TimeoutError, or RuntimeError on a failure."""


@dataclass(frozen=True)
class FreshAws:
    """DynamoDB, SQS and ECS for one measurement; see `bench.aws_standin`."""

    url: str
    http: Http

    def environment(self) -> Mapping[str, str]:
        """Return what leads an AWS client there."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": EmulatedAws.region,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def usage(self) -> Mapping[str, Any]:
        """Return requests by operation, CPU seconds, and messages not yet done with."""
        usage: Mapping[str, Any] = self.http.get("/bench/usage")
        return usage


@contextmanager
def fresh_aws(household: Household, tasks: Sequence[Mapping[str, Any]]) -> Iterator[FreshAws]:
    """Start one that knows these ECS tasks, and end it."""
    with served(household, ["bench.aws_standin"], "/bench/usage") as (url, _), Http(url) as http:
        http.send("POST", "/bench/tasks", tasks)
        yield FreshAws(url, http)


class DeployedReact:
    """The zip that `chalice deploy` made, under AWS's runtime client, in ten runtimes at once."""

    name = "prefect-spot"

    def __init__(self, lambdas: LambdaService) -> None:
        self._lambdas = lambdas
        self.processes = children_that_run("awslambdaric")

    def deliver(self, events: Sequence[Event]) -> None:
        """Put them into Lambda's queue."""
        for event in events:
            self._lambdas.invoke_async(REACT, event)

    def wait(self) -> None:
        """Wait until each was answered; a failed try is a failed measurement."""
        self._lambdas.wait_idle(LONG_SECONDS)
        failed = [i for i in self._lambdas.invocations if i.status != "ok"]
        if failed:
            raise RuntimeError(f"{len(failed)} invocations failed, the first with {failed[0]}")


class Observer:
    """prefect-aws's observer, alone in a process, with its queue."""

    name = "observer"

    def __init__(self, aws: FreshAws, process: psutil.Process) -> None:
        self._aws = aws
        self.processes = [process]

    def deliver(self, events: Sequence[Event]) -> None:
        """Put them into its queue, as EventBridge would."""
        self._aws.http.send("POST", "/bench/messages", [json.dumps(event) for event in events])

    def wait(self) -> None:
        """Wait until it has deleted each message, which is the last it does."""
        deadline = time.monotonic() + LONG_SECONDS
        while self._aws.usage()["messages"]:
            if not self.processes[0].is_running() or time.monotonic() > deadline:
                raise RuntimeError("the observer does not empty its queue")
            time.sleep(0.2)


@contextmanager
def observer(household: Household, prefect_api_url: str, aws: FreshAws) -> Iterator[Observer]:
    """Start one, and hand it out when it asks for its first message."""
    home = household.folder / "observer"
    process = household.spawn(
        [sys.executable, "-m", "bench.observer_process"],
        env={
            "PATH": "/usr/bin:/bin",
            "HOME": str(home),
            "PREFECT_HOME": str(home),
            "PREFECT_API_URL": prefect_api_url,
            "PREFECT_INTEGRATIONS_AWS_ECS_OBSERVER_SQS_QUEUE_NAME": QUEUE,
            "DO_NOT_TRACK": "1",
            **aws.environment(),
        },
        cwd=ROOT,
        log=home / "log",
    )
    try:
        wait_for("the observer's first question", START_SECONDS, lambda: aws.usage()["listeners"])
        yield Observer(aws, psutil.Process(process.pid))
    finally:
        process.kill()
        process.wait()
