"""What `sweep` repairs from state, when no event was handled; and what it leaves alone."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from decimal import Decimal
from time import process_time
from typing import Any
from uuid import UUID

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from chalicelib.core.metrics import Metric
from chalicelib.core.model.ecs_task import Task
from chalicelib.core.model.flow_run import ProposedState, StateType
from chalicelib.core.model.policy import Mode, Pause, Policy
from chalicelib.core.money.report import Counts
from chalicelib.errors import PrefectNotNowError, PrefectUnavailableError
from chalicelib.functions.sweep import LIGHT_STAGES, LIVE, PAGE, STAGES, sweep
from chalicelib.functions.sweep_report import SweepReport
from tests.laws.universe import BY_ITSELF, OUT_OF_MEMORY, Befalls, Lines, Tripwire, Universe
from tests.make import NOW, ODD_ARNS
from tests.twin.orchestration import TwinRun

HOUR = 3700
SUBMISSION = "Flow run could not be submitted to infrastructure: "
REFUSAL = "Capacity is unavailable at this time."


def swept(universe: Universe, wire: Tripwire | None = None) -> SweepReport:
    """What a sweep did, which did not raise."""
    report = universe.sweep(wire)
    assert report is not None
    return report


def stopped(universe: Universe, **how: Any) -> TwinRun:
    """A run whose task was interrupted, unless `how` says otherwise; no event was handled."""
    run, task = universe.running()
    universe.stops(task, **how)
    return run


def refused(universe: Universe) -> TwinRun:
    """A run for which RunTask found no Spot capacity."""
    run = universe.prefect.runs[universe.prefect.create_run()]
    refuse(universe, run)
    return run


def refuse(universe: Universe, run: TwinRun, why: str = REFUSAL) -> None:
    universe.prefect.worker_picks_up(run.id)
    universe.prefect.crash(run.id, SUBMISSION + why)


def before_each(universe: Universe, call: str, happens: Callable[..., object]) -> None:
    """Something happens, to what Prefect is called with, before each such call."""
    real = getattr(universe.prefect, call)

    def preceded(*args: Any, **options: Any) -> Any:
        happens(*args)
        return real(*args, **options)

    setattr(universe.prefect, call, preceded)


def stumble(universe: Universe, run_id: UUID, call: str) -> None:
    """Prefect answers a call about that run with what its adapter does not understand."""

    def stumbles(of_run: UUID, *_: object) -> None:
        if of_run == run_id:
            raise KeyError("unheard of")

    before_each(universe, call, stumbles)


def test_events_have_a_grace_before_the_sweep(universe: Universe) -> None:
    run = stopped(universe)
    universe.passes(60)
    sweep(universe.context(), {})
    assert run.state.type is StateType.RUNNING


def test_the_runs_of_all_pools_are_repaired_and_of_no_other(universe: Universe) -> None:
    prefect = universe.prefect
    ours, theirs = (prefect.create_work_pool(launch_type="FARGATE_SPOT") for _ in range(2))
    pools = (ours, "no-such-pool", prefect.work_pool_name)
    universe.policy = replace(universe.policy, work_pools=pools)
    runs = {}
    for pool in (ours, prefect.work_pool_name, theirs):
        deployment = prefect.create_deployment(work_pool=pool)
        run, task = universe.running(deployment_id=deployment)
        universe.stops(task)
        runs[pool] = run
    report = swept(universe)
    assert (report.stranded, report.seen, report.finished) == (2, 2, True)
    states = {pool: run.state.name for pool, run in runs.items()}
    assert states == {**dict.fromkeys(runs, "AwaitingRetry"), theirs: "Running"}
    assert {m.work_pool for m in universe.measured if m.values} == {ours, prefect.work_pool_name}


def test_a_run_with_a_live_task_is_left_alone_whatever_its_noted_task_says(
    universe: Universe,
) -> None:
    run, task = universe.running(pid_noted=False)
    run.infrastructure_pid = f"{task.cluster_arn}::{task.arn[:-4]}gone"
    states = list(run.states)
    universe.sweep()
    universe.passes(HOUR)  # by now ECS has forgotten the noted one
    universe.sweep()
    assert run.states == states


def test_an_unnoted_task_that_was_interrupted_is_found_by_its_tag(universe: Universe) -> None:
    run, first = universe.running()
    universe.deliver(universe.exits(first)[1])
    second = universe.start(run.id, pid_noted=False)
    universe.stops(second)
    universe.sweep()
    assert universe.prefect.is_due(run.id)
    assert universe.records().read(run.id).warned_of(second.arn)


@pytest.mark.parametrize(
    ("variables", "state"),
    [({}, StateType.SCHEDULED), ({"launch_type": "FARGATE"}, StateType.CRASHED)],
    ids=["on Spot: rerun", "on demand: Crashed"],
)
def test_a_task_that_ecs_has_forgotten_was_interrupted_if_it_was_on_spot(
    universe: Universe, variables: dict[str, str], state: StateType
) -> None:
    run, task = universe.running(job_variables=variables)
    del universe.tasks[task.arn]
    universe.sweep()
    assert run.state.type is StateType.RUNNING, "ECS remembers for an hour"
    universe.passes(HOUR)
    universe.sweep()
    assert run.state.type is state


ON_EC2 = {"launch_type": "EC2"}
ON_INSTANCES = {"capacity_provider_strategy": [{"capacityProvider": "my-instances", "weight": 1}]}


@pytest.mark.parametrize("stop_code", ["TerminationNotice", "EssentialContainerExited"])
@pytest.mark.parametrize(
    "where",
    [{"launch_type": "EC2"}, {"launch_type": "EXTERNAL"}, {"capacity_provider": "my-instances"}],
    ids=str,
)
def test_a_run_whose_task_was_not_on_fargate_is_left_alone(
    universe: Universe, where: dict[str, str], stop_code: str
) -> None:
    run = stopped(universe, stop_code=stop_code, **where)
    universe.sweep()
    assert [state.type for state in run.states][-1] is StateType.RUNNING
    assert not universe.records().read(run.id).interruptions


@pytest.mark.parametrize("variables", [ON_EC2, ON_INSTANCES], ids=str)
@pytest.mark.parametrize("level", ["run", "deployment", "pool"])
def test_nor_is_one_whose_task_is_forgotten_and_cannot_have_been_on_fargate(
    universe: Universe, level: str, variables: dict[str, Any]
) -> None:
    of = {"run": {}, "deployment": {}, "pool": {}, level: variables}
    universe.prefect.pool_defaults[universe.prefect.work_pool_name] |= of["pool"]
    deployment_id = universe.prefect.create_deployment(job_variables=of["deployment"])
    run, task = universe.running(deployment_id=deployment_id, job_variables=of["run"])
    del universe.tasks[task.arn]
    universe.passes(HOUR)
    universe.sweep()
    assert run.state.type is StateType.RUNNING


@pytest.mark.parametrize(
    ("stop_code", "reason", "what", "remedy"),
    [
        ("EssentialContainerExited", "OutOfMemoryError: x", "out of memory", "job variable"),
        ("TaskFailedToStart", "CannotPullContainerError: x", "could not be pulled", "image's name"),
        ("TaskFailedToStart", "", "never started", "ECS console"),
        ("TaskFailedToStart", "CannotPullContainerError: a: not found", "not found", "tag"),
        ("UserInitiated", "ann did it", "a user stopped it", "retry"),
        ("UserInitiated", "OutOfMemory? Rate exceeded?", "a user stopped it", "retry"),
    ],
)
def test_a_run_that_ended_otherwise_is_crashed_with_reason_and_remedy(
    universe: Universe, stop_code: str, reason: str, what: str, remedy: str
) -> None:
    run = stopped(universe, stop_code=stop_code, stopped_reason=reason, container_reason="so it is")
    universe.sweep()
    assert run.state.type is StateType.CRASHED
    for part in (what, remedy, reason, "so it is"):
        assert part in run.state.message


@pytest.mark.parametrize(
    ("after", "code", "reports", "is_named"),
    [(1, 1, False, True), (1, 255, False, True), (1, 255, True, False), (1, 2, False, False),
     (9, 1, False, False)],
    ids=["re:Post's code", "a newer runtime's", "it reported", "another code", "later"],
)  # fmt: skip
def test_an_image_for_another_architecture_is_named_where_the_container_exits_unheard(
    universe: Universe, after: int, code: int, *, reports: bool, is_named: bool
) -> None:
    """ECS says nothing but the exit code then; the words are in the container's log."""
    run, task = universe.running()
    if not reports:
        run.states[:] = [s for s in run.states if s.type is not StateType.RUNNING]
    ended = task.started_at and task.started_at + timedelta(seconds=after)
    exited: dict[str, Any] = {"stop_code": "EssentialContainerExited", "exit_code": code}
    exited |= {"stopped_reason": "Essential container in task exited", "architecture": "arm64"}
    universe.stops(task, execution_stopped_at=ended, **exited)
    for _ in range(2):
        universe.sweep()
        assert run.state.type is StateType.CRASHED, "it is not started again"
    said = "another CPU architecture than the task, arm64" in run.state.message
    assert said is ("set ARCHITECTURE" in run.state.message) is is_named
    assert f"exit code {code}" in run.state.message


def test_a_run_that_a_late_observer_pended_has_the_ordinary_grace(universe: Universe) -> None:
    """Of the interrupted task's start: no worker has the run, and none will."""
    run, task = universe.running()
    universe.deliver(universe.exits(task)[1])
    pended = ProposedState(StateType.PENDING, "InfrastructurePending", "old event")
    universe.prefect.move(run.id, pended)
    universe.sweep()
    assert run.state.type is StateType.SCHEDULED


@pytest.mark.parametrize("fails", [False, True], ids=["never rerun", "FAILED before the warning"])
def test_an_ended_run_whose_end_is_answered_is_not_judged_again(
    universe: Universe, fails: bool
) -> None:
    run, task = universe.running(tags=() if fails else ("spot:never-rerun",))
    if fails:
        universe.prefect.engine_fails(run.id)
        universe.passes(5)
    universe.deliver(universe.warning(task))
    universe.deliver(universe.exits(task)[1])
    assert run.state.is_final
    assert swept(universe).stranded == 0


def test_a_cancellation_between_two_tasks_comes_to_its_end(universe: Universe) -> None:
    """A person cancels what waits for its rerun: no task is left that could end it."""
    run, task = universe.running()
    universe.deliver(universe.exits(task)[1])
    assert universe.prefect.cancel(run.id).type is StateType.CANCELLING
    universe.sweep()
    assert run.state.type is StateType.CANCELLED
    assert "no task" in run.state.message


@pytest.mark.parametrize("earlier", ["none", "not tagged", "not noted", "both"])
def test_a_run_that_was_picked_up_is_left_alone_until_its_worker_had_the_time_to_get_a_task(
    universe: Universe, earlier: str
) -> None:
    """Whatever became of the task of an earlier attempt, which stays noted and listed."""
    run = universe.prefect.runs[universe.prefect.create_run()]
    if earlier != "none":
        task = universe.start(run.id, pid_noted=earlier != "not noted")
        untagged = {"flow_run_id": None} if earlier == "not tagged" else {}
        universe.stops(task, **OUT_OF_MEMORY, **untagged)
        universe.prefect.crash(run.id)
        universe.passes(600)
        universe.prefect.move(run.id, ProposedState(StateType.SCHEDULED, "AwaitingRetry"))
    universe.prefect.worker_picks_up(run.id)
    for _ in range(3):
        universe.sweep()
        assert run.state.type is StateType.PENDING
    universe.sweep()
    assert run.state.type is not StateType.PENDING


def test_a_pending_run_whose_task_has_stopped_has_the_grace(universe: Universe) -> None:
    run = universe.prefect.runs[universe.prefect.create_run()]
    task = universe.start(run.id)
    run.states.pop()  # its engine never started
    universe.stops(task)
    universe.sweep()
    assert universe.prefect.is_due(run.id)


def test_a_run_that_never_gets_a_task_is_started_twice_more(universe: Universe) -> None:
    run = universe.prefect.runs[universe.prefect.create_run()]
    for _ in range(3):
        universe.prefect.worker_picks_up(run.id)
        universe.passes(HOUR)
        universe.sweep()
        universe.passes(200)
    assert [state.type for state in run.states].count(StateType.PENDING) == 3
    assert run.state.type is StateType.CRASHED
    assert "ECS never showed a task for it" in run.state.message
    assert [daily.counts for daily in universe.sums()] == [Counts(failed_starts=3)]


@pytest.mark.parametrize("answered", [True, False], ids=["react was there", "events lost"])
def test_a_start_that_worker_and_ecs_both_report_as_failed_counts_once(
    universe: Universe, answered: bool
) -> None:
    """prefect-aws 0.5 waits for the task, and calls its end a failed submission."""
    run, task = universe.running()
    universe.deliver(universe.exits(task)[1])
    universe.passes(5)
    universe.prefect.worker_picks_up(run.id)
    universe.passes(5)
    why = "Timeout waiting for network interface provisioning to complete."
    second = replace(task, arn=task.arn[:-1] + "x", created_at=universe.now, started_at=None)
    universe.stops(second, stop_code="TaskFailedToStart", stopped_reason=why)
    if answered:
        universe.deliver(universe.end_of(second))
        assert run.state.type is StateType.SCHEDULED
    universe.prefect.crash(run.id, f"{SUBMISSION}TaskFailedToStart('{why}')")
    universe.sweep()
    universe.sweep()
    assert run.state.type is StateType.SCHEDULED
    assert list(universe.records().read(run.id).failed_starts) == [second.arn]


@pytest.mark.parametrize("parked", [False, True], ids=["in time", "while it was being parked"])
def test_a_paused_run_waits_and_is_rerun_when_it_is_resumed(
    universe: Universe, parked: bool
) -> None:
    run, task = universe.running()
    event = universe.exits(task)[1]

    def pauses() -> None:
        if run.state.type is StateType.RUNNING:
            universe.prefect.pause(run.id)

    universe.handle(event, Tripwire(Befalls.IS_OVERTAKEN, 4 if parked else 0, pauses))
    universe.sweep()
    assert run.state.type is StateType.PAUSED
    assert (StateType.SCHEDULED in [s.type for s in run.states[1:]]) == parked
    universe.prefect.resume(run.id)
    universe.sweep()
    assert universe.prefect.is_due(run.id)


def test_a_rerun_that_a_concurrency_limit_cancelled_is_made_due_again(universe: Universe) -> None:
    prefect = universe.prefect
    deployment = prefect.create_deployment(concurrency_limit=1, collision="CANCEL_NEW")
    run, task = universe.running(deployment_id=deployment)
    universe.deliver(universe.exits(task)[1])
    prefect.worker_picks_up(prefect.create_run(deployment_id=deployment))
    assert prefect.worker_picks_up(run.id).type is StateType.CANCELLED
    universe.sweep()
    assert prefect.is_due(run.id)


def test_subflow_runs_and_theirs_end_with_their_parent(universe: Universe) -> None:
    run = stopped(universe, **OUT_OF_MEMORY)
    child = universe.prefect.create_child(run.id)
    family = [universe.prefect.runs[r] for r in (child, universe.prefect.create_child(child))]
    universe.sweep()
    assert family[0].state.type is StateType.RUNNING, "the parent has its grace as well"
    universe.sweep()
    assert [each.state.type for each in family] == [StateType.CRASHED] * 2


def test_subflow_runs_of_a_run_that_spot_took_and_nobody_reruns_end_too(
    universe: Universe,
) -> None:
    run, task = universe.running(tags=("spot:never-rerun",))
    child = universe.prefect.runs[universe.prefect.create_child(run.id)]
    universe.deliver(universe.exits(task)[1])
    assert run.state.type is StateType.CRASHED
    universe.sweep()
    assert child.state.type is StateType.CRASHED


@pytest.mark.parametrize("crashed", [False, True])
def test_subflow_runs_of_a_run_that_is_rerun_are_left_to_it(
    universe: Universe, crashed: bool
) -> None:
    run = stopped(universe)
    if crashed:
        universe.prefect.crash(run.id)
    child = universe.prefect.runs[universe.prefect.create_child(run.id)]
    universe.sweep()
    assert child.state.type is StateType.RUNNING


def test_observe_mode_touches_nothing() -> None:
    universe = Universe(Policy(mode=Mode.OBSERVE))
    stopped(universe)
    refused(universe)
    for ended in (stopped(universe, **OUT_OF_MEMORY), stopped(universe)):
        universe.prefect.create_child(ended.id)
    universe.prefect.crash(ended.id)
    runs = universe.prefect.runs.values()
    before = [list(run.states) for run in runs]
    universe.sweep()
    assert [run.states for run in runs] == before
    assert len(before) == 6


@pytest.mark.parametrize("scheduled", [True, False])
@pytest.mark.parametrize("hours", [0, 3])
def test_a_paused_stage_touches_no_run_and_catches_up_once_it_is_resumed(
    universe: Universe, scheduled: bool, hours: int
) -> None:
    """Runs that Spot took meanwhile, also those whose task ECS has forgotten by then."""
    universe.sweep()
    pause = universe.stored.pause = Pause(universe.now, "arn:aws:iam::1:user/ops")
    taken = [stopped(universe) for _ in range(3)]
    dead = [stopped(universe, **OUT_OF_MEMORY) for _ in range(2)]
    before = [list(run.states) for run in (*taken, *dead)]
    for _ in range(4):
        universe.passes(300)
        paused = sweep(universe.context(), {"detail-type": "Scheduled Event"} if scheduled else {})
    assert [run.states for run in (*taken, *dead)] == before
    assert not [call for call in universe.calls if call.startswith("prefect.change_run")]
    assert paused.summary["paused"] == str(pause)
    age = Decimal((universe.now - pause.paused_at).total_seconds())
    assert universe.measured[-1].values == {Metric.PAUSED_SECONDS: age}
    assert len(universe.bills.bills) == len(before), "billing goes on"
    universe.passes(hours * HOUR)
    if hours:
        universe.tasks.clear()
    universe.stored.pause = None
    assert "paused" not in swept(universe).summary
    assert all(universe.prefect.is_due(run.id) for run in taken)
    if not hours:
        assert {run.state.type for run in dead} == {StateType.CRASHED}


@settings(max_examples=9, deadline=None)
@given(
    moments=st.lists(st.integers(1, 220), min_size=1, max_size=3),
    dead=st.sets(st.integers(0, 9), min_size=1),
    leaving=st.integers(0, 30),
    seconds=st.sampled_from([60.0, 7.0, 1.0]),
)
@example(moments=[230], dead=set(range(10)), leaving=0, seconds=60.0)
@example(moments=[130], dead=set(range(10)), leaving=9, seconds=1.0)
@example(moments=[100, 100], dead={9}, leaving=1, seconds=60.0)
def test_a_sweep_that_is_finished_has_seen_every_run_whoever_left_the_set(
    moments: list[int], dead: set[int], leaving: int, seconds: float
) -> None:
    """Runs of one moment come without an order, and leave the set under the paging."""
    universe, orphans, alive = Universe(), [], []
    for minute, count in enumerate(moments):
        for number in range(count):
            universe.now = NOW + timedelta(minutes=minute)
            run, task = universe.running()
            if number % 10 in dead:
                universe.stops(task)
                orphans.append(run.id)
            else:
                alive.append(run.id)
    invocations, report = 0, None

    def some_leave(_query: object) -> None:
        for _ in range(min(leaving, len(alive))):
            universe.prefect.engine_finishes(alive.pop(hash(alive[0]) % len(alive)))

    before_each(universe, "find_runs", some_leave)
    universe.passes(300)
    while report is None or not report.finished:
        before = sum(map(universe.prefect.is_due, orphans))
        report = sweep(replace(universe.context(), seconds_left=lambda: seconds), {})
        invocations += 1
        assert report.finished or report.seen
        assert invocations < 20 + len(orphans)
        assert seconds > 1.0 or sum(map(universe.prefect.is_due, orphans)) <= before + 1
    assert all(map(universe.prefect.is_due, orphans))
    assert seconds < 60.0 or invocations == 1


def test_a_run_that_was_due_just_after_a_page_of_one_moment_is_seen(universe: Universe) -> None:
    at = universe.now
    for _ in range(PAGE):
        universe.now = at
        universe.running()
    universe.now = at + timedelta(microseconds=10)
    run = stopped(universe)
    universe.sweep()
    assert universe.prefect.is_due(run.id)


def test_a_sweep_ends_although_dynamodb_throttles_the_bills(universe: Universe) -> None:
    universe.sweep()
    first = next(n for n, call in enumerate(universe.calls) if call.startswith("bills."))
    assert swept(universe, Tripwire(Befalls.FAILS_BEFORE, first)).finished


@pytest.mark.parametrize("waiting", [False, True], ids=["running", "waiting for own retries"])
def test_a_hundred_healthy_runs_cost_a_handful_of_calls(universe: Universe, waiting: bool) -> None:
    for _ in range(100):
        run, _ = universe.running()
        if waiting:
            run.policy.update(retries=1, retry_delay=3600)
            assert universe.prefect.engine_fails(run.id).name == "AwaitingRetry"
    universe.sweep()
    assert not {"prefect.read_history", "tasks.all_of"} & set(universe.calls)
    of_runs = [call for call in universe.calls if not call.startswith("bills.")]
    assert len(of_runs) <= 12, universe.calls
    assert len(universe.calls) <= 16, "bills cost the same, however many runs there are"


@pytest.mark.parametrize("delay", [0, 1800])
def test_a_run_whose_own_retry_lost_its_process_is_rerun_when_all_events_were_lost(
    universe: Universe, delay: int
) -> None:
    run, task = universe.running()
    run.policy.update(retries=2, retry_delay=delay)
    universe.passes(60)
    assert universe.prefect.engine_fails(run.id).name == "AwaitingRetry"
    universe.stops(task)
    universe.sweep()
    assert run.policy["retry_type"] != "in_process"
    universe.passes(delay)
    assert universe.prefect.is_due(run.id)


def test_a_failure_that_a_recorded_warning_caused_is_rerun(universe: Universe) -> None:
    run, task = universe.running()
    universe.deliver(universe.warning(task))
    universe.passes(3)
    universe.prefect.engine_fails(run.id)
    other, _ = universe.running()
    universe.prefect.engine_fails(other.id)
    universe.passes(2)
    universe.stops(task)
    universe.sweep()
    assert universe.prefect.is_due(run.id)
    assert other.state.type is StateType.FAILED


@pytest.mark.parametrize("shown", [True, False], ids=["ECS shows its task", "ECS does not"])
def test_a_completed_run_that_an_engine_crashed_is_completed_again(
    universe: Universe, shown: bool
) -> None:
    run, task = universe.running()
    universe.prefect.engine_finishes(run.id)
    crashed = ProposedState(StateType.CRASHED, "Crashed", "Execution was aborted by a signal.")
    universe.prefect.propose_state(run.id, crashed, force=True)
    universe.stops(task)
    if not shown:
        del universe.tasks[task.arn]
    universe.sweep()
    assert run.state.type is StateType.COMPLETED


@pytest.mark.parametrize("call", ["", "read_history", "read_run", "propose_state"])
def test_one_run_that_cannot_be_repaired_does_not_stop_the_others(
    universe: Universe, call: str
) -> None:
    """Another handler has it; or what Prefect answers is not understood, which is reported."""
    odd, other = stopped(universe), stopped(universe)
    if call:
        stumble(universe, odd.id, call)
    else:
        lease_begins = universe.now + timedelta(seconds=300)
        universe.records().acquire(odd.id, lease_begins, timedelta(minutes=5))
    report = swept(universe)
    assert [universe.prefect.is_due(run.id) for run in (odd, other)] == [False, True]
    assert report.unjudged == ({"judging it failed: KeyError": 1} if call else {})
    assert (report.failed, report.finished) == (1, True)


@dataclass(frozen=True)
class Plight:
    """How one run stands: its state, and what ECS and the worker's note say of its task.

    `task`: "alive", the stop of one that ended, or "forgotten". `pid`: "own", "none", or odd.
    """

    kind: StateType
    name: str
    message: str = ""
    in_process: bool = False
    task: str = "Spot"
    pid: str = "own"
    tagged: bool = True
    launch_type: str = ""

    def befall(self, universe: Universe) -> TwinRun:
        run, task = universe.running(job_variables={"launch_type": self.launch_type})
        pids = {"own": run.infrastructure_pid, "none": None}
        run.infrastructure_pid = pids.get(self.pid, f"prefect-spot-dev::{self.pid}")
        if self.in_process or self.kind is StateType.SCHEDULED:
            run.policy["retry_type"] = "in_process"
        if self.kind is not StateType.RUNNING:
            moved = ProposedState(self.kind, self.name, self.message)
            universe.prefect._write(run, moved, before={}, after={})
        if self.task != "alive":
            universe.stops(task, **STOPS.get(self.task, {}))
        if self.task == "forgotten":
            del universe.tasks[task.arn]
        elif not self.tagged:
            universe.tasks[task.arn] = replace(universe.tasks[task.arn], flow_run_id=None)
        return run

    @property
    def is_seen_alive(self) -> bool:
        return self.task == "alive" and (self.tagged or self.pid == "own")


STOPS: dict[str, dict[str, Any]] = {"memory": OUT_OF_MEMORY, "by itself": BY_ITSELF}
plights = st.builds(
    Plight,
    st.sampled_from([*LIVE, StateType.SCHEDULED]),
    st.sampled_from(["AwaitingRetry", "Scheduled", "Late", "Resuming", "Own name"]),
    message=st.sampled_from(["", REFUSAL, "\0 <b>"]),
    in_process=st.booleans(),
    task=st.sampled_from(["alive", "Spot", "forgotten", *STOPS]),
    pid=st.sampled_from(["own", "none", "own", *ODD_ARNS.values()]),
    tagged=st.booleans(),
    launch_type=st.sampled_from(["", "FARGATE"]),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(plights, min_size=1, max_size=6))
@example([Plight(StateType.SCHEDULED, "Late")])
@example([Plight(StateType.PENDING, "Pending", pid=ODD_ARNS["control characters"])] * 2)
def test_every_run_without_a_live_task_is_judged_or_reported(situation: list[Plight]) -> None:
    """Whatever state, name, retry type, pid or message it has; and no odd one stops the others."""
    universe = Universe()
    runs = [plight.befall(universe) for plight in situation]
    before = [len(run.states) for run in runs]
    for _ in range(26):  # two hours: ECS forgets after one
        report = swept(universe)
        assert (report.finished, report.failed) == (True, 0)
    for plight, run, count in zip(situation, runs, before, strict=True):
        if plight.is_seen_alive:
            assert len(run.states) == count, "its container is at work"
        else:
            ended = run.state.is_final or universe.prefect.is_due(run.id)
            assert ended or run.id in universe.stored.sweep.unjudged, (plight, run.state)


@pytest.mark.parametrize("arn", ODD_ARNS.values(), ids=ODD_ARNS)
def test_a_run_whose_noted_task_cannot_be_described_is_reported_and_stops_no_other(
    universe: Universe, arn: str
) -> None:
    before, odd, after = (stopped(universe) for _ in range(3))
    del universe.tasks[str(odd.infrastructure_pid).partition("::")[2]]
    odd.infrastructure_pid = f"prefect-spot-dev::{arn}"
    report = swept(universe)
    assert [universe.prefect.is_due(run.id) for run in (before, odd, after)] == [True, False, True]
    assert odd.state.type is StateType.RUNNING
    assert (sum(report.unjudged.values()), report.finished) == (1, True)
    assert isinstance(universe.log, Lines)
    [keys] = [keys for line, keys in universe.log.lines if line == "could not be judged"]
    assert keys == {"flow_run_id": str(odd.id), "reason": next(iter(report.unjudged))}
    assert not {*arn.split(":")[3:5]} & {*keys["reason"].split()}, "each reason is a series"


def test_what_cannot_be_judged_counts_once_until_it_was_judged(universe: Universe) -> None:
    run = stopped(universe)
    garbage, tagged = f"prefect-spot-dev::{ODD_ARNS['no ARN']}", universe.tasks.popitem()[1]

    def newly(pid: str, *tasks: Task) -> int:
        run.infrastructure_pid, universe.measured[:] = pid, []
        universe.tasks = {task.arn: task for task in tasks}
        report = swept(universe)
        counted = [each.values[Metric.SWEEP_UNJUDGED] for each in universe.measured]
        assert sum(counted) == report.unjudged.total()
        assert {each.reason for each in universe.measured} == set(report.unjudged)
        return report.unjudged.total()

    alive = replace(tagged, last_status="RUNNING")
    assert [newly(garbage), newly(garbage)] == [1, 0]
    assert [*universe.stored.sweep.unjudged] == [run.id]
    assert [newly(garbage, alive), len(universe.stored.sweep.unjudged)] == [0, 0]
    assert [newly(garbage), newly(garbage)] == [1, 0]
    universe.prefect.engine_finishes(run.id)
    universe.passes(HOUR)
    assert [newly(garbage), len(universe.stored.sweep.unjudged)] == [0, 0]


def test_a_run_whose_noted_task_is_no_arn_is_judged_by_its_tagged_one(universe: Universe) -> None:
    interrupted, (living, _) = stopped(universe), universe.running()
    for run in (interrupted, living):
        run.infrastructure_pid = "garbage"
    assert not swept(universe).unjudged
    assert universe.prefect.is_due(interrupted.id)
    assert living.state.type is StateType.RUNNING


def test_a_child_that_refuses_its_end_does_not_keep_the_others_alive(universe: Universe) -> None:
    run = stopped(universe, **OUT_OF_MEMORY)
    children = [universe.prefect.create_child(run.id) for _ in range(3)]
    universe.sweep()
    stumble(universe, children[1], "propose_state")
    universe.sweep()
    states = [universe.prefect.runs[child].state.type for child in children]
    assert states == [StateType.CRASHED, StateType.RUNNING, StateType.CRASHED]


# The light look.


def minutely(universe: Universe, seconds: float = 60) -> SweepReport:
    """The schedule's next call."""
    universe.passes(seconds)
    return sweep(universe.context(), {"detail-type": "Scheduled Event"})


BOTH_SERVERS = pytest.mark.parametrize("oldest", [False, True], ids=["newest", "oldest Prefect"])


@BOTH_SERVERS
def test_a_light_look_costs_one_request_when_there_is_nothing_to_do(
    universe: Universe, oldest: bool
) -> None:
    universe.serve(oldest=oldest)
    assert minutely(universe).finished, "the first call reads all"
    assert universe.calls.count("prefect.find_runs") == len([*LIGHT_STAGES[:1], *STAGES])
    assert not [call for call in universe.calls if call.startswith("tasks.all")]
    stopped(universe)
    for _ in range(4):
        assert minutely(universe).light
        assert universe.calls == ["records.read_sweep", "prefect.find_runs"]
    assert not minutely(universe).light


@BOTH_SERVERS
def test_a_refusal_is_answered_within_a_minute_and_asks_ecs_nothing(
    universe: Universe, oldest: bool
) -> None:
    universe.serve(oldest=oldest)
    first = refused(universe)
    universe.sweep()  # learns which server it is
    run = refused(universe)
    assert minutely(universe).light
    assert not [call for call in universe.calls if call.startswith("tasks.")]
    for each in (first, run):
        assert universe.prefect.is_due(each.id)
        assert each.job_variables["launch_type"] == "FARGATE"
    assert universe.sums() == ()
    refuse(universe, run)
    universe.sweep()
    assert run.state.type is StateType.CRASHED
    assert [daily.counts for daily in universe.sums()] == [Counts(failed_starts=1)]


def test_a_failed_submission_is_answered_once(universe: Universe) -> None:
    """On demand refused too, or for a lasting reason: it stays Crashed, and costs no more."""
    minutely(universe)
    runs = [refused(universe) for _ in range(2)]
    minutely(universe)
    refuse(universe, runs[0])
    refuse(universe, runs[1], "ClientException: TaskDefinition is inactive")
    assert minutely(universe).stranded == 2
    assert {run.state.type for run in runs} == {StateType.CRASHED}
    assert minutely(universe).light
    assert universe.calls == ["records.read_sweep", "prefect.find_runs"]
    universe.passes(3600)
    minutely(universe)
    assert not universe.stored.sweep.answered


def test_a_failed_submission_waits_for_its_tasks_end(universe: Universe) -> None:
    """RunTask's answer was lost: the worker gave up on a task that runs."""
    minutely(universe)
    run, task = universe.running()
    universe.prefect.crash(run.id, SUBMISSION + "ReadTimeoutError: read timed out")
    assert minutely(universe).stranded == 0
    universe.stops(task, stop_code="TaskFailedToStart", stopped_reason="", started_at=None)
    assert minutely(universe).stranded == 1


def test_a_light_look_that_fails_for_one_run_tries_that_again(universe: Universe) -> None:
    minutely(universe)
    odd, other = refused(universe), refused(universe)
    stumble(universe, odd.id, "read_history")
    assert minutely(universe).failed == 1
    assert universe.prefect.is_due(other.id)
    del universe.prefect.read_history
    minutely(universe)
    assert universe.prefect.is_due(odd.id)


def test_a_light_look_without_prefect_is_logged_and_no_failure(universe: Universe) -> None:
    minutely(universe)
    universe.prefect.failure = PrefectUnavailableError("503", next_step="none")
    assert minutely(universe).failed == 1


@pytest.mark.parametrize("rescued", [0, 1, PAGE + 1], ids=["at once", "soon", "on page two"])
def test_a_sweep_that_prefect_puts_off_ends_and_a_later_one_goes_on(
    universe: Universe, rescued: int
) -> None:
    """It asks for nothing more, and judges every run in the end."""
    runs = [stopped(universe).id for _ in range(PAGE + 5)]
    universe.passes(300)
    left = [rescued]

    def asks_for_time(_: object) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise PrefectNotNowError("429", "none", universe.now, lasts=False)

    before_each(universe, "read_history", asks_for_time)
    with pytest.raises(PrefectNotNowError):
        sweep(universe.context(), {})
    assert left == [-1], "nobody asks for the next run"
    del universe.prefect.read_history
    while not universe.sweep().finished:  # type: ignore[union-attr]  # it does not fail
        pass
    assert all(map(universe.prefect.is_due, runs))


def test_a_scheduled_sweep_ends_before_the_next_call_and_that_goes_on(universe: Universe) -> None:
    for _ in range(150):
        stopped(universe)
    universe.passes(300)
    before_each(universe, "read_history", lambda _: universe.passes(1))
    began, calls = universe.now, 0
    while not minutely(universe, seconds=0).finished:
        calls += 1
        assert universe.now - began < timedelta(seconds=60)
        began = universe.now = began + timedelta(seconds=60)
    assert calls >= 2
    assert all(universe.prefect.is_due(run) for run in universe.prefect.runs)


def failed_submissions(universe: Universe) -> None:
    for _ in range(70):
        refused(universe)


def subflows_of_an_ended_run(universe: Universe) -> None:
    run = stopped(universe, **OUT_OF_MEMORY)
    universe.prefect.crash(run.id)
    for _ in range(100):
        universe.prefect.create_child(run.id)


def test_a_message_made_to_be_searched_long_takes_no_time_from_the_others(
    universe: Universe,
) -> None:
    """Fifty searches in each, of a tenth of a second on a whole processor, took seven seconds."""
    for number in range(3):
        run = universe.prefect.runs[universe.prefect.create_run()]
        refuse(universe, run, f"{number} {'vpc ' * 5000}")
    began = process_time()
    swept(universe)
    assert process_time() - began < 3


@pytest.mark.parametrize("flood", [failed_submissions, subflows_of_an_ended_run])
def test_a_flood_of_runs_leaves_the_others_a_share_of_each_call(
    universe: Universe, flood: Callable[[Universe], None]
) -> None:
    run = stopped(universe)
    for call in ("read_history", "propose_state"):
        before_each(universe, call, lambda *_: universe.passes(1))
    for _ in range(2):
        flood(universe)
        universe.passes(300)
        began = universe.now
        minutely(universe, seconds=0)
        assert universe.now - began < timedelta(seconds=60)
    assert universe.prefect.is_due(run.id)
