"""A handler dies before or after each of its calls, or the call fails; the end is the same.

The calls are those that an undisturbed run was seen to make. A call fails when AWS throttles it or
Prefect is busy for longer than the adapters' own tries last, or when it took effect and its answer
was lost. What comes after is either the same event again, as Lambda would deliver it, or nothing
but `sweep`.
"""

from collections import Counter
from datetime import timedelta
from itertools import product
from typing import Any

import pytest

from tests.faults.ledger import Ledger
from tests.faults.universes import PLOTS, Life, Plot, finish
from tests.laws.universe import LAMBDA_RETRY, Befalls, Tripwire, Universe

DIES = {"before": Befalls.DIES_BEFORE, "after": Befalls.DIES_AFTER}
FAILS = {"before": Befalls.FAILS_BEFORE, "after": Befalls.FAILS_AFTER}


def operations(calls: list[str]) -> list[str]:
    """Name each call by what it is and how often that was called before."""
    seen: Counter[str] = Counter()
    named = []
    for call in calls:
        seen[call] += 1
        named.append(f"{call}#{seen[call]}")
    return named


def assert_consistent(life: Life, whole: dict[str, Any], before: Any) -> None:
    """Half done, it is right already: what a worker may take, and what a person may read."""
    universe, run = life.universe, life.universe.prefect.runs[life.run_id]
    began = universe.now
    for universe.now in (began, began + timedelta(minutes=10)):
        if universe.prefect.is_due(life.run_id):
            assert run.job_variables == whole["job_variables"], "it may start on the wrong capacity"
    universe.now = began
    if len(universe.records().read(life.run_id).interruptions) < len(whole["interruptions"]):
        assert shown(life) == before, "the interruption is not on record yet"


def shown(life: Life) -> Any:
    prefect = life.universe.prefect
    return list(prefect.runs[life.run_id].states), list(prefect.logs_of(life.run_id))


@pytest.mark.parametrize(
    ("plot", "misfortune"),
    [
        pytest.param(plot, misfortune, id=f"{name}: {plot.function}, {plot.name}")
        for name, misfortune in (("dies", DIES), ("fails", FAILS))
        for plot in PLOTS
        if misfortune is DIES or not plot.needs_facts
    ],
)
def test_wherever_it_happens_the_end_is_the_same(
    plot: Plot, misfortune: dict[str, Befalls]
) -> None:
    life = plot.begin(Universe())
    names = operations(plot.handle(life))
    finish(life, plot, only_sweep=False)
    assert not life.verdict(rescued=plot.rescued).findings
    whole, messages = life.end(), life.messages()
    assert whole["billed_in_full"]
    recorded, happened = set(product(names, misfortune)), set()
    what = "dies" if misfortune is DIES else "fails to call AWS or Prefect"
    with Ledger("anywhere").case(f"{plot.function} {what}: {plot.name}") as case:
        for (number, name), phase, only_sweep in product(
            enumerate(names), misfortune, (False, True)
        ):
            life = plot.begin(Universe())
            before = shown(life)
            done = operations(plot.handle(life, Tripwire(misfortune[phase], number)))
            assert_consistent(life, whole, before)
            happened.add((done[number], phase))
            if misfortune is DIES:
                assert done[-1] == name, "it died somewhere else"
            if not only_sweep:
                life.universe.now += LAMBDA_RETRY
                plot.handle(life)
            finish(life, plot, only_sweep=only_sweep)
            verdict = life.verdict(rescued=plot.rescued)
            case.count(verdict)
            where = f"{phase} {name}, then {'sweep' if only_sweep else 'again'}"
            assert not verdict.findings, f"{where}: {verdict}"
            assert life.end() == whole, where
            # One that could not be sent is not sent again, nor one about a death not on record.
            may_lack = name.startswith("notices.") or not whole["interruptions"]
            assert life.messages() in (messages, set() if may_lack else messages), where
        if misfortune is DIES:
            case.recorded_points, case.kill_points = len(recorded), len(happened)
    assert happened == recorded
