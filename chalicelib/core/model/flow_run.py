"""A flow run: as Prefect shows it, what may be changed on it, and our own record of it.

Values only; `adapters/prefect_api.py` reads and writes what is Prefect's, `adapters/records.py` the
record, and `core/rescue/decide.py` judges them.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final
from uuid import UUID

from chalicelib.core.model.record_size import cut, fitting_record, lost_starts

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


_ENDED: Final = frozenset({StateType.COMPLETED, StateType.FAILED, StateType.CANCELLED})
FINAL_STATES: Final = _ENDED | {StateType.CRASHED}
"""What Prefect calls terminal: its orchestration lets a run leave these only by force or rerun."""
OVER_STATES: Final = _ENDED | {StateType.CANCELLING}
"""The flow itself, or a person, ended the run (CANCELLING: is about to): a rerun would be wrong.

CRASHED is final, but not over: the infrastructure ended the run, and a rerun is what it needs.
"""


@dataclass(frozen=True, slots=True)
class RunState:
    """One state that a run is or was in.

    To restore it by: `details`, Prefect's `state_details` whole, and `data`, a result's reference.
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

    @property
    def is_rescheduled_by_engine(self) -> bool:
        """Whether an engine set it at SIGTERM: AwaitingRetry, at once, without a message."""
        due_at = self.scheduled_time
        at_once = due_at is None or due_at <= self.timestamp + timedelta(seconds=1)
        return self.name == "AwaitingRetry" and not self.message and at_once

    @property
    def scheduled_time(self) -> datetime | None:
        """When a SCHEDULED state is due (UTC); None where it does not say, or not readably."""
        at = self.details.get("scheduled_time")
        with suppress(ValueError):
            moment = datetime.fromisoformat(at) if isinstance(at, str) else None
            return moment if moment is None or moment.tzinfo else moment.replace(tzinfo=UTC)
        return None


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

    @property
    def waits_in_process(self) -> bool:
        """Whether it waits for a retry in its own process: no worker ever takes it."""
        return self.state.type is StateType.SCHEDULED and self.policy.retry_type == "in_process"


@dataclass(frozen=True, slots=True)
class PrefectDeployment:
    """A deployment: `name` is flow/deployment; a run's own `job_variables` override these."""

    name: str
    job_variables: JsonObject = field(default_factory=dict, hash=False)


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
        return self == RunChange()


@dataclass(frozen=True, slots=True)
class Interruption:
    """One interrupted task of a run. `number` counts from 1, in the order of recording.

    `lost_start` is the run's `run_count` if the interruption cost the flow a start that had
    counted, else 0: a run that never started, or that waited for a retry of its own, lost none.
    `rerun_on` is the capacity that was decided for the rerun, empty while there is none; `guard`
    the one that moved it to FARGATE before the budget would have, empty for none, and
    `guard_reason` its reason, or the fact that a guard lacked, or that an earlier move to FARGATE
    had no effect. `decided_at` (UTC) is when, and `why` what and why, as the annotation says: for
    `spotctl explain`. `run_state` and our `tags` are what the decision saw, for `spotctl replay`.
    These four are empty in records of older releases. `warned_at` (UTC) is when ECS warned of it;
    `not_rerun` why its rerun was given up for good. `..._annotated`: the annotation is on the run.
    """

    task_arn: str
    number: int
    cause: str
    capacity: str
    cluster_arn: str = ""
    stop_code: str = ""
    reason: str = ""
    availability_zone: str = ""
    recorded_at: datetime | None = None
    warned_at: datetime | None = None
    billed_from: datetime | None = None
    exited_at: datetime | None = None
    lost_start: int = 0
    rerun_on: str = ""
    guard: str = ""
    guard_reason: str = ""
    decided_at: datetime | None = None
    why: str = ""
    run_state: str = ""
    tags: tuple[str, ...] = ()
    not_rerun: str = ""
    warning_annotated: bool = False
    outcome_annotated: bool = False


@dataclass(frozen=True, slots=True)
class FailedStart:
    """An attempt that ended before its flow's code ran, or whose host died: no interruption.

    `key` is the task's ARN, or begins with "prefect-spot:" where there never was a task.
    `number` counts from 1 the failed starts of one attempt, which is named by the run's `run_count`
    at that time, as `attempt`. `kind` is that of `core/rescue/start_failures.py`, `reason` what ECS
    or the worker said. `lost_start` is the run's `run_count` if the flow had started (its host
    died), else 0. `retry_on` is the capacity of the next start, empty while, or where, there is
    none; `not_rerun` and `why` as `Interruption`'s. `annotated`: the annotation is on the run.
    """

    key: str
    number: int
    attempt: int
    kind: str
    capacity: str
    reason: str = ""
    recorded_at: datetime | None = None
    lost_start: int = 0
    retry_on: str = ""
    not_rerun: str = ""
    why: str = ""
    annotated: bool = False


@dataclass(frozen=True, slots=True)
class Moved:
    """A run that a guard moved to FARGATE before its first start; `annotated`: the run shows it."""

    guard: str
    reason: str
    annotated: bool = False


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A run's interruptions, exactly. Decisions read this, never the labels, which lose updates.

    `own_retries` is the flow's original `retries`, None until it is known; `next_capacity` where
    the next rerun goes: empty, FARGATE_SPOT or, then for good, FARGATE. `moved` is None unless a
    guard moved the run to FARGATE before its first start. `subflows` has of each run in the run's
    process the retries that it had at first, then the `run_count` of each start that was lost.
    The oldest interruptions and failed starts go where a record would outgrow the table: the starts
    that they lost are counted in `lost_before`.
    """

    flow_run_id: UUID
    interruptions: Mapping[str, Interruption] = field(default_factory=dict, hash=False)
    own_retries: int | None = None
    next_capacity: str = ""
    moved: Moved | None = None
    failed_starts: Mapping[str, FailedStart] = field(default_factory=dict, hash=False)
    subflows: Mapping[str, tuple[int, ...]] = field(default_factory=dict, hash=False)
    lost_before: int = 0

    def warned_of(self, task_arn: str) -> bool:
        """Whether an interruption of that task is on record."""
        return task_arn in self.interruptions

    def with_interruption(self, interruption: Interruption) -> "RunRecord":
        """Return the record with that task's interruption added or replaced."""
        recorded = {**self.interruptions, interruption.task_arn: cut(interruption)}
        return fitting_record(replace(self, interruptions=recorded))

    def with_failed_start(self, failed: FailedStart) -> "RunRecord":
        """Return the record with that failed start added or replaced."""
        recorded = {**self.failed_starts, failed.key: cut(failed)}
        return fitting_record(replace(self, failed_starts=recorded))

    @property
    def interrupted(self) -> int:
        """How often the run was interrupted."""
        return max((each.number for each in self.interruptions.values()), default=0)

    @property
    def lost_starts(self) -> int:
        """How many of the run's starts Spot or a dead host took: by so many `retries` rise."""
        return self.lost_before + len(lost_starts(self))
