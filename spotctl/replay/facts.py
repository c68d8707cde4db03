"""What the guards are told in a replay: read out of the bills, where the product asks Prefect.

While the guards' settings are what they were, what a guard said then holds, where it was asked: it
knew more than the bills do. Only where a guard was not asked is it asked here, by the record's own
bills up to that moment.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from uuid import UUID

from chalicelib.core.guards.breaker import (
    Breaker,
    BreakerPolicy,
    BreakerState,
    Probe,
    ProbeSeen,
    Weather,
    asked,
    has_proved,
    judged,
    signalled,
)
from chalicelib.core.guards.facts import (
    Changeover,
    GuardFacts,
    Missing,
    PastRuns,
    Progress,
    SpotEvidence,
)
from chalicelib.core.guards.progress import past_of
from chalicelib.core.rates import Rate
from chalicelib.core.run import CompletedRun
from chalicelib.core.situation import Situation
from chalicelib.core.task import FARGATE, FARGATE_SPOT, Cause
from chalicelib.functions.guard_facts import ENOUGH_SPOT_HOURS, PAST_RUNS, WINDOWS_DAYS
from spotctl.replay.history import Attempt, RecordedRun, prices_of

_VCPU_UNITS = 1024


@dataclass(slots=True)
class Life:
    """What is known of a run's attempt in the replay: for the breaker's probe."""

    capacity: str
    began_at: datetime
    ended_at: datetime
    is_finished: bool


@dataclass(slots=True)
class RecordedFacts:
    """Facts for the guards, from the bills of all runs; and the breaker, as it stands by now."""

    runs: Sequence[RecordedRun]
    breaker: Breaker = field(default_factory=Breaker)

    def gather(self, s: Situation, run: RecordedRun, attempt: Attempt) -> Situation:
        """Return the situation with what economics and deadline need, and the run's own prices."""
        so_far = run.attempts[: run.attempts.index(attempt) + 1]
        facts = GuardFacts(
            evidence=self._evidence(s.now),
            past=self._past(run, s.now),
            progress=_progress(so_far),
            changeover=_changeover(so_far),
        )
        task = replace(s.task, cpu_units=_VCPU_UNITS, memory_mib=0)
        return replace(
            s,
            task=task,
            run=replace(s.run, expected_start=run.attempts[0].began_at),
            facts=facts,
            policy=replace(s.policy, rates={**s.policy.rates, **_own_rates(run, s)}),
        )

    def weather(
        self, s: Situation, life_of: Callable[[UUID], Life], *, asks: bool
    ) -> Weather | Missing | None:
        """Tell the breaker of an interruption, and ask it for the rerun; None for no answer."""
        policy = s.policy.guards.breaker
        if policy is None:
            return None
        self.breaker = self._seen_to(policy, life_of, s.now)
        if s.cause is Cause.SPOT_INTERRUPTION:
            signals = {**self.breaker.signals, s.task.arn: s.now}
            told = replace(self.breaker, signals=signals)
            self.breaker = signalled(told, policy, s.run.id, s.task.arn, s.now)
        if not asks:
            return None
        asker = Probe(s.run.id, s.task.arn, s.now)
        self.breaker, permit = asked(self.breaker, policy, asker)
        return Weather(permit, self.breaker)

    def _seen_to(
        self, policy: BreakerPolicy, life_of: Callable[[UUID], Life], now: datetime
    ) -> Breaker:
        """What a sweep would have made of the probe by now."""
        probe = self.breaker.probe
        if self.breaker.state is not BreakerState.HALF_OPEN or probe is None:
            return self.breaker
        life = life_of(probe.flow_run_id)
        lived, at = now - life.began_at, now
        seen = ProbeSeen.LIVES if life.began_at <= now else ProbeSeen.NOT_YET
        if life.capacity != FARGATE_SPOT:
            seen = ProbeSeen.TELLS_NOTHING
        elif life.ended_at <= now:
            seen = ProbeSeen.ENDED if life.is_finished else ProbeSeen.TELLS_NOTHING
            at = life.ended_at
        elif has_proved(lived, policy.window):
            at = life.began_at + policy.window
        return judged(self.breaker, policy, seen, lived, at)

    def _evidence(self, now: datetime) -> SpotEvidence:
        hours, interruptions = 0.0, 0
        for days in WINDOWS_DAYS:
            since = now.date() - timedelta(days=days - 1)
            bills = [
                attempt.bill
                for run in self.runs
                for attempt in run.attempts
                if since <= attempt.bill.ended_at.date() and attempt.exited_at <= now
                if attempt.bill.capacity == FARGATE_SPOT and not attempt.bill.is_drill
            ]
            hours = sum(float(bill.seconds or 0) for bill in bills) / 3600
            interruptions = sum(bill.is_interrupted for bill in bills)
            if hours >= ENOUGH_SPOT_HOURS:
                break
        return SpotEvidence(hours, interruptions)

    def _past(self, run: RecordedRun, now: datetime) -> PastRuns | Missing:
        like = [
            _completed(other)
            for other in self.runs
            if other.deployment_id == run.deployment_id is not None
            and other.attempts[-1].ends_run
            and other.attempts[-1].bill.ended_at <= now
        ]
        newest_first = sorted(like, key=lambda done: done.ended_at, reverse=True)
        return past_of(newest_first[:PAST_RUNS], ())


def _completed(run: RecordedRun) -> CompletedRun:
    return CompletedRun(
        id=run.flow_run_id,
        run_count=len(run.attempts),
        run_seconds=sum(_lasted(attempt) for attempt in run.attempts),
        started_at=run.attempts[0].began_at,
        ended_at=run.attempts[-1].bill.ended_at,
    )


def _progress(attempts: Sequence[Attempt]) -> Progress:
    """What was useful of an attempt was kept; what was wasted of it is the piece that was cut."""
    kept = float(sum((attempt.useful_seconds for attempt in attempts), Decimal(0)))
    keeps = kept > 0
    pieces = [float(attempt.bill.wasted_seconds) for attempt in attempts] if keeps else []
    return Progress(keeps, kept, max(map(_lasted, attempts)), tuple(pieces))


def _changeover(attempts: Sequence[Attempt]) -> Changeover:
    """From an exit to the next image pull: of the time after that, no bill tells."""
    gaps = [
        (after.began_at - before.exited_at).total_seconds() for before, after in pairwise(attempts)
    ]
    return Changeover(seconds=max(gaps, default=0.0), charged_seconds=0.0)


def _lasted(attempt: Attempt) -> float:
    return (attempt.exited_at - attempt.began_at).total_seconds()


def _own_rates(run: RecordedRun, s: Situation) -> dict[tuple[str, str, str], Rate]:
    """The run's prices as rates of a task of one vCPU and no memory, which it is given to be."""
    prices = prices_of(run)
    rates = {}
    for capacity in (FARGATE_SPOT, FARGATE):
        usd = prices.of(capacity)
        if usd is not None:
            rate = Rate(s.task.region, s.task.architecture, capacity, usd * 3600, Decimal(0))
            rates[rate.key] = rate
    return rates
