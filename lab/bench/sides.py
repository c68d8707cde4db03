"""The two sides: prefect-spot's `react` as deployed, and prefect-aws's observer as it ships."""

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, Final

import psutil

from lab.bench.deployed import Deployed, answered
from lab.bench.machine import ROOT
from lab.bench.servers import START_SECONDS, Aws, Prefect
from localcloud.cloud import wait_for
from localcloud.lambda_environment import ExecutionEnvironment

OURS: Final = "prefect-spot"
THEIRS: Final = "observer"
RUNTIMES: Final = 10
"""As many as are reserved for `react` in `.chalice/config.json`."""

LONG_SECONDS: Final = 900.0
QUEUE: Final = "prefect-ecs-tasks-events"
OBSERVE: Final = """
import asyncio
from prefect_aws.observers.ecs import start_observer

async def main():
    await start_observer()
    await asyncio.Event().wait()

asyncio.run(main())
"""
"""The observer as the ECS worker starts it, and nothing of the worker."""

Event = Mapping[str, Any]


@dataclass(frozen=True)
class Side:
    """A handler of ECS's events.

    `deliver` passes events, all at once, and returns before they are handled. `wait` returns when
    all of them are; it raises TimeoutError, or RuntimeError on a failure.
    """

    name: str
    processes: Sequence[psutil.Process]
    deliver: Callable[[Sequence[Event]], None]
    wait: Callable[[], None]


@contextmanager
def ours(stage: Deployed, prefect: Prefect, aws: Aws, runtimes: int) -> Iterator[Side]:
    """Start so many runtimes of the deployed zip; events wait until one is idle."""
    environment = {"PREFECT_API_URL": prefect.api_url, **aws.environment}
    started = [stage.runtime(**environment) for _ in range(runtimes)]
    idle: SimpleQueue[ExecutionEnvironment] = SimpleQueue()
    for runtime in started:
        idle.put(runtime)
    delivered: list[Future[None]] = []

    def answer(event: Event) -> None:
        runtime = idle.get()
        answered(runtime, event)
        idle.put(runtime)

    def wait() -> None:
        for future in delivered:
            future.result(LONG_SECONDS)

    with ThreadPoolExecutor(runtimes) as pool:

        def deliver(events: Sequence[Event]) -> None:
            delivered.extend(pool.submit(answer, event) for event in events)

        yield Side(OURS, [psutil.Process(runtime.pid) for runtime in started], deliver, wait)
    for runtime in started:
        runtime.end()


@contextmanager
def observer(stage: Deployed, prefect: Prefect, aws: Aws) -> Iterator[Side]:
    """Start an observer in a process of its own; it is ready when it asks for a message."""
    home = stage.supervisor.folder / "observer"
    process = stage.supervisor.spawn(
        [sys.executable, "-c", OBSERVE],
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
        aws.add("messages", [json.dumps(event) for event in events])

    def wait() -> None:
        """Wait until each message is deleted, which the observer does last."""
        wait_for("the observer to empty its queue", LONG_SECONDS, is_through)

    def is_through() -> bool:
        if process.poll() is not None:
            raise RuntimeError(f"the observer has ended with {process.returncode}")
        return not aws.read()["messages"]

    try:
        wait_for("the observer's first request", START_SECONDS, lambda: aws.read()["listeners"])
        yield Side(THEIRS, [psutil.Process(process.pid)], deliver, wait)
    finally:
        process.kill()
        process.wait()
