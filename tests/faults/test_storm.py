"""A storm: very many interruptions at once, while Prefect fails and handlers are killed.

Each event comes three times, all in random order; 5 % of Prefect's answers fail, half of them after
they took effect, a quarter lost before it; 1 % of the invocations are killed. Lambda's two retries,
then `sweep`, are all the help there is.
"""

import os
import random
from typing import Any

from chalicelib.core.model.flow_run import StateType
from localcloud.oracle import Fault, judge
from tests.faults.ledger import Ledger
from tests.faults.universes import running
from tests.laws.universe import Befalls, Tripwire, Universe, failure_of

RUNS = int(os.environ.get("STORM") or 500)
SEED = 20261123
FAILING = 0.05
KILLED = 0.01


class Conditions(Tripwire):
    """A wire on which Prefect's answers may be lost, before or after the effect; some die on it."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__()
        self._chance = chance
        if chance.random() < KILLED:
            self.befalls = chance.choice((Befalls.DIES_BEFORE, Befalls.DIES_AFTER))
            self.at = chance.randrange(20)

    def call(self, name: str, call: Any) -> Any:
        if not name.startswith("prefect.") or self._chance.random() >= FAILING:
            return super().call(name, call)
        took_effect = self._chance.random() < 0.5
        if took_effect:
            super().call(name, call)
        raise failure_of(name, lost=took_effect or self._chance.random() < 0.5)


def test_nothing_is_lost_and_nothing_run_twice() -> None:
    chance = random.Random(SEED)
    universe = Universe()
    universe.shows_stopped = False
    lives = [running(universe, chance.choice((0, 1, 3))) for _ in range(RUNS)]
    deliveries = [(life, number, 1) for life in lives for number in range(3) for _ in range(3)]
    chance.shuffle(deliveries)
    tasks = {life.run_id: life.tasks[0] for life in lives}
    events = {
        run_id: (universe.warning(task), *universe.exits(task)[1:])
        for run_id, task in tasks.items()
    }
    with Ledger("storm").case(f"storm of {RUNS} interruptions") as case:
        while deliveries:
            again = []
            for life, number, attempt in deliveries:
                if universe.handle(events[life.run_id][number], Conditions(chance)):
                    continue
                if attempt < 3:
                    again.append((life, number, attempt + 1))
            universe.passes(60)
            deliveries = again
        while not ((report := universe.sweep()) and report.finished and not report.failed):
            pass
        for life in lives:
            life.live_on()
        verdict = judge(*(life.observation() for life in lives))
        case.count(verdict, tries=RUNS)
    assert verdict.count(Fault.LOST) == 0
    assert verdict.count(Fault.RUN_TWICE) == 0
    assert not verdict.findings
    assert all(life.state is StateType.COMPLETED for life in lives)
