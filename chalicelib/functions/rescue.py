"""One run under its lease: look, decide, perform, until `core/rescue/decide.py` asks for no more.

`react` and `sweep` both come through here. Each step that moves the run is followed by another
look, so the next step is decided from what is, not from what was expected.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final, assert_never
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
from chalicelib.core.ports import Context
from chalicelib.core.rescue import actions
from chalicelib.core.rescue.actions import Decision, Verdict
from chalicelib.core.rescue.capacity import move_without_effect
from chalicelib.core.rescue.decide import settle
from chalicelib.core.rescue.notification import notification_of
from chalicelib.core.rescue.rerun_state import Progress, rerun_state_of
from chalicelib.core.rescue.snapshot import Remains, Snapshot, Subject
from chalicelib.functions.annotating import annotate, notify
from chalicelib.functions.run_tasks import (
    calls_for_remains,
    crash_task_runs,
    has_other_task,
    read_whole,
)

_Found = tuple[FlowRun, tuple[RunState, ...]]
UNDECIDED: Final = Decision(Verdict.IGNORE, "nothing was decided")
LEASE_PAUSES_SECONDS: Final = (0.3, 0.7, 1.5, 2.5)
"""Waits for a lease that another handler holds: a rescue takes about a second."""


def rescue(
    context: Context, flow_run_id: UUID, subject: Subject, *, swept: UUID | None = None
) -> Decision:
    """Do what the end of `subject` requires of the run; return the last decision.

    `swept`: the id of the run's state when `sweep` found that ECS has no live task of it, nor a
    newer one, and that the events had had their time; a run that has left that state is left alone.

    Raises, both retryable: LeaseHeldError when another handler has the run, PrefectSpotError when
    Prefect or the table failed or the run's state changed concurrently.
    """
    record = _acquire(context, flow_run_id, () if swept else LEASE_PAUSES_SECONDS)
    handling = _Handling(context, subject, record, swept)
    try:
        decision = handling.repeat() or settle(
            handling.look, handling.gather, handling.perform, handling.find_remains
        )
    except BaseException:
        # A proposal that timed out may still take effect. The lease is left to expire, so that no
        # handler looks too early, finds the run unchanged, and proposes once more.
        if not handling.outcome_unknown:
            with suppress(errors.PrefectSpotError):
                _notify(context, handling, record, handling.decided)
                context.records.release(handling.record)
                _measure(context, handling, record, handling.decided)
        raise
    _notify(context, handling, record, decision)
    context.records.release(handling.record)
    _measure(context, handling, record, decision)
    return decision


def _acquire(context: Context, flow_run_id: UUID, pauses_seconds: Sequence[float]) -> RunRecord:
    for seconds in pauses_seconds:
        with suppress(errors.LeaseHeldError):
            return context.records.acquire(flow_run_id, context.now(), context.lease)
        context.pause(seconds)
    return context.records.acquire(flow_run_id, context.now(), context.lease)


@dataclass(slots=True)
class _Handling:
    """One run being handled. `record` is as it is after each step: what a release has to write.

    `also`: calls to make together with the next look; `remains`: what they returned with the last.
    """

    context: Context
    subject: Subject
    record: RunRecord
    swept: UUID | None
    outcome_unknown: bool = False
    newer_task: bool | None = None
    rejection: str = ""
    decided: Decision = UNDECIDED
    ended: bool = False
    found: _Found | None = None
    proposed: RunState | None = None
    facts: PolicyFacts | Missing | None = None
    also: list[Callable[[], Any]] = field(default_factory=list)
    remains: list[Any] = field(default_factory=list)

    @property
    def run(self) -> FlowRun | None:
        """The run as it was last read."""
        return self.found[0] if self.found else None

    @property
    def log_keys(self) -> dict[str, str]:
        """The ids that every log line has."""
        return {"flow_run_id": str(self.record.flow_run_id), "task_arn": self.subject.arn}

    def repeat(self) -> Decision | None:
        """Return the decision about an end that needs no more than it got; None for any other."""
        task, known = self.subject, self.record.interruptions.get(self.subject.arn)
        if known is None or self.swept is not None or not isinstance(task, Task):
            return None
        if not task.exited and known.warning_annotated and known.exited_at is None:
            decision = Decision(Verdict.WARNED, "the warning is annotated already")
        elif task.exited and known.outcome_annotated and self.is_rerun():
            decision = Decision(Verdict.IGNORE, "this interruption is already handled")
        else:
            return None
        self.context.log.info("decided", **decision.summary, **self.log_keys)
        return decision

    def is_rerun(self) -> bool:
        """Whether the run was made due, and nothing undid that: its history alone shows it."""
        history = self.context.prefect.read_history(self.record.flow_run_id)
        rerun = rerun_state_of(self.subject.arn, history) if history else None
        return bool(rerun and rerun.made_due and rerun.progress is not Progress.REVERTED)

    def look(self) -> Snapshot | None:
        context, subject = self.context, self.subject
        found, self.remains = self.undisturbed(), []
        if found is None:
            also, self.also = self.also, []
            found, self.remains = read_whole(context, self.record.flow_run_id, also)
        self.found = found
        if found is None:
            return None
        run, history = found
        if self.newer_task is None and self.swept is not None:
            self.newer_task = run.state.id != self.swept
        elif self.newer_task is None and isinstance(subject, Task):
            self.newer_task = has_other_task(context, *found, subject)
        rejection, self.rejection = self.rejection, ""  # it says nothing of a later park
        return Snapshot(
            subject,
            run,
            history,
            self.record,
            context.policy,
            context.now(),
            newer_task=bool(self.newer_task),
            swept=self.swept is not None,
            rejection=rejection,
        )

    def undisturbed(self) -> _Found | None:
        """Return the run in the state that Prefect answered, when nothing else happened to it.

        None: its history says otherwise, or it is to be read whole.
        """
        state, self.proposed = self.proposed, None
        if state is None or self.found is None:
            return None
        run, known = self.found
        history = self.context.prefect.read_history(run.id)
        is_next = [s.id for s in history] == [*(s.id for s in known), state.id]
        return (replace(run, state=history[-1]), history) if is_next else None

    def gather(self, snapshot: Snapshot, guards: tuple[Guard, ...]) -> PolicyFacts | Missing:
        """Fetch the guards' facts, once per handling."""
        from chalicelib.functions.policy_facts import gather_facts  # 5 ms of a cold start's 220

        if self.facts is None:
            self.facts = gather_facts(self.context, snapshot, guards)
        return self.facts

    def find_remains(self, snapshot: Snapshot) -> Remains:
        """Return what the dead attempt left: read with this look, right after a park, or now."""
        run, capacity = snapshot.run, snapshot.record.next_capacity
        calls = calls_for_remains(self.context, run, snapshot.history, capacity)
        deployment, defaults, (subflows, task_runs) = self.remains or self.context.gather(calls)
        return Remains(deployment, defaults, subflows, task_runs)

    def perform(self, snapshot: Snapshot, decision: Decision) -> bool:
        """Perform the actions in order; False as soon as one asks for another look."""
        self.context.log.info(
            "decided",
            **decision.summary,
            mode=snapshot.policy.mode.value,
            run_state=one_line(snapshot.run.state.name),
            **self.log_keys,
        )
        if decision.verdict is Verdict.RERUN_ON_DEMAND and (why := move_without_effect(snapshot)):
            self.context.log.info("a move had no effect", reason=why, **self.log_keys)
        self.decided = decision
        is_done = all(self.step(action) for action in decision.actions)
        return is_done and not any(isinstance(a, actions.End) for a in decision.actions)

    def step(self, action: actions.Action) -> bool:
        match action:
            case actions.Save(record):
                self.context.records.save(record)
                self.record = record
            case actions.Park():
                self.park(action)
                return False
            case actions.Change(change):
                return self.change(change)
            case actions.ChangeSubflow(subflow_id, change):
                with suppress(errors.PrefectRejectedError):  # it is gone
                    self.context.prefect.change_run(subflow_id, change)
            case actions.CrashTaskRuns(ids, message):
                crash_task_runs(self.context, ids, message, self.log_keys)
            case actions.MakeDue(transition_id, at, message):
                self.propose(_awaiting_retry(message, transition_id, at))
                return False
            case actions.Restore():
                self.restore(action)
                return False
            case actions.End(state, message, transition_id):
                ended = ProposedState(state, state.value.capitalize(), message, transition_id)
                self.ended = self.propose(ended)
                return self.ended
            case actions.Annotate(annotation, record):
                self.annotate(annotation, record)
            case _:
                assert_never(action)
        return True

    def park(self, action: actions.Park) -> None:
        """Park the run. The next look reads what its rerun needs as well, at the same time."""
        parked = _awaiting_retry(action.message, action.transition_id, action.until)
        if self.propose(parked, force=action.force) and self.found:
            capacity = self.record.next_capacity
            self.also = calls_for_remains(self.context, *self.found, capacity)
        self.proposed = None  # a change replaces whole fields: it needs a fresh read

    def restore(self, action: actions.Restore) -> None:
        """Force the old state. What others made of the run meanwhile, the next sweep judges."""
        old = action.state
        same = ProposedState(
            old.type,
            old.name,
            old.message,
            action.transition_id,
            details=old.details,
            data=old.data,
        )
        self.propose(same, force=True)
        self.proposed = None
        if action.verdict is Verdict.UNDO_RERUN and self.swept is not None:
            self.newer_task = True

    def change(self, change: RunChange) -> bool:
        """PATCH the run. False: Prefect rejects it, and always will while the run is parked."""
        try:
            self.context.prefect.change_run(self.record.flow_run_id, change)
        except errors.PrefectRejectedError as error:
            self.rejection = f"Prefect rejects the change that it needs: {error.what}"
            self.context.log.exception("changing the flow run failed", **self.log_keys)
        return not self.rejection

    def annotate(self, annotation: actions.Annotation, record: RunRecord) -> None:
        """Annotate the run; keep `record` when that succeeded."""
        try:
            annotate(self.context, annotation)
            self.record = record
        except Exception:  # the run is rescued; the task's next event annotates it
            self.context.log.exception("annotating the flow run failed", **self.log_keys)

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
        self.proposed = answer.state
        now = answer.state.transition_id if answer.state else None
        is_ours = now is not None and now == state.transition_id  # or was, when sent before
        return answer.verdict is StateVerdict.ACCEPT or is_ours


def _notify(context: Context, handling: _Handling, before: RunRecord, decision: Decision) -> None:
    """Send the message about what happened, if any: before it is on record that it is annotated."""
    if (run := handling.run) is None:
        return
    subject, after, mode = handling.subject, handling.record, context.policy.mode
    # Where Prefect's answer was lost, the run shows whether it is ended.
    ours = {a.transition_id for a in decision.actions if isinstance(a, actions.End)}
    ended = handling.ended or run.state.transition_id in ours
    found = notification_of(subject, run, before, after, decision, mode, ended=ended)
    if found is not None:
        notify(context, run, found)


def _measure(context: Context, handling: _Handling, before: RunRecord, decision: Decision) -> None:
    """Count it for CloudWatch. The rescue has happened: nothing here may make it look undone."""
    values = values_of_rescue(handling.subject.arn, before, handling.record, decision)
    deployment = ""
    with suppress(errors.PrefectSpotError):
        if values and handling.run and handling.run.deployment_id is not None:
            deployment = context.prefect.read_deployment_name(handling.run.deployment_id)
    work_pool = context.pool_of(handling.run) if handling.run else ""
    context.measure(Measured(deployment, values, work_pool=work_pool))


def _awaiting_retry(message: str, transition_id: UUID, at: datetime) -> ProposedState:
    return ProposedState(StateType.SCHEDULED, "AwaitingRetry", message, transition_id, at)
