"""The replay: every recorded run played again under another budget.

While a decision is the recorded one, the next attempt is the recorded one, with its bill. Where it
is another, what follows is estimated from the record, by two rules: FARGATE instead of Spot is one
attempt, as long as what was useful of the recorded ones; Spot instead of FARGATE is the recorded
attempt, at the run's own Spot price. A budget never decides whether a run is rerun, only where.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal

from chalicelib.core.bill import Amounts
from chalicelib.core.guards.facts import has_deadline_tag
from chalicelib.core.money import MINIMUM_SECONDS, SMALLEST_USD
from chalicelib.core.record import Interruption
from chalicelib.core.situation import Policy, budget_of
from chalicelib.core.task import FARGATE, FARGATE_SPOT, Cause
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
    """A run, as far as it is replayed; what could not be decided is counted.

    `without_record`: interruptions that have none; `without_tags`: decided although the record is
    of a release that did not keep the run's tags; `guards_unasked`: put on Spot by the budget where
    a guard was not asked then; `own_budget`: the run has one, so SPOT_RETRIES does not apply.
    """

    run: RecordedRun
    played: list[Played] = field(default_factory=list)
    next: int = 0
    is_finished: bool = False
    without_record: int = 0
    without_tags: int = 0
    guards_unasked: int = 0
    own_budget: bool = False

    @property
    def current(self) -> Attempt:
        """The recorded attempt that was played last."""
        return self.run.attempts[self.next - 1]

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


ChooseCapacity = Callable[[Course, Interruption], str]


def as_recorded(runs: Sequence[RecordedRun]) -> tuple[Course, ...]:
    """Return the record itself in the form of a replay."""
    return tuple(_play(run, lambda _, interruption: interruption.rerun_on) for run in runs)


def replay(runs: Sequence[RecordedRun], policy: Policy) -> tuple[Course, ...]:
    """Decide anew, under the budget of `policy`, where each run is rerun; return what follows."""
    return tuple(
        _play(run, lambda course, interruption: _by_budget(course, interruption, policy))
        for run in runs
    )


def _play(run: RecordedRun, choose: ChooseCapacity) -> Course:
    course = Course(run)
    instead = ""  # the capacity of attempts that are recorded on another
    while course.remaining:
        course.play(_recorded(course.remaining[0], run, instead))
        attempt, interruption = course.current, course.current.interruption
        course.without_record += int(attempt.is_interrupted and interruption is None)
        if not attempt.is_interrupted or interruption is None or not interruption.rerun_on:
            continue
        recorded, decided = interruption.rerun_on, choose(course, interruption)
        course.played[-1] = replace(course.played[-1], rerun_on=decided)
        if decided == FARGATE and recorded == FARGATE_SPOT and course.remaining:
            course.play(_on_demand_to_the_end(course), len(course.remaining))
        instead = FARGATE_SPOT if decided == FARGATE_SPOT and recorded == FARGATE else ""
    course.is_finished = course.current.ends_run
    return course


def _by_budget(course: Course, interruption: Interruption, policy: Policy) -> str:
    """Decide as `react` does. What a guard said at the time holds; none is asked again."""
    tags, own_retries = interruption.tags, course.run.own_retries
    budget = budget_of(tags, own_retries, policy)
    one_more = budget_of(tags, own_retries, replace(policy, spot_retries=policy.spot_retries + 1))
    course.own_budget |= budget == one_more
    course.without_tags += int(not interruption.run_state)
    is_on_demand = course.played[-1].capacity == FARGATE or any(
        played.rerun_on == FARGATE for played in course.played
    )
    if is_on_demand or interruption.guard or interruption.number > budget.allowed:
        return FARGATE
    has_guard = policy.guards.economics or has_deadline_tag(tags)
    course.guards_unasked += int(has_guard and interruption.rerun_on == FARGATE)
    return FARGATE_SPOT


def _recorded(attempt: Attempt, run: RecordedRun, capacity: str = "") -> Played:
    """The attempt as it was; priced anew where it is placed on another capacity."""
    bill = attempt.bill
    elsewhere = bool(capacity) and capacity != bill.capacity
    return Played(
        capacity=capacity or bill.capacity,
        cause=bill.cause,
        began_at=attempt.began_at,
        ended_at=bill.ended_at,
        seconds=bill.seconds or Decimal(0),
        wasted_seconds=bill.wasted_seconds,
        amounts=_on_spot(run, attempt) if elsewhere else bill.amounts,
        is_estimated=elsewhere,
    )


def _on_spot(run: RecordedRun, attempt: Attempt) -> Amounts | None:
    spot_usd, amounts = prices_of(run).spot_usd, attempt.bill.amounts
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
    began_at = course.remaining[0].began_at
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


def _usd(amount: Decimal) -> Decimal:
    return amount.quantize(SMALLEST_USD, ROUND_HALF_EVEN)
