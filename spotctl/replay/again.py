"""The replay: every recorded run played again under another budget, or `auto`.

While a decision is the recorded one, the next attempt is the recorded one, with its bill. Where it
is another, what follows is estimated from the record, by two rules: FARGATE instead of Spot is one
attempt, as long as what was useful of the recorded ones; Spot instead of FARGATE is the recorded
attempt, at the run's own Spot price. A budget never decides whether a run is rerun, only where.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from functools import partial

from chalicelib.core.model.ecs_task import FARGATE, FARGATE_SPOT, SPOT_STOP_CODES, Cause, Task
from chalicelib.core.model.flow_run import Interruption, RunRecord
from chalicelib.core.model.policy import Mode, Policy, budget_of, has_deadline_tag
from chalicelib.core.model.pricing import MINIMUM_SECONDS, SMALLEST_USD
from chalicelib.core.money.bill import Amounts, Bill
from chalicelib.core.policies.facts import Guard
from spotctl.replay.evidence import Evidence, prices_of
from spotctl.replay.history import Attempt, RecordedRun, usd_per_second
from spotctl.replay.run_in_memory import RUN_ID, RunInMemory


@dataclass(frozen=True, slots=True)
class Played:
    """One attempt as it is replayed, with its bill; `is_estimated`: that is not the recorded one.

    `rerun_on` is the capacity of the rerun that was decided at its end, empty for none.
    """

    bill: Bill
    rerun_on: str = ""
    is_estimated: bool = False


@dataclass(slots=True)
class Course:
    """A run, as far as it is replayed; what could not be decided is counted.

    `without_record`: interruptions that have none; `without_tags`: decided although the record is
    of a release that did not keep the run's tags; `guards_unasked`: put on Spot by the budget where
    a guard was not asked then; `own_budget`: the run has one, so SPOT_RETRIES does not apply;
    `by_setting`: SPOT_RETRIES decided of it; `by_record`: `auto` did, from the record alone.
    """

    run: RecordedRun
    played: list[Played] = field(default_factory=list)
    without_record: int = 0
    without_tags: int = 0
    guards_unasked: int = 0
    own_budget: bool = False
    by_setting: bool = False
    by_record: bool = False

    @property
    def is_finished(self) -> bool:
        """Whether the run was over with its last attempt."""
        return self.run.attempts[-1].ends_run

    @property
    def time_to_finish(self) -> timedelta:
        """From the beginning of the first attempt to the end of the last."""
        began_at = self.run.attempts[0].began_at
        return max(played.bill.ended_at for played in self.played) - began_at


ChooseCapacity = Callable[[Course, Interruption], str]


def as_recorded(runs: Sequence[RecordedRun]) -> tuple[Course, ...]:
    """Return the record itself in the form of a replay."""
    return tuple(_play(run, lambda _, interruption: interruption.rerun_on) for run in runs)


def replay(runs: Sequence[RecordedRun], policy: Policy) -> tuple[Course, ...]:
    """Decide anew, under the budget of `policy`, where each run is rerun; return what follows."""
    evidence = Evidence(tuple(runs))
    return tuple(_play(run, partial(_by_product, policy, evidence)) for run in runs)


def _play(run: RecordedRun, choose: ChooseCapacity) -> Course:
    course = Course(run)
    instead = ""  # the capacity of attempts that are recorded on another
    for place, attempt in enumerate(run.attempts):
        course.played.append(_recorded(attempt, run, instead))
        interruption, rest = attempt.interruption, run.attempts[place + 1 :]
        course.without_record += int(attempt.is_interrupted and interruption is None)
        if not attempt.is_interrupted or interruption is None or not interruption.rerun_on:
            continue
        recorded, decided = interruption.rerun_on, choose(course, interruption)
        course.played[-1] = replace(course.played[-1], rerun_on=decided)
        if decided == FARGATE and recorded == FARGATE_SPOT and rest:
            course.played.append(_on_demand_to_the_end(run, rest))
            break
        instead = FARGATE_SPOT if decided == FARGATE_SPOT and recorded == FARGATE else ""
    return course


def _by_product(
    policy: Policy, evidence: Evidence, course: Course, interruption: Interruption
) -> str:
    """Decide as `react` does; `auto` by the record alone.

    What the deadline guard said at the time holds; it is not asked again.
    """
    tags, own_retries = interruption.tags, course.run.own_retries
    budget = budget_of(tags, own_retries, policy)
    is_own = budget == budget_of(tags, own_retries, replace(policy, spot_retries=1001))
    course.own_budget |= is_own
    course.without_tags += int(not interruption.run_state)
    bill = course.played[-1].bill
    is_on_demand = any(played.rerun_on == FARGATE for played in course.played)
    if interruption.guard == Guard.DEADLINE:
        return FARGATE
    course.by_setting |= not is_own
    number = interruption.number - 1
    earlier = {"the one before": replace(interruption, number=number)} if number else {}
    record = RunRecord(RUN_ID, earlier, own_retries, FARGATE if is_on_demand else "")
    task = _task(interruption, bill)
    # Also where observe mode only recorded it.
    acting = replace(policy, mode=Mode.RESCUE, rates=prices_of(course.run, task))
    asked = [tag for tag in tags if not has_deadline_tag([tag])]
    run = RunInMemory(acting, bill.ended_at, tags=asked, record=record)
    run.start(bill.ended_at, bill.ended_at)
    facts = evidence.facts(course.run, len(course.played) - 1)
    run.end_task(task, bill.ended_at, lambda *_: facts)
    course.by_record |= budget.is_auto
    on_spot = run.capacity == FARGATE_SPOT
    unasked = has_deadline_tag(tags) and on_spot and interruption.rerun_on == FARGATE
    course.guards_unasked += int(unasked)
    return run.capacity


def _task(interruption: Interruption, bill: Bill) -> Task:
    return Task(
        arn=interruption.task_arn,
        cluster_arn=interruption.cluster_arn,
        last_status="STOPPED",
        stop_code=SPOT_STOP_CODES[0],
        capacity_provider=bill.capacity,
        flow_run_id=RUN_ID,
        execution_stopped_at=bill.ended_at,
        cpu_units=1024,
        memory_mib=1,
    )


def _recorded(attempt: Attempt, run: RecordedRun, capacity: str = "") -> Played:
    """The attempt as it was; priced anew where it is placed on another capacity."""
    bill = replace(attempt.bill, began_at=attempt.began_at)
    if not capacity or capacity == bill.capacity:
        return Played(bill)
    rates = tuple(dict.fromkeys(rate for each in run.attempts for rate in each.bill.rates))
    on_spot = replace(bill, capacity=capacity, amounts=_on_spot(run, bill), rates=rates)
    return Played(on_spot, is_estimated=True)


def _on_spot(run: RecordedRun, bill: Bill) -> Amounts | None:
    spot_usd, amounts = usd_per_second(run, FARGATE_SPOT), bill.amounts
    if spot_usd is None or amounts is None or bill.seconds is None:
        return None
    cost_usd, wasted_usd = (_usd(s * spot_usd) for s in (bill.seconds, bill.wasted_seconds))
    return replace(amounts, cost_usd=cost_usd, wasted_usd=wasted_usd)


def _on_demand_to_the_end(run: RecordedRun, rest: Sequence[Attempt]) -> Played:
    """One attempt on FARGATE for the rest of them, without what they did in vain."""
    first, nothing = rest[0], Decimal(0)
    lasts = sum((attempt.useful_seconds for attempt in rest), nothing)
    seconds, price_usd = max(lasts, MINIMUM_SECONDS), usd_per_second(run, FARGATE)
    cost_usd = None if price_usd is None else _usd(seconds * price_usd)
    bill = replace(
        first.bill,
        capacity=FARGATE,
        cause=Cause.OTHER,
        started=True,
        began_at=first.began_at,
        ended_at=first.began_at + timedelta(seconds=float(lasts)),
        seconds=seconds,
        wasted_seconds=nothing,
        amounts=None if cost_usd is None else Amounts(cost_usd, cost_usd, nothing, cost_usd),
    )
    return Played(bill, is_estimated=True)


def _usd(amount: Decimal) -> Decimal:
    return amount.quantize(SMALLEST_USD, ROUND_HALF_EVEN)
