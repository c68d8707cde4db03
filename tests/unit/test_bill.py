"""The bill of a stopped task: amounts, what was in vain, and what is left out where unknown."""

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chalicelib.core.model.ecs_task import Cause, Task, parse_task
from chalicelib.core.model.flow_run import OVER_STATES, RunState, StateType, TaskRun
from chalicelib.core.model.policy import Mode
from chalicelib.core.model.run_record import Interruption, Moved, RunRecord
from chalicelib.core.money.bill import (
    Bill,
    Deployment,
    RerunOutcome,
    Span,
    bill_of,
    guards_of,
    never_started,
    outcome_of_interruption,
    outcome_of_other_stop,
    span_of,
    wasted_seconds,
)
from chalicelib.core.money.daily_sums import Counts, sum_of, usd
from chalicelib.core.policies.facts import Guard
from chalicelib.core.rescue.snapshot import due_id, park_id_of_task
from tests.make import NOW, RUN_ID, TASK_ARN, make_event, make_rate, make_state, make_task, seconds

ON_DEMAND = make_rate("FARGATE", "0.04048", "0.004445", "0.000111")
SPOT = make_rate("FARGATE_SPOT", "0.01288871", "0.00141527", "0.000111")
ARM = make_rate("FARGATE", "0.03238", "0.00356", architecture="arm64")
ARM_SPOT = make_rate("FARGATE_SPOT", "0.01030969", "0.00113349", architecture="arm64")
RATES = {rate.key: rate for rate in (ON_DEMAND, SPOT, ARM, ARM_SPOT)}
ETL = Deployment("99999999-2222-4333-8444-555555555555", "etl/nightly")


def stopped(**changes: Any) -> Task:
    """A Spot task of 1 vCPU and 2 GiB that ran for an hour."""
    ordinary: dict[str, Any] = {
        "last_status": "STOPPED",
        "cpu_units": 1024,
        "memory_mib": 2048,
        "pull_started_at": NOW - seconds(3600),
        "started_at": NOW - seconds(3590),
        "execution_stopped_at": NOW - seconds(30),
        "stopped_at": NOW,
    }
    return make_task(**{**ordinary, **changes})


def bill(task: Task, *, wasted: Decimal | int = 0, cause: Cause = Cause.SPOT_INTERRUPTION) -> Bill:
    return bill_of(
        task, RATES, deployment=ETL, cause=cause, wasted_seconds=Decimal(wasted), now=NOW
    )


@pytest.mark.parametrize(
    ("changes", "cost", "on_demand"),
    [
        ({}, "0.01571925", "0.04937000"),
        ({"capacity_provider": ""}, "0.04937000", "0.04937000"),
        ({"architecture": "arm64"}, "0.01257667", "0.03950000"),
        ({"architecture": "arm64", "capacity_provider": "FARGATE"}, "0.03950000", "0.03950000"),
        ({"storage_gib": 120}, "0.02681925", "0.06047000"),
        ({"pull_started_at": NOW - seconds(12)}, "0.00026199", "0.00082283"),
    ],
    ids=["Spot", "on demand", "ARM on Spot", "ARM on demand", "100 GiB more", "a minute at least"],
)
def test_a_task_costs_what_its_seconds_cost(
    changes: dict[str, Any], cost: str, on_demand: str
) -> None:
    task = stopped(**changes)
    amounts = bill(task).amounts
    assert amounts is not None
    assert (amounts.cost_usd, amounts.on_demand_usd) == (Decimal(cost), Decimal(on_demand))
    assert amounts.savings_usd == Decimal(on_demand) - Decimal(cost)
    assert bill(task).shortcomings == ()


def test_what_was_in_vain_saves_nothing_and_was_paid_nonetheless() -> None:
    amounts = bill(stopped(), wasted=1800).amounts
    assert amounts is not None
    assert amounts.wasted_usd == Decimal("0.00785962")  # half of 0.01571925, to even
    assert amounts.useful_usd == Decimal("0.02468500")
    assert amounts.net_savings_usd == Decimal("0.02468500") - Decimal("0.01571925")


def test_only_an_interruption_wastes() -> None:
    assert bill(stopped(), wasted=100, cause=Cause.OTHER).wasted_seconds == 0
    assert bill(stopped(), wasted=100, cause=Cause.DRILL).wasted_seconds == 100


def test_a_task_without_image_pull_and_container_is_not_charged() -> None:
    unborn = {"pull_started_at": None, "started_at": None, "execution_stopped_at": None}
    assert never_started(stopped(**unborn))
    assert not never_started(stopped(**{**unborn, "pull_started_at": NOW}))
    assert not never_started(stopped(**unborn, exit_code=1))


@pytest.mark.parametrize(
    ("lack", "seconds_charged", "said"),
    [("pull_started_at", 3590, "when the image pull began"), ("stopped_at", 3570, "task stopped")],
)
def test_a_bill_from_the_times_that_are_there_is_marked_as_partial(
    lack: str, seconds_charged: int, said: str
) -> None:
    partial = bill(stopped(**{lack: None}))
    assert partial.seconds == seconds_charged
    assert partial.amounts is not None
    assert said in partial.shortcomings[0]


@pytest.mark.parametrize(
    ("lack", "said"),
    [
        ({"stopped_at": None, "execution_stopped_at": None}, "when the task stopped"),
        ({"pull_started_at": None, "started_at": None}, "the image pull began"),
        ({"cpu_units": None}, "size"),
        ({"memory_mib": None}, "size"),
        ({"architecture": "windows"}, "no rate of FARGATE, windows, in us-east-1"),
        ({"arn": TASK_ARN.replace("us-east-1", "mars-1")}, "in mars-1"),
    ],
    ids=["no end", "no start", "no cpu", "no memory", "Windows", "unknown region"],
)
def test_without_a_time_a_size_or_a_rate_there_is_no_figure(
    lack: dict[str, Any], said: str
) -> None:
    partial = bill(stopped(**lack))
    assert partial.amounts is None
    assert partial.rates == ()
    assert any(said in shortcoming for shortcoming in partial.shortcomings)


def test_a_bill_without_an_end_is_dated_by_what_ecs_said_last() -> None:
    endless = stopped(stopped_at=None, execution_stopped_at=None, updated_at=NOW - seconds(5))
    assert bill(endless).ended_at == NOW - seconds(5)


def test_storage_without_a_rate_is_left_out_and_said_to_be() -> None:
    partial = bill(stopped(architecture="arm64", storage_gib=50))
    assert partial.amounts == bill(stopped(architecture="arm64")).amounts
    assert "ephemeral storage in us-east-1: it is left out" in partial.shortcomings[0]


def test_ecs_tells_storage_and_windows_in_these_fields() -> None:
    detail = make_event({"ephemeralStorage": {"sizeInGiB": 30}})["detail"]
    task = parse_task(detail)
    assert isinstance(task, Task)
    assert (task.storage_gib, task.launch_type) == (30, "FARGATE")
    windows = parse_task({**detail, "platformFamily": "Windows_Server_2022_Core"})
    assert isinstance(windows, Task)
    assert windows.architecture == "windows"


# What has to be done again.

SPAN = Span(NOW - seconds(1000), NOW - seconds(30), NOW, Decimal(1000))


def at(ago: float, kind: StateType = StateType.COMPLETED, *, persisted: bool = True) -> TaskRun:
    return TaskRun(kind, NOW - seconds(ago), persisted)


def running(ago: float) -> RunState:
    return make_state(StateType.RUNNING, timestamp=NOW - seconds(ago))


UNDER_WAY = at(100, StateType.RUNNING)
TWO_UNDER_WAY = [at(300, StateType.RUNNING), at(200, StateType.RUNNING)]


@pytest.mark.parametrize(
    ("task_runs", "wasted"),
    [
        pytest.param([], 1000, id="no tasks: all of it"),
        pytest.param([at(900, persisted=False), UNDER_WAY], 1000, id="nothing persisted"),
        pytest.param([at(900), at(500)], 0, id="all persisted"),
        pytest.param([at(900), UNDER_WAY], 100, id="one was under way"),
        pytest.param([at(900), *TWO_UNDER_WAY], 300, id="overlaps count once"),
        pytest.param([at(900), at(400, persisted=False)], 400, id="done, but not kept"),
        pytest.param([at(900), at(400, StateType.FAILED)], 400, id="a stored failure is no result"),
        pytest.param([at(1100), UNDER_WAY], 1000, id="of an earlier attempt"),
        pytest.param([at(900), at(-5, StateType.RUNNING)], 0, id="of a later attempt"),
    ],
)
def test_what_has_to_be_done_again(task_runs: list[TaskRun], wasted: int) -> None:
    assert wasted_seconds(SPAN, [running(950)], task_runs) == wasted


@pytest.mark.parametrize("over", sorted(OVER_STATES))
def test_a_run_that_was_over_in_time_has_nothing_to_do_again(over: StateType) -> None:
    history = [running(950), make_state(over, timestamp=NOW - seconds(40))]
    assert wasted_seconds(SPAN, history, []) == 0
    late = [running(950), make_state(over, timestamp=NOW - seconds(10))]
    assert wasted_seconds(SPAN, late, []) == 1000


# What became of it.


def recorded(**changes: Any) -> RunRecord:
    ordinary: dict[str, Any] = {
        "task_arn": TASK_ARN,
        "number": 1,
        "cause": "Spot interruption",
        "capacity": "FARGATE_SPOT",
        "rerun_on": "FARGATE_SPOT",
    }
    return RunRecord(RUN_ID, {TASK_ARN: Interruption(**{**ordinary, **changes})})


DUE = make_state(StateType.SCHEDULED, transition_id=due_id(park_id_of_task(TASK_ARN)))


ON_DEMAND_NEXT = recorded(rerun_on="FARGATE")
NOT_RERUN = recorded(rerun_on="", outcome_annotated=True)


@pytest.mark.parametrize(
    ("record", "history", "outcome"),
    [
        pytest.param(RunRecord(RUN_ID), [running(9)], "undecided", id="nobody yet"),
        pytest.param(recorded(), [running(9)], "undecided", id="decided, not due"),
        pytest.param(recorded(), [running(9), DUE], "spot-rerun", id="on Spot"),
        pytest.param(ON_DEMAND_NEXT, [DUE, running(1)], "on-demand-rerun", id="on demand"),
        pytest.param(NOT_RERUN, [running(9)], "none", id="not to be rerun"),
        pytest.param(recorded(outcome_annotated=True), [running(9)], "none", id="put back"),
        pytest.param(recorded(), [], "none", id="a run that Prefect forgot"),
        pytest.param(RunRecord(RUN_ID), [make_state(StateType.PAUSED)], "none", id="paused"),
    ],
)
def test_what_became_of_an_interruption(
    record: RunRecord, history: list[RunState], outcome: str
) -> None:
    assert outcome_of_interruption(stopped(), history, record, Mode.RESCUE) == outcome


@pytest.mark.parametrize(
    ("record", "outcome"),
    [(recorded(), "would-spot-rerun"), (ON_DEMAND_NEXT, "would-on-demand-rerun")],
    ids=["on Spot", "on demand"],
)
def test_in_observe_mode_it_is_what_would_have_become_of_it(
    record: RunRecord, outcome: str
) -> None:
    assert outcome_of_interruption(stopped(), [running(9)], record, Mode.OBSERVE) == outcome


def test_an_attempt_on_demand_after_a_refusal_is_the_rerun_itself() -> None:
    on_demand, refused = stopped(capacity_provider=""), RunRecord(RUN_ID, next_capacity="FARGATE")
    assert outcome_of_other_stop(on_demand, refused, Mode.RESCUE) is RerunOutcome.ON_DEMAND_RERUN
    assert outcome_of_other_stop(stopped(), refused, Mode.RESCUE) is RerunOutcome.NONE
    assert outcome_of_other_stop(on_demand, refused, Mode.OBSERVE) is RerunOutcome.NONE
    by_interruption = replace(recorded(rerun_on="FARGATE"), next_capacity="FARGATE")
    assert outcome_of_other_stop(on_demand, by_interruption, Mode.RESCUE) is RerunOutcome.NONE


# Sums.


@pytest.mark.parametrize("guard", list(Guard))
def test_each_guard_has_a_count_of_its_own(guard: Guard) -> None:
    rerun, start = (guard.value, ""), ("", guard.value)
    made, on_demand = bill(stopped()), RerunOutcome.ON_DEMAND_RERUN
    for outcome, first, guards, moves in (
        (on_demand, False, rerun, 1),
        (RerunOutcome.WOULD_ON_DEMAND_RERUN, False, rerun, 1),
        (RerunOutcome.NONE, True, rerun, 0),
        (RerunOutcome.NONE, True, start, 1),
        (RerunOutcome.NONE, False, start, 0),
    ):
        counts = sum_of(made, outcome, first_of_its_run=first, guards=guards).counts
        by_guard = {g: counts.as_mapping()[f"{g.value}_moves"] for g in Guard}
        assert by_guard == {g: moves * (g is guard) for g in Guard}


def test_a_run_that_was_moved_before_its_start_is_no_rerun() -> None:
    record = RunRecord(RUN_ID, next_capacity="FARGATE", moved=Moved("deadline", "late"))
    on_demand = stopped(capacity_provider="")
    assert outcome_of_other_stop(on_demand, record, Mode.RESCUE) is RerunOutcome.NONE
    assert guards_of(on_demand, record, Mode.RESCUE) == ("", "deadline")
    assert guards_of(stopped(), record, Mode.RESCUE) == ("", ""), "a worker was faster"
    assert guards_of(stopped(), record, Mode.OBSERVE) == ("", "deadline")


def test_a_partial_bill_adds_its_time_and_no_money() -> None:
    daily = sum_of(bill(stopped(cpu_units=None)), RerunOutcome.NONE, first_of_its_run=True)
    hour_us = 3600 * 10**6
    assert daily.counts == Counts(
        runs=1,
        attempts=1,
        interruptions=1,
        first_interruptions=1,
        partial_bills=1,
        spot_us=hour_us,
        first_spot_us=hour_us,
    )


def test_only_the_first_attempt_of_a_run_counts_as_its_first() -> None:
    counts = sum_of(bill(stopped()), RerunOutcome.NONE, first_of_its_run=False).counts
    assert (counts.first_spot_us, counts.first_interruptions) == (0, 0)


attempts = st.builds(
    lambda length, share, capacity, architecture, cpu, memory, storage, cause: (
        stopped(
            pull_started_at=NOW - timedelta(milliseconds=length),
            capacity_provider=capacity,
            architecture=architecture,
            cpu_units=cpu,
            memory_mib=memory,
            storage_gib=storage if architecture == "x86_64" else 20,
        ),
        share,
        cause,
    ),
    length=st.integers(0, 10**9),
    share=st.fractions(0, 1, max_denominator=1000),
    capacity=st.sampled_from(["FARGATE_SPOT", "FARGATE", ""]),
    architecture=st.sampled_from(["x86_64", "arm64"]),
    cpu=st.sampled_from([256, 512, 1024, 4096, 16384]),
    memory=st.integers(512, 122_880),
    storage=st.integers(20, 200),
    cause=st.sampled_from([Cause.SPOT_INTERRUPTION, Cause.OTHER]),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(attempts, min_size=1, max_size=12))
def test_over_any_attempts_net_saving_is_what_was_useful_less_what_was_paid(
    history: list[tuple[Task, Fraction, Cause]],
) -> None:
    """Computed once more here, in exact fractions, from seconds and rates alone."""
    paid = useful = wasted_cost = Fraction(0)
    counts = Counts()
    for task, share, cause in history:
        span = span_of(task)
        assert span is not None
        lost = (span.seconds * share.numerator / share.denominator).quantize(Decimal("0.001"))
        made = bill(task, wasted=min(lost, span.seconds), cause=cause)
        counts += sum_of(made, RerunOutcome.NONE, first_of_its_run=False).counts
        charged = max(Fraction(60), Fraction((NOW - (task.pull_started_at or NOW)) / seconds(1)))
        in_vain = Fraction(min(lost, span.seconds)) if cause is Cause.SPOT_INTERRUPTION else 0
        per_second = {
            capacity: Fraction(rate.vcpu_hour_usd) * (task.cpu_units or 0) / 1024 / 3600
            + Fraction(rate.gb_hour_usd) * (task.memory_mib or 0) / 1024 / 3600
            + Fraction(rate.storage_gb_hour_usd or 0) * ((task.storage_gib or 20) - 20) / 3600
            for capacity in ("FARGATE", "FARGATE_SPOT")
            for rate in [RATES["us-east-1", task.architecture, capacity]]
        }
        paid += charged * per_second[task.capacity]
        useful += (charged - in_vain) * per_second["FARGATE"]
        wasted_cost += in_vain * per_second[task.capacity]
    rounding = len(history) * Fraction(1, 2 * 10**8)
    assert abs(Fraction(counts.cost_usd) - paid) <= rounding
    assert abs(Fraction(counts.wasted_usd) - wasted_cost) <= rounding
    assert abs(Fraction(usd(counts.useful_e8)) - useful) <= rounding
    assert abs(Fraction(counts.net_savings_usd) - (useful - paid)) <= 2 * rounding
    # The identity itself holds to the last digit.
    assert counts.net_savings_usd == usd(counts.useful_e8) - counts.cost_usd
