"""The laws of deadline and `auto`: decided once, on what was measured, and at no cost when off."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from datetime import date
from typing import Any
from unittest.mock import Mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.core.model.flow_run import Interruption, RunRecord
from chalicelib.core.model.policy import Mode, Policy
from chalicelib.core.money.report import DailySum, total
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
from tests.make import AUTO, RATES, RUN_ID, TASK_ARN, make_run, make_snapshot
from tests.twin.orchestration import TwinRun

TIGHT, AMPLE = "spot-deadline:10m", "spot-deadline:9d"
LONG, SHORT = 400_000.0, 60.0
"""Seconds of a deployment's completed run: too long for Spot by `auto`, and short enough."""

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
    "prefect.find_task_runs_left",
    "prefect.change_run",
    "prefect.propose_state",
    "prefect.read_history",
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
    of_a_rescue = {*OF_A_RESCUE, "prefect.read_pool_defaults", "notices.notify"}
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
    universe = Universe(AUTO)
    _, event = interrupted(universe, ("spot-retries:0", TIGHT))
    assert calls_of_guards(universe, event) == []
    run, event = interrupted(universe)
    assert calls_of_guards(universe, event) == OF_THE_GUARDS
    assert calls_of_guards(universe, event) == []
    assert recorded(universe, run).guard == "auto"


GUARDED: dict[str, tuple[Policy, tuple[str, ...], float, str]] = {
    "too expensive on Spot": (AUTO, (), LONG, "auto"),
    "cheap on Spot": (AUTO, (), SHORT, ""),
    "too late for an interruption": (Policy(), (TIGHT,), LONG, "deadline"),
    "time for an interruption": (Policy(), (AMPLE,), SHORT, ""),
    "both: the deadline goes first": (AUTO, (TIGHT,), LONG, "deadline"),
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
    reason = f"Why: {guard or 'SPOT_RETRIES=auto'}: {kept.guard_reason}"
    assert (reason in log_of(universe, run)) == (on_demand or bool(kept.guard_reason))
    assert (f"**Why:** {guard}\\:" in artifact) == on_demand
    universe.meter(universe.end_of(universe.tasks[event["detail"]["taskArn"]]))
    counts = total(universe.sums())
    moves = {"auto": counts.auto_moves, "deadline": counts.deadline_moves}
    assert moves == {name: name == guard for name in moves}
    assert (universe.start(run.id).capacity == "FARGATE") == on_demand


def test_once_a_guard_has_moved_it_a_run_stays_on_demand() -> None:
    universe = Universe(AUTO)
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
def test_a_fact_that_cannot_be_read_leaves_it_to_the_budget_of_3(
    monkeypatch: pytest.MonkeyPatch, method: str, error: Exception
) -> None:
    universe = Universe(AUTO)
    run, event = interrupted(universe)
    port = universe.bills if method == "read_sums" else universe.prefect
    monkeypatch.setattr(port, method, Mock(side_effect=error))
    universe.deliver(event)
    kept = recorded(universe, run)
    assert (kept.rerun_on, kept.guard) == ("FARGATE_SPOT", "")
    assert f"is unknown (it could not be read ({type(error).__name__})), using 3" in log_of(
        universe, run
    )


def test_an_invocation_that_is_short_of_time_gathers_nothing() -> None:
    universe = Universe(AUTO)
    run, event = interrupted(universe)
    react(replace(universe.context(), seconds_left=lambda: 14.9), event)
    assert not set(OF_THE_GUARDS) & set(universe.calls)
    assert "there was no time left" in recorded(universe, run).guard_reason


def test_a_table_that_answers_too_slowly_leaves_it_to_the_budget_of_3() -> None:
    universe = Universe(AUTO)
    run, event = interrupted(universe)
    slow, read_sums = [300.0], universe.bills.read_sums

    def read_slowly(days: Sequence[date]) -> tuple[DailySum, ...]:
        slow[0] -= 5.1
        return read_sums(days)

    universe.bills.read_sums = read_slowly  # type: ignore[method-assign]
    react(replace(universe.context(), seconds_left=lambda: slow[0]), event)
    assert slow == [300.0 - 5.1]
    assert "the interruption rate is unknown (it could not be read (TimeoutError))" in log_of(
        universe, run
    )


def test_in_observe_mode_a_run_is_annotated_with_what_a_guard_would_do_and_not_changed() -> None:
    universe = Universe(replace(AUTO, mode=Mode.OBSERVE))
    run, event = interrupted(universe, ("mine",))
    before = deepcopy(run)
    universe.deliver(event)
    assert run == before
    assert [name for _, name in universe.prefect.events_of(run.id)] == ["prefect-spot.interrupted"]
    assert recorded(universe, run).guard == "auto"
    assert "Next: would be rerun on FARGATE. Why: auto:" in log_of(universe, run)


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


def decided_of(number: int, **snapshot: Any) -> Interruption:
    """The run's interruption number `number`, all before it rerun on Spot."""
    before = Interruption("before", number - 1, "", "FARGATE_SPOT", rerun_on="FARGATE_SPOT")
    record = RunRecord(RUN_ID, {"before": before} if number > 1 else {}, own_retries=0)
    chosen = choose_capacity(make_snapshot(record=record, **snapshot))
    assert choose_capacity(chosen).record == chosen.record
    return chosen.record.interruptions[TASK_ARN]


@given(
    facts=any_facts,
    number=st.integers(1, 22),
    budget=st.sampled_from(["spot-retries:0", "spot-retries:2", "spot-retries:auto"]),
    tag=st.sampled_from([(), (TIGHT,), (AMPLE,)]),
)
def test_whatever_the_facts_a_budget_is_never_exceeded_and_nothing_fails(
    facts: PolicyFacts | Missing, number: int, budget: str, tag: tuple[str, ...]
) -> None:
    run = make_run(tags=(budget, *tag), expected_start=make_snapshot().history[0].timestamp)
    decided = decided_of(number, run=run, policy=AUTO, facts=facts)
    allowed = {"0": 0, "2": 2, "auto": 20}[budget.removeprefix("spot-retries:")]
    if number > allowed:
        assert (decided.rerun_on, decided.guard, decided.guard_reason) == ("FARGATE", "", "")
    elif isinstance(facts, Missing):
        on_spot = number <= (3 if allowed == 20 else allowed)
        assert decided.rerun_on == ("FARGATE_SPOT" if on_spot else "FARGATE")
        assert ("is unknown (x), using 3" in decided.guard_reason) == (allowed == 20)
        assert ("the budget decides" in decided.guard_reason) == bool(tag)
    elif decided.rerun_on == "FARGATE" and not decided.guard:
        assert (number > 3, allowed) == (True, 20)
        assert ", using 3" in decided.guard_reason
    assert not decided.guard or decided.rerun_on == "FARGATE"


KNOWN = facts_of(PreviousRuns((3600.0,)), Progress(), RestartOverhead(60, 30), SpotEvidence(100, 9))


@pytest.mark.parametrize(
    ("number", "facts", "rerun_on"),
    [
        (20, KNOWN, "FARGATE_SPOT"),
        (21, KNOWN, "FARGATE"),
        (3, Missing("it", "x"), "FARGATE_SPOT"),
        (4, Missing("it", "x"), "FARGATE"),
    ],
)
def test_auto_is_twenty_where_spot_is_cheap_and_three_without_a_fact(
    number: int, facts: PolicyFacts | Missing, rerun_on: str
) -> None:
    run = make_run(tags=("spot-retries:auto",))
    decided = decided_of(number, run=run, policy=Policy(rates=RATES), facts=facts)
    assert decided.rerun_on == rerun_on


def test_with_a_deadline_the_tag_goes_first_and_auto_decides_what_it_leaves_on_spot() -> None:
    scheduled = make_snapshot().history[0].timestamp
    for tag, guard in ((TIGHT, "deadline"), (AMPLE, "")):
        run = make_run(tags=(tag,), expected_start=scheduled)
        decided = decided_of(4, run=run, policy=AUTO, facts=KNOWN)
        assert decided.guard == guard
        assert ("expected to cost" in decided.guard_reason) == (not guard)
