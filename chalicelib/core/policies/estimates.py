"""Reads the facts out of histories: how far a run has come, how long its starts took, its like.

Only what was measured counts. `functions/policy_facts.py` fetches what these functions read.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from statistics import median

from chalicelib.core.model.ecs_task import Task
from chalicelib.core.model.flow_run import CompletedRun, RunState, StateType, TaskRun
from chalicelib.core.money.daily_sums import DailySum, total
from chalicelib.core.policies.facts import Changeover, Missing, PastRuns, Progress, SpotEvidence
from chalicelib.core.rescue.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class Attempt:
    """From the flow's start in one task until that task's container exited.

    `since` is what the attempt was awaited from: the scheduled start, or the exit before it.
    `charged_from` is the start of the image pull, None where ECS did not tell it.
    """

    since: datetime
    charged_from: datetime | None
    started_at: datetime
    exited_at: datetime

    @property
    def seconds(self) -> float:
        """How long the flow ran."""
        return (self.exited_at - self.started_at).total_seconds()


def attempts_of(s: Snapshot) -> tuple[Attempt, ...]:
    """Return the run's interrupted attempts, this task's last; without those that never ran."""
    known = sorted(s.record.interruptions.values(), key=lambda i: i.number)
    ends = [(i.exited_at, i.billed_from) for i in known if i.task_arn != s.task.arn]
    mine = s.record.interruptions.get(s.task.arn)
    charged_from = s.task.billed_from or (mine.billed_from if mine else None)
    ends.append((s.task.exited_at or s.now, charged_from))
    since = s.run.expected_start or s.history[0].timestamp
    attempts = []
    for exited_at, charged_from in ends:
        if exited_at is None:
            continue
        started_at = _first_running(s.history, since, exited_at)
        if started_at is not None:
            attempts.append(Attempt(since, charged_from, started_at, exited_at))
        since = exited_at
    return tuple(attempts)


def progress_of(attempts: Sequence[Attempt], task_runs: Sequence[TaskRun]) -> Progress:
    """Return how far a run has come; `task_runs` are those of all these attempts."""
    by_attempt = [_within(task_runs, a.started_at, a.exited_at) for a in attempts]
    keeps = _keeps(by_attempt)
    longest = max((attempt.seconds for attempt in attempts), default=0.0)
    if not keeps:
        return Progress(keeps, longest_seconds=longest)
    kept, pieces = 0.0, []
    for attempt, mine in zip(attempts, by_attempt, strict=True):
        kept += _kept_seconds(attempt, mine)
        pieces += _pieces(mine, attempt.exited_at)
    return Progress(keeps, kept, longest, tuple(pieces))


def changeover_of(attempts: Sequence[Attempt], past: PastRuns | Missing) -> Changeover | Missing:
    """Return the longest changeover of this run's own; else the usual start of its like.

    A rerun's counts from the exit before it, so with our own answer; the first attempt's from the
    scheduled start, and stands in while there was no other.
    """
    waits = [(a.started_at - a.since).total_seconds() for a in attempts]
    charged = [(a.started_at - a.charged_from).total_seconds() for a in attempts if a.charged_from]
    if waits:
        seconds = max(waits[1:] or waits)
        return Changeover(seconds, min(max(charged, default=seconds), seconds))
    if isinstance(past, PastRuns) and past.start_seconds:
        usual = median(past.start_seconds)
        return Changeover(usual, usual)
    return Missing("the changeover", "no attempt of this run, or of its like, could be measured")


def past_of(runs: Sequence[CompletedRun], task_runs: Sequence[TaskRun]) -> PastRuns | Missing:
    """Return what the deployment's completed runs tell; `task_runs` are those of `like(runs)`.

    An undisturbed run's time is its work. An interrupted one's holds work done twice: it counts by
    its average attempt, which is less than its work, where that is more than any undisturbed run
    had; and whole, where there was no undisturbed one.
    """
    newest = like(runs)
    if newest is None:
        return Missing("the deployment's completed runs", "there are none yet")
    undisturbed = [run.run_seconds for run in runs if run.run_count == 1]
    whole = [run.run_seconds for run in runs]
    work = undisturbed or whole
    if undisturbed:
        averages = (run.run_seconds / run.run_count for run in runs if run.run_count > 1)
        work = [*undisturbed, *(a for a in averages if a > max(undisturbed))]
    completed = [t for t in task_runs if t.state is StateType.COMPLETED]  # others were done again
    mine = _within(completed, newest.started_at, newest.ended_at)
    return PastRuns(
        work_seconds=tuple(work),
        whole_seconds=tuple(whole),
        undisturbed=len(undisturbed),
        piece_seconds=tuple(_pieces(mine, newest.ended_at)) if _keeps([mine]) else (),
        start_seconds=tuple(
            max((run.started_at - run.expected_start).total_seconds(), 0.0)
            for run in runs
            if run.expected_start is not None
        ),
    )


def like(runs: Sequence[CompletedRun]) -> CompletedRun | None:
    """Return the run whose tasks stand for those of its like: the newest undisturbed one."""
    undisturbed = [run for run in runs if run.run_count == 1]
    return next(iter([*undisturbed, *runs]), None)


def evidence_of(sums: Sequence[DailySum], task: Task | None) -> SpotEvidence:
    """Return what first attempts met in these sums, and `task`, if it is one not in them yet."""
    counts = total(sums)
    hours, interruptions = float(counts.first_spot_hours), counts.first_interruptions
    if task is not None and task.billed_from is not None and task.exited_at is not None:
        hours += max((task.exited_at - task.billed_from).total_seconds(), 0.0) / 3600
        interruptions += 1
    return SpotEvidence(hours, interruptions)


def _first_running(
    history: Sequence[RunState], after: datetime, before: datetime
) -> datetime | None:
    times = [state.timestamp for state in history if state.type is StateType.RUNNING]
    return next((at for at in times if after < at <= before), None)


def _within(task_runs: Sequence[TaskRun], start: datetime, end: datetime) -> list[TaskRun]:
    return [task_run for task_run in task_runs if start <= task_run.started_at <= end]


def _keeps(by_attempt: Sequence[Sequence[TaskRun]]) -> bool | None:
    """Whether finished tasks stay done.

    Told by what a rerun found; before there was one, by a stored result, which may yet lie where
    the next container does not look.
    """
    if any(task_run.cached for mine in by_attempt[1:] for task_run in mine):
        return True
    if any(any(t.is_kept for t in before) and after for before, after in pairwise(by_attempt)):
        return False
    finished = [t for mine in by_attempt for t in mine if t.state is StateType.COMPLETED]
    return any(task_run.is_kept for task_run in finished) if finished else None


def _kept_seconds(attempt: Attempt, mine: Sequence[TaskRun]) -> float:
    """Until the earliest task that has to be done again, as `core/money/bill.py` counts it."""
    if not any(task_run.is_kept for task_run in mine):
        return 0.0
    again = [task_run.started_at for task_run in mine if not task_run.is_kept]
    until = min(again, default=attempt.exited_at)
    return max((until - attempt.started_at).total_seconds(), 0.0)


def _pieces(mine: Sequence[TaskRun], end: datetime) -> list[float]:
    """How long each took; what is to be done again, however it ended, from its start to the end."""
    return [
        ((task_run.ended_at if task_run.is_kept else None) or end).timestamp()
        - task_run.started_at.timestamp()
        for task_run in mine
        if not task_run.cached
    ]
