"""Gathers the facts that guards judge by: once per interruption, and only those that they need.

A fact that cannot be read, or not in time, is `Missing`; a fixed budget then decides. A rescue
never fails for a fact.
"""

from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial
from itertools import pairwise
from typing import Any, Final, TypeVar
from uuid import UUID

from chalicelib.core.model.ecs_task import Cause, Task
from chalicelib.core.money.report import DailySum, total
from chalicelib.core.policies import facts
from chalicelib.core.policies.deadline import deadline_of
from chalicelib.core.policies.facts import Attempt, Guard, Missing, PolicyFacts, PreviousRuns
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
ENOUGH_SPOT_HOURS: Final = 200
"""By then the prior weighs little, and recent hours say more than old ones."""

Fact = TypeVar("Fact")


def gather_facts(
    context: Context, snapshot: Snapshot, guards: Sequence[Guard]
) -> PolicyFacts | Missing:
    """Return what these guards need; no call for an unreadable deadline. Never raises."""
    auto = Guard.AUTO in guards
    readable = not isinstance(deadline_of(snapshot.run.tags), Missing)
    if not (auto or (Guard.DEADLINE in guards and readable)):
        return facts.NOT_GATHERED
    if context.seconds_left() < SECONDS_FOR_FACTS + SECONDS_FOR_THE_RESCUE:
        return Missing("its facts", "there was no time left to gather them")
    prefect, attempts = context.with_timeout(SECONDS_FOR_FACTS), attempts_of(snapshot)
    calls: list[Callable[[], Any]] = [
        partial(read_previous_runs, context, prefect, snapshot.run.deployment_id),
        partial(_progress, context, prefect, snapshot.run.id, attempts),
        *([partial(_evidence, context, snapshot)] if auto else []),
    ]
    past, progress, *evidence = context.gather(calls)
    return facts.facts_of(past, progress, facts.restart_overhead_of(attempts, past), *evidence)


def read_previous_runs(
    context: Context, prefect: Prefect, deployment_id: UUID | None
) -> PreviousRuns | Missing:
    """Return the facts of the deployment's last completed runs: two requests and their pages."""
    fact = "the deployment's completed runs"

    def read() -> PreviousRuns | Missing:
        if deployment_id is None:
            return Missing(fact, "it has no deployment")
        runs = prefect.find_completed_runs(deployment_id, PAST_RUNS)
        reference = facts.reference_run(runs)
        if reference is None:
            return facts.previous_runs_of((), ())
        tasks = prefect.read_task_runs(reference.id, reference.started_at, reference.ended_at)
        return facts.previous_runs_of(runs, tasks)

    return _read(context, fact, read)


def attempts_of(snapshot: Snapshot) -> tuple[Attempt, ...]:
    """Return the run's interrupted attempts that ran, this task's last."""
    arn, mine = snapshot.subject.arn, snapshot.interruption
    known = sorted(snapshot.record.interruptions.values(), key=lambda i: i.number)
    ends: list[facts.End] = [(i.exited_at, i.billed_from) for i in known if i.task_arn != arn]
    charged_from = snapshot.task.billed_from if snapshot.task else None
    recorded = mine.billed_from if mine else None
    ends.append((snapshot.exited_at or snapshot.now, charged_from or recorded))
    since = snapshot.run.expected_start or snapshot.history[0].timestamp
    return facts.attempts_that_ran(snapshot.history, since, ends)


def evidence_of(sums: Sequence[DailySum], task: Task | None) -> facts.SpotEvidence:
    """Return the first attempts' Spot hours and interruptions; `task`: one not yet in the sums."""
    counts = total(sums)
    hours, interruptions = float(counts.first_spot_hours), counts.first_interruptions
    if task is not None and task.billed_from is not None and task.exited_at is not None:
        hours += max((task.exited_at - task.billed_from).total_seconds(), 0.0) / 3600
        interruptions += 1
    return facts.SpotEvidence(hours, interruptions)


def _progress(
    context: Context, prefect: Prefect, flow_run_id: UUID, attempts: tuple[Attempt, ...]
) -> facts.Progress | Missing:
    if not attempts:
        return facts.Progress()

    def read() -> facts.Progress:
        since, until = attempts[0].started_at, attempts[-1].exited_at
        return facts.progress_of(attempts, prefect.read_task_runs(flow_run_id, since, until))

    return _read(context, "the run's own tasks", read)


def _evidence(context: Context, snapshot: Snapshot) -> facts.SpotEvidence | Missing:
    def read() -> facts.SpotEvidence:
        task, is_spot = snapshot.task, snapshot.cause is Cause.SPOT_INTERRUPTION
        is_first = not {*snapshot.record.interruptions} - {snapshot.subject.arn}
        counts = (
            task is not None and is_first and is_spot and context.bills_in_time.unbilled([task.arn])
        )
        return evidence_of(_recent_sums(context), task if counts else None)

    return _read(context, "the interruption rate", read)


def _recent_sums(context: Context) -> list[DailySum]:
    """The sums of the last days, of as many as it takes. Raises TimeoutError."""
    sums: list[DailySum] = []
    least_left = context.seconds_left() - SECONDS_FOR_FACTS
    today = context.now().date()
    for done, window in pairwise((0, *WINDOWS_DAYS)):
        sums += context.bills_in_time.read_sums(
            [today - timedelta(days=n) for n in range(done, window)]
        )
        if total(sums).first_spot_hours >= ENOUGH_SPOT_HOURS:
            break
        if context.seconds_left() < least_left:
            raise TimeoutError
    return sums


def _read(context: Context, fact: str, read: Callable[[], Fact]) -> Fact | Missing:
    try:
        return read()
    except Exception as error:  # whatever it is, the run is to be rescued
        context.log.exception("a fact for the guards could not be read", fact=fact)
        return Missing(fact, f"it could not be read ({type(error).__name__})")
