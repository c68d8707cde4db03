"""Gathers the facts that guards judge by: once per interruption, and only those that they need.

A fact that cannot be read, or not in time, is `Missing`; the budget then decides. A rescue never
fails for a fact.
"""

from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial
from typing import Any, Final, TypeVar
from uuid import UUID

from chalicelib.core.model.ecs_task import Cause, Task
from chalicelib.core.money.daily_sums import DailySum, total
from chalicelib.core.policies.deadline import deadline_of
from chalicelib.core.policies.estimates import (
    Attempt,
    End,
    attempts_that_ran,
    previous_runs_of,
    progress_of,
    reference_run,
    restart_overhead_of,
)
from chalicelib.core.policies.facts import (
    Guard,
    Missing,
    PolicyFacts,
    PreviousRuns,
    Progress,
    SpotEvidence,
)
from chalicelib.core.ports import Context, Prefect
from chalicelib.core.rescue.snapshot import Snapshot

PAST_RUNS: Final = 20
"""Completed runs of the deployment that are looked at."""

SECONDS_FOR_FACTS: Final = 5.0
"""The time limit for gathering them: the rerun waits for it."""

SECONDS_FOR_THE_RESCUE: Final = 10.0
"""Must be left of the invocation after that, or nothing is gathered: the rescue comes first."""

WINDOWS_DAYS: Final = (2, 7, 28)
"""How far back the daily sums are read, until they hold enough Spot hours."""

ENOUGH_SPOT_HOURS: Final = 200.0
"""By then the prior weighs little, and recent hours say more than old ones."""

Fact = TypeVar("Fact")


def gather_facts(context: Context, snapshot: Snapshot, guards: Sequence[Guard]) -> PolicyFacts:
    """Return the facts that these guards need. Never raises.

    Makes no call for a deadline that cannot be read.
    """
    economics = Guard.ECONOMICS in guards
    readable = not isinstance(deadline_of(snapshot.run.tags), Missing)
    if not (economics or (Guard.DEADLINE in guards and readable)):
        return PolicyFacts()
    if context.seconds_left() < SECONDS_FOR_FACTS + SECONDS_FOR_THE_RESCUE:
        late = Missing("its facts", "there was no time left to gather them")
        return PolicyFacts(late, late, late, late)
    prefect, attempts = context.with_timeout(SECONDS_FOR_FACTS), attempts_of(snapshot)
    calls: list[Callable[[], Any]] = [
        partial(read_previous_runs, context, prefect, snapshot.run.deployment_id),
        partial(_progress, context, prefect, snapshot.run.id, attempts),
        *([partial(_evidence, context, snapshot)] if economics else []),
    ]
    past, progress, *evidence = context.gather(calls)
    return PolicyFacts(
        evidence=evidence[0] if evidence else None,
        past=past,
        progress=progress,
        restart_overhead=restart_overhead_of(attempts, past),
    )


def read_previous_runs(
    context: Context, prefect: Prefect, deployment_id: UUID | None
) -> PreviousRuns | Missing:
    """Return the facts of the deployment's last completed runs: two requests and their pages."""
    fact = "the deployment's completed runs"

    def read() -> PreviousRuns | Missing:
        if deployment_id is None:
            return Missing(fact, "it has no deployment")
        runs = prefect.find_completed_runs(deployment_id, PAST_RUNS)
        reference = reference_run(runs)
        if reference is None:
            return previous_runs_of((), ())
        tasks = prefect.read_task_runs(reference.id, reference.started_at, reference.ended_at)
        return previous_runs_of(runs, tasks)

    return _read(context, fact, read)


def attempts_of(snapshot: Snapshot) -> tuple[Attempt, ...]:
    """Return the run's interrupted attempts that ran, this task's last."""
    task, mine = snapshot.subject, snapshot.interruption
    known = sorted(snapshot.record.interruptions.values(), key=lambda i: i.number)
    ends: list[End] = [(i.exited_at, i.billed_from) for i in known if i.task_arn != task.arn]
    charged_from = task.billed_from if isinstance(task, Task) else None
    if charged_from is None and mine is not None:
        charged_from = mine.billed_from
    ends.append((snapshot.exited_at or snapshot.now, charged_from))
    since = snapshot.run.expected_start or snapshot.history[0].timestamp
    return attempts_that_ran(snapshot.history, since, ends)


def evidence_of(sums: Sequence[DailySum], task: Task | None) -> SpotEvidence:
    """Return the first attempts' Spot hours and interruptions; `task`: one not yet in the sums."""
    counts = total(sums)
    hours, interruptions = float(counts.first_spot_hours), counts.first_interruptions
    if task is not None and task.billed_from is not None and task.exited_at is not None:
        hours += max((task.exited_at - task.billed_from).total_seconds(), 0.0) / 3600
        interruptions += 1
    return SpotEvidence(hours, interruptions)


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


def _evidence(context: Context, snapshot: Snapshot) -> SpotEvidence | Missing:
    def read() -> SpotEvidence:
        task, is_spot = snapshot.subject, snapshot.cause is Cause.SPOT_INTERRUPTION
        is_first = not {*snapshot.record.interruptions} - {task.arn}
        if isinstance(task, Task) and is_first and is_spot and context.bills.unbilled([task.arn]):
            return evidence_of(_recent_sums(context), task)
        return evidence_of(_recent_sums(context), None)

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
        context.log.exception("a fact for the guards could not be read", fact=fact)
        return Missing(fact, f"it could not be read ({type(error).__name__})")
