"""What the guards judge by, and what they can answer: values only.

A fact is None where no guard needs it; `Missing` where it is needed and could not be read. Then the
budget alone decides, and the annotation says so.
"""

from dataclasses import dataclass
from enum import StrEnum


class Guard(StrEnum):
    """Every guard, by its name in records, logs and annotations, in the order of asking."""

    DEADLINE = "deadline"
    ECONOMICS = "economics"


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


def first_missing(*facts: object) -> Missing:
    """Return the first missing fact; where none is, the facts were not gathered at all."""
    for fact in facts:
        if isinstance(fact, Missing):
            return fact
    return Missing("its facts", "they were not gathered")


@dataclass(frozen=True, slots=True)
class PolicyFacts:
    """Everything the guards may need, gathered once; the default is nothing gathered."""

    evidence: SpotEvidence | Missing | None = None
    past: PreviousRuns | Missing | None = None
    progress: Progress | Missing | None = None
    restart_overhead: RestartOverhead | Missing | None = None


@dataclass(frozen=True, slots=True)
class GoOnDemand:
    """The guard moves the rerun to FARGATE though the budget has room, and why."""

    why: str


@dataclass(frozen=True, slots=True)
class StayOnSpot:
    """The guard does not move the run, and why."""

    why: str


Opinion = GoOnDemand | StayOnSpot | Missing
"""What a guard answers. `Missing`: it lacks a fact, so it does not move the run."""
