"""One interrupted run, under its lease: gather the truth, decide, apply, look again.

A step that moves the run is followed by another look, so that what comes after it is decided from
what is, not from what was hoped for. `react` and `sweep` both come through here.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final, assert_never
from uuid import UUID

from chalicelib.core.context import Context
from chalicelib.core.metrics import Measured, values_of_rescue
from chalicelib.core.model.ecs_task import Task
from chalicelib.core.model.flow_run import (
    FlowRun,
    ProposedState,
    RunChange,
    RunState,
    StateAnswer,
    StateType,
    StateVerdict,
)
from chalicelib.core.model.run_record import RunRecord
from chalicelib.core.model.text import one_line
from chalicelib.core.policies.advice import guards_on
from chalicelib.core.policies.facts import GuardFacts
from chalicelib.core.ports import Prefect
from chalicelib.core.rescue.actions import (
    Action,
    Annotate,
    Change,
    Decision,
    MakeDue,
    MarkCancelled,
    MarkCrashed,
    Park,
    PutBack,
    Save,
    Verdict,
)
from chalicelib.core.rescue.annotation import Annotation
from chalicelib.core.rescue.decide import decide
from chalicelib.core.rescue.orphans import FORGOTTEN_AFTER, lives, noted_task
from chalicelib.core.rescue.snapshot import Snapshot
from chalicelib.errors import (
    LAMBDA_RETRIES,
    LeaseHeldError,
    PrefectSpotError,
    PrefectTimeoutError,
    PrefectUnavailableError,
    UnsettledError,
)

MOST_LOOKS: Final = 4
"""Looks at a run before giving up for now: park and finish take two, a race one more."""

LEASE_PAUSES_SECONDS: Final = (0.3, 0.7, 1.5, 2.5)
"""Waits for a lease that another holds: a rescue takes about a second, Lambda's retry a minute."""

_AWAITING_RETRY: Final = "AwaitingRetry"


def rescue(context: Context, flow_run_id: UUID, task: Task, *, swept: bool = False) -> Decision:
    """Bring the run to where the end of `task` shall leave it; return what was decided.

    `swept`: the fast path had its time, and ECS has no live task of the run, nor a newer one.

    Raises:
        LeaseHeldError: another handler is at work on it; retryable.
        PrefectSpotError: Prefect or the table failed, or the run's state changed concurrently;
            retryable.
    """
    record = _acquire(context, flow_run_id, () if swept else LEASE_PAUSES_SECONDS)
    handling = _Handling(context, task, record, swept)
    try:
        decision = handling.settle()
    except BaseException:
        # What Prefect was silent about may yet take effect: the lease is left to run out, so that
        # nobody looks too early, finds it undone, and asks once more.
        if not handling.is_unsure:
            with suppress(PrefectSpotError):
                context.records.release(handling.record)
        raise
    context.records.release(handling.record)
    _measure(context, handling, record, decision)
    return decision


def _acquire(context: Context, flow_run_id: UUID, pauses_seconds: Sequence[float]) -> RunRecord:
    for seconds in pauses_seconds:
        try:
            return context.records.acquire(flow_run_id, context.now(), context.lease)
        except LeaseHeldError:
            context.pause(seconds)
    return context.records.acquire(flow_run_id, context.now(), context.lease)


@dataclass(slots=True)
class _Handling:
    """The record as it is after each step: what a release has to write, whatever happens."""

    context: Context
    task: Task
    record: RunRecord
    swept: bool
    is_unsure: bool = False
    deployment_id: UUID | None = None
    facts: GuardFacts | None = None

    @property
    def names(self) -> dict[str, str]:
        """What every log line says it is about."""
        return {"flow_run_id": str(self.record.flow_run_id), "task_arn": self.task.arn}

    def settle(self) -> Decision:
        newer_task = False if self.swept else None
        for _ in range(MOST_LOOKS):
            seen = _look(self.context, self.record.flow_run_id)
            if seen is None:
                return Decision(Verdict.IGNORE, "Prefect does not know the flow run")
            run, history = seen
            self.deployment_id = run.deployment_id
            if newer_task is None:
                newer_task = _has_newer_task(self.context, run, self.task)
            decision = self.decide(
                Snapshot(
                    task=self.task,
                    run=run,
                    history=history,
                    record=self.record,
                    policy=self.context.policy,
                    now=self.context.now(),
                    newer_task=newer_task,
                    grace_over=self.swept,
                    no_live_task=self.swept,
                )
            )
            self.context.log.info(
                "decided",
                decision=decision.verdict.value,
                reason=decision.reason,
                mode=self.context.policy.mode.value,
                run_state=one_line(run.state.name),
                **self.names,
            )
            if self.perform(decision):
                return decision
        raise UnsettledError(
            f"the state of flow run {self.record.flow_run_id} changed concurrently, {MOST_LOOKS}"
            " times",
            next_step=LAMBDA_RETRIES,
        )

    def decide(self, s: Snapshot) -> Decision:
        """Decide; for a rerun that the budget would put on Spot, with what the guards need."""
        decision = decide(s)
        known = self.record.interruptions.get(self.task.arn)
        asks = decision.verdict is Verdict.RERUN_ON_SPOT and not (known and known.rerun_on)
        if not (asks and guards_on(s)):
            return decision
        from chalicelib.functions.policy_facts import gather_facts  # a cold start does without

        if self.facts is None:
            self.facts = gather_facts(self.context, s)
        return decide(replace(s, facts=self.facts))

    def perform(self, decision: Decision) -> bool:
        """Perform the actions in order; False as soon as one asks for another look."""
        return all(self.step(action) for action in decision.actions)

    def propose(self, state: ProposedState, *, force: bool = False) -> bool:
        """Ask for a state; False when another look has to tell whether the run has it now.

        Raises PrefectTimeoutError when a look would come too early to tell.
        """
        try:
            answer = self.context.prefect.propose_state(self.record.flow_run_id, state, force=force)
        except PrefectTimeoutError:
            self.is_unsure = True
            raise
        except PrefectUnavailableError:
            # It may have been accepted, and a worker have the run: to ask again would be to park it
            # or to make it due beside its new container.
            self.context.log.exception("no answer to a proposed state", **self.names)
            return False
        return _is_done(answer, state)

    def step(self, action: Action) -> bool:
        prefect, run_id = self.context.prefect, self.record.flow_run_id
        match action:
            case Save(record):
                self.context.records.save(record)
                self.record = record
                return True
            case Park(transition_id, until, message, force):
                parked = ProposedState(
                    StateType.SCHEDULED, _AWAITING_RETRY, message, transition_id, until
                )
                self.propose(parked, force=force)
                return False
            case Change(change):
                prefect.change_run(run_id, change)
                return True
            case MakeDue(transition_id, at, message):
                due = ProposedState(
                    StateType.SCHEDULED, _AWAITING_RETRY, message, transition_id, at
                )
                return self.propose(due)
            case PutBack(state):
                self.propose(_as_it_was(state), force=True)
                return False
            case MarkCrashed(message):
                crashed = ProposedState(StateType.CRASHED, "Crashed", message)
                return self.propose(crashed)
            case MarkCancelled(message):
                cancelled = ProposedState(StateType.CANCELLED, "Cancelled", message)
                return self.propose(cancelled)
            case Annotate(annotation, record):
                if self.annotate(annotation):
                    self.record = record
                return True
        assert_never(action)

    def annotate(self, annotation: Annotation) -> bool:
        """Tell people; a failure is logged and tried again with the next event, if one comes."""
        try:
            tell_people(self.context, annotation)
        except Exception:  # the rescue has happened; nothing here may make it look undone
            self.context.log.exception("annotating the flow run failed", **self.names)
            return False
        return True


def _look(context: Context, flow_run_id: UUID) -> tuple[FlowRun, tuple[RunState, ...]] | None:
    """Return the run and its history, the run's own state last; None for an unknown run."""
    prefect = context.prefect
    history: tuple[RunState, ...]
    run: FlowRun | None
    history, run = context.gather(
        [lambda: prefect.read_history(flow_run_id), lambda: prefect.read_run(flow_run_id)]
    )
    if run and run.state.id in {state.id for state in history[:-1]}:
        run = prefect.read_run(flow_run_id)  # it moved on between the two
    if run is None:
        return None
    earlier = tuple(state for state in history if state.id != run.state.id)
    return run, (*earlier, run.state)


def _has_newer_task(context: Context, run: FlowRun, task: Task) -> bool:
    """Whether the run's `infrastructure_pid` names a task created later, or one that lives.

    A mere mismatch says nothing: the worker notes the pid after RunTask, and sometimes never. But
    while another task of the run lives, a rerun would run the flow twice, whoever says what.
    """
    cluster, noted_arn = noted_task(run)
    if not noted_arn or noted_arn == task.arn:
        return False
    noted = context.tasks.describe(cluster or task.cluster_arn, noted_arn)
    if noted is not None and lives(noted):
        return True
    if noted is not None and noted.created_at is not None and task.created_at is not None:
        return noted.created_at > task.created_at
    last_seen = task.exited_at or task.updated_at or task.created_at
    return last_seen is None or context.now() - last_seen > FORGOTTEN_AFTER


def _measure(
    context: Context, handling: "_Handling", before: RunRecord, decision: Decision
) -> None:
    """Count it for CloudWatch. The rescue has happened: nothing here may make it look undone."""
    values = values_of_rescue(handling.task, before, handling.record, decision)
    deployment = ""
    with suppress(PrefectSpotError):
        if values and handling.deployment_id is not None:
            deployment = context.prefect.read_deployment_name(handling.deployment_id)
    context.measure(Measured(deployment, values))


def _is_done(answer: StateAnswer, proposed: ProposedState) -> bool:
    """Whether the run has the state now, by this proposal or by the same one sent before."""
    if answer.verdict is StateVerdict.ACCEPT:
        return True
    return (
        proposed.transition_id is not None
        and answer.state is not None
        and answer.state.transition_id == proposed.transition_id
    )


def _as_it_was(state: RunState) -> ProposedState:
    return ProposedState(
        state.type, state.name, state.message, details=state.details, data=state.data
    )


def tell_people(context: Context, annotation: Annotation) -> None:
    """Put an annotation on the run. Raises PrefectSpotError when some of it could not be put."""
    prefect, run_id, labels = context.prefect, annotation.log.flow_run_id, annotation.labels
    calls: list[Callable[[], object]] = [
        lambda: prefect.write_log(annotation.log),
        lambda: prefect.write_artifact(annotation.artifact),
    ]
    if annotation.events:
        calls.append(lambda: prefect.emit_events(annotation.events))
    if labels is not None:
        calls.append(lambda: prefect.add_labels(run_id, labels))
    if annotation.tags:
        calls.append(lambda: _add_tags(prefect, run_id, annotation.tags))
    context.gather(calls)


def _add_tags(prefect: Prefect, flow_run_id: UUID, tags: Sequence[str]) -> None:
    fresh = prefect.read_run(flow_run_id)
    missing = [tag for tag in tags if fresh and tag not in fresh.tags]
    if fresh and missing:
        prefect.change_run(flow_run_id, RunChange(tags=(*fresh.tags, *missing)))
