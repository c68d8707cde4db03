"""One run under its lease: look, decide, perform, until `core/rescue/decide.py` asks for no more.

`react` and `sweep` both come through here. Each step that moves the run is followed by another
look, so the next step is decided from what is, not from what was expected.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Final, assert_never
from uuid import UUID

from chalicelib import errors
from chalicelib.core.metrics import Measured, values_of_rescue
from chalicelib.core.model.ecs_task import Task
from chalicelib.core.model.flow_run import (
    FlowRun,
    ProposedState,
    RunChange,
    RunRecord,
    RunState,
    StateType,
    StateVerdict,
)
from chalicelib.core.model.text import one_line
from chalicelib.core.policies.facts import Guard, Missing, PolicyFacts
from chalicelib.core.ports import Context, Prefect
from chalicelib.core.rescue import actions
from chalicelib.core.rescue.actions import Decision
from chalicelib.core.rescue.decide import settle
from chalicelib.core.rescue.orphans import FORGOTTEN_AFTER, noted_task
from chalicelib.core.rescue.snapshot import Snapshot, Subject

LEASE_PAUSES_SECONDS: Final = (0.3, 0.7, 1.5, 2.5)
"""Waits for a lease that another handler holds: a rescue takes about a second."""


def rescue(
    context: Context, flow_run_id: UUID, subject: Subject, *, swept: bool = False
) -> Decision:
    """Do what the end of `subject` requires of the run; return the last decision.

    `swept`: the events had their time, and ECS has no live task of the run, nor a newer one.

    Raises, both retryable: LeaseHeldError when another handler has the run, PrefectSpotError when
    Prefect or the table failed or the run's state changed concurrently.
    """
    record = _acquire(context, flow_run_id, () if swept else LEASE_PAUSES_SECONDS)
    handling = _Handling(context, subject, record, swept)
    try:
        decision = settle(handling.look, handling.gather, handling.perform)
    except BaseException:
        # A proposal that timed out may still take effect. The lease is left to expire, so that no
        # handler looks too early, finds the run unchanged, and proposes once more.
        if not handling.outcome_unknown:
            with suppress(errors.PrefectSpotError):
                context.records.release(handling.record)
        raise
    context.records.release(handling.record)
    _measure(context, handling, record, decision)
    return decision


def annotate(context: Context, annotation: actions.Annotation) -> None:
    """Add an annotation to its run. Raises PrefectSpotError when some of it failed."""
    prefect, run_id = context.prefect, annotation.log.flow_run_id
    calls = [
        partial(prefect.write_log, annotation.log),
        partial(prefect.write_artifact, annotation.artifact),
    ]
    if annotation.events:
        calls.append(partial(prefect.emit_events, annotation.events))
    if annotation.labels is not None:
        calls.append(partial(prefect.add_labels, run_id, annotation.labels))
    if annotation.tags:
        calls.append(partial(_add_tags, prefect, run_id, annotation.tags))
    context.gather(calls)


def _acquire(context: Context, flow_run_id: UUID, pauses_seconds: Sequence[float]) -> RunRecord:
    for seconds in pauses_seconds:
        with suppress(errors.LeaseHeldError):
            return context.records.acquire(flow_run_id, context.now(), context.lease)
        context.pause(seconds)
    return context.records.acquire(flow_run_id, context.now(), context.lease)


@dataclass(slots=True)
class _Handling:
    """One run being handled. `record` is as it is after each step: what a release has to write."""

    context: Context
    subject: Subject
    record: RunRecord
    swept: bool
    outcome_unknown: bool = False
    newer_task: bool | None = None
    deployment_id: UUID | None = None
    facts: PolicyFacts | Missing | None = None

    @property
    def log_keys(self) -> dict[str, str]:
        """The ids that every log line has."""
        return {"flow_run_id": str(self.record.flow_run_id), "task_arn": self.subject.arn}

    def look(self) -> Snapshot | None:
        context, subject = self.context, self.subject
        found = _read_run(context, self.record.flow_run_id)
        if found is None:
            return None
        run, history = found
        self.deployment_id = run.deployment_id
        if self.newer_task is None:
            task = subject if isinstance(subject, Task) and not self.swept else None
            self.newer_task = task is not None and _has_newer_task(context, run, task)
        record, policy, now = self.record, context.policy, context.now()
        return Snapshot(subject, run, history, record, policy, now, self.newer_task, self.swept)

    def gather(self, snapshot: Snapshot, guards: tuple[Guard, ...]) -> PolicyFacts | Missing:
        """Fetch the guards' facts, once per handling."""
        from chalicelib.functions.policy_facts import gather_facts  # 5 ms of a cold start's 220

        if self.facts is None:
            self.facts = gather_facts(self.context, snapshot, guards)
        return self.facts

    def perform(self, snapshot: Snapshot, decision: Decision) -> bool:
        """Perform the actions in order; False as soon as one asks for another look."""
        self.context.log.info(
            "decided",
            **decision.summary,
            mode=snapshot.policy.mode.value,
            run_state=one_line(snapshot.run.state.name),
            **self.log_keys,
        )
        return all(self.step(action) for action in decision.actions)

    def step(self, action: actions.Action) -> bool:
        prefect, run_id = self.context.prefect, self.record.flow_run_id
        match action:
            case actions.Save(record):
                self.context.records.save(record)
                self.record = record
                return True
            case actions.Park(transition_id, until, message, force):
                self.propose(_awaiting_retry(message, transition_id, until), force=force)
                return False
            case actions.Change(change):
                prefect.change_run(run_id, change)
                return True
            case actions.MakeDue(transition_id, at, message):
                return self.propose(_awaiting_retry(message, transition_id, at))
            case actions.Restore(old):
                same = ProposedState(
                    old.type, old.name, old.message, details=old.details, data=old.data
                )
                self.propose(same, force=True)
                return False
            case actions.End(state, message):
                return self.propose(ProposedState(state, state.value.capitalize(), message))
            case actions.Annotate(annotation, record):
                try:
                    annotate(self.context, annotation)
                    self.record = record
                except Exception:  # the run is rescued; the task's next event annotates it
                    self.context.log.exception("annotating the flow run failed", **self.log_keys)
                return True
        assert_never(action)

    def propose(self, state: ProposedState, *, force: bool = False) -> bool:
        """Propose a state; False: look whether the run has it.

        Raises PrefectUnavailableError: it had no effect; PrefectTimeoutError: it may have one yet.
        """
        try:
            answer = self.context.prefect.propose_state(self.record.flow_run_id, state, force=force)
        except errors.PrefectTimeoutError:
            self.outcome_unknown = True  # another look would come too early to show it
            raise
        except errors.PrefectOutcomeUnknownError:
            # Prefect may have accepted it, and a worker may have the run: a second proposal would
            # park the run, or make it due, beside its new container.
            self.context.log.exception("no answer to a proposed state", **self.log_keys)
            return False
        now = answer.state.transition_id if answer.state else None
        is_ours = now is not None and now == state.transition_id  # or was, when sent before
        return answer.verdict is StateVerdict.ACCEPT or is_ours


def _read_run(context: Context, flow_run_id: UUID) -> tuple[FlowRun, tuple[RunState, ...]] | None:
    """Return the run and its history, the run's own state last; None for an unknown run."""
    prefect = context.prefect
    reads = (prefect.read_history, prefect.read_run)
    history, run = context.gather([partial(read, flow_run_id) for read in reads])
    if run and run.state.id in {state.id for state in history[:-1]}:
        run = prefect.read_run(flow_run_id)  # it moved on between the two
    if run is None:
        return None
    earlier = tuple(state for state in history if state.id != run.state.id)
    return run, (*earlier, run.state)


def _has_newer_task(context: Context, run: FlowRun, task: Task) -> bool:
    """Whether the run's `infrastructure_pid` names a task created later, or one that still runs.

    A mere mismatch proves nothing: the worker notes the task after RunTask, and sometimes never.
    But while another task of the run lives, a rerun would run the flow twice.
    """
    cluster, noted_arn = noted_task(run)
    if not noted_arn or noted_arn == task.arn:
        return False
    noted = context.tasks.describe(cluster or task.cluster_arn, noted_arn)
    if noted is not None and not noted.exited:
        return True
    if noted is not None and noted.created_at is not None and task.created_at is not None:
        return noted.created_at > task.created_at
    last_seen = task.exited_at or task.updated_at or task.created_at
    return last_seen is None or context.now() - last_seen > FORGOTTEN_AFTER


def _measure(context: Context, handling: _Handling, before: RunRecord, decision: Decision) -> None:
    """Count it for CloudWatch. The rescue has happened: nothing here may make it look undone."""
    values = values_of_rescue(handling.subject.arn, before, handling.record, decision)
    deployment = ""
    with suppress(errors.PrefectSpotError):
        if values and handling.deployment_id is not None:
            deployment = context.prefect.read_deployment_name(handling.deployment_id)
    context.measure(Measured(deployment, values))


def _awaiting_retry(message: str, transition_id: UUID, at: datetime) -> ProposedState:
    return ProposedState(StateType.SCHEDULED, "AwaitingRetry", message, transition_id, at)


def _add_tags(prefect: Prefect, flow_run_id: UUID, tags: Sequence[str]) -> None:
    fresh = prefect.read_run(flow_run_id)
    missing = [tag for tag in tags if fresh and tag not in fresh.tags]
    if fresh and missing:
        prefect.change_run(flow_run_id, RunChange(tags=(*fresh.tags, *missing)))
