"""The laws of a rescue, over generated histories: orders, duplicates, stale news, budgets.

What befalls a handler at its calls is tried in `tests/faults`, at each of them.
"""

from typing import Any
from uuid import UUID

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chalicelib.core.model.ecs_task import Task
from chalicelib.core.model.flow_run import ProposedState, StateType
from chalicelib.core.model.policy import Policy
from chalicelib.core.rescue.rerun_state import park_id_of_task
from tests.laws.universe import Befalls, Fault, Universe

OURS = {"spot-interrupted", "spot-on-demand"}

many = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

deliveries = st.lists(st.integers(0, 3), min_size=1, max_size=8).filter(
    lambda told: any(number > 0 for number in told)
)
"""Which events are delivered, in which order: 0 is the warning, 1 to 3 tell of the exit."""

behaviors = st.sampled_from(["relinquishes", "crashes", "reschedules"])


def interrupt(universe: Universe, task: Task, behavior: str, told: list[int]) -> list[Any]:
    """Take the task; return the events of the interruption, as they are to be delivered."""
    assert task.flow_run_id is not None
    warning = universe.warning(task)
    if told[0] == 0:
        universe.deliver(warning)
    universe.passes(2)
    if behavior == "crashes":
        universe.prefect.crash(task.flow_run_id)
    if behavior == "reschedules":
        universe.prefect.engine_reschedules(task.flow_run_id)
    universe.passes(1)
    events = [warning, *universe.exits(task)]
    return [events[number] for number in told]


def reruns(universe: Universe, run_id: UUID, task: Task) -> int:
    """How often the run was parked for that task: every rerun begins with it."""
    park = park_id_of_task(task.arn)
    return sum(s.transition_id == park for s in universe.prefect.runs[run_id].states)


@many
@given(told=deliveries, behavior=behaviors, pid_noted=st.booleans(), budget=st.integers(0, 2))
def test_any_order_and_any_duplication_ends_in_exactly_one_rerun(
    told: list[int], behavior: str, pid_noted: bool, budget: int
) -> None:
    universe = Universe(Policy(spot_retries=budget))
    run_id = universe.prefect.create_run()
    task = universe.start(run_id, pid_noted=pid_noted)
    for event in interrupt(universe, task, behavior, told):
        universe.deliver(event)
        universe.passes(0.2)
    assert reruns(universe, run_id, task) == 1
    assert universe.prefect.is_due(run_id)


@many
@given(
    told=st.lists(deliveries, min_size=1, max_size=5),
    budget=st.integers(0, 3),
    own_retries=st.integers(0, 2),
    behavior=behaviors,
    pids_noted=st.lists(st.booleans(), min_size=6, max_size=6),
)
def test_n_interruptions_make_min_n_budget_spot_reruns_and_one_move(
    told: list[list[int]],
    budget: int,
    own_retries: int,
    behavior: str,
    pids_noted: list[bool],
) -> None:
    universe = Universe()
    own = {"cpu": 512, "env": {"A": "1"}}
    tags = (f"spot-retries:{budget}", "mine")
    run_id = universe.prefect.create_run(tags=tags, job_variables=own)
    capacities = []
    interruptions = 0
    for deliveries_of_one, pid_noted in zip(told, pids_noted, strict=False):
        task = universe.start(run_id, retries=own_retries, pid_noted=pid_noted)
        capacities.append(task.capacity)
        if task.capacity == "FARGATE":
            break
        interruptions += 1
        for event in interrupt(universe, task, behavior, deliveries_of_one):
            universe.deliver(event)
        assert universe.prefect.is_due(run_id)
    else:
        capacities.append(universe.start(run_id, retries=own_retries).capacity)
    on_spot = [c for c in capacities[1:] if c == "FARGATE_SPOT"]
    assert len(on_spot) == min(interruptions, budget)
    assert capacities.count("FARGATE") == (1 if interruptions > budget else 0)
    run = universe.prefect.runs[run_id]
    kept = {k: v for k, v in run.job_variables.items() if k in own}
    assert kept == own
    assert [tag for tag in run.tags if tag not in OURS] == list(tags)
    failures = 0
    while universe.prefect.engine_fails(run_id).type is StateType.SCHEDULED:
        universe.prefect.engine_retries(run_id)
        failures += 1
    assert failures == own_retries, "interruptions ate the flow's own retries, or gave it some"


@many
@given(told=deliveries, early=st.integers(1, 3), fate=st.sampled_from(["runs", "ends", "cancels"]))
def test_news_of_an_older_task_never_touches_the_run(
    told: list[int], early: int, fate: str
) -> None:
    universe = Universe()
    run_id = universe.prefect.create_run()
    task = universe.start(run_id)
    events = interrupt(universe, task, "relinquishes", [early, *told])
    universe.deliver(events[0])
    universe.passes(10)
    universe.start(run_id)
    if fate == "ends":
        universe.prefect.engine_finishes(run_id)
    if fate == "cancels":
        universe.prefect.cancel(run_id)
    states = list(universe.prefect.runs[run_id].states)
    for event in events[1:]:
        universe.deliver(event)
        universe.passes(60)
    assert universe.prefect.runs[run_id].states == states


@many
@given(told=deliveries, pid_noted=st.booleans())
def test_news_of_an_older_task_that_nobody_answered_does_not_touch_the_run_either(
    told: list[int], pid_noted: bool
) -> None:
    """The run had rescheduled itself, and was picked up before any event came."""
    universe = Universe()
    run_id = universe.prefect.create_run()
    task = universe.start(run_id)
    universe.passes(1)
    universe.prefect.engine_reschedules(run_id)
    events = [universe.warning(task), *universe.exits(task)]
    universe.start(run_id, pid_noted=pid_noted)
    states = list(universe.prefect.runs[run_id].states)
    for number in told:
        universe.deliver(events[number])
    assert universe.prefect.runs[run_id].states == states


@many
@given(told=deliveries, fate=st.sampled_from(["completes", "cancels", "pauses", "cancelled"]))
def test_a_finished_cancelled_or_paused_run_is_never_restarted(told: list[int], fate: str) -> None:
    universe = Universe()
    run_id = universe.prefect.create_run()
    task = universe.start(run_id)
    match fate:
        case "completes":
            universe.prefect.engine_finishes(run_id)
        case "cancels":
            universe.prefect.cancel(run_id)
        case "cancelled":
            universe.prefect.cancel(run_id)
            universe.prefect.worker_cancels(run_id)
        case "pauses":
            universe.prefect.pause(run_id)
    states = list(universe.prefect.runs[run_id].states)
    for event in interrupt(universe, task, "relinquishes", told):
        universe.deliver(event)
    assert universe.prefect.runs[run_id].states == states


@many
@given(told=deliveries, attempt=st.sampled_from(["first", "second", "second, not yet running"]))
def test_a_cancellation_that_a_dying_engine_hides_is_not_undone(
    told: list[int], attempt: str
) -> None:
    """An engine that is its container's main process says Crashed over Cancelling, by force."""
    universe = Universe()
    run_id = universe.prefect.create_run()
    task = universe.start(run_id)
    events = interrupt(universe, task, "relinquishes", told)
    if attempt == "first":
        cancel_and_crash(universe, run_id)
    else:
        universe.deliver(universe.exits(task)[1])
        if attempt == "second":
            events += interrupt(universe, universe.start(run_id), "relinquishes", told)
        else:
            universe.prefect.worker_picks_up(run_id)
        cancel_and_crash(universe, run_id)
    for event in events:
        universe.deliver(event)
    universe.sweep()
    universe.sweep()
    states = universe.prefect.runs[run_id].states
    after = states[[s.type for s in states].index(StateType.CANCELLING) :]
    assert StateType.SCHEDULED not in [state.type for state in after]
    if attempt != "second, not yet running":
        assert after[-1].type is StateType.CANCELLED


def cancel_and_crash(universe: Universe, run_id: UUID) -> None:
    assert universe.prefect.cancel(run_id).type is StateType.CANCELLING
    crashed = ProposedState(StateType.CRASHED, "Crashed", "aborted by a termination signal")
    universe.prefect.propose_state(run_id, crashed, force=True)


@many
@given(fate=st.sampled_from(["completes", "cancels", "pauses"]), call=st.integers(0, 12))
def test_who_finishes_cancels_or_pauses_a_run_under_our_hands_wins(fate: str, call: int) -> None:
    universe = Universe()
    prefect = universe.prefect
    run_id = prefect.create_run()
    task = universe.start(run_id)
    event = interrupt(universe, task, "relinquishes", [2])[0]
    moves = {
        "completes": prefect.engine_finishes,
        "cancels": prefect.cancel,
        "pauses": prefect.pause,
    }
    moved: list[StateType] = []

    def meanwhile() -> None:
        if prefect.runs[run_id].state.type is StateType.RUNNING:
            moved.append(moves[fate](run_id).type)

    universe.handle(event, Fault(Befalls.IS_OVERTAKEN, call), meanwhile)
    universe.deliver(event)
    if moved:
        assert prefect.runs[run_id].state.type is moved[0]
    else:  # it came too late, to a run that is parked or due already
        assert prefect.is_due(run_id)


@many
@given(fate=st.sampled_from(["runs", "completes", "cancels", "pauses", "crashes"]))
def test_a_warning_never_changes_the_state(fate: str) -> None:
    universe = Universe()
    run_id = universe.prefect.create_run()
    task = universe.start(run_id)
    prefect = universe.prefect
    moves = {
        "completes": prefect.engine_finishes,
        "cancels": prefect.cancel,
        "pauses": prefect.pause,
        "crashes": prefect.crash,
    }
    if fate in moves:
        moves[fate](run_id)
    states = list(prefect.runs[run_id].states)
    for status in ("RUNNING", "DEACTIVATING", "STOPPING"):
        universe.deliver(universe.warning(task, lastStatus=status))
    assert prefect.runs[run_id].states == states
