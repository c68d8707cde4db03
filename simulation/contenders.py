"""The policies in the contest, each as the product's own `Policy` and tags would state it."""

from dataclasses import dataclass, field
from functools import cache
from math import ceil
from typing import Final

from chalicelib.core.guards.facts import DEADLINE_TAG, GuardPolicy
from chalicelib.core.situation import Policy
from simulation.memory import Knowledge
from simulation.work import Work, shipped_rates

OPTIMUM: Final = "offline optimum"
BASELINE: Final = "budget 3"
BUDGETS: Final = range(11)
ECONOMICS: Final = "economics"
DEADLINE: Final = "deadline"

DEADLINES: Final = {False: (1.5, 2.5, 3.0, 4.0), True: (1.3, 1.6, 2.0)}
"""By whether tasks are kept: deadlines as multiples of the run's own work."""

KNOWLEDGE: Final = {
    "": Knowledge(),
    "10 Spot hours, 3 runs": Knowledge(spot_hours=10, runs=3),
    "1 Spot hour, 1 run": Knowledge(spot_hours=1, runs=1),
    "no history": Knowledge(spot_hours=0, runs=0),
    "5x the interruptions": Knowledge(rate_factor=5),
    "a fifth of the interruptions": Knowledge(rate_factor=0.2),
    "2x the work": Knowledge(work_factor=2),
    "half the work": Knowledge(work_factor=0.5),
}
"""What economics is judged with: an ordinary past first, then little of it, then a wrong one."""


@dataclass(frozen=True, slots=True)
class Contender:
    """A policy in the contest. `deadline_factor`: a run's deadline, in its own work; 0: none.

    `one_pool_in` so many pools it takes part: what is only shown, and not claimed, has fewer.
    """

    name: str
    policy: Policy = field(default_factory=Policy)
    deadline_factor: float = 0.0
    knowledge: Knowledge = field(default_factory=Knowledge)
    one_pool_in: int = 1

    def deadline_minutes(self, work: Work) -> int:
        """A run's deadline as its tag would say it, in whole minutes; 0 for none."""
        return ceil(work.seconds * self.deadline_factor / 60)

    def tags(self, work: Work) -> tuple[str, ...]:
        """The tags that a run is given."""
        minutes = self.deadline_minutes(work)
        return (f"{DEADLINE_TAG}{minutes}m",) if minutes else ()


def economics_with(knowledge: str) -> str:
    """Name economics with some of `KNOWLEDGE`."""
    return f"{ECONOMICS}, {knowledge}" if knowledge else ECONOMICS


def in_time(name: str, factor: float) -> str:
    """Name a policy under a deadline."""
    return f"{name}, deadline {factor:g}x work"


@cache
def contenders_of(tasks: int) -> tuple[Contender, ...]:
    """Return those that ask the product, for runs that keep so many tasks."""
    rates = shipped_rates()
    budgets = [Contender(f"budget {n}", Policy(spot_retries=n, rates=rates)) for n in BUDGETS]
    watched = Policy(rates=rates, guards=GuardPolicy(economics=True))
    economics = [
        Contender(economics_with(name), watched, knowledge=knowledge, one_pool_in=4 if name else 1)
        for name, knowledge in KNOWLEDGE.items()
    ]
    deadlines = [
        Contender(in_time(DEADLINE, factor), Policy(rates=rates), factor)
        for factor in DEADLINES[tasks > 1]
    ]
    return (*budgets, *economics, *deadlines)
