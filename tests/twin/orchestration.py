"""Prefect's orchestration rules for flow runs, as pure functions: the twin's judge.

Row by row after `prefect/server/orchestration/core_policy.py` of 3.8.8, in the order of its
`CoreFlowPolicy`; where 3.4 differs, `oldest` says so. The contract suite holds it to real servers.
Left out is what no test does: suspended runs, and marking runs late.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import pairwise
from math import floor
from uuid import UUID

from chalicelib.core.model.flow_run import (
    FINAL_STATES,
    ProposedState,
    RunState,
    StateType,
    StateVerdict,
)

HOLDING_A_SLOT = frozenset({StateType.PENDING, StateType.RUNNING, StateType.CANCELLING})
SLOT_WAIT = timedelta(seconds=30)
LIMIT_REACHED = "Deployment concurrency limit reached."


@dataclass(slots=True)
class Deployment:
    """A deployment; `collision` is ENQUEUE or CANCEL_NEW, for when its limit is reached."""

    id: UUID
    work_pool_name: str
    concurrency_limit: int | None = None
    collision: str = "ENQUEUE"
    job_variables: Mapping[str, object] = field(default_factory=dict)


@dataclass(slots=True)
class TwinRun:
    """A flow run as the twin keeps it; `policy` is Prefect's `empirical_policy`.

    `parent_run_id`: the run that started it, by a task run of its own.
    """

    id: UUID
    name: str
    work_pool_name: str | None
    deployment: Deployment | None
    tags: tuple[str, ...]
    job_variables: Mapping[str, object]
    policy: dict[str, object]
    labels: dict[str, object] = field(default_factory=dict)
    states: list[RunState] = field(default_factory=list)
    run_count: int = 0
    infrastructure_pid: str | None = None
    parent_run_id: UUID | None = None
    expected_start: datetime | None = None
    next_start: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    holds_slot: bool = False
    has_persisted_result: bool = False

    @property
    def state(self) -> RunState:
        return self.states[-1]

    @property
    def run_seconds(self) -> float:
        """How long it has run, in all its attempts."""
        ran = (
            after.timestamp - before.timestamp
            for before, after in pairwise(self.states)
            if before.type is StateType.RUNNING
        )
        return sum(ran, timedelta()).total_seconds()


@dataclass(frozen=True, slots=True)
class Ruling:
    """What becomes of a proposal: `written` is the state to store, None for none.

    `before` and `after` are changes of the policy, around the counting of starts.
    """

    verdict: StateVerdict
    reason: str = ""
    written: ProposedState | None = None
    before: Mapping[str, object] = field(default_factory=dict)
    after: Mapping[str, object] = field(default_factory=dict)


def judge(
    run: TwinRun, proposed: ProposedState, now: datetime, *, slot_free: bool, oldest: bool
) -> Ruling:
    """Return what an unforced proposal comes to."""
    current, kind = run.state, proposed.type
    if proposed.transition_id is not None and proposed.transition_id == current.transition_id:
        return _reject("This run has already made this state transition.")
    ruling = (
        _leaving_a_final_state(run, proposed, oldest=oldest)
        or _leaving_cancelling(current, kind, oldest=oldest)
        or _cancelling_without_infrastructure(run, kind)
        or _becoming_pending(current, proposed, oldest=oldest)
        or _without_a_slot(run, kind, now, slot_free=slot_free)
        or _becoming_paused(run, kind)
        or _leaving_paused(run, kind, now, oldest=oldest)
        or _starting_too_early(current, kind, now)
        or _failing(run, proposed, now)
    )
    return ruling or _accept(run, proposed)


def judge_forced(run: TwinRun, proposed: ProposedState, *, oldest: bool) -> Ruling:
    """Return what a forced proposal comes to: few rules remain."""
    return (
        _losing_a_result(run, proposed.type, oldest=oldest)
        or _cancelling_without_infrastructure(run, proposed.type)
        or Ruling(StateVerdict.ACCEPT, written=proposed)
    )


def _reject(reason: str, instead: ProposedState | None = None) -> Ruling:
    return Ruling(StateVerdict.REJECT, reason, instead)


def _abort(reason: str) -> Ruling:
    return Ruling(StateVerdict.ABORT, reason)


def _accept(run: TwinRun, proposed: ProposedState) -> Ruling:
    current, kind = run.state, proposed.type
    before: dict[str, object] = {}
    after: dict[str, object] = {}
    if current.is_final and kind not in FINAL_STATES:
        retry_type = "reschedule" if kind is StateType.SCHEDULED else None
        before = {"resuming": False, "pause_keys": [], "retry_type": retry_type}
    if current.type is StateType.RUNNING and kind is StateType.FAILED:
        before = {"retry_type": None}
    if current.type is StateType.PAUSED:
        after = {"resuming": True}
    if kind is StateType.PAUSED:
        after = {"pause_keys": [*_pause_keys(run), proposed.details.get("pause_key")]}
    if kind is StateType.PENDING and current.type is StateType.SCHEDULED:
        scheduled_time = current.details.get("scheduled_time")
        proposed = replace(proposed, details={"scheduled_time": scheduled_time, **proposed.details})
    return Ruling(StateVerdict.ACCEPT, "", proposed, before, after)


def _leaving_a_final_state(run: TwinRun, proposed: ProposedState, *, oldest: bool) -> Ruling | None:
    current, kind = run.state, proposed.type
    if not current.is_final:
        return None
    if kind in (StateType.CANCELLING, StateType.PAUSED, StateType.CRASHED):
        return _abort(f"Run is already in terminal state {current.type.value}.")
    is_kept = current.type is StateType.COMPLETED and run.has_persisted_result
    if is_kept and kind not in FINAL_STATES:
        return _reject("Run is already COMPLETED.")
    if kind is StateType.SCHEDULED and run.deployment is None:
        return _abort("Cannot reschedule a run without an associated deployment.")
    return _losing_a_result(run, kind, oldest=oldest)


def _losing_a_result(run: TwinRun, kind: StateType, *, oldest: bool) -> Ruling | None:
    """A state proposed through the port carries no result."""
    both_completed = run.state.type is kind is StateType.COMPLETED
    if both_completed and run.has_persisted_result and not oldest:
        return _reject(
            "Cannot overwrite a COMPLETED state that carries persisted result data with one that"
            " does not."
        )
    return None


def _leaving_cancelling(current: RunState, kind: StateType, *, oldest: bool) -> Ruling | None:
    # 3.4 holds a CANCELLED run as tightly as a CANCELLING one: it can only be forced out.
    held = {StateType.CANCELLING, StateType.CANCELLED} if oldest else {StateType.CANCELLING}
    if current.type in held and kind is not StateType.CANCELLED:
        return _reject(
            "Cannot transition flows that are cancelling to a state other than Cancelled."
        )
    return None


def _cancelling_without_infrastructure(run: TwinRun, kind: StateType) -> Ruling | None:
    current = run.state
    if kind is not StateType.CANCELLING:
        return None
    cancelled = ProposedState(StateType.CANCELLED, "Cancelled")
    is_scheduled = current.type is StateType.SCHEDULED
    if is_scheduled and not run.infrastructure_pid:
        return _reject("Scheduled flow run has no infrastructure to terminate.", cancelled)
    return None


def _becoming_pending(current: RunState, proposed: ProposedState, *, oldest: bool) -> Ruling | None:
    closed = (StateType.PENDING, StateType.CANCELLING, StateType.RUNNING, StateType.CANCELLED)
    if proposed.type is not StateType.PENDING or current.type not in closed:
        return None
    is_step_on = proposed.name not in ("Pending", current.name)
    if current.type is StateType.PENDING and is_step_on and not oldest:
        return None
    return _abort(
        f"This run is in a {current.type.value} state and cannot transition to a PENDING state."
    )


def _without_a_slot(
    run: TwinRun, kind: StateType, now: datetime, *, slot_free: bool
) -> Ruling | None:
    deployment = run.deployment
    if kind is not StateType.PENDING or run.state.type in HOLDING_A_SLOT:
        return None
    if deployment is None or deployment.concurrency_limit is None or slot_free:
        return None
    if deployment.collision == "CANCEL_NEW":
        return _reject(
            LIMIT_REACHED, ProposedState(StateType.CANCELLED, "Cancelled", LIMIT_REACHED)
        )
    waiting = ProposedState(
        StateType.SCHEDULED, "AwaitingConcurrencySlot", scheduled_time=now + SLOT_WAIT
    )
    return _reject(LIMIT_REACHED, waiting)


def _becoming_paused(run: TwinRun, kind: StateType) -> Ruling | None:
    if kind is StateType.PAUSED and run.state.type is not StateType.RUNNING:
        return _reject("Cannot pause flows that are not currently running.")
    return None


def _leaving_paused(run: TwinRun, kind: StateType, now: datetime, *, oldest: bool) -> Ruling | None:
    current = run.state
    if current.type is not StateType.PAUSED:
        return None
    is_cancelling = kind is StateType.CANCELLING
    ways_out = {StateType.RUNNING, StateType.SCHEDULED, *FINAL_STATES}
    if kind not in ways_out and (oldest or not is_cancelling):
        return _reject(
            f"This run cannot transition to the {kind.value} state from the PAUSED state."
        )
    timeout = current.details.get("pause_timeout")
    if isinstance(timeout, str) and datetime.fromisoformat(timeout) < now and not is_cancelling:
        never_resumed = ProposedState(
            StateType.FAILED, "Failed", "The flow was paused and never resumed."
        )
        return _reject("The flow run pause has timed out and can no longer resume.", never_resumed)
    return None


def _starting_too_early(current: RunState, kind: StateType, now: datetime) -> Ruling | None:
    waits = current.type in (StateType.SCHEDULED, StateType.PENDING)
    scheduled_time = current.details.get("scheduled_time")
    if kind is not StateType.RUNNING or not waits or not isinstance(scheduled_time, str):
        return None
    delay = datetime.fromisoformat(scheduled_time) - now
    if floor(delay.total_seconds()) + round(delay.microseconds / 1e6) > 0:
        return Ruling(StateVerdict.WAIT, "Scheduled time is in the future")
    return None


def _failing(run: TwinRun, proposed: ProposedState, now: datetime) -> Ruling | None:
    """An own retry: the server grants it while `run_count <= retries`."""
    if run.state.type is not StateType.RUNNING or proposed.type is not StateType.FAILED:
        return None
    retries, delay = run.policy.get("retries"), run.policy.get("retry_delay")
    if not isinstance(retries, int) or run.run_count > retries:
        return None
    at = now + timedelta(seconds=delay if isinstance(delay, int) else 0)
    retry = ProposedState(StateType.SCHEDULED, "AwaitingRetry", proposed.message, scheduled_time=at)
    policy = {"resuming": False, "pause_keys": [], "retry_type": "in_process"}
    return Ruling(StateVerdict.REJECT, "Retrying", retry, before=policy)


def _pause_keys(run: TwinRun) -> list[object]:
    keys = run.policy.get("pause_keys")
    return list(keys) if isinstance(keys, list) else []
