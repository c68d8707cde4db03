"""One recorded interruption decided again: the product's `decide`, on a run made of the record.

The run is played as far as a handler plays it: what is saved is kept, what is parked is looked at
again, until the run is due or the decision asks for nothing more.
"""

from dataclasses import replace
from datetime import datetime
from typing import Final
from uuid import NAMESPACE_URL, UUID, uuid5

from chalicelib.core.actions import MakeDue, Park, Save
from chalicelib.core.decide import decide
from chalicelib.core.guards.facts import GuardPolicy, has_deadline_tag
from chalicelib.core.record import Interruption, RunRecord
from chalicelib.core.run import FlowRun, RunPolicy, RunState, StateType
from chalicelib.core.situation import Policy, Situation
from chalicelib.core.task import (
    DRILL_STOP_REASON,
    FARGATE,
    FARGATE_SPOT,
    SPOT_STOP_CODES,
    Cause,
    Task,
)
from spotctl.replay.history import Attempt, RecordedRun

_MOST_LOOKS: Final = 4


def situation_of(
    run: RecordedRun,
    attempt: Attempt,
    capacity: str,
    record: RunRecord,
    policy: Policy,
    now: datetime,
) -> Situation:
    """Return what there is to decide about the end of an attempt, as if it had been on `capacity`.

    `record` is what the replay has noted of the run so far; `now` is when it is decided.
    """
    interruption = attempt.interruption or Interruption(attempt.bill.task_arn, 0, "", "")
    # An older release did not keep the state: the run is taken to have been at work.
    type_ = StateType(interruption.run_state or StateType.RUNNING)
    state_id = uuid5(NAMESPACE_URL, f"{interruption.task_arn} as recorded")
    state = RunState(state_id, type_, type_.value.capitalize(), now)
    return Situation(
        task=_task(run.flow_run_id, attempt, interruption, capacity, now),
        run=FlowRun(
            id=run.flow_run_id,
            name="",
            state=state,
            deployment_id=run.deployment_id,
            tags=interruption.tags,
            policy=RunPolicy(retries=run.own_retries),
        ),
        history=(state,),
        record=record,
        policy=policy,
        now=now,
    )


def answered(situation: Situation) -> tuple[str, RunRecord]:
    """Return the capacity of the rerun that is decided, empty for none, and the record then."""
    for _ in range(_MOST_LOOKS):
        parked: RunState | None = None
        for action in decide(situation).actions:
            match action:
                case Save(record):
                    situation = situation.after(record)
                case Park(transition_id):
                    parked = _parked(transition_id, situation.now)
                    break
                case MakeDue():
                    noted = situation.record.interruptions[situation.task.arn]
                    return noted.rerun_on, situation.record
                case _:
                    pass  # what is for people, or for the run's variables, changes no figure
        if parked is None:
            break
        situation = replace(
            situation,
            run=replace(situation.run, state=parked),
            history=(*situation.history, parked),
        )
    return "", situation.record


def without_guards(s: Situation) -> Situation:
    """Return the situation as it would be with no guard on: the budget alone decides."""
    tags = tuple(tag for tag in s.run.tags if not has_deadline_tag([tag]))
    policy = replace(s.policy, guards=GuardPolicy())
    return replace(s, run=replace(s.run, tags=tags), policy=policy)


def guarded(record: RunRecord, interruption: Interruption) -> RunRecord:
    """Return the record with what a guard said at the time: FARGATE, before the budget would."""
    noted = record.interruptions[interruption.task_arn]
    moved = replace(
        noted,
        rerun_on=FARGATE,
        guard=interruption.guard,
        guard_reason=interruption.guard_reason,
    )
    return replace(record.with_interruption(moved), next_capacity=FARGATE)


def _task(
    flow_run_id: UUID, attempt: Attempt, interruption: Interruption, capacity: str, now: datetime
) -> Task:
    """The task as ECS told of it. Its cause is the bill's, whatever its last stop code said."""
    is_drill = attempt.bill.cause is Cause.DRILL
    return Task(
        arn=interruption.task_arn,
        cluster_arn=interruption.cluster_arn,
        last_status="STOPPED",
        stop_code=interruption.stop_code if is_drill else SPOT_STOP_CODES[0],
        stopped_reason=DRILL_STOP_REASON if is_drill else interruption.reason,
        capacity_provider=FARGATE_SPOT if capacity == FARGATE_SPOT else "",
        availability_zone=interruption.availability_zone,
        flow_run_id=flow_run_id,
        pull_started_at=attempt.began_at,
        execution_stopped_at=now,
    )


def _parked(transition_id: UUID, at: datetime) -> RunState:
    state_id = uuid5(transition_id, "as replayed")
    return RunState(state_id, StateType.SCHEDULED, "AwaitingRetry", at, transition_id=transition_id)
