"""The simulation: skies, money, the product's answers in it, and the closed forms."""

import json
from random import Random
from statistics import fmean, stdev
from typing import Final

import pytest

from chalicelib.core.model.ecs_task import FARGATE, FARGATE_SPOT
from chalicelib.core.model.policy import Policy
from chalicelib.core.policies.economics import expected_spot_seconds
from lab.simulation.figures import MOST_ABOVE, figures_of, ratio, student
from lab.simulation.grid import Cell, Contest, Pool, play_all
from lab.simulation.memory import Knowledge, memory_of, varied
from lab.simulation.play import Assignment, by_budget, by_product, leaving_before, optimum
from lab.simulation.sky import HOUR, Bursts, Bursty, Pattern, Steady
from lab.simulation.work import Work, attempt, platform_of
from lab.tables import markdown

PLATFORM: Final = platform_of()
NOTHING: Final = memory_of(
    Work(HOUR), Knowledge(0, 0), Pattern.INDEPENDENT, 1.0, Random(1), PLATFORM
)

LEAST_CLOSED: Final = 0.5
"""What economics has to close of the gap between its budget and the optimum, for long runs."""

SAFE_FROM: Final = {False: 2.5, True: 1.3}
"""By whether tasks are kept: from how many times the work on no deadline may be missed."""


def runs_of(hours: float, rate: float, tasks: int = 1, number: int = 20) -> list[Assignment]:
    made = []
    for i in range(number):
        random = Random(f"{hours}/{rate}/{tasks}/{i}")
        work = varied(Work(hours * HOUR, tasks), random)
        made.append(Assignment(work, Steady(rate, random), random.random() * HOUR))
    return made


@pytest.mark.parametrize("tasks", [1, 8])
@pytest.mark.parametrize("budget", [0, 1, 3, 10])
def test_the_product_leaves_spot_after_as_many_interruptions_as_the_budget_allows(
    budget: int, tasks: int
) -> None:
    policy = Policy(spot_retries=budget)
    for run in runs_of(4, 1, tasks):
        played = by_product(run, policy, (), NOTHING, PLATFORM)
        expected = by_budget(list(leaving_before(run, PLATFORM)), budget)
        assert played.usd == pytest.approx(expected.usd)
        assert played.seconds == pytest.approx(expected.seconds, abs=1e-3)


def test_the_optimum_is_the_cheapest_of_all_ways_and_keeps_its_deadline() -> None:
    for run in runs_of(2, 1, number=40):
        ways = list(leaving_before(run, PLATFORM))
        assert optimum(ways).usd == min(way.usd for way in ways)
        deadline = 1.5 * run.work.seconds + 60
        in_time = [way.usd for way in ways if way.seconds <= deadline]
        assert optimum(ways, deadline).usd == min(in_time)
        assert optimum(ways, 0).seconds == min(way.seconds for way in ways)


def test_an_attempt_is_charged_from_the_pull_a_minute_at_least() -> None:
    short = attempt(Work(HOUR), 0, FARGATE_SPOT, 0.0, 45.0, PLATFORM)
    assert (short.is_interrupted, short.done, short.ended_at) == (True, 0, 45.0)
    assert short.usd == pytest.approx(60 * PLATFORM.usd_per_second[FARGATE_SPOT])
    whole = attempt(Work(HOUR), 0, FARGATE, 0.0, 45.0, PLATFORM)
    assert whole.usd == pytest.approx((HOUR + 20) * PLATFORM.usd_per_second[FARGATE])


def test_a_rerun_does_again_only_the_task_that_was_under_way() -> None:
    cut = attempt(Work(800, 8), 2, FARGATE_SPOT, 0.0, 60 + 250.0, PLATFORM)
    assert cut.done == 4
    assert attempt(Work(800, 8), 4, FARGATE, 0.0, 0.0, PLATFORM).ended_at == 60 + 400


@pytest.mark.parametrize(
    ("hours", "rate", "tasks"), [(1, 1, 1), (0.5, 2, 1), (4, 1, 8), (8, 2, 16)]
)
def test_the_closed_forms_are_within_the_simulations_interval(
    hours: float, rate: float, tasks: int
) -> None:
    work, charged = Work(hours * HOUR, tasks), []
    for i in range(1500):
        sky, done, at, seconds = Steady(rate, Random(f"closed/{i}")), 0, 0.0, 0.0
        while done < tasks:
            taken = sky.interruption_after(at + PLATFORM.unbilled_seconds)
            tried = attempt(work, done, FARGATE_SPOT, at, taken, PLATFORM)
            seconds += tried.ended_at - tried.pulled_at
            done, at = tried.done, tried.ended_at
        charged.append(seconds)
    start = PLATFORM.billed_start_seconds
    expected = expected_spot_seconds(work.seconds, work.task_seconds, start, rate)
    # Three times the error of 95 %, divided by two: one test in four hundred may be outside.
    assert abs(fmean(charged) - expected) < 3 * stdev(charged) / len(charged) ** 0.5


def test_bursts_have_the_mean_rate_and_share_their_interruptions() -> None:
    hours = 60_000
    bursts = Bursts(0.5, Random(3))
    assert bursts.hazard_at(hours * HOUR) / hours == pytest.approx(0.5, rel=0.05)
    assert bursts.clock_at(bursts.hazard_at(12_345.6)) == pytest.approx(12_345.6)
    one, other = Bursty(bursts, Random(1)), Bursty(bursts, Random(2))
    assert one.interruption_after(0) != other.interruption_after(0)
    assert one.interruption_after(0) == one.interruption_after(0)


def test_interruptions_do_not_hang_on_who_asks_when() -> None:
    early, late = Steady(1, Random(7)), Steady(1, Random(7))
    late.interruption_after(50 * HOUR)
    assert early.interruption_after(HOUR) == late.interruption_after(HOUR) > HOUR


def test_a_ratio_of_what_was_drawn_together_has_a_sharp_interval() -> None:
    estimate = ratio([2.0, 4.0, 6.2], [1.0, 2.0, 3.0])
    assert estimate.value == pytest.approx(12.2 / 6)
    assert estimate.high - estimate.low < 0.25
    assert student(9) == pytest.approx(2.262, abs=0.01)
    assert student(29) == pytest.approx(2.045, abs=0.001)


def short_contest(seed: int = 1) -> Contest:
    return Contest(PLATFORM, 1, seed, (1 / 6, 4), (2,), (Pattern.INDEPENDENT,))


@pytest.fixture(scope="module")
def found() -> dict[Cell, list[Pool]]:
    return play_all(short_contest(), 2, lambda _: None)


def test_a_short_contest_shows_what_the_page_claims(found: dict[Cell, list[Pool]]) -> None:
    figures = figures_of(short_contest(), found)
    economics = figures["Economics"][0]
    assert economics["at worst"]["value"] <= MOST_ABOVE
    assert economics["closed, independent"]["value"] >= LEAST_CLOSED
    safe = [row for row in figures["Deadlines"] if row["deadline"] >= SAFE_FROM[row["kept"]]]
    assert len(safe) == 6
    assert sum(row["late: guard"] for row in safe) == 0
    for title, rows in json.loads(json.dumps(figures)).items():
        assert markdown(title, rows).startswith(f"**{title}**")


def test_a_seed_gives_the_same_again_and_another_seed_something_else(
    found: dict[Cell, list[Pool]],
) -> None:
    cell, pools = next(iter(found.items()))
    assert short_contest().play_pool(cell, 3) == pools[3]
    assert short_contest(seed=2).play_pool(cell, 3) != pools[3]


def test_spot_for_ever_is_cheaper_than_on_demand_where_nothing_interrupts() -> None:
    on_demand, *_, for_ever = leaving_before(runs_of(1, 0.001, number=1)[0], PLATFORM)
    assert for_ever.usd < on_demand.usd
