"""What the guards judge by, and what they can answer: values only.

A fact is None where no guard needs it; `Missing` where it is needed and could not be read. Then the
budget alone decides, and the annotation says so.
"""

from dataclasses import dataclass
from enum import StrEnum


class Guard(StrEnum):
    """Every guard there is, by the name that stands in records, logs and annotations."""

    DEADLINE = "deadline"
    ECONOMICS = "economics"


@dataclass(frozen=True, slots=True)
class Missing:
    """A fact that could not be had: which one, and why."""

    fact: str
    why: str

    def __str__(self) -> str:
        return f"{self.fact}: {self.why}"


@dataclass(frozen=True, slots=True)
class SpotEvidence:
    """Hours on Spot of runs' first attempts, and the interruptions in them, drills left out.

    Of first attempts, because reruns begin where Spot has just taken a task. In a burst they are
    taken again, soon and cheaply; counted, they would make Spot look worse than it is for a run.
    """

    hours: float
    interruptions: int


@dataclass(frozen=True, slots=True)
class PastRuns:
    """The deployment's last completed runs, at least one.

    `work_seconds`: the time that each ran, or what is known of it where it was interrupted.
    `piece_seconds`: of one of them, how long each piece took that a rerun would find done, or have
    to do again, task by task; empty where it kept nothing.
    `start_seconds`: of each, from its scheduled start until it ran.
    `whole_seconds`: of each, all the time that it ran, with what was done twice: its work at most.
    `undisturbed`: how many of them were never interrupted.
    """

    work_seconds: tuple[float, ...]
    piece_seconds: tuple[float, ...] = ()
    start_seconds: tuple[float, ...] = ()
    whole_seconds: tuple[float, ...] = ()
    undisturbed: int = 0


@dataclass(frozen=True, slots=True)
class Progress:
    """How far this run has come, over all its attempts.

    `keeps`: whether finished tasks stay done; None while nothing shows it.
    `kept_seconds`: work that its next attempt finds done; 0 where it keeps nothing.
    `longest_seconds`: its longest attempt, none of which finished: its work is more than that.
    `piece_seconds`: as of `PastRuns`, with how long each that is to be redone had run so far.
    """

    keeps: bool | None = None
    kept_seconds: float = 0.0
    longest_seconds: float = 0.0
    piece_seconds: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Changeover:
    """Measured on this run's own attempts, the longest of each.

    `seconds`: from a container's exit (or the scheduled start) until the flow ran again;
    `charged_seconds`: the part of it that is paid, from the image pull on.
    """

    seconds: float
    charged_seconds: float


def first_missing(*facts: object) -> Missing:
    """Return the first of the facts that is missing; with none, what was never gathered is."""
    for fact in facts:
        if isinstance(fact, Missing):
            return fact
    return Missing("its facts", "they were not gathered")


@dataclass(frozen=True, slots=True)
class PolicyFacts:
    """Everything the guards may need, gathered once; the default is nothing gathered."""

    evidence: SpotEvidence | Missing | None = None
    past: PastRuns | Missing | None = None
    progress: Progress | Missing | None = None
    changeover: Changeover | Missing | None = None


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
