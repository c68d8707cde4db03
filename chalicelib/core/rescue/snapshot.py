"""What a decision is made from: what ended, its run and record, at one moment."""

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from chalicelib.core.model.ecs_task import FARGATE_SPOT, Cause, Task, classify
from chalicelib.core.model.flow_run import (
    FailedStart,
    FlowRun,
    Interruption,
    JsonObject,
    PrefectDeployment,
    RunRecord,
    RunState,
    StateType,
)
from chalicelib.core.model.policy import (
    Budget,
    Policy,
    budget_of,
    reason_not_to_rerun,
    start_budget_of,
)
from chalicelib.core.policies.facts import NOT_GATHERED, Missing, PolicyFacts
from chalicelib.core.rescue.rerun_state import RerunState, rerun_state_of
from chalicelib.core.rescue.start_failures import (
    UNRECOGNISED,
    WORKER_DIED,
    StartFailure,
    StartFailureKind,
    start_failure_of,
)

CLOCKS_DIFFER: Final = timedelta(seconds=5)
"""How much the clocks of ECS and of a flow's container may differ."""
RESTART_MARGIN: Final = timedelta(seconds=60)
"""How far the clocks of ECS and Prefect may differ before a restart counts as a newer attempt."""
LONGEST_STOP: Final = timedelta(seconds=120)
"""How long Fargate Spot leaves a container after its warning (ECS developer guide)."""
SUBMISSION: Final = "prefect-spot:state:"
"""What the key of a failed submission begins with; the id of the state that says so follows."""
UNSEEN: Final = "prefect-spot:unseen-task-of:"
"""What the key of a task that ECS never showed begins with; the id of the run's state follows."""


OF_STARTED: Final = ("EssentialContainerExited", "UserInitiated", "ServiceSchedulerInitiated")
"""Stop codes that say why a task ended, so that it did not fail to start."""


@dataclass(frozen=True, slots=True)
class FailedSubmission:
    """The worker could not submit the run, so it has no task: the CRASHED state that says so.

    `capacity`: where the task was to be.
    """

    state_id: UUID
    message: str
    capacity: str = FARGATE_SPOT

    @property
    def arn(self) -> str:
        """What stands for the task's ARN."""
        return f"{SUBMISSION}{self.state_id}"


@dataclass(frozen=True, slots=True)
class Gone:
    """A task of the run that ECS no longer shows, or never did.

    `arn`: as the worker noted it on the run; without a note, a key made from the run's state.
    `started`: the run was RUNNING, so its task existed; ECS forgets a task after an hour.
    """

    arn: str
    cluster_arn: str
    capacity: str
    started: bool


Subject = Task | FailedSubmission | Gone
"""What a decision is about."""


def start_failure(subject: Subject) -> StartFailure | None:
    """Return why an attempt failed to start, or lost its host; None for any other end."""
    match subject:
        case FailedSubmission(message=message):
            return start_failure_of(message)
        case Gone(started=started):
            return None if started else WORKER_DIED
        case (
            Task(stop_code="InfrastructureHealth")
            | Task(stop_code="TaskFailedToStart", started_at=None)
        ):
            return start_failure_of(f"{subject.stop_code} {said_by(subject)}")
        case Task(started_at=None, stop_code=code) if code not in OF_STARTED:  # none, or a new one
            failure = start_failure_of(said_by(subject))
            return None if failure is UNRECOGNISED else failure
        case _:
            return None


def said_by(subject: Subject) -> str:
    """Return what ECS, or the worker, said about the end of an attempt; empty for nothing."""
    match subject:
        case FailedSubmission(message=message):
            return message
        case Task(stopped_reason=stopped_reason, container_reason=container_reason):
            return " ".join(filter(None, (stopped_reason, container_reason)))
        case _:
            return ""


def cause_of(subject: Subject, *, warned: bool, on_demand: bool = False) -> Cause:
    """Return why an attempt ended, as far as a rerun is concerned.

    `warned`: a Spot warning for its task is on record. `on_demand`: an attempt without a task was
    to be on FARGATE. A capacity that was refused there is a failed start like any other.
    """
    spot = not on_demand
    match subject:
        case Task() as task:
            spot = task.capacity == FARGATE_SPOT
            if (cause := classify(task, warned=warned)) is not Cause.OTHER:
                return cause
        case Gone(capacity=capacity, started=started):
            spot = capacity == FARGATE_SPOT
            if spot and (warned or started):
                return Cause.SPOT_INTERRUPTION
    if (failure := start_failure(subject)) is None:
        return Cause.OTHER
    is_refusal = spot and failure.kind is StartFailureKind.REFUSAL
    return Cause.NO_SPOT_CAPACITY if is_refusal else Cause.FAILED_START


@dataclass(frozen=True, slots=True)
class Remains:
    """What a dead attempt left in Prefect, and what its rerun needs there.

    `deployment` is None when it is gone. `pool_defaults`: of the pool's job variables; read only
    for a rerun on demand. `subflows`: the runs in the dead container that have not ended;
    `task_runs`: ids of its task runs that still say RUNNING.
    """

    deployment: PrefectDeployment | None
    pool_defaults: JsonObject = field(default_factory=dict, hash=False)
    subflows: tuple[FlowRun, ...] = ()
    task_runs: tuple[UUID, ...] = ()

    @property
    def inherited_variables(self) -> tuple[JsonObject, ...]:
        """The job variables that the run's own override."""
        return (self.deployment.job_variables if self.deployment else {}, self.pool_defaults)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """ECS, Prefect and the record at one moment.

    `history`: the run's states, oldest first, the current one last. `newer_task`: the run's
    `infrastructure_pid` names a task created after this one, one that still runs, or this
    attempt's. `swept`: only `sweep` sets it: the events had their time, and ECS shows no live task
    of the run. `facts`: what the policies judge by, gathered only where `facts_needed` asked for
    some.
    `remains`: gathered before a parked run is made due; None: not gathered. `rejection`: what
    Prefect said when it rejected the change that the rerun needs; empty: it did not.
    """

    subject: Subject
    run: FlowRun
    history: tuple[RunState, ...]
    record: RunRecord
    policy: Policy
    now: datetime
    newer_task: bool = False
    swept: bool = False
    facts: PolicyFacts | Missing = NOT_GATHERED
    remains: Remains | None = None
    rejection: str = ""

    @property
    def cause(self) -> Cause:
        """Why it ended, with what is on record about it."""
        warned = self.record.warned_of(self.subject.arn)
        return cause_of(self.subject, warned=warned, on_demand=self.capacity != FARGATE_SPOT)

    @property
    def capacity(self) -> str:
        """Where it was, or was to be: FARGATE_SPOT or FARGATE."""
        failed = self.failed_start  # the run's variables may have been changed since
        return failed.capacity if failed else self.subject.capacity

    @property
    def task(self) -> Task | None:
        """The task that ended, as ECS shows it; None where it shows none."""
        return self.subject if isinstance(self.subject, Task) else None

    @property
    def has_exited(self) -> bool:
        """Whether the flow's container has stopped for certain."""
        return self.task is None or self.task.exited

    @property
    def exited_at(self) -> datetime | None:
        """When the flow's container stopped; None where ECS shows no task."""
        return self.task.exited_at if self.task else None

    @property
    def interruption(self) -> Interruption | None:
        """The interruption on record; None for none."""
        return self.record.interruptions.get(self.subject.arn)

    @property
    def failed_start(self) -> FailedStart | None:
        """The failed start on record; None for none."""
        return self.record.failed_starts.get(self.subject.arn)

    @property
    def start_budget(self) -> Budget:
        """How often this attempt may be started again."""
        return start_budget_of(self.run.tags, self.policy)

    @property
    def given_up(self) -> str:
        """Why the rerun is impossible for good; empty when it is not."""
        entry = self.interruption or self.failed_start
        return entry.not_rerun if entry else ""

    @property
    def budget(self) -> Budget:
        """How many interruptions this run may have on Spot."""
        return budget_of(self.run.tags, self.record.own_retries, self.policy)

    @property
    def reason_not_to_rerun(self) -> str:
        """Why this run is never rerun, whatever ends it; empty when it may be."""
        return reason_not_to_rerun(self.run, self.policy.mode)

    @property
    def rerun_state(self) -> RerunState:
        """How far the rerun has come."""
        return rerun_state_of(self.subject.arn, self.history)

    @property
    def failed_by_signal(self) -> bool:
        """Whether the run FAILED between the warning and the exit: then SIGTERM made it fail."""
        failed = next((s for s in reversed(self.history) if s.type is StateType.FAILED), None)
        warned_at = self.interruption.warned_at if self.interruption else None
        if failed is None or warned_at is None:
            return False
        exited_at = self.exited_at or warned_at + LONGEST_STOP
        return warned_at <= failed.timestamp <= exited_at + CLOCKS_DIFFER

    @property
    def before_last_state(self) -> "Snapshot | None":
        """Return the snapshot as it was before the run's last state; None without an earlier."""
        if len(self.history) < 2:
            return None
        earlier = self.history[:-1]
        return replace(self, history=earlier, run=replace(self.run, state=earlier[-1]))
