"""A flow run as Prefect shows it: its state, its past states, and what may be changed on it.

Values only; `adapters/prefect_api.py` reads and writes them, `core/rescue/decide.py` judges them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

JsonObject = Mapping[str, object]


class StateType(StrEnum):
    """Prefect's state types. A server that knows another one gets UNKNOWN, never a crash."""

    SCHEDULED = "SCHEDULED"
    PENDING = "PENDING"
    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    CANCELLING = "CANCELLING"
    CRASHED = "CRASHED"
    PAUSED = "PAUSED"
    UNKNOWN = "UNKNOWN"


FINAL_STATES: Final = frozenset(
    {StateType.COMPLETED, StateType.FAILED, StateType.CANCELLED, StateType.CRASHED}
)
"""What Prefect calls terminal: its orchestration lets a run leave these only by force or rerun."""

OVER_STATES: Final = frozenset(
    {StateType.COMPLETED, StateType.FAILED, StateType.CANCELLED, StateType.CANCELLING}
)
"""The flow itself, or a person, ended the run (CANCELLING: is about to): a rerun would be wrong.

CRASHED is final, but not over: the infrastructure ended the run, and a rerun is what it needs.
"""


@dataclass(frozen=True, slots=True)
class RunState:
    """One state that a run is or was in.

    `details` is Prefect's `state_details` whole, `data` its reference to a result: so that a state
    can be restored as it was.
    """

    id: UUID
    type: StateType
    name: str
    timestamp: datetime
    message: str = ""
    transition_id: UUID | None = None
    details: JsonObject = field(default_factory=dict, hash=False)
    data: object = field(default=None, hash=False)

    @property
    def is_final(self) -> bool:
        """Whether it is one of Prefect's terminal states."""
        return self.type in FINAL_STATES

    @property
    def is_over(self) -> bool:
        """Whether the flow or a person ended the run, so that a rerun would be wrong."""
        return self.type in OVER_STATES


@dataclass(frozen=True, slots=True)
class RunPolicy:
    """Prefect's `empirical_policy`. A PATCH replaces it whole, hence `others`.

    `retries` is None until the flow has started for the first time.
    """

    retries: int | None = None
    retry_type: str | None = None
    others: JsonObject = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class FlowRun:
    """A flow run at one moment. `run_count` counts starts; an own retry is a start too."""

    id: UUID
    name: str
    state: RunState
    run_count: int = 0
    deployment_id: UUID | None = None
    tags: tuple[str, ...] = ()
    job_variables: JsonObject = field(default_factory=dict, hash=False)
    policy: RunPolicy = RunPolicy()
    infrastructure_pid: str | None = None
    work_pool_name: str | None = None
    expected_start: datetime | None = None


@dataclass(frozen=True, slots=True)
class TaskRun:
    """A Prefect task run; `persisted`: its result is stored, so a rerun skips it.

    `ended_at` is None while it runs. `cached`: it found its result stored, and did nothing.
    """

    state: StateType
    started_at: datetime
    persisted: bool
    ended_at: datetime | None = None
    cached: bool = False

    @property
    def is_kept(self) -> bool:
        """Whether a rerun finds it done."""
        return self.state is StateType.COMPLETED and self.persisted


@dataclass(frozen=True, slots=True)
class CompletedRun:
    """A run that completed. `run_seconds`: how long it was RUNNING, all attempts together.

    `started_at` is its first attempt's; a run of one start (`run_count`) was never interrupted.
    """

    id: UUID
    run_count: int
    run_seconds: float
    started_at: datetime
    ended_at: datetime
    expected_start: datetime | None = None


@dataclass(frozen=True, slots=True)
class ProposedState:
    """A state to propose to Prefect. `scheduled_time` (UTC) is for SCHEDULED states only."""

    type: StateType
    name: str
    message: str = ""
    transition_id: UUID | None = None
    scheduled_time: datetime | None = None
    details: JsonObject = field(default_factory=dict, hash=False)
    data: object = field(default=None, hash=False)


class StateVerdict(StrEnum):
    """Prefect's answer to a proposed state."""

    ACCEPT = "ACCEPT"
    REJECT = "REJECT"
    ABORT = "ABORT"
    WAIT = "WAIT"


@dataclass(frozen=True, slots=True)
class StateAnswer:
    """What Prefect made of a proposal: `state` is the run's state now, None when it did not say."""

    verdict: StateVerdict
    reason: str = ""
    state: RunState | None = None


@dataclass(frozen=True, slots=True)
class RunChange:
    """What a PATCH of a flow run shall replace, each whole; None leaves a field as it is.

    Prefect takes `job_variables` only while the run is SCHEDULED and has a deployment.
    """

    job_variables: JsonObject | None = field(default=None, hash=False)
    policy: RunPolicy | None = None
    tags: tuple[str, ...] | None = None

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to send."""
        return self.job_variables is None and self.policy is None and self.tags is None
