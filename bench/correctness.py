"""What becomes of a run in awkward cases, on either side, by what Prefect says afterwards."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from bench.comparison import OURS, Comparison
from bench.handlers import Event, FreshAws, fresh_aws
from bench.http_client import Http
from bench.interruptions import Victim, make_seeds, stop_of, task_of
from bench.servers import FreshPrefect, move, start_run
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


@dataclass(frozen=True)
class Outcome:
    """What Prefect says of a run: its state, whether workers are given it, its states since."""

    state_type: str
    state_name: str
    is_given_out: bool
    since: Sequence[str]

    def __str__(self) -> str:
        return f"{self.state_name}, due" if self.is_given_out else self.state_name


def starts_again_once(outcome: Outcome) -> bool:
    """Whether a worker gets the run; it was parked once, and once made due."""
    return outcome.is_given_out and outcome.since == ["AwaitingRetry", "AwaitingRetry"]


def is_crashed(outcome: Outcome) -> bool:
    """Whether the run is Crashed."""
    return outcome.state_type == "CRASHED"


def works_on(outcome: Outcome) -> bool:
    """Whether the run is left where it was: at work."""
    return outcome.state_type == "RUNNING"


Judge = Callable[[Outcome], bool]


@dataclass(frozen=True)
class Case:
    """A case: how the run comes to be as it is, which news come, and what is meant to follow."""

    name: str
    prepare: Callable[[Place], Victim] = Place.starts
    news: Callable[[Victim], Sequence[Event]] = lambda victim: [stop_of(victim)]
    ours: Judge = starts_again_once
    theirs: Judge = is_crashed


def _twice(victim: Victim) -> Sequence[Event]:
    event = stop_of(victim)
    return [event, event]


CASES: Final = (
    Case("exit code 0", news=lambda victim: [stop_of(victim, 0)]),
    Case("no exit code", news=lambda victim: [stop_of(victim, None)]),
    Case("exit code 143", news=lambda victim: [stop_of(victim, 143)]),
    Case(
        "late news of an older task",
        prepare=Place.is_on_its_next_task,
        ours=works_on,
        theirs=works_on,
    ),
    Case("the same event twice", news=_twice),
    Case("already Crashed by its engine", prepare=Place.is_crashed),
    Case("waiting for a retry in the process that is gone", prepare=Place.is_stranded),
)


def judge_all(
    comparison: Comparison, side_name: str, prefect: FreshPrefect
) -> Mapping[str, Mapping[str, Any]]:
    """Play all cases before one side; return what Prefect says, and whether that is right."""
    with (
        fresh_aws(comparison.household, []) as aws,
        comparison.side(side_name, prefect, aws, RUNTIMES_HERE) as side,
    ):
        http = prefect.http
        deployment_id = http.get("/deployments/name/etl/nightly")["id"]
        place = Place(http, aws, deployment_id)
        found = {}
        for case in CASES:
            victim = case.prepare(place)
            before = _states(http, victim.run_id)
            side.deliver(case.news(victim))
            side.wait()
            outcome = _outcome(http, victim.run_id, len(before))
            judge = case.ours if side_name == OURS else case.theirs
            found[case.name] = {"says": str(outcome), "right": judge(outcome)}
            comparison.log(f"{case.name}, {side_name}: {outcome}")
    return found


def _outcome(http: Http, run_id: str, states_before: int) -> Outcome:
    run = http.get(f"/flow_runs/{run_id}")
    before = (datetime.now(UTC) + PREFETCH).isoformat()
    path = f"/work_pools/{WORK_POOL}/get_scheduled_flow_runs"
    given = http.send("POST", path, {"scheduled_before": before, "limit": 100})
    ids = [answer["flow_run"]["id"] for answer in given]
    since = _states(http, run_id)[states_before:]
    return Outcome(run["state_type"], run["state_name"], run_id in ids, since)


def _states(http: Http, run_id: str) -> Sequence[str]:
    """Return the names of all states that the run has been in, in their order."""
    states = http.get(f"/flow_run_states/?flow_run_id={run_id}")
    return [state["name"] for state in sorted(states, key=lambda state: state["timestamp"])]
