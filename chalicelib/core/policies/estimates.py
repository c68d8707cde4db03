"""What the guards' facts say: how much work a run has, how far it has come, how long it starts.

Only what was measured counts. `functions/policy_facts.py` fetches what these functions read. The
economics guard asks for what is likely, the deadline guard for the worst that was seen.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from statistics import median
from typing import Final

from chalicelib.core.model.ecs_task import Task
from chalicelib.core.model.flow_run import CompletedRun, RunState, StateType
from chalicelib.core.money.daily_sums import DailySum, total
from chalicelib.core.money.waste import TaskRun
from chalicelib.core.policies.facts import Changeover, Missing, PastRuns, Progress, SpotEvidence
from chalicelib.core.rescue.snapshot import Snapshot

ENOUGH_TO_COMPARE: Final = 5
"""Undisturbed runs of the past that tell how much a run's work may vary."""

LEAST_PARTS: Final = 4
"""So that one single run in the past makes room for a quarter more, and not for as much again."""


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


def attempts_of(snapshot: Snapshot) -> tuple[Attempt, ...]:
    """Return the run's interrupted attempts, this task's last; without those that never ran."""
    arn, task = snapshot.subject.arn, snapshot.subject
    known = sorted(snapshot.record.interruptions.values(), key=lambda i: i.number)
    ends = [(i.exited_at, i.billed_from) for i in known if i.task_arn != arn]
    charged_from = task.billed_from if isinstance(task, Task) else None
    if charged_from is None and snapshot.interruption:
        charged_from = snapshot.interruption.billed_from
    ends.append((snapshot.exited_at or snapshot.now, charged_from))
    since = snapshot.run.expected_start or snapshot.history[0].timestamp
    attempts = []
    for exited_at, charged_from in ends:
        if exited_at is None:
            continue
        started_at = _first_running(snapshot.history, since, exited_at)
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
    """Until the earliest task that has to be done again, as `core/money/waste.py` counts it."""
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


def keeps_results(past: PastRuns, progress: Progress) -> bool:
    """Whether a rerun finds finished tasks done: by the run's own word, else by its like's."""
    return bool(past.piece_seconds) if progress.keeps is None else progress.keeps


def likely_work_seconds(past: PastRuns, progress: Progress) -> tuple[float, ...]:
    """Return the work of those past runs that this one may still be like: seconds, at least one.

    It has more work than it has done in one go: runs with less are not like it. If none had more,
    it is the longest so far, and what it has done is all that is known.
    """
    done = max(progress.longest_seconds, progress.kept_seconds)
    return tuple(work for work in past.work_seconds if work > done) or (done,)


def most_work_seconds(past: PastRuns, progress: Progress) -> float:
    """Return more than the longest work on record, and never less than what this run did in one go.

    Where tasks are kept, little is done twice, and the whole time of every run tells; so it does
    where too few were undisturbed. Of n runs the next is the longest once in n + 1 times, and a
    deadline is to be kept that time too: so it may go beyond them by as much again as the longest
    is beyond the median, and by one part in n at least, but no more than a quarter for that.
    """
    few = past.undisturbed < ENOUGH_TO_COMPARE
    works = past.work_seconds
    if few or keeps_results(past, progress):
        works = (*works, *past.whole_seconds)
    longest = max(works)
    beyond = max(longest - median(works), longest / max(len(works), LEAST_PARTS))
    return max(longest + beyond, progress.longest_seconds, progress.kept_seconds)


def usual_piece_seconds(past: PastRuns, progress: Progress) -> float:
    """Return the mean length of the piece that an interruption hits: Σ L²/Σ L, in seconds.

    A moment falls into a long piece more often than into a short one, in proportion to its length.
    """
    pieces = (*progress.piece_seconds, *past.piece_seconds)
    whole = sum(pieces)
    return sum(piece * piece for piece in pieces) / whole if whole > 0 else 0.0


def longest_piece_seconds(past: PastRuns, progress: Progress) -> float:
    """Return what the worst interruption costs: the longest piece of this run, or of its like.

    Those of its like are of one run: in one that is longer, so may they be.
    """
    whole = sum(past.piece_seconds)
    stretch = max(1.0, most_work_seconds(past, progress) / whole) if whole > 0 else 1.0
    like = max(past.piece_seconds, default=0.0) * stretch
    return max(like, *progress.piece_seconds, 0.0)
