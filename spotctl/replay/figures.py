"""What a replay comes to, in the report's own terms, and what it cannot know, in words."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from decimal import Decimal
from typing import Final

from chalicelib.core.model.ecs_task import FARGATE, FARGATE_SPOT
from chalicelib.core.model.text import counted
from chalicelib.core.money.bill import RerunOutcome
from chalicelib.core.money.report import ASSUMED_MARK, Counts, sum_of, total
from spotctl.output import duration, two_digits
from spotctl.rate import interruption_rate
from spotctl.replay.again import Course, Played

TITLES: Final[Mapping[str, str]] = {
    "runs": "runs",
    "attempts": "tasks",
    "interruptions": "interruptions",
    "spot_reruns": "reruns on Spot",
    "on_demand_reruns": "reruns on demand",
    "hours": "time charged",
    "spot_hours": "of it on Spot",
    "useful_usd": "on demand, without repeats, USD",
    "cost_usd": "paid USD",
    "wasted_usd": "of it wasted",
    "net_savings_usd": "net saving, USD",
    "on_demand_usd": "",
    "savings_usd": "",
    "assumed_bills": f"{ASSUMED_MARK} tasks at an assumed Spot rate",
    "finished_runs": "runs that finished",
    "hours_to_finish": "their time to finish",
}
"""All figures, in order, those without a title in JSON alone. All but two are the report's."""

MADE_WITH_SPOT_RATE: Final = ("cost_usd", "savings_usd", "wasted_usd", "net_savings_usd")
"""The figures that are marked where a Spot rate is assumed."""

OWN_BUDGET: Final = "a budget of its own, by tag or by the flow's retries"
_OUTCOMES: Final = {
    FARGATE_SPOT: RerunOutcome.SPOT_RERUN,
    FARGATE: RerunOutcome.ON_DEMAND_RERUN,
}


@dataclass(frozen=True, slots=True)
class Figures:
    """The report's sums over all runs: without drills, and runs that were nothing but drills.

    `finished_runs` ended by themselves; `hours_to_finish` is their sum, from the beginning of a
    run's first attempt to the end of its last.
    """

    counts: Counts
    finished_runs: int
    hours_to_finish: Decimal

    def as_mapping(self) -> Mapping[str, int | str]:
        """All of it by name; USD and hours to 1e-8."""
        own = {"finished_runs": self.finished_runs, "hours_to_finish": self.hours_to_finish}
        values = self.counts.figures([name for name in TITLES if name not in own]) | own
        return {n: f"{v:.8f}" if isinstance(v, Decimal) else v for n, v in values.items()}


def figures_of(courses: Sequence[Course]) -> Figures:
    """Add up what was played."""
    counts = total(
        sum_of(p.bill, _OUTCOMES.get(p.rerun_on, RerunOutcome.NONE), first_of_its_run=False)
        for course in courses
        for p in course.played
    )
    times = [course.time_to_finish for course in courses if course.is_finished]
    microseconds = sum(times, timedelta()) // timedelta(microseconds=1)
    hours = Decimal(microseconds) / (3600 * 10**6)
    return Figures(replace(counts, runs=len(courses)), len(times), hours)


def not_known(recorded: Figures, courses: Sequence[Course]) -> Iterator[str]:
    """Say what the replay under the other budget cannot know, each with how much hangs on it."""
    yield from _of_estimates(recorded, courses)
    numbers = {
        "interruption recorded by a release that did not keep the run's tags and state: decided as"
        " for a run without tags": sum(c.without_tags for c in courses),
        "interruption without a record to decide by: left as it was": sum(
            c.without_record for c in courses
        ),
        "rerun on Spot with a deadline whose guard was not asked then: decided by the budget"
        " alone": sum(c.guards_unasked for c in courses),
        f"run with {OWN_BUDGET}: SPOT_RETRIES does not apply": sum(c.own_budget for c in courses),
        "run decided by `auto` from the record alone: by bills, not by tasks in Prefect, and as if"
        " a start took no time": sum(c.by_record for c in courses),
        "attempt without amounts, for want of a time, a size or a rate": sum(
            played.bill.amounts is None for c in courses for played in c.played
        ),
    }
    for sentence, number in numbers.items():
        if number:
            thing, _, what = sentence.partition(" ")
            yield f"{counted(number, thing)} {what}"
    yield (
        "interruptions are taken to come as they were recorded, to the attempts that are still"
        " there; those that would have come at other times, or to other tasks, are not known"
    )
    yield (
        "the settings of the time are not on record: where the second column differs from the"
        " first, they were others, or a person intervened"
    )


def nothing_to_decide(courses: Sequence[Course]) -> str:
    """Say why no SPOT_RETRIES could have changed anything; empty where one could."""
    if any(course.by_setting for course in courses):
        return ""
    interrupted = sum(any(a.is_interrupted for a in c.run.attempts) for c in courses)
    if not interrupted:
        return "no run was interrupted"
    others = sum(course.own_budget for course in courses) < interrupted
    or_else = ", was not rerun, was moved by its deadline, or has no record" * others
    return f"each interrupted run ({interrupted}) has {OWN_BUDGET}{or_else}"


def _of_estimates(recorded: Figures, courses: Sequence[Course]) -> Iterator[str]:
    estimated = [(c, p) for c in courses for p in c.played if p.is_estimated]
    if on_spot := [played for _, played in estimated if played.bill.capacity == FARGATE_SPOT]:
        yield _of_spot(on_spot, recorded)
    if on_demand := [played for _, played in estimated if played.bill.capacity == FARGATE]:
        yield (
            f"{counted(len(on_demand), 'run')} moved to FARGATE earlier than recorded: the time"
            f" there is estimated, {duration(_hours(on_demand))} in all, as what was useful"
            " of the recorded attempts (their time less what was wasted), starts included"
        )
    if unfinished := sum(p.bill.capacity == FARGATE and not c.is_finished for c, p in estimated):
        yield (
            f"{unfinished} of these unfinished in the record: what was left of the work is not in"
            " the estimate"
        )


def _of_spot(moved: Sequence[Played], recorded: Figures) -> str:
    hours = _hours(moved)
    said = (
        f"{counted(len(moved), 'attempt')} on FARGATE replayed on Spot, {duration(hours)}, at the"
        " run's own Spot price and without an interruption"
    )
    rate = interruption_rate(recorded.counts)
    if rate is None:
        return said
    recorded_rate, more = two_digits(rate.observed), two_digits(rate.observed * float(hours))
    return f"{said}: at the recorded {recorded_rate} per Spot hour, about {more} more to expect"


def _hours(played: Iterable[Played]) -> Decimal:
    return sum((p.bill.seconds or Decimal(0) for p in played), Decimal(0)) / 3600
