"""Guards in a replay: what they said then holds; what they were not asked, the bills tell."""

from typing import Any
from uuid import uuid5

from chalicelib.core.bill import Bill
from chalicelib.core.guards.breaker import read_breaker
from chalicelib.core.guards.facts import GuardPolicy
from chalicelib.core.situation import Policy
from chalicelib.core.task import Cause
from spotctl.replay.again import Course, as_recorded, replay
from spotctl.replay.figures import figures_of, not_known
from spotctl.replay.history import RecordedRun
from tests.make import RUN_ID
from tests.unit.test_replay import HOUR, attempt, capacities, history


def runs_taken_at(*ends: float) -> list[RecordedRun]:
    """Runs that are taken once, that many seconds after NOW, and done an hour later, on Spot."""
    runs = []
    for number, end in enumerate(ends):
        run_id = uuid5(RUN_ID, str(number))
        first = attempt(10 * number, begins=end - 500, lasts=500, run_id=run_id)
        last = attempt(10 * number + 1, begins=end, run_id=run_id, cause=Cause.OTHER)
        runs.append(history((first, "FARGATE_SPOT"), (last, "end")))
    return runs


def on_fargate(courses: tuple[Course, ...]) -> list[bool]:
    return [course.played[-1].capacity == "FARGATE" for course in courses]


def with_breaker(text: str) -> Policy:
    return Policy(guards=GuardPolicy(breaker=read_breaker(text)))


def test_a_breaker_is_asked_in_the_order_of_time_whatever_that_of_the_runs() -> None:
    courses = replay(runs_taken_at(800, 700, 600), with_breaker("2/10m/1h"), Policy())
    assert on_fargate(courses) == [True, True, False]
    assert sum(course.guessed for course in courses) == 3
    said = " ".join(not_known(figures_of(courses), courses, {}, observes=False))
    assert "3 interruptions are put to guards that were not asked then" in said


def test_a_breakers_probe_is_what_the_record_tells_of_it() -> None:
    taken = [600, 700, 700 + 3600, 700 + 3700, 700 + 3600 + 1200, 700 + 3600 + 1260]
    courses = replay(runs_taken_at(*taken), with_breaker("2/10m/1h"), Policy())
    probe, waits, closed, closed_too = 2, 3, 4, 5
    assert on_fargate(courses)[:2] == [False, True]
    assert not on_fargate(courses)[probe]
    assert on_fargate(courses)[waits], "the probe is out"
    assert not on_fargate(courses)[closed], "it had lived for longer than the window by then"
    assert on_fargate(courses)[closed_too], "and counting began anew"


def test_what_the_guards_said_at_the_time_holds_while_they_are_the_same() -> None:
    policy = with_breaker("2/10m/1h")
    run = history(
        (attempt(1, begins=0), "FARGATE"),
        (attempt(2, begins=HOUR, on_demand=True, cause=Cause.OTHER), "end"),
        guard="weather",
    )
    [course] = replay([run], policy, policy)
    assert course.played == as_recorded([run])[0].played
    assert course.guessed == 0
    [without] = replay([run], Policy(), policy)
    assert capacities(without) == ["FARGATE_SPOT", "FARGATE_SPOT"]


def long_run(number: int, begins: float, taken: int = 0, **changes: Any) -> RecordedRun:
    """A run of ten hours' work without persisted results, `taken` after nine hours so often."""
    run_id = uuid5(RUN_ID, f"long {number}")
    attempts: list[tuple[Bill, str]] = [
        (
            attempt(100 * number + n, begins=begins + n * 10 * HOUR, lasts=9 * HOUR, run_id=run_id),
            "FARGATE_SPOT",
        )
        for n in range(taken)
    ]
    last = attempt(
        100 * number + 99,
        begins=begins + taken * 10 * HOUR,
        lasts=10 * HOUR,
        run_id=run_id,
        cause=Cause.OTHER,
    )
    return history(*attempts, (last, "end"), **changes)


def test_economics_is_asked_by_the_bills_of_the_deployments_earlier_runs() -> None:
    before, taken = long_run(1, begins=-11 * HOUR), long_run(2, begins=0, taken=3)
    often = runs_taken_at(*(-5000 - 10 * n for n in range(20)))
    economics = Policy(guards=GuardPolicy(economics=True))
    *_, course = replay([*often, before, taken], economics, Policy())
    assert capacities(course) == ["FARGATE_SPOT", "FARGATE"]
    *_, alone = replay([taken], economics, Policy())
    assert capacities(alone) == ["FARGATE_SPOT"] * 4, "without an earlier run the budget decides"


def test_a_deadline_is_asked_where_the_record_has_its_tag_and_the_guards_are_others() -> None:
    run = long_run(1, begins=0, taken=1, tags=("spot-deadline:20h",))
    before = long_run(2, begins=-11 * HOUR)
    assert capacities(replay([before, run], Policy(), Policy())[1]) == ["FARGATE_SPOT"] * 2
    economics = Policy(guards=GuardPolicy(economics=True))
    moved = replay([before, run], economics, Policy())[1]
    assert capacities(moved) == ["FARGATE_SPOT", "FARGATE"]
