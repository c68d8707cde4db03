"""The breaker of a simulated pool: the product's own rules, told what the table would be told.

`chalicelib/functions/weather.py` does the same for a real pool: a signal for each task that Spot
took, a question for each rerun, and a look at the probe with every sweep.
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Final
from uuid import UUID

from chalicelib.core.guards.breaker import (
    Breaker,
    BreakerPolicy,
    BreakerState,
    Probe,
    ProbeSeen,
    Weather,
    asked,
    judged,
    signalled,
)
from chalicelib.core.situation import Situation
from simulation.foresight import SWEEP_SECONDS, swept_after
from simulation.work import moment

Look = Callable[[UUID, float], tuple[ProbeSeen, float]]
"""Tells what a look at a run finds at a time, and for how many seconds it has lived on Spot."""


class Barometer:
    """One pool's breaker. Times are seconds on the pool's clock, and only go forward."""

    def __init__(self, policy: BreakerPolicy, look: Look) -> None:
        self._policy: Final = policy
        self._look: Final = look
        self._breaker = Breaker()
        self._swept_at = 0.0

    def sweep_until(self, at: float) -> None:
        """Look at the probe as often as `sweep` has come by since the last time."""
        due = max(self._swept_at, at - at % SWEEP_SECONDS - _enough_sweeps(self._policy))
        while (due := swept_after(due)) <= at:
            self._swept_at = due
            probe = self._breaker.probe
            if self._breaker.state is not BreakerState.HALF_OPEN or probe is None:
                continue
            seen, lived = self._look(probe.flow_run_id, due)
            lived_for = timedelta(seconds=lived)
            self._breaker = judged(self._breaker, self._policy, seen, lived_for, moment(due))

    def signal(self, s: Situation) -> None:
        """Tell it of a task that Spot took, or refused."""
        signals = {**self._breaker.signals, s.task.arn: s.now}
        told = replace(self._breaker, signals=signals)
        self._breaker = signalled(told, self._policy, s.run.id, s.task.arn, s.now)

    def ask(self, s: Situation) -> Weather:
        """Ask it for a rerun on Spot."""
        asker = Probe(s.run.id, s.task.arn, s.now)
        self._breaker, permit = asked(self._breaker, self._policy, asker)
        return Weather(permit, self._breaker)


def _enough_sweeps(policy: BreakerPolicy) -> float:
    """After so many seconds of sweeps, a breaker is where more of them would leave it."""
    return 2 * (policy.window + policy.cool_down).total_seconds()
