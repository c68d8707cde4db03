"""The laws of a rescue, over generated histories: orders, duplicates, stale events, budgets.

What befalls a handler at its calls is tried in `tests/faults`, at each of them.
"""

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chalicelib.core.metrics import Metric
from chalicelib.core.model.ecs_task import Task
from chalicelib.core.model.flow_run import ProposedState, RunState, StateType
from chalicelib.core.model.policy import Policy
from chalicelib.core.rescue.rerun_state import park_id_of_task
from tests.laws.universe import LEASE, OUT_OF_MEMORY, Befalls, Tripwire, Universe
from tests.twin.prefect import InMemoryPrefect

OURS = {"spot-interrupted", "spot-on-demand"}
SCHEDULED = StateType.SCHEDULED
TOMORROW = timedelta(days=1)

many = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))

deliveries = st.lists(st.integers(0, 3), min_size=1, max_size=8).filter(any)
"""Which events are delivered, in which order: 0 is the warning, 1 to 3 are the exit's."""

behaviors = st.sampled_from(["relinquishes", "crashes", "reschedules"])


def interrupt(
    universe: Universe, task: Task, order: list[int], behavior: str = "relinquishes"
) -> list[Any]:
    """Spot takes the task; return the events of the interruption, as they are to be delivered."""
    assert task.flow_run_id is not None
    warning = universe.warning(task)
    if order[0] == 0:
        universe.deliver(warning)
    universe.passes(2)
    if behavior == "crashes":
        universe.prefect.crash(task.flow_run_id)
    if behavior == "reschedules":
        universe.prefect.engine_reschedules(task.flow_run_id)
    universe.passes(1)
    events = [warning, *universe.exits(task)]
    return [events[number] for number in order]


def is_cancelled(prefect: InMemoryPrefect, run_id: UUID) -> None:
    prefect.cancel(run_id)
    prefect.worker_cancels(run_id)


FATES: dict[str, Callable[[InMemoryPrefect, UUID], object]] = {
    "goes on": lambda _prefect, _run_id: None,
    "completes": InMemoryPrefect.engine_finishes,
    "crashes": InMemoryPrefect.crash,
    "is being cancelled": InMemoryPrefect.cancel,
    "is cancelled": is_cancelled,
    "pauses": InMemoryPrefect.pause,
}
"""What becomes of a run by its flow, or by a person."""


@many
@given(order=deliveries, behavior=behaviors, pid_noted=st.booleans(), budget=st.integers(0, 2))
def test_any_order_and_any_duplication_ends_in_exactly_one_rerun(
    order: list[int], behavior: str, pid_noted: bool, budget: int
) -> None:
    universe = Universe(Policy(spot_retries=budget))
    run, task = universe.running(pid_noted=pid_noted)
    for event in interrupt(universe, task, order, behavior):
        universe.deliver(event)
        universe.passes(0.2)
    assert [state.transition_id for state in run.states].count(park_id_of_task(task.arn)) == 1
    assert universe.prefect.is_due(run.id)


@many
@given(
    orders=st.lists(deliveries, min_size=1, max_size=5),
    budget=st.integers(0, 3),
    own_retries=st.integers(0, 2),
    behavior=behaviors,
    pids_noted=st.lists(st.booleans(), min_size=6, max_size=6),
)
def test_n_interruptions_make_min_n_budget_spot_reruns_and_one_move(
    orders: list[list[int]], budget: int, own_retries: int, behavior: str, pids_noted: list[bool]
) -> None:
    universe = Universe()
    own, tags = {"cpu": 512, "env": {"A": "1"}}, (f"spot-retries:{budget}", "mine")
    run_id = universe.prefect.create_run(tags=tags, job_variables=own)
    capacities, interruptions = [], 0
    for order, pid_noted in zip(orders, pids_noted, strict=False):
        task = universe.start(run_id, retries=own_retries, pid_noted=pid_noted)
        capacities.append(task.capacity)
        if task.capacity == "FARGATE":
            break
        interruptions += 1
        for event in interrupt(universe, task, order, behavior):
            universe.deliver(event)
        assert universe.prefect.is_due(run_id)
    else:
        capacities.append(universe.start(run_id, retries=own_retries).capacity)
    assert capacities[1:].count("FARGATE_SPOT") == min(interruptions, budget)
    assert capacities.count("FARGATE") == (1 if interruptions > budget else 0)
    run = universe.prefect.runs[run_id]
    assert {k: v for k, v in run.job_variables.items() if k in own} == own
    assert [tag for tag in run.tags if tag not in OURS] == list(tags)
    failures = 0
    while universe.prefect.engine_fails(run_id).type is StateType.SCHEDULED:
        universe.prefect.engine_retries(run_id)
        failures += 1
    assert failures == own_retries, "interruptions ate the flow's own retries, or gave it some"


@many
@given(
    order=deliveries,
    early=st.none() | st.integers(1, 3),
    pid_noted=st.booleans(),
    fate=st.sampled_from(["goes on", "completes", "is being cancelled"]),
)
def test_a_stale_event_never_touches_the_run(
    order: list[int], early: int | None, pid_noted: bool, fate: str
) -> None:
    """Without an `early` event the run rescheduled itself, and was picked up before any came."""
    universe = Universe()
    run, task = universe.running()
    if early is None:
        stale = interrupt(universe, task, [order[0] or 1, *order], "reschedules")
    else:
        first, *stale = interrupt(universe, task, [early, *order])
        universe.deliver(first)
        universe.passes(10)
    universe.start(run.id, pid_noted=pid_noted)
    FATES[fate](universe.prefect, run.id)
    states = list(run.states)
    for event in stale:
        universe.deliver(event)
        universe.passes(60)
    assert run.states == states


@many
@given(
    order=deliveries,
    fate=st.sampled_from(["completes", "is being cancelled", "is cancelled", "pauses"]),
)
def test_a_finished_cancelled_or_paused_run_is_never_restarted(order: list[int], fate: str) -> None:
    universe = Universe()
    run, task = universe.running()
    FATES[fate](universe.prefect, run.id)
    states = list(run.states)
    for event in interrupt(universe, task, order):
        universe.deliver(event)
    assert run.states == states


@many
@given(order=deliveries, attempt=st.sampled_from(["first", "second", "second, not yet running"]))
def test_a_cancellation_that_a_dying_engine_hides_is_not_undone(
    order: list[int], attempt: str
) -> None:
    """An engine that is its container's main process sets Crashed over Cancelling, by force."""
    universe = Universe()
    run, task = universe.running()
    events = interrupt(universe, task, order)
    if attempt != "first":
        universe.deliver(universe.exits(task)[1])
    if attempt == "second":
        events += interrupt(universe, universe.start(run.id), order)
    if attempt == "second, not yet running":
        universe.prefect.worker_picks_up(run.id)
    assert universe.prefect.cancel(run.id).type is StateType.CANCELLING
    crashed = ProposedState(StateType.CRASHED, "Crashed", "aborted by a termination signal")
    universe.prefect.propose_state(run.id, crashed, force=True)
    for event in events:
        universe.deliver(event)
    universe.sweep()
    universe.sweep()
    kinds = [state.type for state in run.states]
    after = kinds[kinds.index(StateType.CANCELLING) :]
    assert StateType.SCHEDULED not in after
    if attempt != "second, not yet running":
        assert after[-1] is StateType.CANCELLED


def is_put_off(prefect: InMemoryPrefect, run_id: UUID) -> None:
    later = ProposedState(SCHEDULED, "Scheduled", scheduled_time=prefect.clock() + TOMORROW)
    prefect.move(run_id, later)


def is_taken(prefect: InMemoryPrefect, run_id: UUID) -> None:
    """A person wants it now, and a worker has it before we look."""
    prefect.move(run_id, ProposedState(SCHEDULED, "Scheduled", scheduled_time=prefect.clock()))
    prefect.move(run_id, ProposedState(StateType.PENDING, "Pending"))


OF_A_WARNING = ("read_history", "read_run", "write_log", "emit_events", "read_deployment_name")

JUST_PROPOSED = ["prefect.propose_state", "prefect.read_history"]

OTHERS: dict[str, Callable[[InMemoryPrefect, UUID], object]] = {
    "completes": InMemoryPrefect.engine_finishes,
    "fails": InMemoryPrefect.engine_fails,
    "is being cancelled": InMemoryPrefect.cancel,
    "is cancelled": is_cancelled,
    "pauses": InMemoryPrefect.pause,
    "is put off to tomorrow": is_put_off,
    "is taken by a worker": is_taken,
}


@pytest.mark.parametrize("budget", [0, 1], ids=["to FARGATE", "on Spot"])
@pytest.mark.parametrize("other", OTHERS)
def test_what_others_make_of_a_run_between_any_two_of_our_calls_stays(
    other: str, budget: int
) -> None:
    for call in range(100):
        universe = Universe(Policy(spot_retries=budget))
        prefect = universe.prefect
        run, task = universe.running()
        universe.passes(120)
        [event] = interrupt(universe, task, [2])
        theirs: list[RunState] = []

        def meanwhile() -> None:
            before = run.state  # noqa: B023  # called before the next round
            OTHERS[other](prefect, run.id)  # noqa: B023  # the same
            theirs.extend([run.state] * (run.state is not before))  # noqa: B023  # the same

        def stays() -> bool:
            kind, now = theirs[0].type, run.state  # noqa: B023  # the same
            if kind is SCHEDULED:
                return run.next_start == theirs[0].scheduled_time  # noqa: B023  # the same
            if kind is StateType.CANCELLING:
                return now.type in (StateType.CANCELLING, StateType.CANCELLED)
            return now.type is kind

        wire = Tripwire(Befalls.IS_OVERTAKEN, call, meanwhile)
        universe.handle(event, wire)
        # Between a state that we proposed and the look at what came of it: restored at once.
        if theirs and wire.calls[call - 1 : call + 1] == JUST_PROPOSED:
            assert stays(), call
        universe.deliver(event)
        if len(wire.calls) <= call:
            break
        universe.sweep()
        if not theirs:  # Prefect did not let them
            continue
        is_recorded = bool(universe.records().read(run.id).interruptions)
        assert bool(prefect.artifacts_of(run.id)) is is_recorded, call
        assert stays(), call
    else:
        pytest.fail("the handler makes more calls than were tried")
    assert call >= 15


@pytest.mark.parametrize("fate", FATES)
def test_a_warning_never_changes_the_state(fate: str) -> None:
    universe = Universe()
    run, task = universe.running()
    FATES[fate](universe.prefect, run.id)
    states = list(run.states)
    for status in ("RUNNING", "DEACTIVATING", "STOPPING"):
        universe.deliver(universe.warning(task, status))
    assert run.states == states


@pytest.mark.parametrize("tags", [(), ("spot-retries:0",)], ids=["on Spot", "to FARGATE"])
@pytest.mark.parametrize("call", range(25))
def test_a_run_whose_deployment_is_deleted_at_any_moment_is_crashed_once_and_says_why(
    tags: tuple[str, ...], call: int
) -> None:
    """When it goes after we last needed it, the run is due, and the worker has to do with that."""
    universe = Universe()
    prefect = universe.prefect
    run, task = universe.running(deployment_id=prefect.create_deployment(), tags=tags)
    assert run.deployment is not None
    event = universe.exits(task)[1]
    wire = Tripwire(
        Befalls.IS_OVERTAKEN, call, partial(prefect.delete_deployment, run.deployment.id)
    )
    universe.handle(event, wire)
    universe.deliver(event)
    for _ in range(3):
        universe.sweep()
    last_need = "prefect.change_run" if tags else "prefect.read_deployment"
    if last_need in wire.calls[:call]:
        assert prefect.is_due(run.id)
        return
    assert run.state.type is StateType.CRASHED
    assert "deployment" in run.state.message
    assert [state.type for state in run.states].count(StateType.CRASHED) == 1
    assert len(prefect.artifacts_of(run.id)) == 1


def test_what_the_dead_container_left_ends_before_its_rerun_and_subflows_keep_their_retries() -> (
    None
):
    universe = Universe()
    prefect = universe.prefect
    run, task = universe.running()
    children = [prefect.create_child(run.id)]
    children.append(prefect.create_child(children[0]))
    for flow_run_id in (run.id, *children):
        prefect.runs[flow_run_id].policy["retries"] = 1
        prefect.run_task(flow_run_id)
    for event in universe.exits(task):
        universe.deliver(event)
    assert prefect.is_due(run.id)
    left = [each.state for runs in prefect.task_runs.values() for each in runs]
    assert left == [StateType.CRASHED] * 3
    assert [prefect.runs[child].policy["retries"] for child in children] == [2, 2]
    assert [prefect.runs[child].state.type for child in children] == [StateType.RUNNING] * 2


EXITED = {"stop_code": "EssentialContainerExited", "stopped_reason": "Essential container exited"}


@pytest.mark.parametrize("how", [{}, EXITED], ids=["SpotInterruption", "exited by itself"])
@pytest.mark.parametrize("fate", [InMemoryPrefect.engine_fails, InMemoryPrefect.crash])
def test_a_warning_that_comes_after_the_signal_is_evidence_all_the_same(
    fate: Callable[..., object], how: dict[str, str]
) -> None:
    universe = Universe()
    run, task = universe.running()
    universe.passes(60)
    warning = universe.warning(task)
    universe.passes(0.5)
    fate(universe.prefect, run.id)
    universe.passes(1.5)
    universe.deliver(warning)
    universe.passes(3)
    universe.stops(task, **how)
    universe.deliver(universe.end_of(task))
    assert universe.prefect.is_due(run.id)
    assert len(universe.records().read(run.id).interruptions) == 1


def retried_by_hand(universe: Universe, run_id: UUID) -> None:
    universe.prefect.move(run_id, ProposedState(SCHEDULED, "AwaitingRetry", "by ann"))


@pytest.mark.parametrize("tags", [("spot:never-rerun",), ()], ids=["never rerun", "FAILED before"])
def test_a_persons_retry_between_two_events_of_one_task_stays(tags: tuple[str, ...]) -> None:
    universe = Universe()
    run, task = universe.running(tags=tags)
    if not tags:
        universe.prefect.engine_fails(run.id)
    universe.passes(60)
    _, exited, stopped = universe.exits(task)
    universe.deliver(exited)
    universe.passes(10)
    retried_by_hand(universe, run.id)
    states = list(run.states)
    universe.deliver(stopped)
    assert run.states == states


def test_a_task_that_dies_before_its_flow_began_is_no_reverted_rerun() -> None:
    """Of an exit code: not rerun, though the worker crashed the run before it was Running."""
    universe = Universe()
    run, task = universe.running()
    universe.passes(60)
    universe.deliver(universe.exits(task)[1])
    second = universe.start(run.id)
    run.states.pop()  # its engine did not get so far
    universe.prefect.crash(run.id, "Flow run process exited with non-zero status code 1.")
    universe.stops(second, **EXITED)
    for _ in range(3):
        universe.deliver(universe.end_of(second))
        universe.sweep()
    assert run.state.type is StateType.CRASHED


def test_a_late_observer_starts_no_second_task_while_the_worker_asks_for_one() -> None:
    universe = Universe()
    run, task = universe.running()
    universe.passes(60)
    _, exited, stopped = universe.exits(task)
    universe.deliver(exited)
    universe.passes(5)
    universe.prefect.worker_picks_up(run.id)
    universe.passes(1)
    universe.prefect.crash(run.id, "the task that was interrupted is STOPPED")
    universe.deliver(stopped)
    universe.sweep()
    assert run.state.type is StateType.CRASHED, "the worker may still bring its task up"
    universe.passes(900)
    universe.sweep()
    assert universe.prefect.is_due(run.id), "ECS has no task: the observer took the run away"


@pytest.mark.parametrize("how", [OUT_OF_MEMORY, {}], ids=["out of memory", "never rerun"])
@pytest.mark.parametrize("cancels", [False, True], ids=["PENDING", "CANCELLING"])
def test_a_retry_whose_worker_died_is_judged_although_the_earlier_task_is_noted_still(
    how: dict[str, str], cancels: bool
) -> None:
    universe = Universe()
    run, task = universe.running(tags=() if how else ("spot:never-rerun",))
    universe.passes(60)
    universe.stops(task, **how)
    universe.sweep()
    assert run.state.type is StateType.CRASHED
    retried_by_hand(universe, run.id)
    universe.prefect.worker_picks_up(run.id)
    if cancels:
        universe.prefect.cancel(run.id)
    universe.passes(1200)
    universe.sweep()
    assert run.state.type not in (StateType.PENDING, StateType.CANCELLING)


def test_waiting_for_a_slot_begins_no_count_of_failed_starts_anew() -> None:
    universe = Universe()
    run = universe.prefect.runs[universe.prefect.create_run()]
    for _ in range(3):
        universe.prefect.move(run.id, ProposedState(SCHEDULED, "AwaitingConcurrencySlot"))
        universe.prefect.worker_picks_up(run.id)
        universe.passes(2)
        universe.prefect.crash(run.id, "Failed to submit flow run to infrastructure: Throttling")
        universe.sweep()
        universe.passes(200)
    assert run.state.type is StateType.CRASHED


def test_a_task_that_comes_up_while_a_sweep_parks_its_run_keeps_it() -> None:
    """Placed after more than PENDING_GRACE_SECONDS."""
    for call in range(40):
        universe = Universe()
        run = universe.prefect.runs[universe.prefect.create_run()]
        universe.prefect.worker_picks_up(run.id)
        universe.passes(900)

        def comes_up() -> None:
            if run.state.type is StateType.PENDING:  # noqa: B023  # called before the next round
                universe.prefect.engine_starts(run.id)  # noqa: B023  # the same

        universe.sweep(Tripwire(Befalls.IS_OVERTAKEN, call, comes_up))
        if len(universe.calls) <= call:
            break
        kinds = [state.type for state in run.states]
        if StateType.RUNNING in kinds:
            assert run.state.type is StateType.RUNNING, call


def test_a_warning_that_comes_after_the_exit_annotates_the_rerun() -> None:
    universe = Universe()
    run, task = universe.running()
    universe.passes(60)
    warning = universe.warning(task)
    universe.passes(1)
    universe.prefect.engine_fails(run.id)
    universe.passes(1)
    _, exited, stopped = universe.exits(task)
    for event in (exited, warning, stopped):
        universe.deliver(event)
    assert universe.prefect.is_due(run.id)
    assert "rerun on FARGATE_SPOT" in universe.prefect.logs_of(run.id)[-1][1]


def test_a_repeated_event_asks_for_one_read_at_most_and_repairs_what_undid_the_rerun() -> None:
    universe = Universe()
    run, task = universe.running()
    universe.passes(60)

    def asks(event: dict[str, Any]) -> list[str]:
        universe.deliver(event)
        return [call for call in universe.calls if call.startswith("prefect.")]

    assert asks(universe.warning(task)) == [f"prefect.{name}" for name in OF_A_WARNING]
    assert asks(universe.warning(task, "STOPPING")) == []
    _, exited, stopped = universe.exits(task)
    assert "prefect.write_artifact" in asks(exited)
    assert asks(stopped) == ["prefect.read_history"]
    universe.prefect.crash(run.id, "a zombie automation")
    assert "prefect.propose_state" in asks(stopped)
    assert universe.prefect.is_due(run.id)


def test_a_persons_retry_begins_the_count_of_failed_starts_anew() -> None:
    universe = Universe()
    run = universe.prefect.runs[universe.prefect.create_run()]
    throttled = "Flow run could not be submitted to infrastructure: ThrottlingException"
    for attempt in range(2):
        if attempt:
            retried_by_hand(universe, run.id)
        for _ in range(3):
            universe.prefect.worker_picks_up(run.id)
            universe.passes(2)
            universe.prefect.crash(run.id, throttled)
            universe.sweep()
            universe.passes(200)
        assert run.state.type is StateType.CRASHED
    numbers = [f.number for f in universe.records().read(run.id).failed_starts.values()]
    assert numbers == [1, 2, 3] * 2


@pytest.mark.parametrize("how", [OUT_OF_MEMORY, None], ids=["out of memory", "crashed over"])
@pytest.mark.parametrize(
    "other", ["is cancelled", "is put off to tomorrow", "is taken by a worker"]
)
def test_what_others_make_of_a_run_while_we_end_or_restore_it_stays(
    other: str, how: dict[str, str] | None
) -> None:
    for call in range(60):
        universe = Universe()
        prefect = universe.prefect
        run, task = universe.running()
        universe.passes(120)
        if how is None:
            prefect.engine_finishes(run.id)
            crashed = ProposedState(StateType.CRASHED, "Crashed", "a termination signal")
            prefect.propose_state(run.id, crashed, force=True)
        universe.stops(task, **(how or {}))
        theirs: list[RunState] = []

        def meanwhile() -> None:
            before = run.state  # noqa: B023  # called before the next round
            OTHERS[other](prefect, run.id)  # noqa: B023  # the same
            theirs.extend([run.state] * (run.state is not before))  # noqa: B023  # the same

        universe.sweep(Tripwire(Befalls.IS_OVERTAKEN, call, meanwhile))
        if len(universe.calls) <= call:
            break
        if theirs:
            assert run.state.type is theirs[0].type, call
    else:
        pytest.fail("the handler makes more calls than were tried")


@pytest.mark.parametrize("call", range(12))
def test_a_warning_that_comes_after_the_death_of_the_exits_handler_undoes_nothing(
    call: int,
) -> None:
    universe = Universe()
    run, task = universe.running()
    warning, exited = universe.warning(task), universe.exits(task)[1]
    universe.handle(exited, Tripwire(Befalls.DIES_AFTER, call))
    universe.passes(LEASE.total_seconds() + 1)
    universe.deliver(warning)
    assert universe.prefect.is_due(run.id)
    assert [state.type for state in run.states].count(StateType.RUNNING) == 1


@pytest.mark.parametrize("fails", [Befalls.FAILS_BEFORE, Befalls.FAILS_AFTER])
def test_a_rerun_is_measured_once_though_annotating_it_fails(fails: Befalls) -> None:
    universe = Universe()
    _, task = universe.running()
    _, exited, stopped = universe.exits(task)
    like = Universe()
    like.handle(like.exits(like.running()[1])[1])
    universe.handle(exited, Tripwire(fails, like.calls.index("prefect.write_artifact")))
    universe.deliver(stopped)
    reruns = [each.values.get(Metric.SPOT_RERUNS, 0) for each in universe.measured]
    assert sum(reruns) == 1


@pytest.mark.parametrize("befalls", [Befalls.FAILS_BEFORE, Befalls.FAILS_AFTER, Befalls.DIES_AFTER])
def test_an_interruption_without_a_rerun_is_annotated_and_measured_whatever_fails(
    befalls: Befalls,
) -> None:
    for call in range(40):
        universe = Universe()
        run, task = universe.running(tags=("spot:never-rerun",))
        universe.passes(60)
        _, exited, stopped = universe.exits(task)
        wire = Tripwire(befalls, call)
        universe.handle(exited, wire)
        if len(wire.calls) <= call:
            break
        universe.passes(60)
        universe.deliver(exited)
        universe.deliver(stopped)
        assert run.state.type is StateType.CRASHED, call
        [noted] = universe.records().read(run.id).interruptions.values()
        assert noted.outcome_annotated, call
        counted = [each.values.get(Metric.NOT_RERUN, 0) for each in universe.measured]
        is_over = befalls is Befalls.DIES_AFTER or wire.calls[call] == "records.release"
        assert sum(counted) == 1 or is_over, call


def test_a_retry_that_a_person_scheduled_before_the_first_event_stays() -> None:
    universe = Universe()
    run, task = universe.running(tags=("spot:never-rerun",))
    universe.passes(60)
    _, exited, _ = universe.exits(task)
    universe.prefect.crash(run.id, "Execution was aborted by a termination signal.")
    retried_by_hand(universe, run.id)
    states = list(run.states)
    universe.deliver(exited)
    assert run.states == states
