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

from chalicelib.core.model.flow_run import CompletedRun, RunState, StateType, TaskRun
from chalicelib.core.policies.facts import (
    Missing,
    PreviousRuns,
    Progress,
    RestartOverhead,
)

ENOUGH_TO_COMPARE: Final = 5
"""Uninterrupted previous runs, from which on they show how much a run's work may vary."""

LEAST_PARTS: Final = 4
"""With a single previous run, a quarter more work is allowed for, not as much again."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """From the flow's start in one task until that task's container exited.

    `since` is what the attempt was awaited from: the scheduled start, or the exit before it.
    `charged_from` is the start of the image pull, None where ECS did not report it.
    """

    since: datetime
    charged_from: datetime | None
    started_at: datetime
    exited_at: datetime

    @property
    def seconds(self) -> float:
        """How long the flow ran."""
        return (self.exited_at - self.started_at).total_seconds()


End = tuple[datetime | None, datetime | None]
"""When a container exited and when its charge began; None where that is unknown."""


def attempts_that_ran(
    history: Sequence[RunState], since: datetime, ends: Sequence[End]
) -> tuple[Attempt, ...]:
    """Return the run's attempts that ran; `since`: its scheduled start, `ends` in their order."""
    attempts = []
    for exited_at, charged_from in ends:
        if exited_at is None:
            continue
        started_at = _first_running(history, since, exited_at)
        if started_at is not None:
            attempts.append(Attempt(since, charged_from, started_at, exited_at))
        since = exited_at
    return tuple(attempts)


def progress_of(attempts: Sequence[Attempt], task_runs: Sequence[TaskRun]) -> Progress:
    """Return how far a run has come; `task_runs` are those of all its attempts."""
    by_attempt = [_within(task_runs, a.started_at, a.exited_at) for a in attempts]
    checkpointed = _is_checkpointed(by_attempt)
    longest = max((attempt.seconds for attempt in attempts), default=0.0)
    if not checkpointed:
        return Progress(checkpointed, longest_seconds=longest)
    seconds, units = 0.0, []
    for attempt, mine in zip(attempts, by_attempt, strict=True):
        seconds += _checkpointed_seconds(attempt, mine)
        units += _unit_seconds(mine, attempt.exited_at)
    return Progress(checkpointed, seconds, longest, tuple(units))


def restart_overhead_of(
    attempts: Sequence[Attempt], past: PreviousRuns | Missing
) -> RestartOverhead | Missing:
    """Return the longest restart overhead of this run; else the median start of previous runs.

    A rerun's counts from the exit before it, so it includes `react`; the first attempt's counts
    from the scheduled start, and is used while there is no other.
    """
    waits = [(a.started_at - a.since).total_seconds() for a in attempts]
    charged = [(a.started_at - a.charged_from).total_seconds() for a in attempts if a.charged_from]
    if waits:
        seconds = max(waits[1:] or waits)
        return RestartOverhead(seconds, min(max(charged, default=seconds), seconds))
    if isinstance(past, PreviousRuns) and past.start_seconds:
        usual = median(past.start_seconds)
        return RestartOverhead(usual, usual)
    return Missing(
        "the restart overhead", "no attempt of this run or of previous ones was measured"
    )


def previous_runs_of(
    runs: Sequence[CompletedRun], task_runs: Sequence[TaskRun]
) -> PreviousRuns | Missing:
    """Return the facts of the deployment's completed runs.

    `task_runs` are those of `reference_run(runs)`. An uninterrupted run's time is its work. An
    interrupted run's time includes repeated work: its average attempt, which is less than its work,
    counts where it exceeds every uninterrupted run; its whole time where all were interrupted.
    """
    reference = reference_run(runs)
    if reference is None:
        return Missing("the deployment's completed runs", "there are none yet")
    undisturbed = [run.run_seconds for run in runs if run.run_count == 1]
    whole = [run.run_seconds for run in runs]
    work = undisturbed or whole
    if undisturbed:
        averages = (run.run_seconds / run.run_count for run in runs if run.run_count > 1)
        work = [*undisturbed, *(a for a in averages if a > max(undisturbed))]
    completed = [t for t in task_runs if t.state is StateType.COMPLETED]  # others were done again
    mine = _within(completed, reference.started_at, reference.ended_at)
    return PreviousRuns(
        work_seconds=tuple(work),
        whole_seconds=tuple(whole),
        undisturbed=len(undisturbed),
        unit_seconds=tuple(_unit_seconds(mine, reference.ended_at))
        if _is_checkpointed([mine])
        else (),
        start_seconds=tuple(
            max((run.started_at - run.expected_start).total_seconds(), 0.0)
            for run in runs
            if run.expected_start is not None
        ),
    )


def reference_run(runs: Sequence[CompletedRun]) -> CompletedRun | None:
    """Return the run whose tasks stand for a typical run's: the newest uninterrupted one."""
    undisturbed = [run for run in runs if run.run_count == 1]
    return next(iter([*undisturbed, *runs]), None)


def _first_running(
    history: Sequence[RunState], after: datetime, before: datetime
) -> datetime | None:
    times = [state.timestamp for state in history if state.type is StateType.RUNNING]
    return next((at for at in times if after < at <= before), None)


def _within(task_runs: Sequence[TaskRun], start: datetime, end: datetime) -> list[TaskRun]:
    return [task_run for task_run in task_runs if start <= task_run.started_at <= end]


def _is_checkpointed(by_attempt: Sequence[Sequence[TaskRun]]) -> bool | None:
    """Whether finished tasks stay done; None while nothing shows it.

    A rerun shows it by what it found. Before the first rerun a stored result is taken for it,
    though the next container may not find that.
    """
    if any(task_run.cached for mine in by_attempt[1:] for task_run in mine):
        return True
    if any(any(t.is_kept for t in before) and after for before, after in pairwise(by_attempt)):
        return False
    finished = [t for mine in by_attempt for t in mine if t.state is StateType.COMPLETED]
    return any(task_run.is_kept for task_run in finished) if finished else None


def _checkpointed_seconds(attempt: Attempt, mine: Sequence[TaskRun]) -> float:
    """Return the seconds until the earliest task that has to be repeated."""
    if not any(task_run.is_kept for task_run in mine):
        return 0.0
    again = [task_run.started_at for task_run in mine if not task_run.is_kept]
    until = min(again, default=attempt.exited_at)
    return max((until - attempt.started_at).total_seconds(), 0.0)


def _unit_seconds(mine: Sequence[TaskRun], end: datetime) -> list[float]:
    """Return how long each unit took; one that has to be repeated counts until `end`."""
    return [
        ((task_run.ended_at if task_run.is_kept else None) or end).timestamp()
        - task_run.started_at.timestamp()
        for task_run in mine
        if not task_run.cached
    ]


def is_checkpointed(past: PreviousRuns, progress: Progress) -> bool:
    """Whether a rerun finds finished tasks done.

    From this run's own history, otherwise from the deployment's previous runs.
    """
    return bool(past.unit_seconds) if progress.checkpointed is None else progress.checkpointed


def likely_work_seconds(past: PreviousRuns, progress: Progress) -> tuple[float, ...]:
    """Return the work, in seconds, of the previous runs that this one may still resemble.

    This run has more work than its longest attempt did, so runs with less are left out. If none
    had more, that attempt is all that is known.
    """
    done = max(progress.longest_seconds, progress.checkpointed_seconds)
    return tuple(work for work in past.work_seconds if work > done) or (done,)


def most_work_seconds(past: PreviousRuns, progress: Progress) -> float:
    """Return an upper estimate of this run's work in seconds: more than the longest on record.

    Where tasks are checkpointed little is repeated, so every run's whole time counts; so it does
    where too few runs were uninterrupted. Of n runs, the next is the longest once in n + 1 times,
    and the deadline has to hold then too. So the estimate exceeds the longest by as much as that
    exceeds the median, and by 1/n at least, n counted as 4 or more. Never less than this run's
    longest attempt.
    """
    few = past.undisturbed < ENOUGH_TO_COMPARE
    works = past.work_seconds
    if few or is_checkpointed(past, progress):
        works = (*works, *past.whole_seconds)
    longest = max(works)
    beyond = max(longest - median(works), longest / max(len(works), LEAST_PARTS))
    return max(longest + beyond, progress.longest_seconds, progress.checkpointed_seconds)


def usual_unit_seconds(past: PreviousRuns, progress: Progress) -> float:
    """Return the mean length of the work unit that an interruption hits: Σ L²/Σ L, in seconds.

    An interruption hits a long unit more often than a short one, in proportion to its length.
    """
    units = (*progress.unit_seconds, *past.unit_seconds)
    whole = sum(units)
    return sum(unit * unit for unit in units) / whole if whole > 0 else 0.0


def longest_unit_seconds(past: PreviousRuns, progress: Progress) -> float:
    """Return the longest work unit, in seconds: what the worst interruption repeats.

    Previous units are of one run, so they are scaled up to this run's estimated work.
    """
    whole = sum(past.unit_seconds)
    stretch = max(1.0, most_work_seconds(past, progress) / whole) if whole > 0 else 1.0
    previous = max(past.unit_seconds, default=0.0) * stretch
    return max(previous, *progress.unit_seconds, 0.0)
