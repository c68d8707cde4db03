"""What becomes of a run in awkward cases, on either side, by what Prefect says afterwards."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from lab.bench.comparison import Comparison
from lab.bench.interruptions import Victim, make_seeds, stop_of, task_of
from lab.bench.part import Row
from lab.bench.servers import FreshAws, FreshPrefect, Http, fresh_aws, move, start_run
from lab.bench.sides import OURS, THEIRS, Event
from localcloud.bootstrap import WORK_POOL

PREFETCH: Final = timedelta(seconds=10)
"""How far ahead Prefect's worker asks for runs."""

RUNTIMES_HERE: Final = 2
"""For an event that comes twice at once."""


@dataclass(frozen=True)
class Place:
    """Where a case is played."""

    http: Http
    aws: FreshAws
    deployment_id: str

    def starts(self, retries: int = 0) -> Victim:
        """Have a run RUNNING in a task that ECS knows."""
        [seed] = make_seeds(1)
        run_id, started_at = start_run(self.http, self.deployment_id, seed, retries)
        victim = Victim(run_id, seed.task_arn, started_at, on_demand=False)
        self.aws.http.send("POST", "/bench/tasks", [task_of(victim)])
        return victim

    def is_crashed(self) -> Victim:
        """Have a run that its engine marked Crashed when SIGTERM came."""
        victim = self.starts()
        move(self.http, victim.run_id, "CRASHED")
        return victim

    def is_stranded(self) -> Victim:
        """Have a run that waits for a retry in the process that is gone: no worker is given it."""
        victim = self.starts(retries=2)
        move(self.http, victim.run_id, "FAILED")
        return victim

    def is_on_its_next_task(self) -> Victim:
        """Have a run that works in its second task; the victim is its first one."""
        victim = self.starts()
        for kind in ("SCHEDULED", "PENDING"):
            move(self.http, victim.run_id, kind)
        [seed] = make_seeds(1)
        newer = Victim(victim.run_id, seed.task_arn, datetime.now(UTC), on_demand=False)
        task = task_of(newer, lastStatus="RUNNING", desiredStatus="RUNNING", stopCode=None)
        self.aws.http.send("POST", "/bench/tasks", [task])
        pid = {"infrastructure_pid": seed.pid}
        self.http.send("PATCH", f"/flow_runs/{victim.run_id}", pid)
        move(self.http, victim.run_id, "RUNNING")
        return victim


DUE_ONCE: Final = "AwaitingRetry, due"
"""A worker gets the run; it was parked once, and once made due."""


@dataclass(frozen=True)
class Case:
    """How the run comes to be as it is, which news come, and how either side is to leave it."""

    name: str
    prepare: Callable[[Place], Victim] = Place.starts
    news: Callable[[Victim], Sequence[Event]] = lambda victim: [stop_of(victim)]
    ours: str = DUE_ONCE
    theirs: str = "Crashed"


CASES: Final = (
    Case("exit code 0", news=lambda victim: [stop_of(victim, 0)]),
    Case("no exit code", news=lambda victim: [stop_of(victim, None)]),
    Case("exit code 143", news=lambda victim: [stop_of(victim, 143)]),
    Case("late news of an older task", Place.is_on_its_next_task, ours="Running", theirs="Running"),
    Case("the same event twice", news=lambda victim: [stop_of(victim)] * 2),
    Case("already Crashed by its engine", Place.is_crashed),
    Case("waiting for a retry in the process that is gone", Place.is_stranded),
)


def judged_cases(comparison: Comparison, prefect: FreshPrefect) -> list[Row]:
    """Play all cases before either side; return what Prefect says, and whether that is right."""
    found: dict[str, list[str]] = {}
    for side_name in (OURS, THEIRS):
        with ExitStack() as stack:
            aws = stack.enter_context(fresh_aws(comparison.deployment.supervisor))
            side = stack.enter_context(comparison.side(side_name, prefect, aws, RUNTIMES_HERE))
            deployment_id = prefect.http.get("/deployments/name/etl/nightly")["id"]
            place = Place(prefect.http, aws, deployment_id)
            found[side_name] = []
            for case in CASES:
                victim = case.prepare(place)
                before = _states(place.http, victim.run_id)
                side.deliver(case.news(victim))
                side.wait()
                found[side_name].append(_outcome(place.http, victim.run_id, len(before)))
                comparison.log(f"{case.name}, {side_name}: {found[side_name][-1]}")
    return [
        {
            "": case.name,
            "prefect-spot: Prefect says": our,
            "prefect-spot as meant": "yes" if our == case.ours else "NO",
            "observer: Prefect says": their,
            "observer as meant": "yes" if their == case.theirs else "NO",
        }
        for case, our, their in zip(CASES, found[OURS], found[THEIRS], strict=True)
    ]


def _outcome(http: Http, run_id: str, states_before: int) -> str:
    """Return the run's state; ", due" where workers get the run; and its way, if not that of one.

    A single rerun parks the run once, and makes it due once.
    """
    run = http.get(f"/flow_runs/{run_id}")
    before = (datetime.now(UTC) + PREFETCH).isoformat()
    path = f"/work_pools/{WORK_POOL}/get_scheduled_flow_runs"
    given = http.send("POST", path, {"scheduled_before": before, "limit": 100})
    if run_id not in [answer["flow_run"]["id"] for answer in given]:
        return str(run["state_name"])
    since = _states(http, run_id)[states_before:]
    once = since == ["AwaitingRetry", "AwaitingRetry"]
    return f"{run['state_name']}, due" + ("" if once else f" after {', '.join(since)}")


def _states(http: Http, run_id: str) -> Sequence[str]:
    """Return the names of all states that the run has been in, in their order."""
    states = http.get(f"/flow_run_states/?flow_run_id={run_id}")
    return [state["name"] for state in sorted(states, key=lambda state: state["timestamp"])]
