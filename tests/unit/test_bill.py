"""The bill of a stopped task: amounts, what was in vain, and what is left out where unknown."""

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import infra
from chalicelib.core.model.ecs_task import Cause, Task
from chalicelib.core.model.flow_run import (
    OVER_STATES,
    Interruption,
    Moved,
    RunRecord,
    RunState,
    StateType,
    TaskRun,
)
from chalicelib.core.model.policy import Mode
from chalicelib.core.model.pricing import Rates, read_table, with_assumed
from chalicelib.core.money.bill import (
    Bill,
    Deployment,
    RerunOutcome,
    Span,
    bill_of,
    cause_of,
    guards_of,
    never_started,
    outcome_of,
    wasted_seconds,
)
from chalicelib.core.money.report import Counts, sum_of, usd
from chalicelib.core.policies.facts import Guard
from chalicelib.core.rescue.rerun_state import due_id, park_id_of_task
from tests.make import NOW, RUN_ID, TASK_ARN, make_rate, make_state, make_task, seconds

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


def bill(
    task: Task,
    *,
    wasted: Decimal | int = 0,
    cause: Cause = Cause.SPOT_INTERRUPTION,
    rates: Rates = RATES,
) -> Bill:
    return bill_of(
        task, rates, deployment=ETL, cause=cause, wasted_seconds=Decimal(wasted), now=NOW
    )


UNBORN: dict[str, Any] = dict.fromkeys(("pull_started_at", "started_at", "execution_stopped_at"))


def test_a_task_without_image_pull_and_container_is_not_charged() -> None:
    assert never_started(stopped(**UNBORN))
    assert not never_started(stopped(**{**UNBORN, "pull_started_at": NOW}))
    assert not never_started(stopped(**UNBORN, exit_code=1))


@pytest.mark.parametrize(
    ("lack", "charged", "amounts", "missing"),
    [
        ({"pull_started_at": None}, 3590, True, "when the image pull began"),
        ({"stopped_at": None}, 3570, True, "when the task stopped"),
        ({"stopped_at": None, "execution_stopped_at": None}, None, False, "the task stopped"),
        ({"pull_started_at": None, "started_at": None}, None, False, "the image pull began"),
        ({"cpu_units": None}, 3600, False, "size"),
        ({"memory_mib": None}, 3600, False, "size"),
        ({"architecture": "windows"}, 3600, False, "no rate of FARGATE, windows, in us-east-1"),
        ({"arn": TASK_ARN.replace("us-east-1", "mars-1")}, 3600, False, "in mars-1"),
        ({"architecture": "arm64", "storage_gib": 50}, 3600, True, "storage in us-east-1: it is"),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, dict) else "",
)
def test_a_bill_that_lacks_something_names_it_and_has_no_figure_made_of_it(
    lack: dict[str, Any], charged: int | None, amounts: bool, missing: str
) -> None:
    partial = bill(stopped(**lack))
    assert partial.seconds == charged
    assert (partial.amounts is not None, bool(partial.rates)) == (amounts, amounts)
    assert any(missing in shortcoming for shortcoming in partial.shortcomings)


EVERYWHERE = with_assumed(read_table(infra.load("prices.json")), Decimal("0.68"))


@pytest.mark.parametrize(
    ("region", "architecture", "capacity", "usd_per_hour", "is_assumed"),
    [
        ("eu-central-1", "x86_64", "FARGATE_SPOT", "0.0181696", True),
        ("us-gov-west-1", "x86_64", "FARGATE_SPOT", "0.018944", True),
        ("ap-south-1", "arm64", "FARGATE_SPOT", "0.009296", True),
        ("eu-central-1", "x86_64", "FARGATE", "0.05678", False),
        ("us-east-1", "x86_64", "FARGATE_SPOT", "0.01571925", False),
        ("us-east-1", "windows", "FARGATE", None, False),
        ("eu-central-1", "windows", "FARGATE_SPOT", None, False),
        ("mars-1", "x86_64", "FARGATE_SPOT", None, False),
    ],
)
def test_a_bill_and_its_sum_say_whether_the_spot_rate_is_assumed(
    region: str, architecture: str, capacity: str, usd_per_hour: str | None, is_assumed: bool
) -> None:
    task = stopped(
        arn=TASK_ARN.replace("us-east-1", region),
        architecture=architecture,
        capacity_provider="" if capacity == "FARGATE" else capacity,
    )
    made = bill(task, rates=EVERYWHERE)
    assert made.is_assumed is is_assumed
    assert (made.amounts and made.amounts.cost_usd) == (usd_per_hour and Decimal(usd_per_hour))
    assert bool(made.shortcomings) is (usd_per_hour is None)
    counts = sum_of(made, RerunOutcome.NONE, first_of_its_run=True).counts
    assert (counts.assumed_bills, counts.partial_bills) == (is_assumed, usd_per_hour is None)


def test_a_bill_without_an_end_is_dated_by_what_ecs_reported_last() -> None:
    endless = stopped(stopped_at=None, execution_stopped_at=None, updated_at=NOW - seconds(5))
    assert bill(endless).ended_at == NOW - seconds(5)


# Failed starts.


@pytest.mark.parametrize(
    ("changes", "warned", "cause"),
    [
        ({}, False, Cause.FAILED_START),
        ({"stopped_reason": "Capacity is unavailable at this time"}, False, Cause.NO_SPOT_CAPACITY),
        ({"started_at": NOW}, False, Cause.OTHER),
        ({"started_at": NOW}, True, Cause.SPOT_INTERRUPTION),
        ({"flow_run_id": None}, False, Cause.OTHER),
    ],
)
def test_a_bill_names_the_cause_that_the_rescue_goes_by_of_a_flow_run(
    changes: dict[str, Any], warned: bool, cause: Cause
) -> None:
    failed = {"stop_code": "TaskFailedToStart", "stopped_reason": "no network interface"}
    assert cause_of(stopped(**{**UNBORN, **failed, **changes}), warned=warned) is cause


@pytest.mark.parametrize(
    ("times", "charged", "wasted", "attempts"),
    [
        (UNBORN, 0, 0, 0),
        ({"started_at": None, "execution_stopped_at": None}, 3600, 3600, 0),
        ({}, 3600, 600, 1),
    ],
    ids=["no image pulled", "no container started", "its host died at work"],
)
def test_what_a_failed_start_cost_was_in_vain_and_without_a_container_it_is_no_attempt(
    times: dict[str, Any], charged: int, wasted: int, attempts: int
) -> None:
    made = bill(stopped(**times), wasted=600, cause=Cause.FAILED_START)
    assert made.seconds == charged
    assert made.wasted_seconds == wasted
    assert not made.shortcomings
    assert made.amounts is not None
    assert (made.amounts.cost_usd > 0) is bool(charged)
    counts = sum_of(made, RerunOutcome.NONE, first_of_its_run=True, guards=("", "deadline")).counts
    assert (counts.failed_starts, counts.interruptions) == (1, 0)
    assert (counts.attempts, counts.runs, counts.deadline_moves) == (attempts,) * 3
    assert (counts.first_spot_us > 0) is bool(attempts)


# What has to be redone.

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
        pytest.param([at(900), at(400, persisted=False)], 400, id="finished, but not kept"),
        pytest.param([at(900), at(400, StateType.FAILED)], 400, id="a stored failure is no result"),
        pytest.param([at(1100), UNDER_WAY], 1000, id="of an earlier attempt"),
        pytest.param([at(900), at(-5, StateType.RUNNING)], 0, id="of a later attempt"),
    ],
)
def test_what_has_to_be_redone(task_runs: list[TaskRun], wasted: int) -> None:
    assert wasted_seconds(SPAN, [running(950)], task_runs) == wasted


@pytest.mark.parametrize("over", sorted(OVER_STATES))
def test_a_run_that_was_over_in_time_has_nothing_to_redo(over: StateType) -> None:
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


PARK_ID = park_id_of_task(TASK_ARN)
PARKED = make_state(StateType.SCHEDULED, transition_id=PARK_ID)
DUE = make_state(StateType.SCHEDULED, transition_id=due_id(PARK_ID))
NONE = RunRecord(RUN_ID)
TO_ON_DEMAND = recorded(rerun_on="FARGATE")
NOT_RERUN = recorded(rerun_on="", outcome_annotated=True)


@pytest.mark.parametrize(
    ("record", "history", "mode", "outcome"),
    [
        pytest.param(NONE, [running(9)], "rescue", "undecided", id="not recorded yet"),
        pytest.param(recorded(), [running(9)], "rescue", "undecided", id="decided, not due"),
        pytest.param(recorded(), [running(9), PARKED, DUE], "rescue", "spot-rerun", id="Spot"),
        pytest.param(
            TO_ON_DEMAND, [PARKED, DUE, running(1)], "rescue", "on-demand-rerun", id="on demand"
        ),
        pytest.param(NOT_RERUN, [running(9)], "rescue", "none", id="not to be rerun"),
        pytest.param(recorded(outcome_annotated=True), [running(9)], "rescue", "none", id="undone"),
        pytest.param(recorded(), [], "rescue", "none", id="a run that Prefect forgot"),
        pytest.param(NONE, [make_state(StateType.PAUSED)], "rescue", "none", id="paused"),
        pytest.param(recorded(), [running(9)], "observe", "would-spot-rerun", id="would on Spot"),
        pytest.param(
            TO_ON_DEMAND, [running(9)], "observe", "would-on-demand-rerun", id="would on demand"
        ),
    ],
)
def test_what_became_of_an_interruption(
    record: RunRecord, history: list[RunState], mode: str, outcome: str
) -> None:
    assert outcome_of(stopped(), Cause.DRILL, history, record, Mode(mode)) == outcome


REFUSED = RunRecord(RUN_ID, next_capacity="FARGATE")
MOVED = replace(REFUSED, moved=Moved("deadline", "late"))


@pytest.mark.parametrize(
    ("record", "capacity", "mode", "is_rerun", "guards"),
    [
        pytest.param(REFUSED, "", "rescue", True, ("", ""), id="the rerun itself"),
        pytest.param(REFUSED, "FARGATE_SPOT", "rescue", False, ("", ""), id="still on Spot"),
        pytest.param(REFUSED, "", "observe", False, ("", ""), id="observed"),
        pytest.param(
            replace(TO_ON_DEMAND, next_capacity="FARGATE"), "", "rescue", False, ("", ""),
            id="after an interruption",
        ),
        pytest.param(MOVED, "", "rescue", False, ("", "deadline"), id="moved before its start"),
        pytest.param(MOVED, "FARGATE_SPOT", "rescue", False, ("", ""), id="a worker was faster"),
        pytest.param(MOVED, "FARGATE_SPOT", "observe", False, ("", "deadline"), id="would move"),
    ],
)  # fmt: skip
def test_an_attempt_on_demand_after_a_refusal_is_the_rerun_itself(
    record: RunRecord, capacity: str, mode: str, is_rerun: bool, guards: tuple[str, str]
) -> None:
    task = stopped(capacity_provider=capacity)
    expected = RerunOutcome.ON_DEMAND_RERUN if is_rerun else RerunOutcome.NONE
    assert outcome_of(task, Cause.OTHER, (), record, Mode(mode)) is expected
    assert outcome_of(task, Cause.FAILED_START, (), record, Mode(mode)) is RerunOutcome.NONE
    assert guards_of(task, record, Mode(mode)) == guards


# Sums.


@pytest.mark.parametrize(
    ("outcome", "first", "guards", "moves"),
    [
        ("on-demand-rerun", False, (1, 0), 1),
        ("would-on-demand-rerun", False, (1, 0), 1),
        ("none", True, (1, 0), 0),
        ("none", True, (0, 1), 1),
        ("none", False, (0, 1), 0),
    ],
)
def test_each_guard_has_a_count_of_its_own(
    outcome: str, first: bool, guards: tuple[int, int], moves: int
) -> None:
    """`guards`: whether it moved the rerun, and the run's first start."""
    for guard in Guard:
        by = (guard.value * guards[0], guard.value * guards[1])
        daily = sum_of(bill(stopped()), RerunOutcome(outcome), first_of_its_run=first, guards=by)
        counts = {g: getattr(daily.counts, f"{g.value}_moves") for g in Guard}
        assert counts == {g: moves * (g is guard) for g in Guard}


@pytest.mark.parametrize("first", [True, False])
def test_a_partial_bill_adds_its_time_and_no_money(first: bool) -> None:
    daily = sum_of(bill(stopped(cpu_units=None)), RerunOutcome.NONE, first_of_its_run=first)
    hour_us = 3600 * 10**6
    firsts = {"runs": 1, "first_interruptions": 1, "first_spot_us": hour_us} if first else {}
    always = {"attempts": 1, "interruptions": 1, "partial_bills": 1, "spot_us": hour_us}
    assert daily.counts == Counts(**always, **firsts)


tasks = st.fixed_dictionaries(
    {
        "pull_started_at": st.integers(0, 10**9).map(lambda ms: NOW - timedelta(milliseconds=ms)),
        "capacity_provider": st.sampled_from(["FARGATE_SPOT", "FARGATE", ""]),
        "architecture": st.sampled_from(["x86_64", "arm64"]),
        "cpu_units": st.sampled_from([256, 512, 1024, 4096, 16384]),
        "memory_mib": st.integers(512, 122_880),
        "storage_gib": st.integers(20, 200),
    }
).map(lambda fields: stopped(**fields))
lost = st.integers(0, 10**9).map(lambda ms: Decimal(ms) / 1000)
causes = st.sampled_from([Cause.SPOT_INTERRUPTION, Cause.DRILL, Cause.FAILED_START, Cause.OTHER])
attempts = st.tuples(tasks, lost, causes)


def usd_per_second(task: Task, capacity: str) -> Fraction:
    rate = RATES["us-east-1", task.architecture, capacity]
    amounts = (
        (rate.vcpu_hour_usd, Fraction(task.cpu_units or 0, 1024)),
        (rate.gb_hour_usd, Fraction(task.memory_mib or 0, 1024)),
        (rate.storage_gb_hour_usd or 0, (task.storage_gib or 20) - 20),
    )
    return sum((Fraction(usd) * amount for usd, amount in amounts), Fraction(0)) / 3600


@settings(max_examples=300, deadline=None)
@given(st.lists(attempts, min_size=1, max_size=12))
def test_over_any_attempts_net_saving_is_what_was_useful_less_what_was_paid(
    history: list[tuple[Task, Decimal, Cause]],
) -> None:
    """Computed once more here, in exact fractions, from seconds and rates alone."""
    paid = on_demand = useful = wasted_usd = Fraction(0)
    bills = []
    for task, lost_seconds, cause in history:
        charged = max(Fraction(60), Fraction((NOW - (task.pull_started_at or NOW)) / seconds(1)))
        lost_of_it = min(lost_seconds, Decimal(str(float(charged))))
        made = bill(task, wasted=lost_of_it, cause=cause)
        bills.append(made)
        has_unpriced_storage = task.architecture == "arm64" and task.storage_gib != 20
        assert bool(made.shortcomings) is has_unpriced_storage
        wasted = Fraction(0 if cause is Cause.OTHER else lost_of_it)
        paid += charged * usd_per_second(task, task.capacity)
        on_demand += charged * usd_per_second(task, "FARGATE")
        useful += (charged - wasted) * usd_per_second(task, "FARGATE")
        wasted_usd += wasted * usd_per_second(task, task.capacity)
    amounts = [made.amounts for made in bills if made.amounts]
    assert len(amounts) == len(history)
    rounding = len(history) * Fraction(1, 2 * 10**8)
    for exact, name in (
        (paid, "cost_usd"),
        (on_demand, "on_demand_usd"),
        (wasted_usd, "wasted_usd"),
        (useful, "useful_usd"),
    ):
        assert abs(Fraction(sum(getattr(each, name) for each in amounts)) - exact) <= rounding, name
    for each in amounts:
        assert each.savings_usd == each.on_demand_usd - each.cost_usd
        assert each.net_savings_usd == each.useful_usd - each.cost_usd
    counts = Counts()
    for made in bills:
        if made.cause is not Cause.DRILL:
            counts += sum_of(made, RerunOutcome.NONE, first_of_its_run=False).counts
    assert counts.amounts.net_savings_usd == usd(counts.useful_e8) - counts.amounts.cost_usd
