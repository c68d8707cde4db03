"""`SPOT_RETRIES=auto`: is finishing on Spot expected to cost more than finishing on demand?

Spot takes a task at rate λ, independent of its age: interruptions are a Poisson process. Work w is
done in units of length L: an interrupted unit is repeated from its start; without persisted results
the one unit is the whole run. Each attempt begins with a start c that is charged and does no work
(image pull, container, engine), and may be interrupted as well.

- A stretch x that has to finish uninterrupted takes E(x) = (e^{λx} - 1)/λ on Spot, failures
  included: by memorylessness E = ∫₀ˣ e^{-λt} dt + (1 - e^{-λx})·E.
- The first try of a unit is a stretch L; after an interruption it is c + L. So one unit takes
  (1 - e^{-λL})/λ + (1 - e^{-λL})·E(c + L) = e^{λc}·(e^{λL} - 1)/λ.
- The whole, with n = w/L units: **T = [e^{λc} - 1 + n·e^{λc}·(e^{λL} - 1)]/λ**.
  Without persistence, n = 1: T = (e^{λ(c+w)} - 1)/λ. With it, to first order in λ:
  T ≈ c + w + λw·(L/2 + c), half a unit and one start for each interruption.
- There are 1 + λT attempts (Wald), and AWS charges at least a minute for each.

On demand it takes c + w. Seconds times rate is money, so without persistence and with c = 0 the two
cost the same where (e^{λw} - 1)/(λw) is on-demand's price over Spot's.

**Both directions.** Without persistence an interruption leaves the run as it was, so V(m) = A +
q·V(m-1) for m attempts left on Spot, with V(0) on demand, A the cost of one attempt and q the
probability that it is interrupted. If A + q·V(0) < V(0), then V(m) < V(0) for every m, and not
otherwise: the sign does not depend on how many attempts are left. So the one expectation says when
to leave before a budget of 3 is spent, and when to stay beyond it.

**A margin.** The rate and the work are of the past. So a departure from the budget of 3, in either
direction, has to save `LEAST_SAVING` of the on-demand cost: where the two are nearly equal, being
wrong about them costs more than being right gains.
"""

from decimal import Decimal
from math import expm1, inf
from statistics import fmean
from typing import Final

from chalicelib.core.model.ecs_task import FARGATE, FARGATE_SPOT, Task
from chalicelib.core.model.policy import BUDGET_WITHOUT_FACTS
from chalicelib.core.model.pricing import MINIMUM_SECONDS, Rates, cost_usd, size_of
from chalicelib.core.policies.facts import (
    GoOnDemand,
    Missing,
    Opinion,
    PolicyFacts,
    SpotEvidence,
    StayOnSpot,
)

PRIOR_INTERRUPTIONS: Final = 1
PRIOR_SPOT_HOURS: Final = 10.0
"""A Gamma prior for interruptions per Spot hour: as if one was seen in ten hours.

AWS publishes no rate for Fargate Spot. With fewer hours than the prior's, the rate is unknown.
"""

LEAST_SAVING: Final = 0.15
"""The part of the on-demand cost that a departure from `BUDGET_WITHOUT_FACTS` has to save.

The least of 0.1, 0.15 and 0.2 with which a past of half the work costs less than 10 % over the
budget of 3 in every cell of `make simulate` (seeds 1 to 5).
"""

_HOUR: Final = 3600.0
_LARGEST_EXPONENT: Final = 500.0
"""Beyond it a float overflows; no price makes up for e to the 500th."""


def interruptions_per_hour(evidence: SpotEvidence) -> float:
    """Return the mean of the posterior Gamma(1 + interruptions, 10 + Spot hours).

    The Gamma distribution is the Poisson rate's conjugate prior.
    """
    return (PRIOR_INTERRUPTIONS + evidence.interruptions) / (PRIOR_SPOT_HOURS + evidence.hours)


def expected_spot_seconds(
    work_seconds: float, unit_seconds: float, start_seconds: float, rate_per_hour: float
) -> float:
    """Return T of the module docstring: charged seconds on Spot, all attempts together.

    `unit_seconds` is L, at most the work itself; `start_seconds` is c. Infinite where a float
    overflows.
    """
    rate = rate_per_hour / _HOUR
    unit = min(unit_seconds, work_seconds)
    if rate * (start_seconds + unit) > _LARGEST_EXPONENT:
        return inf
    if rate == 0:
        return start_seconds + work_seconds
    starting = expm1(rate * start_seconds)
    working = expm1(rate * unit) * (work_seconds / unit) if unit > 0 else 0.0
    return (starting + (1 + starting) * working) / rate


def charged_spot_seconds(seconds: float, rate_per_hour: float) -> float:
    """Return the seconds that AWS charges for T: at least a minute for each of 1 + λT attempts."""
    attempts = 1 + seconds * rate_per_hour / _HOUR
    return max(seconds, attempts * float(MINIMUM_SECONDS))


def leaves_spot(spot_usd: float, on_demand_usd: float, interruption: int) -> bool:
    """Whether the run leaves Spot after this interruption: a run's first, second, and so on.

    Up to 3 it stays unless on-demand saves more than `LEAST_SAVING`; beyond, only where Spot does
    save that.
    """
    early = interruption <= BUDGET_WITHOUT_FACTS
    return spot_usd > (1 + LEAST_SAVING if early else 1 - LEAST_SAVING) * on_demand_usd


def auto_opinion(
    facts: PolicyFacts | Missing, task: Task | None, rates: Rates, interruption: int
) -> Opinion:
    """Compare the expected cost of finishing on Spot with that of finishing on demand.

    `task`: the interrupted one, for its size and region; None where ECS shows none.
    `interruption`: its number. The answer names all figures that the costs are made of.
    """
    if isinstance(facts, Missing):
        return facts
    evidence, usd_per_hour = facts.evidence, _usd_per_hour(task, rates)
    if isinstance(evidence, Missing):
        return evidence
    if evidence.hours < PRIOR_SPOT_HOURS:
        few = f"{evidence.hours:.1f} of {PRIOR_SPOT_HOURS:.0f} Spot hours are on record"
        return Missing("the interruption rate", few)
    if isinstance(usd_per_hour, Missing):
        return usd_per_hour
    spot, demand, is_assumed = usd_per_hour
    rate, start = interruptions_per_hour(evidence), facts.restart_overhead.charged_seconds
    work = max(likely_work_seconds(facts) - facts.progress.checkpointed_seconds, 0.0)
    unit = min(usual_unit_seconds(facts), work) if facts.is_checkpointed else work
    on_spot = charged_spot_seconds(expected_spot_seconds(work, unit, start, rate), rate)
    on_demand = max(start + work, float(MINIMUM_SECONDS))
    spot_usd, on_demand_usd = on_spot * spot / _HOUR, on_demand * demand / _HOUR
    kept = f"kept by {unit:.0f} s"
    why = (
        f"finishing is expected to cost {spot_usd:.6f} USD on Spot"
        f"{' (its rate is assumed)' * is_assumed} and {on_demand_usd:.6f} USD on"
        f" demand: {work:.0f} s of work left,"
        f" {kept if facts.is_checkpointed else 'from the start if interrupted'},"
        f" {start:.0f} s to start, {rate:.4f} interruptions per Spot hour ({evidence.interruptions}"
        f" in {evidence.hours:.1f} h of first attempts, prior 1 in 10 h), {spot:.6f} and"
        f" {demand:.6f} USD per hour"
    )
    least = f"{100 * LEAST_SAVING:.0f} %"
    if leaves_spot(spot_usd, on_demand_usd, interruption):
        beyond = f"; beyond 3 interruptions Spot has to save {least}"
        return GoOnDemand(why + beyond * (spot_usd <= on_demand_usd))
    return StayOnSpot(why + f"; on-demand would have to save {least}" * (spot_usd > on_demand_usd))


def likely_work_seconds(facts: PolicyFacts) -> float:
    """Return the mean work, in seconds, of the previous runs that this one may still resemble.

    This run has more work than its longest attempt did, so runs with less are left out. If none
    had more, that attempt is all that is known.
    """
    done = max(facts.progress.longest_seconds, facts.progress.checkpointed_seconds)
    return fmean([work for work in facts.past.work_seconds if work > done] or [done])


def usual_unit_seconds(facts: PolicyFacts) -> float:
    """Return the mean length of the work unit that an interruption hits: Σ L²/Σ L, in seconds.

    An interruption hits a long unit more often than a short one, in proportion to its length.
    """
    units = (*facts.progress.unit_seconds, *facts.past.unit_seconds)
    whole = sum(units)
    return sum(unit * unit for unit in units) / whole if whole > 0 else 0.0


def _usd_per_hour(task: Task | None, rates: Rates) -> tuple[float, float, bool] | Missing:
    """What an hour of this task costs on Spot and on demand, in USD; whether Spot's is assumed."""
    size = size_of(task) if task else None
    if task is None or size is None:
        return Missing("the task's size", "ECS did not report it")
    usd, is_assumed = [], False
    for capacity in (FARGATE_SPOT, FARGATE):
        rate = rates.get((task.region, task.architecture, capacity))
        if rate is None:
            return Missing(f"the {capacity} rate", f"none is known in {task.region or '?'}")
        usd.append(float(cost_usd(rate, Decimal(3600), size)))
        is_assumed |= rate.is_assumed
    spot, on_demand = usd
    return spot, on_demand, is_assumed
