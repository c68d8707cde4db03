"""Fail anywhere: each call that a handler makes fails once, and the handler lives on.

AWS throttles it, or Prefect is busy, for longer than the adapters' own tries last; or the call took
effect, and its answer was lost. What comes after is the event again, as Lambda would deliver it,
or nothing but `sweep`. See `test_kill_anywhere.py`, where the handler dies instead.
"""

import pytest

from tests.faults.ledger import FULL, Ledger
from tests.faults.test_kill_anywhere import operations, undisturbed
from tests.faults.universes import PLOTS, Plot, finish, universe_of
from tests.laws.universe import LAMBDA_RETRY, Befalls, Fault, Tables

FAILURES = {"before": Befalls.FAILS_BEFORE, "after": Befalls.FAILS_AFTER}
AFTERWARDS = (False, True) if FULL else (False,)
"""Whether nothing but `sweep` comes; the short form has only the event again."""


@pytest.fixture(scope="module")
def ledger() -> Ledger:
    return Ledger("fail")


@pytest.mark.parametrize("plot", PLOTS, ids=lambda plot: f"{plot.function}: {plot.name}")
def test_whatever_call_fails_the_end_is_the_same(
    tables: Tables, ledger: Ledger, plot: Plot
) -> None:
    whole, calls = undisturbed(tables, plot)
    names = operations(calls)
    with ledger.case(f"{plot.function}: AWS throttles or Prefect fails: {plot.name}") as case:
        for number, name in enumerate(names):
            for phase, befalls in FAILURES.items():
                for only_sweep in AFTERWARDS:
                    life = plot.begin(universe_of(tables.dynamodb, tables.name))
                    done = operations(plot.handle(life, Fault(befalls, number)))
                    assert name in done, "another call failed"
                    if not only_sweep:
                        life.universe.now += LAMBDA_RETRY
                        plot.handle(life)
                    finish(life, plot, only_sweep=only_sweep)
                    verdict = life.verdict(rescued=plot.rescued)
                    case.count(verdict)
                    where = f"{phase} {name}, then {'sweep' if only_sweep else 'again'}"
                    assert not verdict.findings, f"{where}: {verdict}"
                    assert life.end() == whole.end(), where
