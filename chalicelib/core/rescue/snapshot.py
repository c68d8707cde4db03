"""What a decision is made from: what ended, its run and record, and how far its rerun has come.

How far is read from the run's own state history, by transition ids. Prefect rejects a transition id
only when it repeats the current one, but its history keeps every id. The ids derive from the task,
so a rerun that another handler began, or one that was made twice, is recognised.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum, auto
from typing import Final
from uuid import NAMESPACE_URL, UUID, uuid5

from chalicelib.core.model.ecs_task import FARGATE_SPOT, Cause, Task, classify
from chalicelib.core.model.flow_run import FlowRun, Interruption, RunRecord, RunState, StateType
from chalicelib.core.model.policy import Budget, Policy, budget_of, reason_not_to_rerun
from chalicelib.core.policies.facts import NOT_GATHERED, Missing, PolicyFacts

CONCURRENCY_CANCELLATION: Final = "concurrency limit"
MOST_PARKS: Final = 20
"""How often a run is rerun for one task, when its rerun is crashed or cancelled before it began."""


class Progress(Enum):
    """How far a rerun has come."""

    NOT_STARTED = auto()
    PARKED = auto()
    REVERTED = auto()
    """It was made due; before a new attempt began, an automation or a late observer crashed the
    run, or a concurrency limit cancelled it."""
    HANDLED = auto()


@dataclass(frozen=True, slots=True)
class RerunState:
    """The progress, and the transition id to park with (or that the run is parked with).

    `made_due`: a HANDLED rerun that was not was undone, or the run has moved on without it.
    `overwritten`: the state that our park replaced though it ended or paused the run: restore it.
    `was_cancelling`: a CRASHED run was being cancelled before. An engine that is its container's
    main process sets Crashed, by force, when it dies of SIGTERM.
    """

    progress: Progress
    park_id: UUID
    made_due: bool = False
    overwritten: RunState | None = None
    was_cancelling: bool = False


def park_id_of_task(task_arn: str) -> UUID:
    """Return the transition id of the parked state that answers a task's interruption."""
    return uuid5(NAMESPACE_URL, task_arn)


def park_id_of_state(state_id: UUID) -> UUID:
    """Return the transition id of the parked state that answers a state, where no task started."""
    return uuid5(NAMESPACE_URL, f"prefect-spot:{state_id}")


def due_id(park_id: UUID) -> UUID:
    """Return the transition id of the state that makes a parked run due."""
    return uuid5(park_id, "due")


def park_ids_of(task_arn: str, history: Sequence[RunState]) -> frozenset[UUID]:
    """Return every transition id that a run may have been parked with because of a task.

    The first is the task's; after each state that reverted the rerun, that state gives a new one.
    """
    first = park_id_of_task(task_arn)
    return frozenset({first, *(uuid5(first, str(state.id)) for state in history)})


def was_made_due(task_arn: str, history: Sequence[RunState]) -> bool:
    """Whether the rerun for that task was completed: then it is not the run's latest task."""
    dues = set(map(due_id, park_ids_of(task_arn, history)))
    return any(state.transition_id in dues for state in history)


def rerun_state_of_task(task_arn: str, history: Sequence[RunState]) -> RerunState:
    """Return how far the rerun for an interrupted task has come; `history` is not empty."""
    park_ids, current = park_ids_of(task_arn, history), history[-1]
    if current.type is StateType.SCHEDULED and current.transition_id in park_ids:
        overwritten = _overwritten(task_arn, history, current.transition_id)
        return RerunState(Progress.PARKED, current.transition_id, overwritten=overwritten)
    was_cancelling = _was_cancelling(history, park_ids)
    first, dues = park_id_of_task(task_arn), set(map(due_id, park_ids))
    touched = [i for i, s in enumerate(history) if s.transition_id in park_ids | dues]
    if not touched:
        return RerunState(Progress.NOT_STARTED, first, was_cancelling=was_cancelling)
    since = history[touched[-1] + 1 :]
    made_due = history[touched[-1]].transition_id in dues
    has_begun = any(s.type in (StateType.RUNNING, StateType.CANCELLING) for s in since)
    parks = sum(s.transition_id in park_ids for s in history)
    by_a_limit = CONCURRENCY_CANCELLATION in current.message.lower()
    was_ended = current.type is StateType.CRASHED or (
        current.type is StateType.CANCELLED and by_a_limit
    )
    is_reverted = made_due and not has_begun and was_ended and parks <= MOST_PARKS
    progress = Progress.REVERTED if is_reverted else Progress.HANDLED
    next_id = uuid5(first, str(current.id))
    return RerunState(progress, next_id, made_due, was_cancelling=was_cancelling)


def rerun_state_of_refusal(history: Sequence[RunState]) -> RerunState:
    """Return how far the rerun for a refused placement (no Spot capacity) has come."""
    current = history[-1]
    park_ids = {park_id_of_state(state.id) for state in history}
    if current.type is StateType.SCHEDULED and current.transition_id in park_ids:
        before = history[-2] if len(history) > 1 and _must_not_be_parked(history[-2]) else None
        return RerunState(Progress.PARKED, current.transition_id, overwritten=before)
    return RerunState(Progress.NOT_STARTED, park_id_of_state(current.id))


def _overwritten(task_arn: str, history: Sequence[RunState], park_id: UUID) -> RunState | None:
    """The state before the park, unless the park was made in order to replace it."""
    if len(history) < 2 or not _must_not_be_parked(history[-2]):
        return None
    earlier = rerun_state_of_task(task_arn, history[:-1])
    is_meant = earlier.progress is Progress.REVERTED and earlier.park_id == park_id
    return None if is_meant else history[-2]


def _must_not_be_parked(state: RunState) -> bool:
    return state.is_over or state.type is StateType.PAUSED


def _was_cancelling(history: Sequence[RunState], park_ids: frozenset[UUID]) -> bool:
    by_others = (s.type for s in reversed(history) if s.transition_id not in park_ids)
    return next((t for t in by_others if t is not StateType.CRASHED), None) is StateType.CANCELLING


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
    run. `facts`: what the policies judge by, gathered only where `facts_needed` asked for some.
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
                by_spot = capacity == FARGATE_SPOT and (warned or started)
                return Cause.SPOT_INTERRUPTION if by_spot else Cause.OTHER

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
        """When the flow's container stopped; of a gone task, when the run's last state began."""
        if isinstance(self.subject, Gone):
            return self.history[-1].timestamp
        return self.task.exited_at if self.task else None

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
