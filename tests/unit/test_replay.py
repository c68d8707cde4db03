"""What becomes of a recorded history under another budget, and what is reported as not known."""

import io
import re
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from rich.console import Console

from chalicelib.core.model.ecs_task import Cause
from chalicelib.core.model.flow_run import Interruption, RunRecord
from chalicelib.core.model.policy import Policy
from chalicelib.core.model.pricing import with_assumed
from chalicelib.core.money.bill import Bill
from spotctl.replay.again import Course, as_recorded, replay
from spotctl.replay.figures import figures_of, not_known, nothing_to_decide
from spotctl.replay.history import RecordedRun, join, runs_of
from spotctl.replay.show import as_table
from tests.make import NOW, RUN_ID, TASK_ARN, make_rate, make_task, seconds
from tests.unit.test_bill import bill

HOUR = 3600
SPOT, FARGATE = "FARGATE_SPOT", "FARGATE"
SPOT_HOUR = Decimal("0.01571925")
"""USD, of the bill's task: 1 vCPU and 2 GiB, as `tests/unit/test_bill.py` has it."""
ON_DEMAND_HOUR = Decimal("0.04937000")


def attempt(
    number: int = 1,
    *,
    begins: float = 0,
    lasts: int = HOUR,
    on: str = SPOT,
    cause: Cause = Cause.SPOT_INTERRUPTION,
    wasted: int | None = None,
) -> Bill:
    """A bill of the run's attempt `number`; all of it is wasted where Spot took it."""
    began_at = NOW + seconds(begins)
    task = make_task(
        arn=f"{TASK_ARN[:-4]}{number:04d}",
        capacity_provider="" if on == FARGATE else on,
        cpu_units=1024,
        memory_mib=2048,
        last_status="STOPPED",
        pull_started_at=began_at,
        execution_stopped_at=began_at + seconds(lasts),
        stopped_at=began_at + seconds(lasts),
    )
    if wasted is None:
        wasted = lasts if cause is Cause.SPOT_INTERRUPTION else 0
    return bill(task, wasted=wasted, cause=cause)


def taken(rerun_on: str = SPOT, **changes: Any) -> dict[str, Any]:
    """Spot takes the attempt; it is rerun there."""
    return {"rerun_on": rerun_on, **changes}


def done(**changes: Any) -> dict[str, Any]:
    """The attempt ends by itself."""
    return {"cause": Cause.OTHER, **changes}


def history(*lives: dict[str, Any], own_retries: int = 0, **changes: Any) -> RecordedRun:
    """One run: an attempt after the other, a minute apart; `changes` to each interruption."""
    bills, interruptions, begins = [], {}, 0.0
    for number, life in enumerate(lives, start=1):
        made = attempt(number, begins=begins, **{k: v for k, v in life.items() if k != "rerun_on"})
        begins += life.get("lasts", HOUR) + 60
        bills.append(made)
        if "rerun_on" in life:
            ordinary: dict[str, Any] = {
                "cause": made.cause.value,
                "capacity": made.capacity,
                "stop_code": "SpotInterruption",
                "exited_at": made.ended_at,
                "rerun_on": life["rerun_on"],
                "run_state": "RUNNING",
            }
            interruptions[made.task_arn] = Interruption(
                made.task_arn, number, **{**ordinary, **changes}
            )
    record = RunRecord(RUN_ID, interruptions, own_retries)
    [joined] = join(runs_of(bills, NOW.date()), {RUN_ID: record})
    return joined


def taken_twice(**changes: Any) -> RecordedRun:
    """Taken after an hour on Spot, again after another, and done after three hours on Spot."""
    return history(taken(), taken(), done(lasts=3 * HOUR), **changes)


def moved(**changes: Any) -> RecordedRun:
    """Taken after an hour on Spot, then done after three hours on FARGATE."""
    return history(taken(FARGATE), done(on=FARGATE, lasts=3 * HOUR), **changes)


def replayed(run: RecordedRun, **policy: Any) -> Course:
    [course] = replay([run], Policy(**policy))
    return course


def unknown(course: Course) -> str:
    """What is reported as not known, of this run alone."""
    return " ".join(not_known(figures_of([course]), [course]))


def capacities(course: Course) -> list[str]:
    return [played.bill.capacity for played in course.played]


def with_bills(run: RecordedRun, **changes: Any) -> RecordedRun:
    attempts = (replace(a, bill=replace(a.bill, **changes)) for a in run.attempts)
    return replace(run, attempts=tuple(attempts))


def test_a_smaller_budget_ends_on_fargate_after_as_much_work_as_was_useful() -> None:
    course = replayed(taken_twice(), spot_retries=0)
    assert capacities(course) == [SPOT, FARGATE]
    last = course.played[-1].bill
    assert last.seconds == 3 * HOUR, "the second attempt was wasted: nothing of it is needed"
    assert last.amounts is not None
    assert last.amounts.cost_usd == last.amounts.useful_usd == 3 * ON_DEMAND_HOUR
    assert course.time_to_finish == timedelta(hours=4, minutes=1)
    figures = figures_of([course]).counts
    assert (figures.interruptions, figures.spot_reruns, figures.on_demand_reruns) == (1, 0, 1)
    assert figures.amounts.cost_usd == SPOT_HOUR + 3 * ON_DEMAND_HOUR
    assert figures.amounts.net_savings_usd == -SPOT_HOUR


def test_what_was_kept_of_an_attempt_is_not_done_again_on_fargate() -> None:
    course = replayed(history(taken(), taken(wasted=600), done()), spot_retries=0)
    assert course.played[-1].bill.seconds == (HOUR - 600) + HOUR


def test_an_attempt_on_fargate_is_charged_for_a_minute_at_least() -> None:
    course = replayed(history(taken(), done(lasts=20)), spot_retries=0)
    assert course.played[-1].bill.seconds == 60
    assert course.time_to_finish == timedelta(seconds=HOUR + 60 + 20)


def test_a_larger_budget_puts_the_recorded_attempt_on_spot_at_the_runs_own_price() -> None:
    course = replayed(moved(), spot_retries=1)
    assert capacities(course) == [SPOT, SPOT]
    amounts = course.played[-1].bill.amounts
    assert amounts is not None
    assert (amounts.cost_usd, amounts.on_demand_usd) == (3 * SPOT_HOUR, 3 * ON_DEMAND_HOUR)
    assert figures_of([course]).counts.interruptions == 1, "a later one is not known"
    said = " ".join(not_known(figures_of(as_recorded([moved()])), [course]))
    assert "1 attempt on FARGATE replayed on Spot, 3.0 h, at the run's own Spot price" in said
    assert "at the recorded 1.0 per Spot hour, about 3.0 more to expect" in said


def test_what_is_replayed_at_an_assumed_spot_rate_is_counted_and_marked() -> None:
    on_demand = make_rate("FARGATE", "0.04", "0.004")
    assumed = with_assumed({on_demand.key: on_demand}, Decimal("0.68"))
    recorded = moved()
    attempts = tuple(
        replace(a, bill=replace(a.bill, rates=(assumed[(*on_demand.key[:2], a.bill.capacity)],)))
        for a in recorded.attempts
    )
    run = replace(recorded, attempts=attempts)
    for played, number in (
        (as_recorded([run]), 1),
        ([replayed(run, spot_retries=1)], 2),
        ([replayed(with_bills(run, rates=attempts[0].bill.rates), spot_retries=0)], 1),
    ):
        assert figures_of(played).counts.assumed_bills == number
    columns = {
        "as_recorded": figures_of(as_recorded([run])).as_mapping(),
        "same_settings": figures_of([replayed(run, spot_retries=1)]).as_mapping(),
        "other_settings": figures_of(as_recorded([moved()])).as_mapping(),
    }
    text = printed(columns)
    for title, marks in (("paid USD", [True, True, False]), ("on demand, with", [False] * 3)):
        [row] = [line.split("│") for line in text.splitlines() if title in line]
        assert [cell.strip().endswith("*") for cell in row[2:5]] == marks
    assert "* tasks at an assumed Spot rate" in text


def printed(columns: dict[str, Any], changes: str = "0", why: str = "") -> str:
    """The table of these three columns."""
    shown = {"since": 1, "until": 2, "settings": {"SPOT_RETRIES": "3"}, "not_known": []}
    tried = {"SPOT_RETRIES": changes} if changes else {}
    console = Console(width=300, file=io.StringIO())
    console.print(as_table({**shown, "changes": tried, "nothing_to_decide": why, **columns}))
    return str(console.file.getvalue())  # type: ignore[attr-defined]  # a StringIO


def test_the_table_has_short_figures_that_add_up_and_no_column_or_mark_for_nothing() -> None:
    columns = ("as_recorded", "same_settings", "other_settings")
    text = printed(dict.fromkeys(columns, figures_of(as_recorded([moved()])).as_mapping()), "")
    for row in (
        ("", "as recorded", "replayed: SPOT_RETRIES=3"),
        ("time charged", "4.0 h", "4.0 h"),
        ("on demand, without repeats, USD", "0.148110", "0.148110"),
        ("paid USD", "0.163829", "0.163829"),
        ("net saving, USD", "-0.015719", "-0.015719"),
    ):
        assert re.search(" *[┃│] *".join(map(re.escape, row)), text), row
    assert "*" not in text


OWN = "each interrupted run (2) has a budget of its own, by tag or by the flow's retries"
IN_VAIN: dict[str, tuple[list[RecordedRun], str]] = {
    "own budgets": ([taken_twice(tags=("spot-retries:2",)), taken_twice(own_retries=2)], OWN),
    "and one not rerun": (
        [taken_twice(own_retries=2), history(taken(""))],
        f"{OWN}, was not rerun, was moved by its deadline, or has no record",
    ),
    "no interruption": ([history(done())], "no run was interrupted"),
    "one by the setting": ([taken_twice(own_retries=2), taken_twice()], ""),
}


@pytest.mark.parametrize(("runs", "why"), IN_VAIN.values(), ids=IN_VAIN)
def test_where_the_setting_decides_nothing_a_line_says_so(
    runs: list[RecordedRun], why: str
) -> None:
    assert nothing_to_decide(replay(runs, Policy(spot_retries="auto"))) == why
    line = f"SPOT_RETRIES=1 changes nothing for the runs that ended 1 to 2 (UTC): {why}\n"
    assert not why or printed({}, "1", why) == line


started_again = history(taken(FARGATE), done(on=FARGATE), done(on=FARGATE))
drilled = history(taken(cause=Cause.DRILL), taken(FARGATE), done(on=FARGATE))


REPLAYED: dict[str, tuple[RecordedRun, int, list[str]]] = {
    "started again by hand: stays on Spot": (started_again, 1, [SPOT] * 3),
    "or on FARGATE": (started_again, 0, [SPOT, FARGATE, FARGATE]),
    "a guard's decision holds": (moved(guard="deadline"), 5, [SPOT, FARGATE]),
    "a drill counts against the budget": (drilled, 1, [SPOT, SPOT, FARGATE]),
    "not rerun": (history(taken("")), 0, [SPOT]),
    "not rerun under any budget": (history(taken("")), 3, [SPOT]),
    "a tag goes before the setting": (taken_twice(tags=("spot-retries:2",)), 0, [SPOT] * 3),
    "own retries go before the setting": (taken_twice(own_retries=2), 0, [SPOT] * 3),
}


@pytest.mark.parametrize(("run", "budget", "expected"), REPLAYED.values(), ids=REPLAYED)
def test_a_budget_decides_where_an_attempt_is_replayed(
    run: RecordedRun, budget: int, expected: list[str]
) -> None:
    assert capacities(replayed(run, spot_retries=budget)) == expected


def test_a_drill_counts_in_no_total() -> None:
    figures = figures_of([replayed(drilled, spot_retries=1)]).counts
    assert (figures.attempts, figures.interruptions, figures.spot_reruns) == (2, 1, 0)
    assert figures.amounts.cost_usd == SPOT_HOUR + ON_DEMAND_HOUR


@pytest.mark.parametrize(
    ("state", "is_finished"),
    [("COMPLETED", True), ("FAILED", True), ("CANCELLED", True), ("RUNNING", False)],
)
def test_a_run_that_was_over_when_spot_took_its_task_is_finished(
    state: str, is_finished: bool
) -> None:
    course = replayed(history(taken("", wasted=0), run_state=state), spot_retries=0)
    assert course.is_finished == is_finished
    assert figures_of([course]).finished_runs == int(is_finished)
    assert course.played[-1].rerun_on == ""


def a_day_later(run: RecordedRun) -> RecordedRun:
    def moved_bill(bill: Bill) -> Bill:
        begins, ends = bill.began_at, bill.ended_at
        assert begins is not None
        return replace(bill, began_at=begins + seconds(86_400), ended_at=ends + seconds(86_400))

    attempts = [replace(each, bill=moved_bill(each.bill)) for each in run.attempts]
    return replace(run, attempts=tuple(attempts))


LOST = history(taken(FARGATE), done(on=FARGATE, lasts=10 * HOUR))
KEPT = history(taken(SPOT, wasted=300), done(on=SPOT, lasts=10 * HOUR))
TAKEN_FIVE_TIMES = history(*[taken(FARGATE if n == 4 else SPOT, wasted=300) for n in range(5)])


@pytest.mark.parametrize(
    ("earlier", "run", "decided"),
    [
        ([LOST] * 12, history(taken(), done(lasts=12 * HOUR)), [FARGATE]),
        ([KEPT] * 12, history(taken(), done(lasts=12 * HOUR)), [SPOT]),
        ([LOST] * 8, history(taken(), done(lasts=12 * HOUR)), [SPOT]),
        ([KEPT] * 12, TAKEN_FIVE_TIMES, [SPOT] * 5),
        ([], TAKEN_FIVE_TIMES, [SPOT] * 3 + [FARGATE]),
    ],
    ids=["lost, often", "kept, often", "nine Spot hours", "kept, the fifth", "no history"],
)
def test_auto_is_replayed_by_what_the_record_showed_at_the_time(
    earlier: list[RecordedRun], run: RecordedRun, decided: list[str]
) -> None:
    """Of an hour that Spot takes: all is wasted, or five minutes of it."""
    *_, course = replay([*earlier, a_day_later(run)], Policy(spot_retries="auto"))
    assert [played.rerun_on for played in course.played if played.rerun_on] == decided


NOT_ASKED = "1 rerun on Spot with a deadline whose guard was not asked then"


@pytest.mark.parametrize(
    ("sentence", "run", "policy"),
    [
        ("1 of these unfinished in the record", history(taken(), taken()), {}),
        ("1 run with a budget of its own", taken_twice(tags=("spot-retries:2",)), {}),
        ("1 run with a budget of its own", taken_twice(own_retries=2), {}),
        (NOT_ASKED, moved(tags=("spot-deadline:9h",)), {"spot_retries": 1}),
        ("1 run decided by `auto` from the record", taken_twice(), {"spot_retries": "auto"}),
        ("1 interruption recorded by a release", taken_twice(run_state=""), {}),
        ("2 attempts without amounts", with_bills(taken_twice(), amounts=None), {}),
    ],
)
def test_what_a_replay_cannot_know_is_reported(
    sentence: str, run: RecordedRun, policy: dict[str, Any]
) -> None:
    assert sentence in unknown(replayed(run, **{"spot_retries": 0, **policy}))
    assert sentence not in unknown(replayed(taken_twice(), spot_retries=0))


def test_a_bill_of_an_older_release_keeps_no_beginning_and_changes_nothing() -> None:
    old = with_bills(taken_twice(), began_at=None)
    assert replayed(old, spot_retries=0).played == replayed(taken_twice(), spot_retries=0).played


def test_without_a_record_an_interruption_is_left_as_it_was() -> None:
    bills = [attempt(), attempt(2, begins=HOUR, cause=Cause.OTHER)]
    [run] = join(runs_of(bills, NOW.date()), {})
    course = replayed(run, spot_retries=0)
    assert capacities(course) == [SPOT, SPOT]
    assert "1 interruption without a record to decide by" in unknown(course)


def test_without_amounts_there_is_no_cost() -> None:
    figures = figures_of([replayed(with_bills(taken_twice(), amounts=None))]).counts
    assert figures.amounts.cost_usd == figures.amounts.on_demand_usd == 0


def test_a_run_counts_whole_by_the_day_on_which_its_last_task_ended() -> None:
    bills = [attempt(begins=-40 * HOUR), attempt(2, cause=Cause.OTHER)]
    today = NOW.date()
    assert [len(billed) for billed in runs_of(bills, today).values()] == [2]
    assert runs_of(bills, today + timedelta(days=1)) == {}
    assert runs_of([replace(bills[0], flow_run_id=None)], today) == {}
