"""The two sides: prefect-spot's `react` as deployed, and prefect-aws's observer as it ships."""

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import psutil

from lab.bench.deployed import LONG_SECONDS, Deployed
from lab.bench.machine import ROOT
from lab.bench.servers import START_SECONDS, FreshAws, FreshPrefect
from lab.bench.usage import children_that_run
from localcloud.cloud import REACT, wait_for

OURS: Final = "prefect-spot"
THEIRS: Final = "observer"
RUNTIMES: Final = 10
"""As many as are reserved for `react` in `.chalice/config.json`."""

QUEUE: Final = "prefect-ecs-tasks-events"

Event = Mapping[str, Any]


@dataclass(frozen=True)
class Side:
    """Who answers ECS's news.

    `deliver` hands over news, all at once, and returns before they are handled; `wait` returns when
    all of them are, and raises TimeoutError, or RuntimeError on a failure.
    """

    name: str
    processes: Sequence[psutil.Process]
    deliver: Callable[[Sequence[Event]], None]
    wait: Callable[[], None]


@contextmanager
def ours(
    deployment: Deployed, prefect: FreshPrefect, aws: FreshAws, runtimes: int
) -> Iterator[Side]:
    """Start so many runtimes of the zip that `chalice deploy` made, before these servers."""
    settings = {"PREFECT_API_URL": prefect.api_url, **aws.environment}
    with deployment.react(runtimes, **settings) as lambdas:

        def deliver(events: Sequence[Event]) -> None:
            for event in events:
                lambdas.invoke_async(REACT, event)

        def wait() -> None:
            lambdas.wait_idle(LONG_SECONDS)
            failed = [i for i in lambdas.invocations if i.status != "ok"]
            if failed:
                raise RuntimeError(f"{len(failed)} invocations failed, the first with {failed[0]}")

        yield Side(OURS, children_that_run("awslambdaric"), deliver, wait)


@contextmanager
def observer(deployment: Deployed, prefect: FreshPrefect, aws: FreshAws) -> Iterator[Side]:
    """Start one in a process of its own, and hand it out when it asks for its first message."""
    home = deployment.supervisor.folder / "observer"
    process = deployment.supervisor.spawn(
        [sys.executable, "-m", "lab.bench.observer_process"],
        env={
            "PATH": "/usr/bin:/bin",
            "HOME": str(home),
            "PREFECT_HOME": str(home),
            "PREFECT_API_URL": prefect.api_url,
            "PREFECT_INTEGRATIONS_AWS_ECS_OBSERVER_SQS_QUEUE_NAME": QUEUE,
            "DO_NOT_TRACK": "1",
            **aws.environment,
        },
        cwd=ROOT,
        log=home / "log",
    )

    def deliver(events: Sequence[Event]) -> None:
        aws.http.send("POST", "/bench/messages", [json.dumps(event) for event in events])

    def wait() -> None:
        """Wait until it has deleted each message, which is the last it does."""
        wait_for("the observer to empty its queue", LONG_SECONDS, is_through)

    def is_through() -> bool:
        if process.poll() is not None:
            raise RuntimeError(f"the observer has ended with {process.returncode}")
        return not aws.usage()["messages"]

    try:
        wait_for("the observer's first question", START_SECONDS, lambda: aws.usage()["listeners"])
        yield Side(THEIRS, [psutil.Process(process.pid)], deliver, wait)
    finally:
        process.kill()
        process.wait()
