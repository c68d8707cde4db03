"""What a replay comes to, in the report's own terms, and what it cannot know, in words."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import timedelta
from decimal import Decimal
from typing import Final

from chalicelib.core.poisson import rate_per_hour
from chalicelib.core.task import FARGATE, FARGATE_SPOT, Cause
from spotctl.replay.again import Course, Played

_NOTHING: Final = Decimal(0)
_HOUR: Final = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Figures:
    """Sums over all runs; USD and hours as in the report, drills in none of them.

    `finished_runs` ended by themselves; `hours_to_finish` is their sum, from the beginning of a
    run's first attempt to the end of its last.
    """

    runs: int = 0
    attempts: int = 0
    interruptions: int = 0
    spot_reruns: int = 0
    on_demand_reruns: int = 0
    hours: Decimal = _NOTHING
    spot_hours: Decimal = _NOTHING
    cost_usd: Decimal = _NOTHING
    on_demand_usd: Decimal = _NOTHING
    savings_usd: Decimal = _NOTHING
    wasted_usd: Decimal = _NOTHING
    net_savings_usd: Decimal = _NOTHING
    finished_runs: int = 0
    hours_to_finish: Decimal = _NOTHING

    def as_mapping(self) -> Mapping[str, int | Decimal]:
        """All of it by name."""
        return {f.name: getattr(self, f.name) for f in fields(self)}


def figures_of(courses: Iterable[Course]) -> Figures:
    """Add up what was played."""
    all_courses = list(courses)
    played = [p for course in all_courses for p in course.played]
    work = [p for p in played if p.cause is not Cause.DRILL]
    amounts = [p.amounts for p in work if p.amounts]
    finished = [course for course in all_courses if course.is_finished]
    return Figures(
        runs=len(all_courses),
        attempts=len(work),
        interruptions=sum(p.cause is Cause.SPOT_INTERRUPTION for p in work),
        spot_reruns=sum(p.rerun_on == FARGATE_SPOT for p in work),
        on_demand_reruns=sum(p.rerun_on == FARGATE for p in work),
        hours=_hours(work),
        spot_hours=_hours(p for p in work if p.capacity == FARGATE_SPOT),
        cost_usd=sum((a.cost_usd for a in amounts), _NOTHING),
        on_demand_usd=sum((a.on_demand_usd for a in amounts), _NOTHING),
        savings_usd=sum((a.savings_usd for a in amounts), _NOTHING),
        wasted_usd=sum((a.wasted_usd for a in amounts), _NOTHING),
        net_savings_usd=sum((a.net_savings_usd for a in amounts), _NOTHING),
        finished_runs=len(finished),
        hours_to_finish=sum((_in_hours(c.time_to_finish) for c in finished), _NOTHING),
    )


def not_known(recorded: Figures, courses: Sequence[Course]) -> Iterator[str]:
    """Say what the replay under the other budget cannot know, each with how much hangs on it."""
    yield from _of_estimates(recorded, courses)
    for number, sentence in (
        (
            sum(course.without_tags for course in courses),
            "interruptions were recorded by a release that did not keep the run's tags and state:"
            " they are decided as for a run without tags",
        ),
        (
            sum(course.without_record for course in courses),
            "interruptions have no record to decide by: they are left as they were",
        ),
        (
            sum(course.guards_unasked for course in courses),
            "reruns on Spot are decided by the budget alone, though a guard is on: it was not asked"
            " then, and is not asked by a replay",
        ),
        (
            sum(course.own_budget for course in courses),
            "runs have a budget of their own, by tag or by their flow's retries: for them"
            " SPOT_RETRIES does not apply",
        ),
        (
            sum(played.amounts is None for course in courses for played in course.played),
            "attempts have no amounts, for want of a time, a size or a rate",
        ),
    ):
        if number:
            yield f"{number} {sentence}"
    yield (
        "interruptions are taken to come as they were recorded, to the attempts that are still"
        " there; those that would have come at other times, or to other tasks, are not known"
    )
    yield (
        "the settings of the time are not on record: where the second column differs from the"
        " first, they were others, or a person intervened"
    )


def _of_estimates(recorded: Figures, courses: Sequence[Course]) -> Iterator[str]:
    estimated = [(c, p) for c in courses for p in c.played if p.is_estimated]
    on_spot = [played for _, played in estimated if played.capacity == FARGATE_SPOT]
    if on_spot:
        yield _of_spot(on_spot, recorded)
    on_demand = [played for _, played in estimated if played.capacity == FARGATE]
    if on_demand:
        yield (
            f"{len(on_demand)} runs end on FARGATE earlier than they did. How long that attempt"
            f" would have run is estimated: as long as what was useful of the recorded ones"
            f" (their seconds less those wasted), {_hours(on_demand):.4f} hours in all; what they"
            " spent on starting again is in it"
        )
    unfinished = sum(p.capacity == FARGATE and not c.is_finished for c, p in estimated)
    if unfinished:
        yield (
            f"{unfinished} of these had not finished in the record: what was left of their work is"
            " not known, and not in the estimate"
        )


def _of_spot(moved: Sequence[Played], recorded: Figures) -> str:
    hours = _hours(moved)
    said = (
        f"{len(moved)} attempts that ran on FARGATE are replayed on Spot, {hours:.4f} hours, at the"
        " run's own Spot price and without an interruption"
    )
    rate = rate_per_hour(recorded.interruptions, recorded.spot_hours)
    if rate is None:
        return said
    more = rate.observed * float(hours)
    return (
        f"{said}: at the recorded {rate.observed:.4f} per Spot hour, about {more:.2f} more were to"
        " be expected"
    )


def _hours(played: Iterable[Played]) -> Decimal:
    return sum((p.seconds for p in played), _NOTHING) / 3600


def _in_hours(time: timedelta) -> Decimal:
    return Decimal(time // timedelta(microseconds=1)) / Decimal(_HOUR // timedelta(microseconds=1))
