"""What `spotctl explain` knows of a run, and the story that it makes of it: values only.

All times are UTC, but of three clocks: tasks and bills have AWS's, states and task runs Prefect's
(or its engine's), the record Lambda's. Seconds across two of them are cut at zero.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final
from uuid import UUID

from chalicelib.core.model.ecs_task import Cause, Task
from chalicelib.core.model.flow_run import FlowRun, Moved, RunRecord, RunState
from chalicelib.core.model.policy import Policy
from chalicelib.core.money.bill import Amounts, Bill
from spotctl.explain.work import Fate, Work

NEVER: Final = datetime.min.replace(tzinfo=UTC)
TASKS_OF_ECS: Final = "tasks of ECS"
"""What in `Evidence.missing` begins so could not be read of ECS."""
INTERRUPTED: Final = (Cause.SPOT_INTERRUPTION, Cause.DRILL)


@dataclass(frozen=True, slots=True)
class Child:
    """A run of another deployment that the run started: it has containers of its own."""

    id: UUID
    name: str
    state: str


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that is known of a run at `now`. `deployment`: flow/deployment, empty where unknown.

    `run` is None where Prefect does not know it, or could not be asked. `missing`: what could not
    be read, each with the reason. `obstacles`: why an interruption would not be answered.
    """

    flow_run_id: UUID
    now: datetime
    policy: Policy = field(default_factory=Policy)
    record: RunRecord | None = None
    bills: tuple[Bill, ...] = ()
    tasks: tuple[Task, ...] = ()
    run: FlowRun | None = None
    history: tuple[RunState, ...] = field(default=(), hash=False)
    deployment: str = ""
    work: tuple[Work, ...] = ()
    children: tuple[Child, ...] = ()
    missing: tuple[str, ...] = ()
    obstacles: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Decided:
    """What was decided about an end, why, and when.

    `due_seconds`: from the container's exit until the run was due again.
    """

    what: str
    why: str = ""
    at: datetime | None = None
    due_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Attempt:
    """A task of the run. `number` counts from 1.

    `created_at`: ECS accepted it; `began_at`: AWS charges from here; `started_at`: the container;
    `running_at`: the flow's code. `is_live`: it has not ended, as far as it is known; then `cause`
    is empty. `interruption`: its number in the record, 0 for none. `loses_work`: what it had not
    kept has to be done again.
    `again_seconds`: from its exit until the flow ran again. `money` is None where it has no price;
    `is_estimate`: there is no bill yet.
    """

    task_arn: str
    capacity: str
    number: int = 0
    availability_zone: str = ""
    created_at: datetime | None = None
    began_at: datetime | None = None
    started_at: datetime | None = None
    running_at: datetime | None = None
    warned_at: datetime | None = None
    exited_at: datetime | None = None
    ended_at: datetime | None = None
    is_live: bool = False
    cause: str = ""
    ended_by: str = ""
    interruption: int = 0
    loses_work: bool = False
    decided: Decided | None = None
    again_seconds: float | None = None
    wasted_seconds: Decimal | None = None
    money: Amounts | None = None
    is_estimate: bool = False
    is_assumed: bool = False
    work: tuple[Work, ...] = ()

    @property
    def is_interrupted(self) -> bool:
        """Whether Spot, or a drill, took it."""
        return self.cause in INTERRUPTED

    @property
    def order(self) -> datetime:
        """The earliest that is known of it."""
        known = (self.began_at, self.started_at, self.running_at, self.warned_at, self.exited_at)
        return min(filter(None, (*known, self.ended_at)), default=self.created_at or NEVER)

    def count(self, fate: Fate) -> int:
        """How many of its task runs have that fate."""
        return sum(each.fate is fate for each in self.work)


@dataclass(frozen=True, slots=True)
class FailedToStart:
    """A start that failed before any container ran. `number`: of those of one attempt."""

    at: datetime | None
    capacity: str
    kind: str
    reason: str
    decided: Decided
    number: int = 1
    task_arn: str = ""
    money: Amounts | None = None


@dataclass(frozen=True, slots=True)
class Story:
    """The story of a run. `state`: the run's in Prefect, empty where unknown; `message`: its.

    `money`: the sum of what has a price; `unpriced` attempts are not in it. `untouched`: where
    nothing of the run is on record, why. `began_at` and `ended_at`: from the first attempt's
    beginning to the last's end, or until now. `notes`: what to know about these figures.
    """

    flow_run_id: UUID
    name: str
    deployment: str
    state: str
    message: str
    headline: str
    attempts: tuple[Attempt, ...]
    failed_starts: tuple[FailedToStart, ...]
    moved: Moved | None
    children: tuple[Child, ...]
    money: Amounts
    unpriced: int
    is_assumed: bool
    is_estimate: bool
    began_at: datetime | None
    ended_at: datetime | None
    is_under_way: bool
    untouched: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()

    @property
    def seconds(self) -> float:
        """From the first attempt's beginning to the end."""
        return seconds_from(self.began_at, self.ended_at) or 0.0

    @property
    def waiting_seconds(self) -> float:
        """How much of that passed between an attempt's exit and the flow's next code."""
        return sum(attempt.again_seconds or 0.0 for attempt in self.attempts)


def seconds_from(start: datetime | None, end: datetime | None) -> float | None:
    """Return the seconds between two times, not below zero; None where one is unknown."""
    return None if start is None or end is None else max(0.0, (end - start).total_seconds())
