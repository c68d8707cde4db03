"""Takes the measurements of part 1: both sides, on the same news, on fresh servers each time."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Final

from bench.deployed import Deployed
from bench.handlers import RUNTIMES, DeployedReact, Event, FreshAws, Side, fresh_aws, observer
from bench.interruptions import Victim, exit_of, stop_of, task_of, warning_of
from bench.part import Log
from bench.prefect_json import read_time
from bench.servers import FreshPrefect, Servers
from bench.usage import cpu_seconds, peak_rss_mib
from localcloud.processes import Household

OURS: Final = "prefect-spot"
THEIRS: Final = "observer"

Samples = dict[str, dict[str, list[dict[str, Any]]]]
"""Measurements by number of interruptions and side, as JSON takes them."""


@dataclass(frozen=True)
class Sample:
    """One measurement. `seconds`: until the last run is where the side leaves it.

    `settled_seconds`: until all news are done with, annotation included. `requests` (None where
    nobody counts) and CPU seconds are sums, of the handling processes and of Prefect's.
    """

    seconds: float
    settled_seconds: float
    requests: int | None
    cpu_seconds: float
    server_cpu_seconds: float
    peak_rss_mib: float
    processes: int


def stop_alone(victims: Sequence[Victim]) -> Sequence[Event]:
    """Return each victim's last news."""
    return [stop_of(victim) for victim in victims]


def stream(victims: Sequence[Victim]) -> Sequence[Event]:
    """Return all news of all victims: all warnings, two minutes later the rest."""
    return [tell(victim) for tell in (warning_of, exit_of, stop_of) for victim in victims]


News = Callable[[Sequence[Victim]], Sequence[Event]]


@dataclass(frozen=True)
class Comparison:
    """What all measurements share."""

    household: Household
    deployment: Deployed
    log: Log

    def compare(
        self, servers: Servers, rounds: Mapping[int, int], news: News = stop_alone
    ) -> Samples:
        """Measure each number of interruptions as often as `rounds` says, sides in turn."""
        found: Samples = {}
        for number, times in rounds.items():
            sides = found[str(number)] = {OURS: [], THEIRS: []}
            for turn in range(times):
                for name in (OURS, THEIRS) if turn % 2 == 0 else (THEIRS, OURS):
                    sample = self.sample(name, servers, number, news)
                    sides[name].append(asdict(sample))
                    self.log(f"{number} on the {servers.name}, {name}: {sample.seconds:.2f} s")
        return found

    def sample(self, name: str, servers: Servers, number: int, news: News) -> Sample:
        """Take one measurement, with servers of its own.

        Lambda has no more runtimes at work than there are events; as many interruptions go first,
        to warm either side up.
        """
        runtimes = min(RUNTIMES, number)
        with (
            servers.fresh(runtimes + number) as prefect,
            fresh_aws(self.household, list(map(task_of, prefect.victims))) as aws,
            self.side(name, prefect, aws, runtimes) as side,
        ):
            warm_up, victims = prefect.victims[:runtimes], prefect.victims[runtimes:]
            side.deliver(stop_alone(warm_up))
            side.wait()
            return self._sample(prefect, side, victims, news)

    @contextmanager
    def side(
        self, name: str, prefect: FreshPrefect, aws: FreshAws, runtimes: int
    ) -> Iterator[Side]:
        """Start a side before these servers; `runtimes` are prefect-spot's."""
        if name == OURS:
            settings = {"PREFECT_API_URL": prefect.api_url, **aws.environment()}
            with self.deployment.react(runtimes, **settings) as lambdas:
                yield DeployedReact(lambdas)
        else:
            with observer(self.household, prefect.api_url, aws) as other:
                yield other

    def _sample(
        self, prefect: FreshPrefect, side: Side, victims: Sequence[Victim], news: News
    ) -> Sample:
        events = news(victims)
        before = _Meters.read(prefect, side)
        began_at, began = datetime.now(UTC), time.monotonic()
        side.deliver(events)
        side.wait()
        settled = time.monotonic() - began
        after = _Meters.read(prefect, side)
        last = max(self._ends(prefect, side, victims))
        return Sample(
            seconds=(last - began_at).total_seconds(),
            settled_seconds=settled,
            requests=after.requests - before.requests if prefect.counts_requests else None,
            cpu_seconds=after.cpu_seconds - before.cpu_seconds,
            server_cpu_seconds=after.server_cpu_seconds - before.server_cpu_seconds,
            peak_rss_mib=max(map(peak_rss_mib, side.processes)),
            processes=len(side.processes),
        )

    def _ends(
        self, prefect: FreshPrefect, side: Side, victims: Sequence[Victim]
    ) -> Iterator[datetime]:
        """When each run came to where the side leaves it. Raises RuntimeError when one is not."""
        is_there = _is_due_again if side.name == OURS else _is_crashed
        runs = {run["id"]: run for run in prefect.runs([victim.run_id for victim in victims])}
        for victim in victims:
            run = runs[victim.run_id]
            if not is_there(run, victim):
                raise RuntimeError(f"{side.name} left a run in {run['state']}: {victim}")
            yield read_time(run["state"]["timestamp"])


@dataclass(frozen=True)
class _Meters:
    """What has been used so far."""

    requests: int
    cpu_seconds: float
    server_cpu_seconds: float

    @classmethod
    def read(cls, prefect: FreshPrefect, side: Side) -> "_Meters":
        requests = prefect.requests() if prefect.counts_requests else 0
        return cls(requests, cpu_seconds(side.processes), cpu_seconds(prefect.processes()))


def _is_due_again(run: Mapping[str, Any], victim: Victim) -> bool:
    is_on_demand = run["job_variables"].get("launch_type") == "FARGATE"
    due_at = run["next_scheduled_start_time"]
    is_due = due_at is not None and read_time(due_at) <= datetime.now(UTC)
    return is_due and is_on_demand == victim.on_demand


def _is_crashed(run: Mapping[str, Any], _: Victim) -> bool:
    return bool(run["state_type"] == "CRASHED")
