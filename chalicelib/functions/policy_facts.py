"""Gathers what the guards judge by: once per interruption, and only what a guard that is on needs.

No fact is worth a rescue. What cannot be read, or not in time, is missing, by its name, and the
budget alone decides.
"""

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any, Final, TypeVar
from uuid import UUID

from chalicelib.core.context import Context
from chalicelib.core.model.ecs_task import Cause
from chalicelib.core.money.daily_sums import DailySum, total
from chalicelib.core.policies.advice import guards_on
from chalicelib.core.policies.deadline import deadline_of
from chalicelib.core.policies.estimates import (
    Attempt,
    attempts_of,
    changeover_of,
    evidence_of,
    like,
    past_of,
    progress_of,
)
from chalicelib.core.policies.facts import (
    Guard,
    GuardFacts,
    Missing,
    PastRuns,
    Progress,
    SpotEvidence,
)
from chalicelib.core.ports import Prefect
from chalicelib.core.rescue.snapshot import Snapshot

PAST_RUNS: Final = 20
"""Completed runs of the deployment that are looked at."""

SECONDS_FOR_FACTS: Final = 5.0
"""What Prefect is given to tell them: a rerun waits for them, and for nothing longer."""

SECONDS_FOR_THE_RESCUE: Final = 10.0
"""Left of the invocation after that, or nothing is gathered: the rescue itself comes first."""

WINDOWS_DAYS: Final = (2, 7, 28)
"""How far back the daily sums are read, as long as there are not enough Spot hours in them."""

ENOUGH_SPOT_HOURS: Final = 200.0
"""By then the prior weighs little, and what is recent tells more than what is old."""

Fact = TypeVar("Fact")


def gather_facts(context: Context, s: Snapshot) -> GuardFacts:
    """Return the facts for the guards that this run has to pass. Never raises.

    Asks for nothing that no guard needs: with none on, and for a deadline that cannot be read, it
    makes no call at all.
    """
    economics = Guard.ECONOMICS in guards_on(s)
    deadline = Guard.DEADLINE in guards_on(s) and not isinstance(deadline_of(s.run.tags), Missing)
    if not (economics or deadline):
        return GuardFacts()
    if context.seconds_left() < SECONDS_FOR_FACTS + SECONDS_FOR_THE_RESCUE:
        late = Missing("its facts", "there was no time left to gather them")
        return GuardFacts(late, late, late, late)
    prefect, attempts = context.prefect_within(SECONDS_FOR_FACTS), attempts_of(s)
    calls: list[Callable[[], Any]] = [
        partial(read_past, context, prefect, s.run.deployment_id),
        partial(_progress, context, prefect, s.run.id, attempts),
        *([partial(_evidence, context, s)] if economics else []),
    ]
    past, progress, *evidence = context.gather(calls)
    return GuardFacts(
        evidence=evidence[0] if evidence else None,
        past=past,
        progress=progress,
        changeover=changeover_of(attempts, past),
    )


def read_past(context: Context, prefect: Prefect, deployment_id: UUID | None) -> PastRuns | Missing:
    """Return what the deployment's last completed runs tell, at two requests and their pages."""
    fact = "the deployment's completed runs"

    def read() -> PastRuns | Missing:
        if deployment_id is None:
            return Missing(fact, "it has no deployment")
        runs = prefect.find_completed_runs(deployment_id, PAST_RUNS)
        newest = like(runs)
        if newest is None:
            return past_of((), ())
        tasks = prefect.read_task_runs(newest.id, newest.started_at, newest.ended_at)
        return past_of(runs, tasks)

    return _read(context, fact, read)


def _progress(
    context: Context, prefect: Prefect, flow_run_id: UUID, attempts: tuple[Attempt, ...]
) -> Progress | Missing:
    if not attempts:
        return Progress()
    since, until = attempts[0].started_at, attempts[-1].exited_at
    return _read(
        context,
        "the run's own tasks",
        lambda: progress_of(attempts, prefect.read_task_runs(flow_run_id, since, until)),
    )


def _evidence(context: Context, s: Snapshot) -> SpotEvidence | Missing:
    def read() -> SpotEvidence:
        is_first = not {*s.record.interruptions} - {s.task.arn}
        may_count = is_first and s.cause is Cause.SPOT_INTERRUPTION
        is_news = may_count and context.bills.unbilled([s.task.arn])
        return evidence_of(_recent_sums(context), s.task if is_news else None)

    return _read(context, "the interruption rate", read)


def _recent_sums(context: Context) -> list[DailySum]:
    """The sums of the last days, of as many as it takes."""
    sums: list[DailySum] = []
    today, done = context.now().date(), 0
    for window in WINDOWS_DAYS:
        days = [today - timedelta(days=n) for n in range(done, window)]
        sums += context.bills.read_sums(days)
        done = window
        if float(total(sums).first_spot_hours) >= ENOUGH_SPOT_HOURS:
            break
    return sums


def _read(context: Context, fact: str, read: Callable[[], Fact]) -> Fact | Missing:
    try:
        return read()
    except Exception as error:  # whatever it is, the run is to be rescued
        context.log.exception("a fact for the guards cannot be had", fact=fact)
        return Missing(fact, f"it could not be read ({type(error).__name__})")
