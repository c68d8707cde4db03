"""Whether finishing on Spot is expected to cost more than finishing on demand.

Spot takes a task at rate λ, independent of its age: attempts are cut by a Poisson process. Work w
is done in pieces of length L: a piece that was cut is done again from its start; without persisted
results the one piece is the whole run. Each attempt begins with a start c that is paid and is no
work (image pull, container, engine), and may be cut as well.

- A stretch x that has to come through uncut takes E(x) = (e^{λx} - 1)/λ on Spot, failures included:
  by memorylessness E = ∫₀ˣ e^{-λt} dt + (1 - e^{-λx})·E.
- The first try of a piece is a stretch L; after a cut it is c + L. So one piece takes
  (1 - e^{-λL})/λ + (1 - e^{-λL})·E(c + L) = e^{λc}·(e^{λL} - 1)/λ.
- The whole, with n = w/L pieces: **T = [e^{λc} - 1 + n·e^{λc}·(e^{λL} - 1)]/λ**.
  Without persistence, n = 1: T = (e^{λ(c+w)} - 1)/λ. With it, to first order in λ:
  T ≈ c + w + λw·(L/2 + c), half a piece and one start for each interruption.
- Attempts are 1 + λT (Wald), and AWS charges each a minute at least.

On demand it takes c + w. Seconds times rate is money, so without persistence and with c = 0 the two
cost the same where (e^{λw} - 1)/(λw) is on-demand's price over Spot's.

**The budget** does not enter. Without persistence a cut leaves the run as it was, so V(m) = A + q·
V(m-1) for m attempts left on Spot, with V(0) on demand, A the cost of one attempt and q the odds
that it is cut. If A + q·V(0) < V(0), then V(m) < V(0) for every m, and not otherwise: a finite
budget makes the difference smaller, and never turns it. With persistence the same holds but for one
changeover's price at the edge.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from math import exp, expm1, inf, lgamma, log, sqrt
from typing import Final

from chalicelib.core.model.ecs_task import FARGATE, FARGATE_SPOT, Task
from chalicelib.core.model.pricing import MINIMUM_SECONDS, cost_usd, size_of
from chalicelib.core.policies.estimates import (
    keeps_results,
    likely_work_seconds,
    usual_piece_seconds,
)
from chalicelib.core.policies.facts import (
    Changeover,
    GoOnDemand,
    Missing,
    Opinion,
    PastRuns,
    Progress,
    SpotEvidence,
    StayOnSpot,
    first_missing,
)
from chalicelib.core.rescue.snapshot import Snapshot

PRIOR_INTERRUPTIONS: Final = 1
PRIOR_SPOT_HOURS: Final = 10.0
"""A Gamma prior for interruptions per Spot hour, worth ten hours in which there was one.

No rate is published for Fargate Spot; after some tens of hours one's own evidence outweighs it.
"""

SURE: Final = 0.9
"""How sure the evidence has to be that Spot costs more. To leave Spot too early loses more than to
leave it late: at most a budget of short attempts is lost by staying."""

CONFIDENCE: Final = 0.95
"""Of the interval that a report shows."""

_HOUR: Final = 3600.0
_LARGEST_EXPONENT: Final = 500.0
"""Beyond it a float overflows; no price makes up for e to the 500th."""
_STEPS: Final = 80
_NEGLIGIBLE: Final = 1e-17


def interruptions_per_hour(evidence: SpotEvidence) -> float:
    """Return the rate that Spot interrupts with at least, as surely as `SURE`.

    That is a quantile of the posterior, Gamma(a + interruptions, b + Spot hours): the Gamma
    distribution is the Poisson rate's conjugate prior. With a whole number of interruptions its
    quantile is the lower limit of Garwood's interval.
    """
    low = _surely_above(PRIOR_INTERRUPTIONS + evidence.interruptions)
    return low / (PRIOR_SPOT_HOURS + evidence.hours)


@lru_cache
def _surely_above(events: int) -> float:
    low, _ = garwood(events, confidence=2 * SURE - 1)
    return low


def expected_spot_seconds(
    work_seconds: float, piece_seconds: float, start_seconds: float, rate_per_hour: float
) -> float:
    """Return T of this module's docstring: charged seconds on Spot, all attempts together.

    `piece_seconds` is L, at most the work itself; `start_seconds` is c. Infinite where no float can
    hold it.
    """
    rate = rate_per_hour / _HOUR
    piece = min(piece_seconds, work_seconds)
    if rate * (start_seconds + piece) > _LARGEST_EXPONENT:
        return inf
    if rate == 0:
        return start_seconds + work_seconds
    starting = expm1(rate * start_seconds)
    working = expm1(rate * piece) * (work_seconds / piece) if piece > 0 else 0.0
    return (starting + (1 + starting) * working) / rate


def charged_spot_seconds(seconds: float, rate_per_hour: float) -> float:
    """Return what AWS charges for T: of its 1 + λT attempts, each a minute at least on average."""
    attempts = 1 + seconds * rate_per_hour / _HOUR
    return max(seconds, attempts * float(MINIMUM_SECONDS))


def costs_more(spot_usd: float, on_demand_usd: float) -> bool:
    """Whether Spot is expected to cost more; where both cost the same, the run stays on Spot."""
    return spot_usd > on_demand_usd


def economics_opinion(snapshot: Snapshot) -> Opinion:
    """Compare the expected cost of finishing on Spot with that of finishing on demand."""
    facts = snapshot.facts
    usd_per_hour = _usd_per_hour(snapshot)
    needed = (facts.evidence, facts.past, facts.progress, facts.changeover, usd_per_hour)
    match needed:
        case (
            SpotEvidence() as evidence,
            PastRuns() as past,
            Progress() as progress,
            Changeover(charged_seconds=start),
            (spot, demand),
        ):
            pass
        case _:
            return first_missing(*needed)
    rate = interruptions_per_hour(evidence)
    works = [max(w - progress.kept_seconds, 0.0) for w in likely_work_seconds(past, progress)]
    keeps = keeps_results(past, progress)
    pieces = [usual_piece_seconds(past, progress) if keeps else work for work in works]
    on_spot = [
        charged_spot_seconds(expected_spot_seconds(work, piece, start, rate), rate)
        for work, piece in zip(works, pieces, strict=True)
    ]
    on_demand = [max(start + work, float(MINIMUM_SECONDS)) for work in works]
    spot_usd = _mean(on_spot) * spot / _HOUR
    on_demand_usd = _mean(on_demand) * demand / _HOUR
    why = (
        f"finishing is expected to cost {spot_usd:.6f} USD on Spot and {on_demand_usd:.6f} USD on"
        f" demand: {_mean(works) / 60:.0f} min of work left,"
        f" {'kept task by task' if keeps else 'from the start if interrupted'},"
        f" {rate:.3f} interruptions per Spot hour at least ({evidence.interruptions} in"
        f" {evidence.hours:.1f} h of first attempts)"
    )
    return GoOnDemand(why) if costs_more(spot_usd, on_demand_usd) else StayOnSpot(why)


def _usd_per_hour(snapshot: Snapshot) -> tuple[float, float] | Missing:
    """Return what an hour of this task costs on Spot and on demand, in USD."""
    task = snapshot.subject
    size = size_of(task) if isinstance(task, Task) else None
    if size is None or not isinstance(task, Task):
        return Missing("the task's size", "ECS did not report it")
    usd = []
    for capacity in (FARGATE_SPOT, FARGATE):
        rate = snapshot.policy.rates.get((task.region, task.architecture, capacity))
        if rate is None:
            return Missing(f"the {capacity} rate", f"none is known in {task.region or '?'}")
        usd.append(float(cost_usd(rate, Decimal(3600), size)))
    spot, on_demand = usd
    return spot, on_demand


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


@dataclass(frozen=True, slots=True)
class RatePerHour:
    """Events per hour: `low` and `high` enclose the true rate with 95 % confidence."""

    events: int
    hours: float
    low: float
    high: float

    @property
    def observed(self) -> float:
        """Events divided by hours."""
        return self.events / self.hours


def rate_per_hour(events: int, hours: Decimal) -> RatePerHour | None:
    """Return the rate with its exact interval; None without a single hour's fraction seen."""
    if hours <= 0:
        return None
    low, high = garwood(events)
    return RatePerHour(events, float(hours), low / float(hours), high / float(hours))


def garwood(events: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Return the limits of a Poisson mean of which `events` were counted."""
    tail = (1 - confidence) / 2
    furthest = events + 20 * sqrt(events + 1) + 20
    low = 0.0
    if events > 0:
        low = _where(lambda mean: _at_least(events, mean) < tail, 0.0, float(events))
    return low, _where(lambda mean: _at_most(events, mean) > tail, float(events), furthest)


def _where(is_below: Callable[[float], bool], low: float, high: float) -> float:
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if is_below(middle) else (low, middle)
    return (low + high) / 2


def _at_most(events: int, mean: float) -> float:
    """P(X <= events), for a mean above `events`: the terms fall towards zero."""
    term = sum_ = _probability(events, mean)
    for number in range(events, 0, -1):
        term *= number / mean
        sum_ += term
        if term < _NEGLIGIBLE * sum_:
            break
    return sum_


def _at_least(events: int, mean: float) -> float:
    """P(X >= events), for a mean below `events`: the terms fall from the first on."""
    term = sum_ = _probability(events, mean)
    number = events
    while term > _NEGLIGIBLE * sum_:
        number += 1
        term *= mean / number
        sum_ += term
    return sum_


def _probability(events: int, mean: float) -> float:
    if mean == 0:
        return float(events == 0)
    return exp(events * log(mean) - mean - lgamma(events + 1))
