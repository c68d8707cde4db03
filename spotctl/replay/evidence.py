"""What the record alone says to `auto`: bills show work, what was repeated, prices and the rate.

Only what was over when the interruption came counts, so a replay knows no more than `react` did. A
start's length is on no bill: it counts as 0 seconds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Final

from chalicelib.core.model.ecs_task import FARGATE, FARGATE_SPOT, Task
from chalicelib.core.model.pricing import Rate, RateKey, Rates
from chalicelib.core.policies.facts import (
    Missing,
    PolicyFacts,
    PreviousRuns,
    Progress,
    RestartOverhead,
    SpotEvidence,
    facts_of,
)
from spotctl.replay.history import Attempt, RecordedRun, usd_per_second

PAST_RUNS: Final = 20
"""As many completed runs of the deployment as `react` reads."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """All recorded runs."""

    runs: tuple[RecordedRun, ...] = ()

    def facts(self, run: RecordedRun, place: int) -> PolicyFacts | Missing:
        """Return what was known when attempt number `place` (from 0) of the run ended."""
        own = run.attempts[: place + 1]
        at = own[-1].bill.ended_at
        deployment = own[-1].bill.deployment.key
        earlier = [
            each
            for each in self.runs
            if each.attempts[-1].bill.deployment.key == deployment
            and each.attempts[-1].ends_run
            and each.attempts[-1].bill.ended_at < at
        ]
        return facts_of(
            _past(sorted(earlier, key=lambda each: each.attempts[-1].bill.ended_at)[-PAST_RUNS:]),
            _progress(own),
            RestartOverhead(0.0, 0.0),
            self._rate(at),
        )

    def _rate(self, at: datetime) -> SpotEvidence:
        """First attempts on Spot that had ended; neither drills nor starts without a container."""
        firsts = [[a.bill for a in run.attempts if a.bill.counts_its_run][:1] for run in self.runs]
        ended = [b for first in firsts for b in first if b.ended_at <= at]
        counted = [bill for bill in ended if bill.capacity == FARGATE_SPOT]
        hours = sum((bill.seconds or Decimal(0) for bill in counted), Decimal(0)) / 3600
        return SpotEvidence(float(hours), sum(bill.is_interrupted for bill in counted))


def prices_of(run: RecordedRun, task: Task) -> Rates:
    """Return the run's own prices as rates that a task of one vCPU has; memory costs nothing."""
    rates: dict[RateKey, Rate] = {}
    for capacity in (FARGATE_SPOT, FARGATE):
        if price_usd := usd_per_second(run, capacity):
            rate = Rate(task.region, task.architecture, capacity, price_usd * 3600, Decimal(0))
            rates[rate.key] = rate
    return rates


def _past(runs: Sequence[RecordedRun]) -> PreviousRuns | Missing:
    if not runs:
        return Missing("the deployment's completed runs", "there are none yet")
    repeated = [unit for run in runs for unit in _units(run.attempts)]
    return PreviousRuns(
        tuple(float(sum(a.useful_seconds for a in run.attempts)) for run in runs), tuple(repeated)
    )


def _progress(own: Sequence[Attempt]) -> Progress:
    """A drill is no evidence of the rate, and as good as any of what is kept."""
    lasted = [float(a.useful_seconds + a.bill.wasted_seconds) for a in own]
    units = _units(own)
    kept = float(sum(a.useful_seconds for a in own)) if units else 0.0
    return Progress(True if units else None, kept, max(lasted), tuple(units))


def _units(attempts: Sequence[Attempt]) -> list[float]:
    """Return twice what each interruption undid, where one left something done; else nothing.

    An interruption hits a unit halfway, on average.
    """
    cut = [each for each in attempts if each.is_interrupted]
    if not any(each.useful_seconds > 0 for each in cut):
        return []
    return [2 * max(float(each.bill.wasted_seconds), 1.0) for each in cut]
