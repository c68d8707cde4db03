"""Takes the measurements of part 1: both sides, on the same news, on fresh servers each time."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from statistics import median
from typing import Any

from lab.bench.deployed import Deployed
from lab.bench.interruptions import Victim, exit_of, stop_of, task_of, warning_of
from lab.bench.part import Log, Row, ratio
from lab.bench.servers import FreshAws, FreshPrefect, Servers, fresh_aws, read_time
from lab.bench.sides import OURS, RUNTIMES, THEIRS, Event, Side, observer, ours
from lab.bench.usage import cpu_seconds, peak_rss_mib

News = Callable[[Sequence[Victim]], Sequence[Event]]


def stop_alone(victims: Sequence[Victim]) -> Sequence[Event]:
    """Return each victim's last news."""
    return [stop_of(victim) for victim in victims]


def stream(victims: Sequence[Victim]) -> Sequence[Event]:
    """Return all news of all victims: all warnings, two minutes later the rest."""
    return [news(victim) for news in (warning_of, exit_of, stop_of) for victim in victims]


@dataclass(frozen=True)
class Comparison:
    """What all measurements share."""

    deployment: Deployed
    log: Log

    def compare(
        self, servers: Servers, rounds: Mapping[int, int], news: News = stop_alone
    ) -> list[Row]:
        """Measure each number of interruptions as often as `rounds` says, sides in turn.

        Returns three rows for each number: either side's medians, and their ratios.
        """
        rows = []
        for number, times in rounds.items():
            samples: dict[str, list[Row]] = {OURS: [], THEIRS: []}
            for turn in range(times):
                for name in (OURS, THEIRS) if turn % 2 == 0 else (THEIRS, OURS):
                    sample = self._sample(name, servers, number, news)
                    samples[name].append(sample)
                    self.log(f"{number} on the {servers.name}, {name}: {sample['seconds']:.2f} s")
            first, second = (_medians(samples[name]) for name in (OURS, THEIRS))
            ratios = {
                key: ratio(first[key], second[key]) if first[key] and second[key] else None
                for key in first
            }
            for name, figures in ((OURS, first), (THEIRS, second), ("ratio", ratios)):
                rows.append({"interruptions": number, "side": name, **figures})
        return rows

    def side(
        self, name: str, prefect: FreshPrefect, aws: FreshAws, runtimes: int
    ) -> AbstractContextManager[Side]:
        """Start a side before these servers; `runtimes` are prefect-spot's."""
        if name == OURS:
            return ours(self.deployment, prefect, aws, runtimes)
        return observer(self.deployment, prefect, aws)

    def _sample(self, name: str, servers: Servers, number: int, news: News) -> Row:
        """Take one measurement, with servers of its own.

        Lambda has no more runtimes at work than there are events; as many interruptions go first,
        to warm either side up.
        """
        runtimes = min(RUNTIMES, number)
        with (
            servers.fresh(runtimes + number) as prefect,
            fresh_aws(self.deployment.supervisor, [*map(task_of, prefect.victims)]) as aws,
            self.side(name, prefect, aws, runtimes) as side,
        ):
            warm_up, victims = prefect.victims[:runtimes], prefect.victims[runtimes:]
            side.deliver(stop_alone(warm_up))
            side.wait()
            events = news(victims)
            before = _used(prefect, side)
            began_at, began = datetime.now(UTC), time.monotonic()
            side.deliver(events)
            side.wait()
            settled = time.monotonic() - began
            used = [
                None if a is None or b is None else (b - a) / number
                for a, b in zip(before, _used(prefect, side), strict=True)
            ]
            last = _when_all_are_there(prefect, side, victims)
            return {
                "seconds": (last - began_at).total_seconds(),
                "settled": settled,
                **dict(zip(("requests", "CPU s", "Prefect's CPU s"), used, strict=True)),
                "MiB": max(map(peak_rss_mib, side.processes)),
            }


def _medians(samples: Sequence[Row]) -> Row:
    return {
        key: None if samples[0][key] is None else median(sample[key] for sample in samples)
        for key in samples[0]
    }


def _used(prefect: FreshPrefect, side: Side) -> Sequence[float | None]:
    """Requests so far, where they are counted, and CPU seconds of the side and of Prefect."""
    requests = prefect.requests() if prefect.counts_requests else None
    return requests, cpu_seconds(side.processes), cpu_seconds(prefect.processes())


def _when_all_are_there(prefect: FreshPrefect, side: Side, victims: Sequence[Victim]) -> datetime:
    """When the last run came to where the side leaves it. Raises RuntimeError when one is not."""
    is_there = _is_due_again if side.name == OURS else _is_crashed
    runs = {run["id"]: run for run in prefect.runs([victim.run_id for victim in victims])}
    for victim in victims:
        if not is_there(runs[victim.run_id], victim):
            raise RuntimeError(f"{side.name} left a run in {runs[victim.run_id]['state']}")
    return max(read_time(run["state"]["timestamp"]) for run in runs.values())


def _is_due_again(run: Mapping[str, Any], victim: Victim) -> bool:
    is_on_demand = run["job_variables"].get("launch_type") == "FARGATE"
    due_at = run["next_scheduled_start_time"]
    is_due = due_at is not None and read_time(due_at) <= datetime.now(UTC)
    return is_due and is_on_demand == victim.on_demand


def _is_crashed(run: Mapping[str, Any], _: Victim) -> bool:
    return bool(run["state_type"] == "CRASHED")
