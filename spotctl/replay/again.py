"""The replay: every recorded run played again, all interruptions in the order of their time.

While a decision is the recorded one, the next attempt is the recorded one, with its bill. Where it
is another, what follows is estimated from the record, by three rules: FARGATE instead of Spot is
one attempt, as long as what was useful of the recorded ones; Spot instead of FARGATE is the
recorded attempt, at the run's own Spot price; no rerun is the end.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from heapq import heapify, heappop, heappush
from uuid import UUID

from chalicelib.core.bill import Amounts
from chalicelib.core.decide import rerun_delay
from chalicelib.core.guards.advice import guards_on
from chalicelib.core.money import MINIMUM_SECONDS, SMALLEST_USD
from chalicelib.core.record import Interruption, RunRecord
from chalicelib.core.situation import Mode, Policy, Situation, budget_of
from chalicelib.core.task import FARGATE, FARGATE_SPOT, Cause
from spotctl.replay.answer import answered, guarded, situation_of, without_guards
from spotctl.replay.facts import Life, RecordedFacts, facts_of
from spotctl.replay.history import Attempt, RecordedRun, prices_of


@dataclass(frozen=True, slots=True)
class Played:
    """One attempt as it is replayed: charged and wasted seconds, USD, and what became of it.

    `cause` is why it ended; `rerun_on` the capacity of the rerun that was decided then, empty for
    none. `amounts` is None where there is no price. `is_estimated`: it is not the recorded one.
    """

    capacity: str
    cause: Cause
    began_at: datetime
    ended_at: datetime
    seconds: Decimal
    wasted_seconds: Decimal
    amounts: Amounts | None
    rerun_on: str = ""
    is_estimated: bool = False


@dataclass(slots=True)
class Course:
    """A run, as far as it is replayed; what could not be decided or played is counted.

    `left_as_it_was`: interruptions of which the record does not tell why they ended as they did;
    `without_tags`: decided although the record is of a release that did not keep the run's tags;
    `never_happened`: reruns that the record has no attempt for; `own_budget`: the run has one, so
    that SPOT_RETRIES is not what it is decided by; `guessed`: guards that were asked by bills.
    """

    run: RecordedRun
    record: RunRecord
    played: list[Played] = field(default_factory=list)
    next: int = 0
    later: timedelta = timedelta()
    is_over: bool = False
    is_finished: bool = False
    left_as_it_was: int = 0
    without_tags: int = 0
    never_happened: int = 0
    own_budget: bool = False
    guessed: int = 0
    differs: bool = False
    """Whether something was decided otherwise than it was recorded, so that the record is left."""
    instead: str = ""
    """The capacity of attempts that are recorded on another; empty: as recorded."""

    @property
    def current(self) -> Attempt:
        """The recorded attempt that was played last."""
        return self.run.attempts[self.next - 1]

    @property
    def due_at(self) -> datetime:
        """When that one's end is to be answered."""
        return self.current.exited_at + self.later

    @property
    def remaining(self) -> tuple[Attempt, ...]:
        """The recorded attempts that are not played yet."""
        return self.run.attempts[self.next :]

    @property
    def time_to_finish(self) -> timedelta:
        """From the beginning of the first attempt to the end of the last."""
        return max(p.ended_at for p in self.played) - self.played[0].began_at

    def play(self, made: Played, attempts: int = 1) -> None:
        """Add an attempt that stands for the next so many recorded ones."""
        self.played.append(made)
        self.next += attempts

    def end(self, *, finished: bool) -> None:
        """Nothing more comes."""
        self.is_over, self.is_finished = True, finished


def as_recorded(runs: Sequence[RecordedRun]) -> tuple[Course, ...]:
    """Return the record itself in the form of a replay: nothing is decided in observe mode."""
    return replay(runs, Policy(mode=Mode.OBSERVE), Policy())


def replay(
    runs: Sequence[RecordedRun], policy: Policy, recorded_policy: Policy
) -> tuple[Course, ...]:
    """Decide everything again under `policy`, and return what becomes of each run.

    `recorded_policy` is taken for what was set at the time: of it only delay and guards are needed.
    In observe mode nothing is ours to move, and all runs stay as they are recorded.
    """
    courses = {
        run.flow_run_id: Course(run, RunRecord(run.flow_run_id, own_retries=run.own_retries))
        for run in runs
    }
    for course in courses.values():
        course.play(_recorded(course.run.attempts[0], course))
    director = _Director(policy, recorded_policy, courses, facts_of(runs))
    due = [(course.due_at, run_id) for run_id, course in courses.items()]
    heapify(due)
    while due:
        _, run_id = heappop(due)
        director.go_on(courses[run_id])
        if not courses[run_id].is_over:
            heappush(due, (courses[run_id].due_at, run_id))
    return tuple(courses.values())


@dataclass(frozen=True, slots=True)
class _Director:
    policy: Policy
    recorded_policy: Policy
    courses: Mapping[UUID, Course]
    facts: RecordedFacts

    def go_on(self, course: Course) -> None:
        """See what follows the end of the attempt that was played last."""
        attempt, interruption = course.current, course.current.interruption
        if not attempt.is_interrupted:
            _continue(course, capacity=course.instead)
        elif interruption is None or self.policy.mode is Mode.OBSERVE:
            course.left_as_it_was += int(interruption is None)
            _continue(course, interruption.rerun_on if interruption else "")
        elif not (interruption.run_state or interruption.rerun_on):
            course.left_as_it_was += 1  # an older release did not note why it was not rerun
            _continue(course)
        else:
            course.without_tags += int(not interruption.run_state)
            self._answer(course, attempt, interruption)

    def _answer(self, course: Course, attempt: Attempt, interruption: Interruption) -> None:
        recorded, decided = interruption.rerun_on, self._decide(course, attempt, interruption)
        course.differs |= decided != recorded
        if not decided and recorded:
            course.end(finished=attempt.ends_run)
            return
        if not decided:
            _continue(course)  # what came after was not ours then, and is not now
            return
        if not course.remaining:
            course.never_happened += int(not recorded)
            _continue(course, decided)
            return
        self._move(course, recorded, decided)
        if decided == FARGATE and recorded != FARGATE:
            _note(course, decided)
            course.play(_on_demand_to_the_end(course), len(course.remaining))
            course.end(finished=course.current.ends_run)
        else:
            elsewhere = decided == FARGATE_SPOT and recorded == FARGATE
            course.instead = FARGATE_SPOT if elsewhere else ""
            _continue(course, decided, capacity=course.instead)

    def _decide(self, course: Course, attempt: Attempt, interruption: Interruption) -> str:
        """Decide by the budget; what that would put on Spot, by the guards as well."""
        last = course.played[-1]
        s = situation_of(
            course.run, attempt, last.capacity, course.record, self.policy, course.due_at
        )
        course.own_budget |= _has_own_budget(s)
        decided, record = answered(without_guards(s))
        asks = decided == FARGATE_SPOT and not self._guards_said(course, interruption)
        if decided == FARGATE_SPOT and interruption.guard and not asks:
            decided, record = FARGATE, guarded(record, interruption)
        if asks and guards_on(s):
            course.guessed += 1
            s = self.facts.gather(s, course.run, attempt)
            decided, record = answered(s)
        weather = self.facts.weather(s, self._life_of, asks=asks and decided == FARGATE_SPOT)
        if weather is not None:
            decided, record = answered(replace(s, facts=replace(s.facts, weather=weather)))
        course.record = record
        return decided

    def _guards_said(self, course: Course, interruption: Interruption) -> bool:
        """Whether what the guards said at the time is on record, and would still be said."""
        same = self.policy.guards == self.recorded_policy.guards and not course.differs
        return same and (bool(interruption.guard) or interruption.rerun_on == FARGATE_SPOT)

    def _life_of(self, flow_run_id: UUID) -> Life:
        last = self.courses[flow_run_id].played[-1]
        return Life(last.capacity, last.began_at, last.ended_at, last.cause is Cause.OTHER)

    def _move(self, course: Course, recorded: str, decided: str) -> None:
        """Have the next attempt begin by as much later or earlier as the delays differ."""
        later = course.later + self._delay(course, self.policy, decided)
        later -= self._delay(course, self.recorded_policy, recorded)
        if later != course.later:
            earliest = course.due_at - course.remaining[0].began_at
            course.later = max(later, earliest)

    def _delay(self, course: Course, policy: Policy, capacity: str) -> timedelta:
        on_spot = capacity == FARGATE_SPOT
        return rerun_delay(course.run.flow_run_id, policy) if on_spot else timedelta()


def _continue(course: Course, decided: str = "", *, capacity: str = "") -> None:
    """Play the next recorded attempt, on `capacity` if that is given; without one, the end."""
    _note(course, decided)
    if course.remaining:
        course.play(_recorded(course.remaining[0], course, capacity))
    else:
        course.end(finished=course.current.ends_run)


def _note(course: Course, decided: str) -> None:
    course.played[-1] = replace(course.played[-1], rerun_on=decided)


def _recorded(attempt: Attempt, course: Course, capacity: str = "") -> Played:
    """The attempt as it was, at its time; priced anew where it is placed elsewhere."""
    bill = attempt.bill
    elsewhere = bool(capacity) and capacity != bill.capacity
    return Played(
        capacity=capacity or bill.capacity,
        cause=bill.cause,
        began_at=attempt.began_at + course.later,
        ended_at=bill.ended_at + course.later,
        seconds=bill.seconds or Decimal(0),
        wasted_seconds=bill.wasted_seconds,
        amounts=_on_spot(course, attempt) if elsewhere else bill.amounts,
        is_estimated=elsewhere,
    )


def _on_spot(course: Course, attempt: Attempt) -> Amounts | None:
    spot_usd, amounts = prices_of(course.run).spot_usd, attempt.bill.amounts
    if spot_usd is None or amounts is None or attempt.bill.seconds is None:
        return None
    return replace(
        amounts,
        cost_usd=_usd(attempt.bill.seconds * spot_usd),
        wasted_usd=_usd(attempt.bill.wasted_seconds * spot_usd),
    )


def _on_demand_to_the_end(course: Course) -> Played:
    """One attempt on FARGATE for all that remain, without what they did in vain."""
    lasts = sum((attempt.useful_seconds for attempt in course.remaining), Decimal(0))
    seconds, price_usd = max(lasts, MINIMUM_SECONDS), prices_of(course.run).on_demand_usd
    cost_usd = None if price_usd is None else _usd(seconds * price_usd)
    began_at = course.remaining[0].began_at + course.later
    return Played(
        capacity=FARGATE,
        cause=Cause.OTHER,
        began_at=began_at,
        ended_at=began_at + timedelta(seconds=float(lasts)),
        seconds=seconds,
        wasted_seconds=Decimal(0),
        amounts=None
        if cost_usd is None
        else Amounts(cost_usd, on_demand_usd=cost_usd, wasted_usd=Decimal(0), useful_usd=cost_usd),
        is_estimated=True,
    )


def _has_own_budget(s: Situation) -> bool:
    """Whether the run's tag or its flow's retries say how often it may be interrupted."""
    with_another = replace(s.policy, spot_retries=s.policy.spot_retries + 1)
    own = s.record.own_retries
    return budget_of(s.run, own, s.policy).allowed == budget_of(s.run, own, with_another).allowed


def _usd(amount: Decimal) -> Decimal:
    return amount.quantize(SMALLEST_USD, ROUND_HALF_EVEN)
