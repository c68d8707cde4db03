"""What the guards are told in a replay: read out of the bills, where the product asks Prefect.

While the guards' settings are what they were, what a guard said then holds, where it was asked: it
knew more than the bills do. Only where a guard was not asked is it asked here, by the record's own
bills up to that moment.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from itertools import accumulate, pairwise
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
    """Facts for the guards, from the bills of all runs; and the breaker, as it stands by now.

    `spot_exits` are the ends of all attempts on Spot, in order; `spot_hours` and `interruptions`
    are summed up over as many of these. `completed`: a deployment's runs, in the order of their
    ends.
    """

    spot_exits: Sequence[datetime]
    spot_hours: Sequence[float]
    interruptions: Sequence[int]
    completed: Mapping[UUID | None, Sequence[CompletedRun]]
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
        """Hours and interruptions on Spot, of as many days as it takes to have enough of them."""
        until = bisect_right(self.spot_exits, now)
        hours, interruptions = 0.0, 0
        for days in WINDOWS_DAYS:
            first_day = datetime.combine(now.date() - timedelta(days=days - 1), time(), UTC)
            since = bisect_left(self.spot_exits, first_day)
            hours = self.spot_hours[until] - self.spot_hours[since]
            interruptions = self.interruptions[until] - self.interruptions[since]
            if hours >= ENOUGH_SPOT_HOURS:
                break
        return SpotEvidence(hours, interruptions)

    def _past(self, run: RecordedRun, now: datetime) -> PastRuns | Missing:
        like = self.completed.get(run.deployment_id, []) if run.deployment_id else []
        until = bisect_right(like, now, key=lambda done: done.ended_at)
        return past_of(like[max(0, until - PAST_RUNS) : until][::-1], ())


def facts_of(runs: Sequence[RecordedRun]) -> RecordedFacts:
    """Sort what the facts are read from, once."""
    on_spot = sorted(
        (
            attempt
            for run in runs
            for attempt in run.attempts
            if attempt.bill.capacity == FARGATE_SPOT and not attempt.bill.is_drill
        ),
        key=lambda attempt: attempt.exited_at,
    )
    completed: dict[UUID | None, list[CompletedRun]] = {}
    for done in sorted(
        (run for run in runs if run.attempts[-1].ends_run),
        key=lambda run: run.attempts[-1].bill.ended_at,
    ):
        completed.setdefault(done.deployment_id, []).append(_completed(done))
    hours = (float(attempt.bill.seconds or 0) / 3600 for attempt in on_spot)
    return RecordedFacts(
        spot_exits=[attempt.exited_at for attempt in on_spot],
        spot_hours=[*accumulate(hours, initial=0.0)],
        interruptions=[*accumulate((int(a.bill.is_interrupted) for a in on_spot), initial=0)],
        completed=completed,
    )


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
