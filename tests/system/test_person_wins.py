"""A state that a person sets wins, before whichever request of a rescue it is set.

For each request that the deployed `react` sends to a real server when it answers one interruption,
and for each state that a person or another client can set, a run has just that happen to it. After
Lambda's retries and two sweeps the run is where the person put it. Worker and engines are
simulated.
"""

import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from localcloud.bootstrap import WORK_POOL
from localcloud.cloud import Cloud
from localcloud.events import Delivery, Event
from localcloud.fault_proxy import ProxiedRequest, no_fault
from tests.e2e.scenario import Run, Stage
from tests.e2e.stories import Stories
from tests.faults.ledger import FOLDER
from tests.system.simulated_worker import FLOW, SimulatedWorker

CLOUDS = ("simulated",)
RESULT = FOLDER.parent / "person-wins.json"
QUEUE = "persons"
LONG_SECONDS = 900.0
COMPLETION_SECONDS = 300.0
TOMORROW = datetime.now(UTC) + timedelta(days=1)
UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
RERUN = "a rerun"
"""The end where the server took no state from the person, or one that `react` has to answer."""

TAKEN = "the start by the other worker"

Act = Callable[[Cloud, SimulatedWorker, str], bool]
"""What a person or another client does to a run; whether the server took it."""


def sets(kind: str, *, force: bool = False, **details: object) -> Act:
    """Set a state, as Prefect's UI does: `force` for a final one."""

    def act(cloud: Cloud, _: SimulatedWorker, run_id: str) -> bool:
        state = {"type": kind, "name": kind.title(), "message": "ann", "state_details": details}
        body = {"state": state, "force": force}
        answer = cloud.prefect.send("POST", f"/flow_runs/{run_id}/set_state", body)
        return bool(answer["status"] == "ACCEPT")

    return act


def is_taken(cloud: Cloud, other_worker: SimulatedWorker, run_id: str) -> bool:
    return other_worker.takes(cloud.prefect.run(run_id))


STATES: Mapping[str, tuple[Act, str]] = {
    "Cancelling": (sets("CANCELLING"), "CANCELLED"),
    "Cancelled": (sets("CANCELLED", force=True), "CANCELLED"),
    "Completed": (sets("COMPLETED", force=True), "COMPLETED"),
    "Failed": (sets("FAILED", force=True), "FAILED"),
    "Crashed": (sets("CRASHED", force=True), RERUN),
    "Paused": (
        sets("PAUSED", pause_reschedule=True, pause_timeout=TOMORROW.isoformat()),
        "PAUSED",
    ),
    "Scheduled for tomorrow": (sets("SCHEDULED", scheduled_time=TOMORROW.isoformat()), "SCHEDULED"),
    "Pending, taken by a worker": (is_taken, TAKEN),
}
"""What is done to a run, and the state it is in for good."""


@dataclass
class Visited:
    """A run to which something is done before its request number `point`, from 1."""

    run: Run
    point: int
    state: str
    requests: list[str] = field(default_factory=list)
    was_taken: bool | None = None
    """Whether the server took the state; None as long as nobody has set it."""

    def visit(self, cloud: Cloud, other_worker: SimulatedWorker) -> None:
        act, _ = STATES[self.state]
        self.was_taken = False
        self.was_taken = act(cloud, other_worker, self.run.id)

    @property
    def end(self) -> str:
        return STATES[self.state][1] if self.was_taken else RERUN

    @property
    def starts(self) -> int:
        return 2 if self.end in (RERUN, TAKEN) else 1

    def lost(self, fields: Mapping[str, Any]) -> str:
        """In which combination the person's state did not win, for the reader; "" if it did."""
        due = fields["state"]["state_details"].get("scheduled_time")
        is_later = bool(due) and datetime.fromisoformat(due) >= TOMORROW - timedelta(seconds=1)
        kind = fields["state_type"]
        if self.end == "SCHEDULED":
            won = kind == "SCHEDULED" and is_later
        elif self.end == RERUN:
            won = kind == "SCHEDULED" and not is_later
        elif self.end == TAKEN:
            won = kind == "COMPLETED"
        else:
            won = kind == self.end
        before = self.requests[self.point - 1] if self.requests[self.point - 1 :] else "any sweep"
        history = [state["name"] for state in self.run.cloud.prefect.history(self.run.id)]
        words = f"{self.state} before request {self.point} ({before}), not {self.end}: {history}"
        return "" if won else words


def only_the_stop(event: Event) -> Sequence[Delivery]:
    return [Delivery(event)] if event["detail"]["lastStatus"] == "STOPPED" else []


def test_a_state_that_a_person_sets_wins_at_every_point_of_a_rescue(
    stage: Stage, stories: Stories
) -> None:
    stories.wait_for_all()
    cloud = stage.cloud
    [reference] = visited(stage, [(0, "Cancelled")])
    cloud.prefect.pause_queue(WORK_POOL, True, QUEUE)
    with visits(cloud, [reference]):
        interrupt(cloud, [reference])
    points = len(reference.requests)
    assert points >= 8, reference.requests

    cloud.prefect.pause_queue(WORK_POOL, False, QUEUE)
    last = points + 1  # after the last request, before the sweeps
    all_visited = visited(stage, [(p, s) for p in range(1, last + 1) for s in STATES])
    cloud.prefect.pause_queue(WORK_POOL, True, QUEUE)
    with visits(cloud, all_visited) as other_worker:
        interrupt(cloud, all_visited)
        for late in all_visited:
            if late.was_taken is None:
                late.visit(cloud, other_worker)
        stage.sweep()
        stage.sweep()
        cloud.lambdas.wait_idle(LONG_SECONDS)
        complete(v.run for v in all_visited if v.end == TAKEN)
        lost = {v.run.id: words for v in all_visited if (words := v.lost(v.run.fields()))}
        cloud.prefect.pause_queue(WORK_POOL, False, QUEUE)
        complete(v.run for v in all_visited if v.end == RERUN and v.run.id not in lost)
        for one in all_visited:
            if one.run.starts() != one.starts:
                words = f"{one.state} before request {one.point}: {one.run.starts()} starts"
                lost.setdefault(one.run.id, words)
    accepted = [v for v in all_visited if v.was_taken]
    figures = {"points": last, "states": len(STATES), "set": len(accepted), "lost": len(lost)}
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(figures) + "\n")
    assert {v.state for v in accepted} == set(STATES), "the server took some state nowhere"
    assert not lost, "\n".join([f"{len(lost)} of {len(accepted)}:", *lost.values()])


def visited(stage: Stage, chosen: Sequence[tuple[int, str]]) -> list[Visited]:
    """Start a run for each point and state, half of them to be moved to FARGATE."""
    found = []
    for number, (point, state) in enumerate(chosen):
        tags = [f"spot-retries:{(number + number // len(STATES)) % 2}"]
        run = stage.start(FLOW, tags=tags, queue=QUEUE, event_faults=only_the_stop, seconds=1)
        found.append(Visited(run, point, state))
    for one in found:
        one.run.wait_for_start(1, LONG_SECONDS)
    return found


def interrupt(cloud: Cloud, all_visited: Sequence[Visited]) -> None:
    """Have Spot take all tasks, and wait until the functions have done all they try."""
    for one in all_visited:
        cloud.fargate.interrupt(one.run.containers()[-1].task_arn)
    for one in all_visited:
        one.run.wait_until_stopped()
    cloud.lambdas.wait_idle(LONG_SECONDS)


def complete(runs: Iterable[Run]) -> None:
    """Give the runs time to complete; those that do not are found later."""
    remaining = list(runs)
    deadline = time.monotonic() + COMPLETION_SECONDS
    while remaining and time.monotonic() < deadline:
        remaining = [run for run in remaining if run.state_type() != "COMPLETED"]
        time.sleep(1)


@contextmanager
def visits(cloud: Cloud, all_visited: Sequence[Visited]) -> Iterator[SimulatedWorker]:
    """Note the requests about each run, and have its visit come before the chosen one."""
    assert cloud.prefect_faults
    by_run = {one.run.id: one for one in all_visited}
    other_worker = SimulatedWorker(cloud)

    def visit(request: ProxiedRequest) -> None:
        for run_id in by_run.keys() & set(UUID.findall(request.text)):
            one = by_run[run_id]
            one.requests.append(f"{request.method} {UUID.sub('…', request.path)}")
            if len(one.requests) == one.point and one.was_taken is None:
                one.visit(cloud, other_worker)

    cloud.prefect_faults.plan = visit
    yield other_worker
    cloud.prefect_faults.plan = no_fault
    other_worker.closed.set()
    other_worker.pool.shutdown()
    assert other_worker.errors == []
    assert cloud.prefect_faults.errors == []
