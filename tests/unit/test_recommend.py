"""What `spotctl report` recommends, for deployments that were played with a known rate."""

from dataclasses import replace
from datetime import date
from math import exp, expm1
from random import Random

import pytest

from chalicelib.core.model.policy import AUTO
from chalicelib.core.money.bill import Deployment
from chalicelib.core.money.report import Counts, DailySum, report_of
from spotctl.recommend import ON_DEMAND, PERSIST, STAY, Recommendation, Run, recommend

DAY = date(2026, 11, 28)
HOUR_US = 3_600_000_000
SPOT_USD, ON_DEMAND_USD = 0.014, 0.044


def lived(
    work: float, rate: float, units: int = 1, *, spot_hours: float = 200, spot: float = SPOT_USD
) -> Counts:
    """Runs of so many hours, in so many kept units, all on Spot until they are done."""
    unit = work / units
    interruptions = int(spot_hours * rate)
    wasted = interruptions * (1 / rate - unit / expm1(rate * unit))
    runs = max(int((spot_hours - wasted) / work), 1)
    hours = runs * work + wasted
    return Counts(
        runs=runs,
        attempts=runs + interruptions,
        interruptions=interruptions,
        spot_us=int(hours * HOUR_US),
        wasted_us=int(wasted * HOUR_US),
        cost_e8=int(hours * spot * 1e8),
        on_demand_e8=int(hours * ON_DEMAND_USD * 1e8),
        useful_e8=int(runs * work * ON_DEMAND_USD * 1e8),
        first_spot_us=int(spot_hours * HOUR_US),
        first_interruptions=interruptions,
    )


def advice(counts: Counts, budget: int = 3) -> Recommendation:
    [made] = recommend(
        report_of([DailySum(DAY, Deployment("1", "etl/nightly"), counts)], DAY, DAY), budget
    )
    return made


ADVISED = {
    "short": (lived(0.5, 0.1), 3, STAY, "sets another); 30 min of work, nothing is kept"),
    "long and kept": (lived(8, 0.5, 8), 3, AUTO, "nightly: tag it spot-retries:auto, expected to"),
    "kept, a large budget": (lived(8, 0.1, 8), 20, STAY, "an interruption repeats 1.0 h"),
    "long and lost": (lived(8, 0.3), 3, PERSIST, "persist its tasks' results"),
    "until they are kept": (lived(4, 1), 3, PERSIST, "until then, start it on demand"),
    "dear Spot": (lived(1, 0.2, 8, spot=0.046), 3, ON_DEMAND, "start it on demand"),
    "no history": (lived(1, 0.1, spot_hours=9), 3, STAY, "; 9.0 h of first attempts on Spot is on"),
    "nothing": (Counts(), 3, STAY, "; 0 s of first attempts on Spot is on record, 10 h"),
    "all lost": (replace(lived(1, 0.1), useful_e8=0), 3, STAY, "; no useful work is on record"),
}


@pytest.mark.parametrize(("counts", "budget", "choice", "words"), ADVISED.values(), ids=ADVISED)
def test_each_deployment_gets_a_setting_in_words(
    counts: Counts, budget: int, choice: str, words: str
) -> None:
    made = advice(counts, budget)
    assert (made.choice, words in str(made)) == (choice, True), str(made)
    saving = made.as_mapping()["saving_usd_per_run"]
    assert saving["low"] <= saving["value"] <= saving["high"]
    assert (saving["value"] > 0) == (choice != STAY)


def test_a_budget_costs_what_hand_arithmetic_says() -> None:
    run = Run(2.0, 1, SPOT_USD, ON_DEMAND_USD)
    tried = (1 - exp(-1)) / 0.5 * SPOT_USD
    again = (1 - exp(-1)) * 2 * ON_DEMAND_USD
    assert run.expected_usd(0, 0.5) == pytest.approx(tried + again)
    assert run.expected_usd(1, 0.5) == pytest.approx(tried + (1 - exp(-1)) * (tried + again))


def test_a_budget_over_kept_units_costs_what_runs_do_on_average() -> None:
    dice, run, total, number = Random(7), Run(4.0, 8, SPOT_USD, ON_DEMAND_USD), 0.0, 20_000
    for _ in range(number):
        left, taken = 8, 0
        while left and taken <= 2:
            lasts = dice.expovariate(0.5)
            total += min(lasts, 0.5) * SPOT_USD
            left, taken = (left - 1, taken) if lasts > 0.5 else (left, taken + 1)
        total += left * 0.5 * ON_DEMAND_USD
    assert run.expected_usd(2, 0.5) == pytest.approx(total / number, rel=0.02)


def test_auto_leaves_at_once_what_is_dear_and_stays_for_what_is_cheap() -> None:
    lost, kept = (Run(8.0, units, SPOT_USD, ON_DEMAND_USD) for units in (1, 16))
    assert lost.expected_usd(AUTO, 1.0) == lost.expected_usd(0, 1.0)
    assert kept.expected_usd(AUTO, 1.0) == pytest.approx(kept.expected_usd(20, 1.0))
