"""Measures both sides on the same interruptions, in turn."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from statistics import median
from typing import Any

from lab.bench.deployed import Deployed
from lab.bench.interruptions import (
    Interruption,
    exit_of,
    interruptions,
    stop_of,
    task_of,
    warning_of,
)
from lab.bench.machine import cpu_seconds, peak_rss_mib
from lab.bench.part import Log, ratio
from lab.bench.servers import Aws, Prefect, fresh_aws
from lab.bench.sides import OURS, RUNTIMES, THEIRS, Event, Side, observer, ours
from lab.tables import Row

Events = Callable[[Sequence[Interruption]], Sequence[Event]]


def stop_alone(of: Sequence[Interruption]) -> Sequence[Event]:
    """Return the last event of each."""
    return [stop_of(each) for each in of]


def stream(of: Sequence[Interruption]) -> Sequence[Event]:
    """Return all events of all: the warnings, then the exits, then the stops."""
    return [event_of(each) for event_of in (warning_of, exit_of, stop_of) for each in of]


@dataclass(frozen=True)
class Comparison:
    """What all measurements share."""

    stage: Deployed
    log: Log

    def compare(
        self,
        server: Callable[[], AbstractContextManager[Prefect]],
        rounds: Mapping[int, int],
        events: Events = stop_alone,
    ) -> list[Row]:
        """Measure each number of interruptions as often as `rounds` says, sides in turn.

        `server` is entered for each measurement. Returns three rows for each number: the medians
        of either side, and ours ÷ theirs.
        """
        rows = []
        for number, times in rounds.items():
            samples: dict[str, list[Row]] = {OURS: [], THEIRS: []}
            for turn in range(times):
                for name in (OURS, THEIRS) if turn % 2 == 0 else (THEIRS, OURS):
                    with server() as prefect:
                        samples[name].append(self.sample(name, prefect, number, events))
                    self.log(f"{number}, {name}: {samples[name][-1]['seconds']:.2f} s")
            first, second = (_medians(samples[name]) for name in (OURS, THEIRS))
            ratios = {
                key: ratio(first[key], second[key]) if first[key] and second[key] else None
                for key in first
            }
            for name, figures in ((OURS, first), (THEIRS, second), ("ratio", ratios)):
                rows.append({"interruptions": number, "side": name, **figures})
        return rows

    def side(
        self, name: str, prefect: Prefect, aws: Aws, runtimes: int
    ) -> AbstractContextManager[Side]:
        """Start a side with these servers; `runtimes` are prefect-spot's."""
        if name == OURS:
            return ours(self.stage, prefect, aws, runtimes)
        return observer(self.stage, prefect, aws)

    def sample(self, name: str, prefect: Prefect, number: int, events: Events) -> Row:
        """Take one measurement, after as many interruptions as there are runtimes to warm up.

        Lambda starts no more runtimes than there are events.
        """
        runtimes = min(RUNTIMES, number)
        began = prefect.begin_all(interruptions(runtimes + number))
        warm_up, measured = began[:runtimes], began[runtimes:]
        with (
            fresh_aws(self.stage.supervisor, [task_of(each) for each in began]) as aws,
            self.side(name, prefect, aws, runtimes) as side,
        ):
            side.deliver(stop_alone(warm_up))
            side.wait()
            to_deliver = events(measured)
            before = _used(prefect, side)
            started_at, started = datetime.now(UTC), time.monotonic()
            side.deliver(to_deliver)
            side.wait()
            settled = time.monotonic() - started
            after = _used(prefect, side)
            return {
                "seconds": (_last_settled(prefect, side, measured) - started_at).total_seconds(),
                "settled": settled,
                **{
                    key: None if used is None else (used - before[key]) / number
                    for key, used in after.items()
                },
                "MiB": max(map(peak_rss_mib, side.processes)),
            }


def _medians(samples: Sequence[Row]) -> Row:
    return {
        key: None if samples[0][key] is None else median(sample[key] for sample in samples)
        for key in samples[0]
    }


def _used(prefect: Prefect, side: Side) -> Row:
    """Return the requests so far, and the CPU seconds of the side and of Prefect."""
    return {
        "requests": prefect.usage.requests() if prefect.is_stand_in else None,
        "CPU s": cpu_seconds(side.processes),
        "Prefect's CPU s": cpu_seconds(prefect.processes()),
    }


def _last_settled(prefect: Prefect, side: Side, of: Sequence[Interruption]) -> datetime:
    """Return when the last run came to where the side leaves it; raise if one did not."""
    is_settled = _is_due_again if side.name == OURS else _is_crashed
    runs = {run["id"]: run for run in prefect.runs(of)}
    for each in of:
        if not is_settled(runs[each.run_id], each):
            raise RuntimeError(f"{side.name} left a run in {runs[each.run_id]['state']}")
    return max(datetime.fromisoformat(run["state"]["timestamp"]) for run in runs.values())


def _is_due_again(run: Mapping[str, Any], of: Interruption) -> bool:
    is_on_demand = run["job_variables"].get("launch_type") == "FARGATE"
    return is_due(run) and is_on_demand == of.on_demand


def is_due(run: Mapping[str, Any]) -> bool:
    """Whether a run's scheduled start has come."""
    due_at = run["next_scheduled_start_time"]
    return due_at is not None and datetime.fromisoformat(due_at) <= datetime.now(UTC)


def _is_crashed(run: Mapping[str, Any], _: Interruption) -> bool:
    return bool(run["state_type"] == "CRASHED")
