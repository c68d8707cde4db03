"""The laws of the guards: only earlier to FARGATE, decided once, and at no cost when off."""

from copy import deepcopy
from dataclasses import replace
from typing import Any
from unittest.mock import Mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.core.model.policy import Mode, Policy
from chalicelib.core.money.report import total
from chalicelib.core.policies.facts import (
    Missing,
    PolicyFacts,
    PreviousRuns,
    Progress,
    RestartOverhead,
    SpotEvidence,
    facts_of,
)
from chalicelib.core.rescue.capacity import choose_capacity
from chalicelib.errors import PrefectRefusedError, PrefectUnavailableError
from chalicelib.functions.react import react
from tests.laws.universe import Universe
from tests.make import ECONOMICS, RATES, TASK_ARN, make_run, make_snapshot
from tests.twin.orchestration import TwinRun

TIGHT, AMPLE = "spot-deadline:10m", "spot-deadline:9d"
LONG, SHORT = 400_000.0, 60.0
"""Seconds of a deployment's completed run: too long for Spot by economics, and short enough."""

OF_A_RESCUE = [
    "records.read_pause",
    "records.acquire",
    "prefect.read_history",
    "prefect.read_run",
    "records.save",
    "prefect.propose_state",
    "prefect.read_history",
    "prefect.read_run",
    "prefect.read_deployment",
    "prefect.find_live_children",
    "prefect.find_running_task_runs",
    "prefect.change_run",
    "prefect.propose_state",
    "prefect.read_history",
    "prefect.read_run",
    "prefect.write_log",
    "prefect.write_artifact",
    "prefect.emit_events",
    "prefect.add_labels",
    "records.release",
    "prefect.read_deployment_name",
]
"""Every call of a rescue without guards, in order."""

OF_THE_GUARDS = [
    "prefect.find_completed_runs",
    "prefect.read_task_runs",
    "prefect.read_task_runs",
    "bills.unbilled",
    "bills.read_sums",
    "bills.read_sums",
    "bills.read_sums",
]


def interrupted(
    universe: Universe, tags: tuple[str, ...] = (), seconds: float = LONG
) -> tuple[TwinRun, dict[str, Any]]:
    """A run after one that took `seconds`, and the event of its container's exit."""
    run, task = universe.running(deployment_id=universe.deployment_after(seconds), tags=tags)
    universe.passes(33)
    return run, universe.exits(task)[1]


def recorded(universe: Universe, run: TwinRun) -> Any:
    [interruption] = universe.records().read(run.id).interruptions.values()
    return interruption


def log_of(universe: Universe, run: TwinRun) -> str:
    [(_, line)] = universe.prefect.logs_of(run.id)
    return line


def calls_of_guards(universe: Universe, event: dict[str, Any]) -> list[str]:
    assert universe.handle(event) is not None
    of_a_rescue = {*OF_A_RESCUE, "prefect.read_pool_defaults"}
    return [call for call in universe.calls if call not in of_a_rescue]


@pytest.mark.parametrize("tag", ["mine", "spot-deadline:soon", "deadline:90m"])
def test_a_tag_that_names_no_deadline_costs_no_call_either(tag: str) -> None:
    """As with no guard on; one that means to be a deadline is passed over, and the run says so."""
    universe = Universe(Policy(rates=RATES))
    run, event = interrupted(universe, (tag,))
    universe.deliver(event)
    assert universe.calls == OF_A_RESCUE
    unread = "spot-deadline:soon is none; 90m, 1h30m and 2d are"
    assert (unread in log_of(universe, run)) == (tag == "spot-deadline:soon")


def test_facts_are_gathered_once_and_not_for_a_run_whose_budget_is_spent() -> None:
    universe = Universe(ECONOMICS)
    _, event = interrupted(universe, ("spot-retries:0", TIGHT))
    assert calls_of_guards(universe, event) == []
    run, event = interrupted(universe)
    assert calls_of_guards(universe, event) == OF_THE_GUARDS
    assert calls_of_guards(universe, event) == []
    assert recorded(universe, run).guard == "economics"


GUARDED: dict[str, tuple[Policy, tuple[str, ...], float, str]] = {
    "too expensive on Spot": (ECONOMICS, (), LONG, "economics"),
    "cheap on Spot": (ECONOMICS, (), SHORT, ""),
    "too late for an interruption": (Policy(), (TIGHT,), LONG, "deadline"),
    "time for an interruption": (Policy(), (AMPLE,), SHORT, ""),
    "both: the deadline goes first": (ECONOMICS, (TIGHT,), LONG, "deadline"),
}


@pytest.mark.parametrize(("policy", "tags", "seconds", "guard"), GUARDED.values(), ids=GUARDED)
def test_a_guard_moves_a_run_and_its_reason_is_annotated_recorded_and_counted(
    policy: Policy, tags: tuple[str, ...], seconds: float, guard: str
) -> None:
    universe = Universe(policy)
    run, event = interrupted(universe, tags, seconds)
    universe.deliver(event)
    kept, on_demand = recorded(universe, run), bool(guard)
    where = f"rerun on FARGATE, by {guard}" if on_demand else "rerun on FARGATE_SPOT"
    assert run.state.message.endswith(where)
    assert (kept.guard, kept.rerun_on) == (guard, "FARGATE" if on_demand else "FARGATE_SPOT")
    [(_, artifact)] = universe.prefect.artifacts_of(run.id)
    reason = f"Why: {guard}: {kept.guard_reason}"
    assert (reason in log_of(universe, run)) == on_demand
    assert (f"**Why:** {guard}\\:" in artifact) == on_demand
    universe.meter(universe.end_of(universe.tasks[event["detail"]["taskArn"]]))
    counts = total(universe.sums())
    moves = {"economics": counts.economics_moves, "deadline": counts.deadline_moves}
    assert moves == {name: name == guard for name in moves}
    assert (universe.start(run.id).capacity == "FARGATE") == on_demand


def test_once_a_guard_has_moved_it_a_run_stays_on_demand() -> None:
    universe = Universe(ECONOMICS)
    run, event = interrupted(universe)
    universe.deliver(event)
    universe.policy = Policy(rates=RATES)
    task = universe.start(run.id)
    universe.passes(3)
    universe.deliver(universe.exits(task)[1])
    assert [task.capacity, universe.start(run.id).capacity] == ["FARGATE", "FARGATE"]


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
    run, event = interrupted(universe)
    port = universe.bills if method == "read_sums" else universe.prefect
    monkeypatch.setattr(port, method, Mock(side_effect=error))
    universe.deliver(event)
    kept = recorded(universe, run)
    assert (kept.rerun_on, kept.guard) == ("FARGATE_SPOT", "")
    assert type(error).__name__ in kept.guard_reason
    assert "1 of 3 interruptions on Spot" in log_of(universe, run)
    assert "the budget decides" in log_of(universe, run)


def test_an_invocation_that_is_short_of_time_gathers_nothing() -> None:
    universe = Universe(ECONOMICS)
    run, event = interrupted(universe)
    react(replace(universe.context(), seconds_left=lambda: 14.9), event)
    assert not set(OF_THE_GUARDS) & set(universe.calls)
    assert "there was no time left" in recorded(universe, run).guard_reason


def test_in_observe_mode_a_run_is_annotated_with_what_a_guard_would_do_and_not_changed() -> None:
    universe = Universe(replace(ECONOMICS, mode=Mode.OBSERVE))
    run, event = interrupted(universe, ("mine",))
    before = deepcopy(run)
    universe.deliver(event)
    assert run == before
    assert [name for _, name in universe.prefect.events_of(run.id)] == ["prefect-spot.interrupted"]
    assert recorded(universe, run).guard == "economics"
    assert "Next: would be rerun on FARGATE. Why: economics:" in log_of(universe, run)


def known_or_not(fact: type, *fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.builds(fact, *fields) | st.just(Missing("it", "x"))


long, often = st.floats(0, 1e9), st.floats(0, 1e5)
lengths = st.lists(long, max_size=4).map(tuple)
any_facts = st.builds(
    facts_of,
    known_or_not(PreviousRuns, lengths.filter(bool), lengths),
    known_or_not(Progress, st.sampled_from([None, False, True]), long, long, lengths),
    known_or_not(RestartOverhead, often, often),
    known_or_not(SpotEvidence, often, st.integers(0, 10**5)),
)


@given(facts=any_facts, budget=st.integers(0, 2), tag=st.sampled_from([(), (TIGHT,), (AMPLE,)]))
def test_whatever_the_facts_a_guard_never_keeps_a_run_on_spot_and_never_fails(
    facts: PolicyFacts | Missing, budget: int, tag: tuple[str, ...]
) -> None:
    run = make_run(tags=tag, expected_start=make_snapshot().history[0].timestamp)
    policy = replace(ECONOMICS, spot_retries=budget)
    untagged = make_snapshot(run=replace(run, tags=()), policy=policy)
    by_budget = choose_capacity(untagged).record.interruptions[TASK_ARN]
    guarded = choose_capacity(make_snapshot(run=run, policy=policy, facts=facts))
    decided = guarded.record.interruptions[TASK_ARN]
    assert by_budget.rerun_on == ("FARGATE" if budget == 0 else "FARGATE_SPOT")
    if by_budget.rerun_on == "FARGATE":
        assert replace(decided, tags=by_budget.tags) == by_budget
    if isinstance(facts, Missing):
        assert decided.rerun_on == by_budget.rerun_on
        assert ("the budget decides" in decided.guard_reason) == (by_budget.rerun_on != "FARGATE")
    assert choose_capacity(guarded).record == guarded.record
