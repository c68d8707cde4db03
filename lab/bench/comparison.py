"""Prefect-spot's `react` as deployed, and prefect-aws's observer as it ships, on the same events.

The observer leaves a run Crashed; with an automation of Prefect's that runs the deployment of such
a run again, there is a new run that is due. Both sides are measured in turn, on the same
interruptions.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from queue import SimpleQueue
from typing import Any, Final

import psutil

from lab.bench.interruptions import (
    Interruption,
    Json,
    interruptions,
    stop_of,
    task_of,
)
from lab.bench.part import Log, cpu_seconds, medians, peak_rss_mib, ratio
from lab.bench.servers import Aws, Deployed, Prefect, answered, fresh_aws, running
from lab.tables import Row
from localcloud.cloud import REACT, wait_for
from localcloud.lambda_environment import ExecutionEnvironment

OURS: Final = "prefect-spot"
THEIRS: Final = "observer"
AUTOMATED: Final = "observer + automation"
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

Events = Callable[[Sequence[Interruption]], Sequence[Json]]


def stop_alone(of: Sequence[Interruption]) -> Sequence[Json]:
    """Return the last event of each."""
    return [stop_of(each) for each in of]


@dataclass(frozen=True)
class Side:
    """A handler of ECS's events.

    `deliver` passes events, all at once, and returns before they are handled. `wait` returns when
    all of them are; it raises TimeoutError, or RuntimeError on a failure.
    """

    processes: Sequence[psutil.Process]
    deliver: Callable[[Sequence[Json]], None]
    wait: Callable[[], object]


@dataclass(frozen=True)
class Comparison:
    """What all measurements share: `rival` is the other side, `plan` makes the interruptions."""

    stage: Deployed
    log: Log
    rival: str = THEIRS
    plan: Callable[[int], Sequence[Interruption]] = interruptions

    def compare(
        self,
        server: Callable[[], AbstractContextManager[Prefect]],
        rounds: Mapping[int, int],
        events: Events = stop_alone,
    ) -> list[Row]:
        """Measure each number of interruptions as often as `rounds` says, sides in turn.

        `server` is entered for each measurement. Returns three rows for each number: the medians
        of either side, and ours ÷ theirs; with the seconds of each round, least to most.
        """
        rows = []
        for number, times in rounds.items():
            samples: dict[str, list[Row]] = {OURS: [], self.rival: []}
            for turn in range(times):
                for name in (OURS, self.rival) if turn % 2 == 0 else (self.rival, OURS):
                    with server() as prefect:
                        samples[name].append(self.sample(name, prefect, number, events))
                    self.log(f"{number}, {name}: {samples[name][-1]['seconds']:.2f} s")
            figures = {name: medians(taken) for name, taken in samples.items()}
            seconds = {name: [row["seconds"] for row in taken] for name, taken in samples.items()}
            pairs = {key: (ours, figures[self.rival][key]) for key, ours in figures[OURS].items()}
            figures["ratio"] = {key: ratio(*x) if all(x) else None for key, x in pairs.items()}
            seconds["ratio"] = [a / b for a, b in zip(*seconds.values(), strict=True)]
            rows += [
                {
                    "interruptions": number,
                    "side": side,
                    **row,
                    "seconds, by round": _span(seconds[side]),
                }
                for side, row in figures.items()
            ]
        return rows

    def side(
        self, name: str, prefect: Prefect, aws: Aws, runtimes: int
    ) -> AbstractContextManager[Side]:
        """Start a side with these servers; `runtimes` are prefect-spot's."""
        if name == OURS:
            return _ours(self.stage, prefect, aws, runtimes)
        return (_automated if name == AUTOMATED else _observer)(self.stage, prefect, aws)

    def sample(self, name: str, prefect: Prefect, number: int, events: Events) -> Row:
        """Take one measurement, after as many interruptions as there are runtimes to warm up.

        Lambda starts no more runtimes than there are events. What a real server does by and by
        (store events, run the automation) counts as its CPU.
        """
        runtimes = min(RUNTIMES, number)
        prefect.renew_deployment()
        begin = prefect.begin_each if self.rival == AUTOMATED else prefect.begin_all
        began = begin(self.plan(runtimes + number))
        warm_up, measured = began[:runtimes], began[runtimes:]
        with (
            fresh_aws(self.stage.supervisor, [task_of(each) for each in began]) as aws,
            self.side(name, prefect, aws, runtimes) as side,
        ):
            side.deliver(stop_alone(warm_up))
            side.wait()
            prefect.wait_until_quiet()
            to_deliver, before = events(measured), _used(prefect, side)
            started_at, started = datetime.now(UTC), time.monotonic()
            side.deliver(to_deliver)
            side.wait()
            settled = time.monotonic() - started
            prefect.wait_until_quiet()
            after = _used(prefect, side)
            used = {key: (total - before[key]) / number for key, total in after.items()}
            return {
                "seconds": (_last_settled(prefect, name, measured) - started_at).total_seconds(),
                "settled": settled,
                "requests": None,  # a real server does not count them
                **used,
                "MiB": max(map(peak_rss_mib, side.processes)),
            }


@contextmanager
def _ours(stage: Deployed, prefect: Prefect, aws: Aws, runtimes: int) -> Iterator[Side]:
    """Start so many runtimes of the deployed zip; events wait until one is idle."""
    started = [stage.runtime(REACT, prefect, aws) for _ in range(runtimes)]
    idle: SimpleQueue[ExecutionEnvironment] = SimpleQueue()
    for runtime in started:
        idle.put(runtime)
    delivered: list[Future[None]] = []

    def answer(event: Json) -> None:
        runtime = idle.get()
        answered(runtime, event)
        idle.put(runtime)

    with ThreadPoolExecutor(runtimes) as pool:
        yield Side(
            [psutil.Process(runtime.pid) for runtime in started],
            lambda events: delivered.extend(pool.submit(answer, event) for event in events),
            lambda: [future.result(LONG_SECONDS) for future in delivered],
        )
    for runtime in started:
        runtime.end()


@contextmanager
def _observer(stage: Deployed, prefect: Prefect, aws: Aws) -> Iterator[Side]:
    """Start an observer in a process of its own; it is ready when it asks for a message."""
    environment = {
        **prefect.environment,
        **aws.environment,
        "PREFECT_HOME": str(stage.supervisor.folder / THEIRS),
        "PREFECT_INTEGRATIONS_AWS_ECS_OBSERVER_SQS_QUEUE_NAME": QUEUE,
        "DO_NOT_TRACK": "1",
    }

    def is_listening() -> bool:
        return bool(aws.read()["listeners"])

    with running(stage.supervisor, THEIRS, ["-c", OBSERVE], environment, is_listening) as process:

        def is_through() -> bool:
            """Whether each message is deleted, which the observer does last."""
            if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
                raise RuntimeError("the observer has ended")
            return not aws.read()["messages"]

        yield Side(
            [process],
            lambda events: aws.add("messages", [json.dumps(event) for event in events]),
            lambda: wait_for("the observer to empty its queue", LONG_SECONDS, is_through),
        )


@contextmanager
def _automated(stage: Deployed, prefect: Prefect, aws: Aws) -> Iterator[Side]:
    """Start an observer; an automation runs the newest deployment again for each of its runs."""
    with prefect.automation(), _observer(stage, prefect, aws) as observer:
        expected = prefect.count_runs()

        def deliver(events: Sequence[Json]) -> None:
            nonlocal expected
            expected += len(events)
            observer.deliver(events)

        def wait() -> None:
            observer.wait()
            runs = "as many new runs as interruptions"  # asked rarely: it costs the server, too
            wait_for(runs, LONG_SECONDS, lambda: prefect.count_runs() >= expected, 1.0)

        yield Side(observer.processes, deliver, wait)


def _span(figures: Sequence[float]) -> str | None:
    """Return the least and the most of several."""
    return f"{min(figures):.3g} to {max(figures):.3g}" if len(figures) > 1 else None


def _used(prefect: Prefect, side: Side) -> Row:
    """Return the requests so far, and the CPU seconds of the side and of Prefect."""
    return {
        **({"requests": prefect.usage.requests()} if prefect.is_stand_in else {}),
        "CPU s": cpu_seconds(side.processes),
        "Prefect's CPU s": cpu_seconds(prefect.processes()),
    }


def _last_settled(prefect: Prefect, side: str, of: Sequence[Interruption]) -> datetime:
    """Return when the last run came to where the side leaves it; raise if one did not."""
    is_settled = _is_due_again if side == OURS else _is_crashed
    runs = {run["id"]: run for run in prefect.runs(of)}
    for each in of:
        if not is_settled(runs[each.run_id], each):
            raise RuntimeError(f"{side} left a run in {runs[each.run_id]['state']}")
    if side == AUTOMATED:
        runs = {run["id"]: run for run in prefect.all_runs() if run["state_type"] == "SCHEDULED"}
    return max(datetime.fromisoformat(run["state"]["timestamp"]) for run in runs.values())


def _is_due_again(run: Mapping[str, Any], of: Interruption) -> bool:
    due_at = run["next_scheduled_start_time"]
    is_due = due_at is not None and datetime.fromisoformat(due_at) <= datetime.now(UTC)
    is_on_demand = run["job_variables"].get("launch_type") == "FARGATE"
    return is_due and is_on_demand == of.on_demand


def _is_crashed(run: Mapping[str, Any], _: Interruption) -> bool:
    return bool(run["state_type"] == "CRASHED")
