"""The laws of the guards: only earlier to FARGATE, decided once, and at no cost when off."""

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.core.model.policy import Mode, Policy
from chalicelib.core.money.daily_sums import total
from chalicelib.core.policies.facts import Missing, PolicyFacts
from chalicelib.core.rescue.capacity import choose_capacity
from chalicelib.errors import PrefectRefusedError, PrefectUnavailableError
from chalicelib.functions.react import react
from tests.laws.guarded import (
    AMPLE,
    ECONOMICS,
    LONG,
    RATES,
    SHORT,
    TIGHT,
    any_facts,
    calls_of,
    interrupted,
    noted,
)
from tests.laws.test_laws import (
    interrupt,
)
from tests.laws.universe import Universe
from tests.make import TASK_ARN, make_run, make_snapshot

OF_A_RESCUE = [
    "records.acquire",
    "prefect.read_history",
    "prefect.read_run",
    "records.save",
    "prefect.propose_state",
    "prefect.read_history",
    "prefect.read_run",
    "prefect.change_run",
    "prefect.propose_state",
    "prefect.write_log",
    "prefect.write_artifact",
    "prefect.emit_events",
    "prefect.add_labels",
    "records.release",
    "prefect.read_deployment_name",
]
"""Every call of a rescue without guards, in order."""

OF_THE_GUARDS = {"prefect.find_completed_runs", "prefect.read_task_runs", "bills.unbilled"}


@pytest.mark.parametrize("tag", ["mine", "spot-deadline:soon", "deadline:90m"])
def test_a_tag_that_names_no_deadline_costs_no_call_either(tag: str) -> None:
    """As with no guard on; one that means to be a deadline is passed over, and the run says so."""
    universe = Universe(Policy(rates=RATES))
    run_id, event = interrupted(universe, (tag,))
    assert calls_of(universe, event) == OF_A_RESCUE
    [(_, line)] = universe.prefect.logs_of(run_id)
    said = "spot-deadline:soon is none; 90m, 1h30m and 2d are"
    assert (said in line) == (tag == "spot-deadline:soon")


def test_with_one_on_its_facts_are_gathered_once() -> None:
    universe = Universe(ECONOMICS)
    run_id, event = interrupted(universe)
    extra = [name for name in calls_of(universe, event) if name not in OF_A_RESCUE]
    assert extra == [
        "prefect.find_completed_runs",
        "prefect.read_task_runs",
        "prefect.read_task_runs",
        "bills.unbilled",
        "bills.read_sums",
        "bills.read_sums",
        "bills.read_sums",
    ]
    assert not OF_THE_GUARDS & set(calls_of(universe, event)), "decided once, it stays so"
    assert noted(universe, run_id).guard == "economics"


def test_a_run_whose_budget_is_spent_is_asked_nothing() -> None:
    universe = Universe(ECONOMICS)
    _, event = interrupted(universe, ("spot-retries:0", TIGHT))
    assert not OF_THE_GUARDS & set(calls_of(universe, event))


GUARDED = [
    pytest.param(ECONOMICS, (), LONG, "economics", id="too dear on Spot"),
    pytest.param(ECONOMICS, (), SHORT, "", id="cheap on Spot"),
    pytest.param(Policy(), (TIGHT,), LONG, "deadline", id="too late for another interruption"),
    pytest.param(Policy(), (AMPLE,), SHORT, "", id="time for another interruption"),
    pytest.param(ECONOMICS, (TIGHT,), LONG, "deadline", id="both: the deadline is told"),
]


@pytest.mark.parametrize(("policy", "tags", "seconds", "guard"), GUARDED)
def test_a_guard_moves_a_run_its_words_are_told_and_the_record_keeps_them(
    policy: Policy, tags: tuple[str, ...], seconds: float, guard: str
) -> None:
    universe = Universe(policy)
    run_id, event = interrupted(universe, tags, seconds)
    universe.deliver(event)
    kept = noted(universe, run_id)
    on_demand = bool(guard)
    where = f"rerun on FARGATE, by {guard}" if on_demand else "rerun on FARGATE_SPOT"
    assert universe.prefect.runs[run_id].state.message.endswith(where)
    assert kept.guard == guard
    assert kept.rerun_on == ("FARGATE" if on_demand else "FARGATE_SPOT")
    [(_, artifact)] = universe.prefect.artifacts_of(run_id)
    [(_, line)] = universe.prefect.logs_of(run_id)
    assert (f"Why: {guard}: {kept.guard_reason}" in line) == on_demand
    assert (f"**Why:** {guard}\\:" in artifact) == on_demand
    assert (universe.start(run_id).capacity == "FARGATE") == on_demand


@pytest.mark.parametrize("mode", [Mode.RESCUE, Mode.OBSERVE])
def test_what_a_guard_moved_is_counted_with_its_bill(mode: Mode) -> None:
    universe = Universe(replace(ECONOMICS, mode=mode))
    run_id, event = interrupted(universe)
    universe.deliver(event)
    [task] = [task for task in universe.tasks.values() if task.flow_run_id == run_id]
    universe.meter(universe.end_of(task))
    counts = total(universe.sums())
    assert (counts.economics_moves, counts.deadline_moves) == (1, 0)
    assert counts.on_demand_reruns + counts.would_on_demand_reruns == 1


def test_once_a_guard_has_moved_it_a_run_stays_on_demand() -> None:
    universe = Universe(ECONOMICS)
    run_id, event = interrupted(universe)
    universe.deliver(event)
    universe.policy = Policy(rates=RATES)
    task = universe.start(run_id)
    assert task.capacity == "FARGATE"
    for told in interrupt(universe, task, "relinquishes", [2]):
        universe.deliver(told)
    assert universe.start(run_id).capacity == "FARGATE"


def failing(error: Exception) -> Callable[..., Any]:
    def call(*_args: object, **_kwargs: object) -> Any:
        raise error

    return call


@pytest.mark.parametrize("method", ["find_completed_runs", "read_task_runs", "read_sums"])
@pytest.mark.parametrize(
    "error",
    [
        PrefectUnavailableError("out of time", next_step="none"),
        PrefectRefusedError("401", next_step="none"),
        RuntimeError("a table that is not there"),
    ],
)
def test_a_fact_that_cannot_be_read_leaves_the_budget_to_decide(
    monkeypatch: pytest.MonkeyPatch, method: str, error: Exception
) -> None:
    universe = Universe(ECONOMICS)
    run_id, event = interrupted(universe)
    if method == "read_sums":
        books = SimpleNamespace(unbilled=failing(error), read_sums=failing(error))
        monkeypatch.setattr(universe, "bills", books)
    else:
        monkeypatch.setattr(universe.prefect, method, failing(error))
    universe.deliver(event)
    kept = noted(universe, run_id)
    assert (kept.rerun_on, kept.guard) == ("FARGATE_SPOT", "")
    assert type(error).__name__ in kept.guard_reason
    [(_, line)] = universe.prefect.logs_of(run_id)
    assert "1 of 3 interruptions on Spot" in line
    assert "the budget decides" in line


def test_an_invocation_that_is_short_of_time_gathers_nothing() -> None:
    universe = Universe(ECONOMICS)
    run_id, event = interrupted(universe)
    context = replace(universe.context(), seconds_left=lambda: 14.9)
    react(context, event)
    assert universe.wire is not None
    assert not OF_THE_GUARDS & set(universe.wire.calls)
    assert "there was no time left" in noted(universe, run_id).guard_reason


def test_in_observe_mode_it_is_told_what_would_have_been_done() -> None:
    universe = Universe(replace(ECONOMICS, mode=Mode.OBSERVE))
    run_id, event = interrupted(universe)
    states = list(universe.prefect.runs[run_id].states)
    universe.deliver(event)
    assert universe.prefect.runs[run_id].states == states
    assert universe.prefect.runs[run_id].job_variables == {}
    assert noted(universe, run_id).guard == "economics"
    [(_, line)] = universe.prefect.logs_of(run_id)
    assert "Next: would be rerun on FARGATE. Why: economics:" in line


@given(facts=any_facts, budget=st.integers(0, 2), tag=st.sampled_from([(), (TIGHT,), (AMPLE,)]))
def test_whatever_the_facts_a_guard_never_keeps_a_run_on_spot_and_never_fails(
    facts: PolicyFacts, budget: int, tag: tuple[str, ...]
) -> None:
    run = make_run(tags=tag, expected_start=make_snapshot().history[0].timestamp)
    policy = replace(ECONOMICS, spot_retries=budget)
    plain = make_snapshot(
        run=run,
        policy=replace(
            policy,
        ),
    )
    untagged = replace(plain, run=replace(run, tags=()))
    by_budget = choose_capacity(untagged).record.interruptions[TASK_ARN]
    guarded = choose_capacity(make_snapshot(run=run, policy=policy, facts=facts))
    decided = guarded.record.interruptions[TASK_ARN]
    assert by_budget.rerun_on == ("FARGATE" if budget == 0 else "FARGATE_SPOT")
    if by_budget.rerun_on == "FARGATE":
        assert replace(decided, tags=by_budget.tags) == by_budget
    lacks_all = all(f is None or isinstance(f, Missing) for f in (facts.past, facts.evidence))
    if lacks_all:
        assert decided.rerun_on == by_budget.rerun_on
        assert ("the budget decides" in decided.guard_reason) == (by_budget.rerun_on != "FARGATE")
    assert choose_capacity(guarded).record == guarded.record
