"""Kill anywhere: a handler dies before or after each of its calls; the end is the same.

The calls are those that an undisturbed run was seen to make. What comes after the death is either
the same event again, as Lambda would deliver it, or nothing but `sweep`.
"""

from collections import Counter
from collections.abc import Iterator

import pytest

from tests.faults.ledger import Ledger
from tests.faults.universes import PLOTS, Life, Plot, finish, universe_of
from tests.laws.universe import LAMBDA_RETRY, Befalls, Fault, Tables

Point = tuple[str, str, str]
"""Function, operation (its name, and its how-manieth call in the run), phase."""

PHASES = {"before": Befalls.DIES_BEFORE, "after": Befalls.DIES_AFTER}

recorded: set[Point] = set()
killed: set[Point] = set()


@pytest.fixture(scope="module")
def ledger() -> Iterator[Ledger]:
    ledger = Ledger("kill")
    yield ledger
    ledger.figures = {"kill_points": len(killed), "recorded_points": len(recorded)}
    ledger.write()


def operations(calls: list[str]) -> list[str]:
    """Name each call by what it is and how often that was called before."""
    seen: Counter[str] = Counter()
    named = []
    for call in calls:
        seen[call] += 1
        named.append(f"{call}#{seen[call]}")
    return named


def undisturbed(tables: Tables, plot: Plot) -> tuple[Life, list[str]]:
    life = plot.begin(universe_of(tables.dynamodb, tables.name))
    calls = plot.handle(life)
    finish(life, plot, only_sweep=False)
    return life, calls


@pytest.mark.parametrize("plot", PLOTS, ids=lambda plot: f"{plot.function}: {plot.name}")
def test_wherever_it_dies_the_end_is_the_same(tables: Tables, ledger: Ledger, plot: Plot) -> None:
    whole, calls = undisturbed(tables, plot)
    assert not whole.verdict(rescued=plot.rescued).findings
    assert whole.end()["billed_in_full"]
    names = operations(calls)
    recorded.update((plot.function, name, phase) for name in names for phase in PHASES)
    with ledger.case(f"{plot.function} dies: {plot.name}") as case:
        for number, name in enumerate(names):
            for phase, befalls in PHASES.items():
                for only_sweep in (False, True):
                    life = plot.begin(universe_of(tables.dynamodb, tables.name))
                    done = plot.handle(life, Fault(befalls, number))
                    assert operations(done)[-1] == name, "it died somewhere else"
                    killed.add((plot.function, name, phase))
                    if not only_sweep:
                        life.universe.now += LAMBDA_RETRY
                        plot.handle(life)
                    finish(life, plot, only_sweep=only_sweep)
                    verdict = life.verdict(rescued=plot.rescued)
                    case.count(verdict)
                    where = f"{phase} {name}, then {'sweep' if only_sweep else 'again'}"
                    assert not verdict.findings, f"{where}: {verdict}"
                    assert life.end() == whole.end(), where


def test_it_died_at_every_point_that_was_recorded() -> None:
    assert recorded
    assert killed == recorded
