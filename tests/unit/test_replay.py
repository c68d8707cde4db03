"""What becomes of a recorded history under another budget, and what is said not to be known."""

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from chalicelib.core.model.ecs_task import Cause
from chalicelib.core.model.flow_run import Interruption, RunRecord
from chalicelib.core.model.policy import Policy
from chalicelib.core.money.bill import Bill
from spotctl.replay.again import Course, as_recorded, replay
from spotctl.replay.figures import figures_of, not_known
from spotctl.replay.history import RecordedRun, join, runs_of
from tests.make import NOW, RUN_ID, TASK_ARN, make_task, seconds
from tests.unit.test_bill import bill

HOUR = 3600
SPOT_HOUR = Decimal("0.01571925")
"""USD, of the bill's task: 1 vCPU and 2 GiB, as `tests/unit/test_bill.py` has it."""
ON_DEMAND_HOUR = Decimal("0.04937000")


def attempt(
    number: int, *, begins: float, lasts: float = HOUR, run_id: UUID = RUN_ID, **changes: Any
) -> Bill:
    """A bill of the run's attempt `number`: on Spot and taken, unless `changes` say otherwise."""
    began_at = NOW + seconds(begins)
    on_demand = changes.pop("on_demand", False)
    task = make_task(
        arn=f"{TASK_ARN[:-4]}{number:04d}",
        flow_run_id=run_id,
        capacity_provider="" if on_demand else "FARGATE_SPOT",
        cpu_units=1024,
        memory_mib=2048,
        last_status="STOPPED",
        pull_started_at=began_at,
        execution_stopped_at=began_at + seconds(lasts),
        stopped_at=began_at + seconds(lasts),
    )
    cause = changes.pop("cause", Cause.SPOT_INTERRUPTION)
    wasted = changes.pop("wasted", lasts if cause is Cause.SPOT_INTERRUPTION else 0)
    return replace(bill(task, wasted=wasted, cause=cause), **changes)


def answered(made: Bill, number: int, rerun_on: str, **changes: Any) -> Interruption:
    """What `react` recorded of that attempt's end."""
    ordinary: dict[str, Any] = {
        "task_arn": made.task_arn,
        "number": number,
        "cause": made.cause.value,
        "capacity": made.capacity,
        "stop_code": "SpotInterruption",
        "exited_at": made.ended_at,
        "rerun_on": rerun_on,
        "run_state": "RUNNING",
    }
    return Interruption(**{**ordinary, **changes})


def history(*attempts: tuple[Bill, str], own_retries: int = 0, **changes: Any) -> RecordedRun:
    """One run: its bills, each with what it was rerun on; "end" for one that ended by itself."""
    run_id = attempts[0][0].flow_run_id
    assert run_id is not None
    interruptions = [
        answered(made, number, rerun_on, **changes)
        for number, (made, rerun_on) in enumerate(attempts, start=1)
        if rerun_on != "end"
    ]
    record = RunRecord(run_id, {i.task_arn: i for i in interruptions}, own_retries)
    billed = runs_of([made for made, _ in attempts], NOW.date())
    [joined] = join(billed, {run_id: record})
    return joined


def taken_twice(**changes: Any) -> RecordedRun:
    """Taken after an hour on Spot, again after another, and done after three hours on Spot."""
    return history(
        (attempt(1, begins=0), "FARGATE_SPOT"),
        (attempt(2, begins=HOUR + 60), "FARGATE_SPOT"),
        (attempt(3, begins=2 * HOUR + 120, lasts=3 * HOUR, cause=Cause.OTHER), "end"),
        **changes,
    )


def moved(**changes: Any) -> RecordedRun:
    """Taken after an hour on Spot, then done after three hours on FARGATE."""
    return history(
        (attempt(1, begins=0), "FARGATE"),
        (attempt(2, begins=HOUR + 60, lasts=3 * HOUR, on_demand=True, cause=Cause.OTHER), "end"),
        **changes,
    )


def replayed(run: RecordedRun, **policy: Any) -> Course:
    [course] = replay([run], Policy(**policy))
    return course


def unknown(course: Course) -> str:
    """What is said not to be known, of this run alone."""
    return " ".join(not_known(figures_of([course]), [course]))


def capacities(course: Course) -> list[str]:
    return [played.bill.capacity for played in course.played]


def test_a_smaller_budget_ends_on_fargate_after_as_much_work_as_was_useful() -> None:
    course = replayed(taken_twice(), spot_retries=0)
    assert capacities(course) == ["FARGATE_SPOT", "FARGATE"]
    last = course.played[-1]
    assert last.bill.seconds == 3 * HOUR, (
        "the second attempt was all in vain: nothing of it is needed"
    )
    assert last.bill.amounts is not None
    assert last.bill.amounts.cost_usd == last.bill.amounts.useful_usd == 3 * ON_DEMAND_HOUR
    assert course.time_to_finish == timedelta(hours=4, minutes=1)
    figures = figures_of([course]).counts
    assert (figures.interruptions, figures.spot_reruns, figures.on_demand_reruns) == (1, 0, 1)
    assert figures.cost_usd == SPOT_HOUR + 3 * ON_DEMAND_HOUR
    assert figures.net_savings_usd == -SPOT_HOUR


def test_what_was_kept_of_an_attempt_is_not_done_again_on_fargate() -> None:
    run = history(
        (attempt(1, begins=0), "FARGATE_SPOT"),
        (attempt(2, begins=HOUR, wasted=600), "FARGATE_SPOT"),
        (attempt(3, begins=2 * HOUR, cause=Cause.OTHER), "end"),
    )
    last = replayed(run, spot_retries=0).played[-1]
    assert last.bill.seconds == (HOUR - 600) + HOUR


def test_of_a_run_that_had_not_finished_what_was_left_of_it_is_said_not_to_be_known() -> None:
    run = history((attempt(1, begins=0), "FARGATE_SPOT"), (attempt(2, begins=HOUR), "FARGATE_SPOT"))
    course = replayed(run, spot_retries=0)
    assert not course.is_finished
    assert "1 of these had not finished in the record" in unknown(course)


def test_a_run_that_is_on_spot_instead_stays_there_when_somebody_starts_it_again() -> None:
    run = history(
        (attempt(1, begins=0), "FARGATE"),
        (attempt(2, begins=HOUR, on_demand=True, cause=Cause.OTHER), "end"),
        (attempt(3, begins=3 * HOUR, on_demand=True, cause=Cause.OTHER), "end"),
    )
    assert capacities(replayed(run, spot_retries=1)) == ["FARGATE_SPOT"] * 3
    assert capacities(replayed(run, spot_retries=0)) == ["FARGATE_SPOT", "FARGATE", "FARGATE"]


def test_an_attempt_on_fargate_is_charged_for_a_minute_at_least() -> None:
    run = history(
        (attempt(1, begins=0), "FARGATE_SPOT"),
        (attempt(2, begins=HOUR, lasts=20, cause=Cause.OTHER), "end"),
    )
    course = replayed(run, spot_retries=0)
    assert course.played[-1].bill.seconds == 60
    assert course.time_to_finish == timedelta(seconds=HOUR + 20)


def test_a_larger_budget_puts_the_recorded_attempt_on_spot_at_the_runs_own_price() -> None:
    course = replayed(moved(), spot_retries=1)
    assert capacities(course) == ["FARGATE_SPOT", "FARGATE_SPOT"]
    amounts = course.played[-1].bill.amounts
    assert amounts is not None
    assert (amounts.cost_usd, amounts.on_demand_usd) == (3 * SPOT_HOUR, 3 * ON_DEMAND_HOUR)
    assert figures_of([course]).counts.interruptions == 1, (
        "one that would have come later is not known"
    )
    said = " ".join(not_known(figures_of(as_recorded([moved()])), [course]))
    assert "1 attempts that ran on FARGATE are replayed on Spot, 3.0000 hours" in said
    assert "at the recorded 1.0000 per Spot hour, about 3.00 more were to be expected" in said


def test_a_run_that_was_not_rerun_is_not_rerun_under_any_budget() -> None:
    run = history((attempt(1, begins=0), ""), tags=("spot:never-rerun",))
    for budget in (0, 3):
        course = replayed(run, spot_retries=budget)
        assert course.played == as_recorded([run])[0].played
        assert not course.is_finished
        assert figures_of([course]).finished_runs == 0


@pytest.mark.parametrize("state", ["COMPLETED", "FAILED", "CANCELLED"])
def test_a_run_that_was_over_when_spot_took_its_task_is_finished(state: str) -> None:
    run = history((attempt(1, begins=0, wasted=0), ""), run_state=state)
    course = replayed(run, spot_retries=0)
    assert course.is_finished
    assert course.played[-1].rerun_on == ""


def test_the_runs_own_budget_goes_before_the_setting_and_that_is_said() -> None:
    for run in (taken_twice(tags=("spot-retries:2",)), taken_twice(own_retries=2)):
        course = replayed(run, spot_retries=0)
        assert capacities(course) == ["FARGATE_SPOT"] * 3
        assert course.own_budget
        assert "1 runs have a budget of their own" in unknown(course)
    assert not replayed(taken_twice(), spot_retries=0).own_budget


def test_what_a_guard_said_at_the_time_holds() -> None:
    run = moved(guard="deadline")
    assert replayed(run, spot_retries=5).played == as_recorded([run])[0].played


@pytest.mark.parametrize(
    ("tags", "economics", "unasked"),
    [((), False, 0), (("spot-deadline:9h",), False, 1), ((), True, 1)],
    ids=["no guard", "deadline", "economics"],
)
def test_a_guard_that_was_not_asked_then_is_not_asked_now_and_that_is_said(
    tags: tuple[str, ...], economics: bool, unasked: int
) -> None:
    course = replayed(moved(tags=tags), spot_retries=1, economics=economics)
    assert capacities(course) == ["FARGATE_SPOT", "FARGATE_SPOT"]
    assert course.guards_unasked == unasked
    assert ("1 reruns on Spot are decided by the budget alone" in unknown(course)) == bool(unasked)


def test_an_older_release_kept_neither_tags_nor_state_nor_beginning() -> None:
    run = taken_twice(run_state="")
    old = replace(
        run,
        attempts=tuple(replace(a, bill=replace(a.bill, began_at=None)) for a in run.attempts),
    )
    course = replayed(old, spot_retries=0)
    assert course.played == replace(replayed(run, spot_retries=0)).played
    assert course.without_tags == 1
    assert "1 interruptions were recorded by a release" in unknown(course)


def test_without_a_record_an_interruption_is_left_as_it_was() -> None:
    made = [attempt(1, begins=0), attempt(2, begins=HOUR, cause=Cause.OTHER)]
    [run] = join(runs_of(made, NOW.date()), {})
    course = replayed(run, spot_retries=0)
    assert capacities(course) == ["FARGATE_SPOT", "FARGATE_SPOT"]
    assert course.without_record == 1
    assert "1 interruptions have no record to decide by" in unknown(course)


def test_a_drill_counts_against_the_budget_and_in_no_total() -> None:
    run = history(
        (attempt(1, begins=0, cause=Cause.DRILL), "FARGATE_SPOT"),
        (attempt(2, begins=HOUR), "FARGATE"),
        (attempt(3, begins=2 * HOUR, on_demand=True, cause=Cause.OTHER), "end"),
    )
    course = replayed(run, spot_retries=1)
    assert capacities(course) == ["FARGATE_SPOT", "FARGATE_SPOT", "FARGATE"]
    figures = figures_of([course]).counts
    assert (figures.attempts, figures.interruptions, figures.spot_reruns) == (2, 1, 0)
    assert figures.cost_usd == SPOT_HOUR + ON_DEMAND_HOUR


def test_attempts_without_amounts_are_counted_and_said_to_lack_them() -> None:
    run = taken_twice()
    bare = replace(
        run, attempts=tuple(replace(a, bill=replace(a.bill, amounts=None)) for a in run.attempts)
    )
    for course in (replayed(bare), replayed(bare, spot_retries=0)):
        figures = figures_of([course]).counts
        assert figures.cost_usd == figures.on_demand_usd == 0
        assert "attempts have no amounts" in unknown(course)


def test_a_run_counts_whole_by_the_day_on_which_its_last_task_ended() -> None:
    bills = [attempt(1, begins=-40 * HOUR), attempt(2, begins=0, cause=Cause.OTHER)]
    today = NOW.date()
    assert [len(billed) for billed in runs_of(bills, today).values()] == [2]
    assert runs_of(bills, today + timedelta(days=1)) == {}
    assert runs_of([replace(bills[0], flow_run_id=None)], today) == {}
