"""What a decision is made from: what ended, its run, the run's record, the user's policy."""

from dataclasses import dataclass, field, replace
from datetime import datetime

from chalicelib.core.model.ecs_task import FARGATE_SPOT, Cause, Task, classify
from chalicelib.core.model.flow_run import FlowRun, RunState
from chalicelib.core.model.policy import Budget, Policy, budget_of, reason_not_to_rerun
from chalicelib.core.model.run_record import Interruption, RunRecord
from chalicelib.core.policies.facts import PolicyFacts
from chalicelib.core.rescue.rerun_state import (
    RerunState,
    rerun_state_of_refusal,
    rerun_state_of_task,
)


@dataclass(frozen=True, slots=True)
class Refusal:
    """RunTask found no Spot capacity: the run never had a task, so there is no ARN to record."""

    arn: str = ""


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


Subject = Task | Refusal | Gone
"""What a decision is about."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """ECS, Prefect and the record at one moment.

    `history`: the run's states, oldest first, the current one last. `newer_task`: the run's
    `infrastructure_pid` names a task created after this one, or one that still runs. `swept`: only
    `sweep` sets it: the events had their time, and ECS, asked by tag, shows no live task of the
    run. `facts`: what the policies judge by, empty unless `facts_needed` asked for some.
    """

    subject: Subject
    run: FlowRun
    history: tuple[RunState, ...]
    record: RunRecord
    policy: Policy
    now: datetime
    newer_task: bool = False
    swept: bool = False
    facts: PolicyFacts = field(default_factory=PolicyFacts)

    @property
    def cause(self) -> Cause:
        """Why it ended, with what is on record about it."""
        warned = self.record.warned_of(self.subject.arn)
        match self.subject:
            case Task() as task:
                return classify(task, warned=warned)
            case Refusal():
                return Cause.NO_SPOT_CAPACITY
            case Gone(capacity=capacity, started=started):
                on_spot = capacity == FARGATE_SPOT
                return Cause.SPOT_INTERRUPTION if on_spot and (warned or started) else Cause.OTHER

    @property
    def has_exited(self) -> bool:
        """Whether the flow's container has stopped for certain."""
        return not isinstance(self.subject, Task) or self.subject.exited

    @property
    def exited_at(self) -> datetime | None:
        """When the flow's container stopped; None while it runs, or where ECS does not say."""
        return self.subject.exited_at if isinstance(self.subject, Task) else None

    @property
    def interruption(self) -> Interruption | None:
        """The interruption on record; None for none."""
        return self.record.interruptions.get(self.subject.arn)

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
        if self.cause is Cause.NO_SPOT_CAPACITY:
            return rerun_state_of_refusal(self.history)
        return rerun_state_of_task(self.subject.arn, self.history)

    def with_record(self, record: RunRecord) -> "Snapshot":
        """Return the same snapshot with another record."""
        return replace(self, record=record)
