"""The economics of a rerun: the closed form, the prior, and where the decision turns."""

from math import exp, factorial, inf, log
from random import Random
from statistics import mean, stdev
from typing import Any

import pytest

from chalicelib.core.guards.economics import (
    SURE,
    charged_spot_seconds,
    costs_more,
    economics_opinion,
    expected_spot_seconds,
    interruptions_per_hour,
)
from chalicelib.core.guards.facts import (
    Changeover,
    GuardFacts,
    GuardPolicy,
    Missing,
    PastRuns,
    Progress,
    SpotEvidence,
)
from chalicelib.core.guards.opinion import GoOnDemand, Opinion, StayOnSpot
from chalicelib.core.situation import Policy
from tests.make import make_rate, make_situation, make_task

HOUR = 3600.0
SPOT, ON_DEMAND = (
    make_rate("FARGATE_SPOT", "0.012", "0.0013"),
    make_rate("FARGATE", "0.04", "0.004"),
)
RATES = {rate.key: rate for rate in (SPOT, ON_DEMAND)}
POLICY = Policy(guards=GuardPolicy(economics=True), rates=RATES)


def opinion(policy: Policy = POLICY, **facts: Any) -> Opinion:
    """On a rerun of an hour's work, after a hundred Spot hours with ten interruptions."""
    ordinary: dict[str, Any] = {
        "evidence": SpotEvidence(100, 10),
        "past": PastRuns((HOUR,)),
        "progress": Progress(),
        "changeover": Changeover(60, 30),
    }
    gathered = GuardFacts(**{**ordinary, **facts})
    return economics_opinion(make_situation(policy=policy, facts=gathered))


def test_a_run_that_keeps_nothing_takes_what_an_uncut_stretch_takes() -> None:
    expected = (exp(2 * 1.5) - 1) / 2 * HOUR
    assert expected_spot_seconds(1.4 * HOUR, inf, 0.1 * HOUR, 2) == pytest.approx(expected)


def test_what_is_kept_is_not_done_again_and_costs_half_a_piece_and_a_start_each_time() -> None:
    work, piece, start, rate = 8 * HOUR, 0.1 * HOUR, 0.02 * HOUR, 0.2
    first_order = start + work + rate * work / HOUR * (piece / 2 + start)
    assert expected_spot_seconds(work, piece, start, rate) == pytest.approx(first_order, rel=1e-3)
    assert expected_spot_seconds(work, piece, start, rate) < expected_spot_seconds(
        work, work, start, rate
    )


def played_spot_seconds(
    dice: Random, work: float, piece: float, start: float, rate_per_hour: float
) -> float:
    """Seconds on Spot of one run, played piece by piece; no formula in it."""
    spent, left_to_do, to_next_cut = 0.0, work, dice.expovariate(rate_per_hour / HOUR)
    stretch = start
    while left_to_do > 1e-9:
        stretch += min(piece, left_to_do)
        if to_next_cut < stretch:
            spent += to_next_cut
            to_next_cut, stretch = dice.expovariate(rate_per_hour / HOUR), start
            continue
        spent += stretch
        to_next_cut -= stretch
        left_to_do -= min(piece, left_to_do)
        stretch = 0.0
    return spent


@pytest.mark.parametrize(
    ("hours", "pieces", "rate"), [(1, 1, 0.5), (2, 1, 1.0), (4, 16, 0.5), (8, 4, 0.3), (0.2, 2, 2)]
)
def test_the_closed_form_is_what_runs_take_on_average(
    hours: float, pieces: int, rate: float
) -> None:
    dice, work, start = Random(20261127), hours * HOUR, 90.0
    times = [played_spot_seconds(dice, work, work / pieces, start, rate) for _ in range(4000)]
    error = 4 * stdev(times) / len(times) ** 0.5
    expected = expected_spot_seconds(work, work / pieces, start, rate)
    assert expected == pytest.approx(mean(times), abs=error)
    assert error < 0.08 * expected


def test_without_interruptions_work_takes_its_time() -> None:
    assert expected_spot_seconds(HOUR, HOUR, 30, 0) == HOUR + 30
    assert expected_spot_seconds(HOUR, HOUR, 30, 1e-9) == pytest.approx(HOUR + 30)
    assert expected_spot_seconds(0, 0, 30, 0.1) == pytest.approx(30, rel=1e-3)


def test_no_rate_and_no_length_is_too_much_for_the_arithmetic() -> None:
    assert expected_spot_seconds(1e9, 1e9, 30, 1e6) == inf
    assert isinstance(opinion(past=PastRuns((1e12,))), GoOnDemand)


def test_every_attempt_is_charged_a_minute_at_least() -> None:
    assert charged_spot_seconds(10, 0) == 60
    assert charged_spot_seconds(10, 360) == 120
    assert charged_spot_seconds(90, 0) == 90


def test_little_evidence_weighs_little_and_much_of_it_all() -> None:
    assert interruptions_per_hour(SpotEvidence(0, 0)) == pytest.approx(-log(SURE) / 10)
    assert interruptions_per_hour(SpotEvidence(0.5, 1)) < 1 / 10.5
    assert interruptions_per_hour(SpotEvidence(10_000, 5000)) == pytest.approx(0.5, rel=2e-2)


def test_the_rate_is_one_that_the_posterior_exceeds_as_surely_as_said() -> None:
    """Gamma(a + n) at a whole number of events is a Poisson count: P(X < a + n | rate) = SURE."""
    mean = interruptions_per_hour(SpotEvidence(90, 20)) * 100
    fewer = sum(exp(-mean) * mean**k / factorial(k) for k in range(21))
    assert fewer == pytest.approx(SURE)


def test_where_both_cost_the_same_the_run_stays_on_spot() -> None:
    assert not costs_more(0.25, 0.25)
    assert costs_more(0.2500001, 0.25)
    assert not costs_more(0.25, 0.2500001)


def break_even_hours(start_hours: float) -> float:
    """Bisect, without the product's formula, where (e^{λ(c+w)} - 1)/λ = (c + w)·price ratio."""
    rate = interruptions_per_hour(SpotEvidence(100, 10))
    ratio = (0.04 / 4 + 0.004 / 2) / (0.012 / 4 + 0.0013 / 2)
    low, high = 0.01, 100.0
    for _ in range(80):
        middle = (low + high) / 2
        whole = middle + start_hours
        cheaper = (exp(rate * whole) - 1) / rate < ratio * whole
        low, high = (middle, high) if cheaper else (low, middle)
    return low


@pytest.mark.parametrize(("factor", "kind"), [(0.999, StayOnSpot), (1.001, GoOnDemand)])
def test_it_turns_where_the_expected_costs_meet(factor: float, kind: type) -> None:
    hours = break_even_hours(30 / HOUR)
    assert isinstance(opinion(past=PastRuns((factor * hours * HOUR,))), kind)


def test_a_long_run_goes_on_demand_unless_its_results_are_kept() -> None:
    long = PastRuns((40 * HOUR,))
    assert isinstance(opinion(past=long), GoOnDemand)
    kept = PastRuns((40 * HOUR,), piece_seconds=(600.0,) * 240)
    assert isinstance(opinion(past=kept), StayOnSpot)


def test_what_the_run_itself_showed_goes_before_what_its_like_did() -> None:
    kept = PastRuns((40 * HOUR,), piece_seconds=(600.0,) * 240)
    assert isinstance(opinion(past=kept, progress=Progress(keeps=False)), GoOnDemand)
    progress = Progress(keeps=True, piece_seconds=(600.0,))
    assert isinstance(opinion(past=PastRuns((40 * HOUR,)), progress=progress), StayOnSpot)


def test_work_that_is_done_and_kept_is_not_counted() -> None:
    long = PastRuns((60 * HOUR,), piece_seconds=(50 * HOUR,))
    nearly_done = Progress(keeps=True, kept_seconds=59.5 * HOUR)
    assert isinstance(opinion(past=long), GoOnDemand)
    assert isinstance(opinion(past=long, progress=nearly_done), StayOnSpot)


def test_a_run_that_has_done_more_than_its_shorter_like_is_judged_by_the_longer() -> None:
    mixed = PastRuns((10 * HOUR,) * 9 + (40 * HOUR,))
    assert isinstance(opinion(past=mixed), StayOnSpot)
    progress = Progress(longest_seconds=11 * HOUR)
    assert isinstance(opinion(past=mixed, progress=progress), GoOnDemand)


def test_a_run_longer_than_any_before_is_judged_by_what_it_has_done() -> None:
    progress = Progress(longest_seconds=40 * HOUR)
    assert isinstance(opinion(progress=progress), GoOnDemand)


def test_the_figures_are_told() -> None:
    told = opinion()
    assert isinstance(told, StayOnSpot)
    for words in ("USD on Spot", "USD on demand", "60 min", "0.064 interr", "10 in 100.0 h"):
        assert words in told.why


@pytest.mark.parametrize("fact", ["evidence", "past", "progress", "changeover"])
def test_without_a_fact_it_has_no_opinion(fact: str) -> None:
    missing = Missing(fact, "it could not be read")
    lacking: dict[str, Any] = {fact: missing}
    assert opinion(**lacking) == missing
    never_gathered: dict[str, Any] = {fact: None}
    assert isinstance(opinion(**never_gathered), Missing)


def test_without_a_rate_or_a_size_it_has_no_opinion() -> None:
    told = opinion(policy=Policy(rates={SPOT.key: SPOT}))
    assert told == Missing("the FARGATE rate", "none is known in us-east-1")
    facts = GuardFacts(SpotEvidence(1, 1), PastRuns((HOUR,)), Progress(), Changeover(60, 30))
    sizeless = make_situation(policy=POLICY, facts=facts, task=make_task(cpu_units=None))
    assert economics_opinion(sizeless) == Missing("the task's size", "ECS did not tell it")
