"""`auto`: the closed form, the rate, and where the decision turns."""

from decimal import Decimal
from math import exp, inf
from random import Random
from statistics import mean, stdev
from typing import Any

import pytest

from chalicelib.core.model.ecs_task import Task
from chalicelib.core.model.pricing import Rates, with_assumed
from chalicelib.core.policies.economics import (
    LEAST_SAVING,
    auto_opinion,
    charged_spot_seconds,
    expected_spot_seconds,
    interruptions_per_hour,
    leaves_spot,
)
from chalicelib.core.policies.facts import (
    GoOnDemand,
    Missing,
    Opinion,
    PreviousRuns,
    Progress,
    RestartOverhead,
    SpotEvidence,
    StayOnSpot,
    facts_of,
)
from tests.make import RATES, make_task

HOUR = 3600.0
FACTS: dict[str, Any] = {
    "evidence": SpotEvidence(100, 10),
    "past": PreviousRuns((HOUR,)),
    "progress": Progress(),
    "restart_overhead": RestartOverhead(60, 30),
}


def opinion(
    task: Task | None = None, rates: Rates = RATES, number: int = 1, **facts: Any
) -> Opinion:
    """On a rerun of an hour's work, after a hundred Spot hours with ten interruptions."""
    return auto_opinion(facts_of(**{**FACTS, **facts}), task or make_task(), rates, number)


def played_spot_seconds(
    dice: Random, work: float, unit: float, start: float, rate_per_hour: float
) -> float:
    """Seconds on Spot of one run, played unit by unit; no formula in it."""
    spent, left, to_interruption = 0.0, work, dice.expovariate(rate_per_hour / HOUR)
    stretch = start
    while left > 1e-9:
        stretch += min(unit, left)
        if to_interruption < stretch:
            spent += to_interruption
            to_interruption, stretch = dice.expovariate(rate_per_hour / HOUR), start
            continue
        spent += stretch
        to_interruption -= stretch
        left -= min(unit, left)
        stretch = 0.0
    return spent


@pytest.mark.parametrize(
    ("hours", "units", "rate"), [(1, 1, 0.5), (2, 1, 1.0), (4, 16, 0.5), (8, 4, 0.3), (0.2, 2, 2)]
)
def test_the_closed_form_is_what_runs_take_on_average(
    hours: float, units: int, rate: float
) -> None:
    dice, work, start = Random(20261127), hours * HOUR, 90.0
    times = [played_spot_seconds(dice, work, work / units, start, rate) for _ in range(4000)]
    error = 4 * stdev(times) / len(times) ** 0.5
    expected = expected_spot_seconds(work, work / units, start, rate)
    assert expected == pytest.approx(mean(times), abs=error)
    assert error < 0.08 * expected


def test_without_interruptions_work_takes_its_time() -> None:
    assert expected_spot_seconds(HOUR, HOUR, 30, 0) == HOUR + 30
    assert expected_spot_seconds(HOUR, HOUR, 30, 1e-9) == pytest.approx(HOUR + 30)
    assert expected_spot_seconds(0, 0, 30, 0.1) == pytest.approx(30, rel=1e-3)


def test_no_rate_and_no_length_is_too_much_for_the_arithmetic() -> None:
    assert expected_spot_seconds(1e9, 1e9, 30, 1e6) == inf
    assert isinstance(opinion(past=PreviousRuns((1e12,))), GoOnDemand)


def test_every_attempt_is_charged_a_minute_at_least() -> None:
    assert charged_spot_seconds(10, 0) == 60
    assert charged_spot_seconds(10, 360) == 120
    assert charged_spot_seconds(90, 0) == 90


def test_the_rate_is_that_of_the_evidence_and_one_interruption_in_ten_hours() -> None:
    assert interruptions_per_hour(SpotEvidence(100, 10)) == pytest.approx(11 / 110)
    assert interruptions_per_hour(SpotEvidence(10_000, 5000)) == pytest.approx(0.5, rel=2e-3)


def test_only_longer_runs_than_this_attempt_say_how_long_it_takes() -> None:
    past = PreviousRuns((HOUR, 2 * HOUR, 4 * HOUR))
    answer = opinion(past=past, progress=Progress(longest_seconds=HOUR))
    assert not isinstance(answer, Missing)
    assert f" {3 * HOUR:.0f} s of work left" in answer.why


MARGIN = LEAST_SAVING * 0.25


@pytest.mark.parametrize(
    ("spot_usd", "number", "leaves"),
    [
        (0.25 + MARGIN, 1, False),
        (0.25 + MARGIN + 1e-9, 1, True),
        (0.25 + MARGIN, 3, False),
        (0.25 + MARGIN + 1e-9, 3, True),
        (0.25 - MARGIN, 4, False),
        (0.25 - MARGIN + 1e-9, 4, True),
        (0.25 - MARGIN, 20, False),
        (0.25 - MARGIN + 1e-9, 20, True),
    ],
)
def test_a_departure_from_the_budget_of_3_has_to_save_the_margin_in_either_direction(
    spot_usd: float, number: int, leaves: bool
) -> None:
    assert leaves_spot(spot_usd, 0.25, number) == leaves


def break_even_hours(start_hours: float, share: float = 1.0) -> float:
    """Bisect, without the product's formula, (e^{λ(c+w)} - 1)/λ = share·(c + w)·price ratio."""
    rate = 11 / 110
    ratio = share * (0.04 / 4 + 0.004 / 2) / (0.012 / 4 + 0.0013 / 2)
    low, high = 0.01, 100.0
    for _ in range(80):
        middle = (low + high) / 2
        whole = middle + start_hours
        cheaper = (exp(rate * whole) - 1) / rate < ratio * whole
        low, high = (middle, high) if cheaper else (low, middle)
    return low


@pytest.mark.parametrize(("factor", "kind"), [(0.999, StayOnSpot), (1.001, GoOnDemand)])
@pytest.mark.parametrize("number", [1, 3, 4, 20])
def test_it_turns_where_the_expected_costs_meet(factor: float, kind: type, number: int) -> None:
    hours = factor * break_even_hours(
        30 / HOUR, 1 + (-LEAST_SAVING if number > 3 else LEAST_SAVING)
    )
    assert isinstance(opinion(past=PreviousRuns((hours * HOUR,)), number=number), kind)


LONG = PreviousRuns((40 * HOUR,))
CHECKPOINTED = PreviousRuns((40 * HOUR,), unit_seconds=(600.0,) * 240)
ONE_UNIT = PreviousRuns((60 * HOUR,), unit_seconds=(50 * HOUR,))
MIXED = PreviousRuns((10 * HOUR,) * 9 + (40 * HOUR,))


HISTORIES = {
    "long": (LONG, Progress(), GoOnDemand),
    "long, checkpointed": (CHECKPOINTED, Progress(), StayOnSpot),
    "the run itself is not": (CHECKPOINTED, Progress(checkpointed=False), GoOnDemand),
    "the run itself is": (LONG, Progress(True, unit_seconds=(600.0,)), StayOnSpot),
    "a long unit": (ONE_UNIT, Progress(), GoOnDemand),
    "nearly done": (ONE_UNIT, Progress(True, 59.5 * HOUR), StayOnSpot),
    "mostly short": (MIXED, Progress(), StayOnSpot),
    "one of the longer": (MIXED, Progress(None, 0, 11 * HOUR), GoOnDemand),
    "the longest": (PreviousRuns((HOUR,)), Progress(None, 0, 40 * HOUR), GoOnDemand),
}


@pytest.mark.parametrize(("past", "progress", "kind"), HISTORIES.values(), ids=HISTORIES)
def test_what_a_run_has_done_itself_goes_before_previous_runs(
    past: PreviousRuns, progress: Progress, kind: type
) -> None:
    assert isinstance(opinion(past=past, progress=progress), kind)


def test_the_reason_holds_all_figures_and_they_give_the_costs_by_hand() -> None:
    answer = opinion()
    assert isinstance(answer, StayOnSpot)
    assert answer.why == (
        "finishing is expected to cost 0.003872 USD on Spot and 0.012100 USD on demand: 3600 s of"
        " work left, from the start if interrupted, 30 s to start, 0.1000 interruptions per Spot"
        " hour (10 in 100.0 h of first attempts, prior 1 in 10 h), 0.003650 and 0.012000 USD per"
        " hour"
    )
    hours = 3630 / 3600
    assert (exp(0.1 * hours) - 1) / 0.1 * 0.00365 == pytest.approx(0.003872, abs=1e-6)
    assert hours * 0.012 == pytest.approx(0.0121)


@pytest.mark.parametrize(
    ("number", "share", "kind", "ends"),
    [
        (3, 1.02, StayOnSpot, "; on-demand would have to save 15 %"),
        (3, 0.98, StayOnSpot, " USD per hour"),
        (4, 0.98, GoOnDemand, "; beyond 3 interruptions Spot has to save 15 %"),
        (4, 1.02, GoOnDemand, " USD per hour"),
    ],
)
def test_a_reason_to_take_the_more_expensive_names_the_margin(
    number: int, share: float, kind: type, ends: str
) -> None:
    near = PreviousRuns((share * break_even_hours(30 / HOUR) * HOUR,))
    answer = opinion(past=near, number=number)
    assert isinstance(answer, kind)
    assert not isinstance(answer, Missing)
    assert answer.why.endswith(ends)


@pytest.mark.parametrize(("hours", "kind"), [(9.99, Missing), (10.0, StayOnSpot)])
def test_with_fewer_spot_hours_than_are_assumed_the_rate_is_unknown(
    hours: float, kind: type
) -> None:
    assert isinstance(opinion(evidence=SpotEvidence(hours, 1)), kind)


def test_the_reason_says_that_spots_rate_is_assumed_where_it_is() -> None:
    on_demand = {key: rate for key, rate in RATES.items() if rate.capacity == "FARGATE"}
    assumed = opinion(rates=with_assumed(on_demand, Decimal("0.68")))
    assert isinstance(assumed, StayOnSpot)
    assert "USD on Spot (its rate is assumed) and " in assumed.why
    known = opinion()
    assert isinstance(known, StayOnSpot)
    assert "assumed" not in known.why


@pytest.mark.parametrize("fact", FACTS)
def test_without_a_fact_it_has_no_opinion(fact: str) -> None:
    lacking: dict[str, Any] = {fact: Missing(fact, "it could not be read")}
    assert opinion(**lacking) == lacking[fact]


def test_without_a_rate_or_a_size_it_has_no_opinion() -> None:
    only_spot = {key: rate for key, rate in RATES.items() if rate.capacity == "FARGATE_SPOT"}
    assert opinion(rates=only_spot) == Missing("the FARGATE rate", "none is known in us-east-1")
    sizeless = opinion(make_task(cpu_units=None))
    assert sizeless == Missing("the task's size", "ECS did not report it")
