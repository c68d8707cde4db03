"""What the guards judge by: how much work a run has, how far it has come, how long it starts.

Only what was measured counts; `functions/policy_facts.py` fetches what these functions read. Where
a fact is `Missing`, a fixed budget decides, and the annotation names the fact.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from itertools import pairwise
from typing import Final

from chalicelib.core.model.flow_run import CompletedRun, RunState, StateType, TaskRun


class Guard(StrEnum):
    """Every guard, by its name in records, logs and annotations, in the order of asking."""

    DEADLINE = "deadline"
    AUTO = "auto"


@dataclass(frozen=True, slots=True)
class Missing:
    """A fact that could not be read: which one, and why."""

    fact: str
    why: str

    def __str__(self) -> str:
        return f"{self.fact}: {self.why}"


@dataclass(frozen=True, slots=True)
class SpotEvidence:
    """Hours on Spot of runs' first attempts, and the interruptions in them, without drills.

    Only first attempts count: a rerun begins when Spot has just taken a task, so in a burst it is
    soon taken again, and would make Spot look worse than it is for a new run.
    """

    hours: float
    interruptions: int


@dataclass(frozen=True, slots=True)
class PreviousRuns:
    """The deployment's last completed runs, at least one; all times in seconds.

    `work_seconds`: how long each ran, or what is known of it where it was interrupted.
    `unit_seconds`: how long each work unit (task) of one of them took, that a rerun finds done or
    has to repeat; empty where it checkpointed nothing.
    `start_seconds`: of each, from its scheduled start until it ran.
    `whole_seconds`: of each, all the time that it ran, repeated work included.
    `undisturbed`: how many of them were never interrupted.
    """

    work_seconds: tuple[float, ...]
    unit_seconds: tuple[float, ...] = ()
    start_seconds: tuple[float, ...] = ()
    whole_seconds: tuple[float, ...] = ()
    undisturbed: int = 0


@dataclass(frozen=True, slots=True)
class Progress:
    """How far this run has come, over all its attempts.

    `checkpointed`: whether finished tasks stay done; None while nothing shows it.
    `checkpointed_seconds`: work that its next attempt finds done; 0 without checkpoints.
    `longest_seconds`: its longest attempt; none finished, so its work is more than that.
    `unit_seconds`: as in `PreviousRuns`; a unit to be repeated counts as long as it had run.
    """

    checkpointed: bool | None = None
    checkpointed_seconds: float = 0.0
    longest_seconds: float = 0.0
    unit_seconds: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class RestartOverhead:
    """What a rerun costs before it works, measured on this run's attempts, the longest of each.

    `seconds`: from a container's exit (or the scheduled start) until the flow ran again;
    `charged_seconds`: the charged part of it, from the image pull on.
    """

    seconds: float
    charged_seconds: float


NOT_GATHERED: Final = Missing("its facts", "they were not gathered")


@dataclass(frozen=True, slots=True)
class PolicyFacts:
    """What the guards need, gathered once; `auto` alone needs `evidence`."""

    past: PreviousRuns
    progress: Progress
    restart_overhead: RestartOverhead
    evidence: SpotEvidence | Missing = NOT_GATHERED

    @property
    def is_checkpointed(self) -> bool:
        """Whether a rerun finds finished tasks done: what this run's reruns found, else its stored
        results, else the deployment's earlier runs'; without any of these, no.
        """
        known = self.progress.checkpointed
        return bool(self.past.unit_seconds) if known is None else known


def facts_of(
    past: PreviousRuns | Missing,
    progress: Progress | Missing,
    restart_overhead: RestartOverhead | Missing,
    evidence: SpotEvidence | Missing = NOT_GATHERED,
) -> PolicyFacts | Missing:
    """Return the facts; where one is missing that every guard needs, the first of these."""
    if isinstance(past, Missing):
        return past
    if isinstance(progress, Missing):
        return progress
    if isinstance(restart_overhead, Missing):
        return restart_overhead
    return PolicyFacts(past, progress, restart_overhead, evidence)


@dataclass(frozen=True, slots=True)
class GoOnDemand:
    """The guard moves the rerun to FARGATE though the budget has room, and why."""

    why: str


@dataclass(frozen=True, slots=True)
class StayOnSpot:
    """The guard leaves the run on Spot, and why."""

    why: str


Opinion = GoOnDemand | StayOnSpot | Missing
"""What a guard answers. `Missing`: it lacks a fact."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """From the flow's start in one task until that task's container exited.

    It was awaited `since` the scheduled start, or the exit before it; charged from the image pull.
    """

    since: datetime
    charged_from: datetime | None
    started_at: datetime
    exited_at: datetime


End = tuple[datetime | None, datetime | None]
"""When a container exited and when its charge began; None where that is unknown."""


def attempts_that_ran(
    history: Sequence[RunState], since: datetime, ends: Sequence[End]
) -> tuple[Attempt, ...]:
    """Return the run's attempts that ran; `since`: its scheduled start, `ends` in their order."""
    attempts = []
    starts = [state.timestamp for state in history if state.type is StateType.RUNNING]
    for exited_at, charged_from in ends:
        if exited_at is None:
            continue
        if started_at := next((at for at in starts if since < at <= exited_at), None):
            attempts.append(Attempt(since, charged_from, started_at, exited_at))
        since = exited_at
    return tuple(attempts)


def progress_of(attempts: Sequence[Attempt], task_runs: Sequence[TaskRun]) -> Progress:
    """Return how far a run has come; `task_runs` are those of all its attempts."""
    by_attempt = [_within(task_runs, a.started_at, a.exited_at) for a in attempts]
    checkpointed = _is_checkpointed(by_attempt)
    ran = [(attempt.exited_at - attempt.started_at).total_seconds() for attempt in attempts]
    longest = max(ran, default=0.0)
    if not checkpointed:
        return Progress(checkpointed, longest_seconds=longest)
    pairs = list(zip(attempts, by_attempt, strict=True))
    seconds = sum(_checkpointed_seconds(attempt, mine) for attempt, mine in pairs)
    units = [unit for attempt, mine in pairs for unit in _unit_seconds(mine, attempt.exited_at)]
    return Progress(checkpointed, seconds, longest, tuple(units))


def restart_overhead_of(
    attempts: Sequence[Attempt], past: PreviousRuns | Missing
) -> RestartOverhead | Missing:
    """Return this run's longest restart overhead, of reruns if any; else previous runs' median.

    A rerun's counts from the exit before it, so it includes `react`.
    """
    waits = [(a.started_at - a.since).total_seconds() for a in attempts]
    charged = [(a.started_at - a.charged_from).total_seconds() for a in attempts if a.charged_from]
    if waits:
        seconds = max(waits[1:] or waits)
        return RestartOverhead(seconds, min(max(charged, default=seconds), seconds))
    if isinstance(past, PreviousRuns) and past.start_seconds:
        from statistics import median

        usual = median(past.start_seconds)
        return RestartOverhead(usual, usual)
    why = "no attempt of this run or of previous ones was measured"
    return Missing("the restart overhead", why)


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
    units = _unit_seconds(mine, reference.ended_at) if _is_checkpointed([mine]) else []
    waits = [run.started_at - run.expected_start for run in runs if run.expected_start]
    return PreviousRuns(
        work_seconds=tuple(work),
        whole_seconds=tuple(whole),
        undisturbed=len(undisturbed),
        unit_seconds=tuple(units),
        start_seconds=tuple(max(wait.total_seconds(), 0.0) for wait in waits),
    )


def reference_run(runs: Sequence[CompletedRun]) -> CompletedRun | None:
    """Return the run whose tasks stand for a typical run's: the newest uninterrupted one."""
    undisturbed = [run for run in runs if run.run_count == 1]
    return next(iter([*undisturbed, *runs]), None)


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
