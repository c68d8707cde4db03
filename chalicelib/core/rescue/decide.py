"""Decide, perform, look again: from a snapshot to the actions that a run needs now.

`decide` runs again after every step that moves the run, so a rerun is no procedure that a crash can
leave half done: whichever handler finds a run parked completes its rerun.
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Final, assert_never
from uuid import UUID

from chalicelib.core.model.ecs_task import FARGATE
from chalicelib.core.model.flow_run import RunChange, StateType
from chalicelib.core.model.policy import (
    INTERRUPTED_TAG,
    ON_DEMAND_TAG,
    Mode,
    on_demand_variables,
    rerun_delay,
)
from chalicelib.core.model.text import one_line
from chalicelib.core.policies.facts import Guard, PolicyFacts
from chalicelib.core.rescue.actions import (
    Annotate,
    Change,
    Decision,
    MakeDue,
    MarkCrashed,
    Park,
    Restore,
    Save,
    Verdict,
)
from chalicelib.core.rescue.annotation import Phase, annotation_of, headline, why_rerun
from chalicelib.core.rescue.capacity import (
    budget,
    choose_capacity,
    guards_to_ask,
    record_interruption,
    retries_due,
)
from chalicelib.core.rescue.judge import (
    Complete,
    End,
    Ignore,
    Note,
    NotRerun,
    Repeat,
    Rerun,
    Ruling,
    judge,
)
from chalicelib.core.rescue.rerun_state import due_id
from chalicelib.core.rescue.snapshot import Snapshot
from chalicelib.errors import LAMBDA_RETRIES, UnsettledError

PARKED_FOR: Final = timedelta(hours=1)
"""Workers take runs that are due within ten seconds: an hour covers any delay of a handler."""

MOST_LOOKS: Final = 4
"""Looks at a run per event: parking and completing take two, a concurrent change one more."""


def decide(snapshot: Snapshot) -> Decision:
    """Return what to do now; a decision without actions where nothing is left to do.

    In observe mode it only records and annotates.
    """
    decision = _decision(snapshot, judge(snapshot))
    if snapshot.policy.mode is Mode.OBSERVE:
        harmless = tuple(a for a in decision.actions if isinstance(a, Save | Annotate))
        return replace(decision, actions=harmless)
    return decision


def facts_needed(snapshot: Snapshot) -> tuple[Guard, ...]:
    """Return the guards whose facts `decide` needs for this snapshot; mostly none."""
    return guards_to_ask(snapshot) if isinstance(judge(snapshot), Rerun) else ()


def settle(
    look: Callable[[], Snapshot | None],
    gather: Callable[[Snapshot, tuple[Guard, ...]], PolicyFacts],
    perform: Callable[[Snapshot, Decision], bool],
) -> Decision:
    """Look, decide and perform until no further look is needed; return the last decision.

    `look` returns None for a run that Prefect does not know. `gather` fetches the facts that guards
    need. `perform` carries a decision out; False asks for another look.

    Raises:
        UnsettledError: the run's state kept changing; retryable.
    """
    for _ in range(MOST_LOOKS):
        snapshot = look()
        if snapshot is None:
            return Decision(Verdict.IGNORE, "Prefect does not know the flow run")
        if guards := facts_needed(snapshot):
            snapshot = replace(snapshot, facts=gather(snapshot, guards))
        decision = decide(snapshot)
        if perform(snapshot, decision):
            return decision
    raise UnsettledError(
        f"the state of the flow run changed concurrently, {MOST_LOOKS} times",
        next_step=LAMBDA_RETRIES,
    )


def _decision(snapshot: Snapshot, ruling: Ruling) -> Decision:
    match ruling:
        case Ignore(reason):
            return Decision(Verdict.IGNORE, reason)
        case Restore(state):
            reason = f"the run had become {one_line(state.name)} while it was being parked"
            return Decision(Verdict.UNDO_RERUN, reason, (ruling,))
        case End(MarkCrashed(message) as mark):
            return Decision(Verdict.MARK_CRASHED, message, (mark,))
        case End(mark):
            return Decision(Verdict.MARK_CANCELLED, mark.message, (mark,))
        case Repeat(made_due):
            return Decision(
                Verdict.IGNORE,
                "this interruption is already handled",
                _repeated(snapshot, made_due=made_due),
            )
        case Note(verdict, reason, phase, next_step, why, mark):
            noted = record_interruption(snapshot)
            marks = (mark,) if mark else ()
            annotate = _annotate(noted, phase, next_step, why)
            return Decision(verdict, reason, (*_save(snapshot, noted), *marks, *annotate))
        case NotRerun(why):
            return _not_rerun(snapshot, why)
        case Rerun(park_id):
            return _park(snapshot, park_id)
        case Complete(park_id):
            return _complete(snapshot, park_id)
    assert_never(ruling)


def _park(snapshot: Snapshot, park_id: UUID) -> Decision:
    """Record, then park; the next look finds the run parked, and its rerun is completed then."""
    chosen = choose_capacity(snapshot)
    reason = _headline(chosen)
    on_demand = chosen.record.next_capacity == FARGATE
    is_cancelled = snapshot.run.state.type is StateType.CANCELLED
    park = Park(park_id, snapshot.now + PARKED_FOR, f"{reason}, being prepared", force=is_cancelled)
    # In observe mode nothing is parked, so no further look would annotate.
    annotate = _annotate_rerun(chosen) if snapshot.policy.mode is Mode.OBSERVE else ()
    return Decision(
        Verdict.RERUN_ON_DEMAND if on_demand else Verdict.RERUN_ON_SPOT,
        reason,
        (*_save(snapshot, chosen), park, *annotate),
    )


def _complete(snapshot: Snapshot, park_id: UUID) -> Decision:
    chosen = choose_capacity(snapshot)
    on_demand = chosen.record.next_capacity == FARGATE
    delay = timedelta(0) if on_demand else rerun_delay(snapshot.run.id, snapshot.policy)
    change, message = _change(chosen), _headline(chosen)
    return Decision(
        Verdict.FINISH_RERUN,
        message,
        (
            *_save(snapshot, chosen),
            *(() if change.is_empty else (Change(change),)),
            MakeDue(due_id(park_id), snapshot.now + delay, message),
            *_annotate_rerun(chosen),
        ),
    )


def _not_rerun(snapshot: Snapshot, why: str) -> Decision:
    noted = record_interruption(snapshot)
    is_crashed = snapshot.run.state.type is StateType.CRASHED
    interruption = noted.interruption
    title = headline(interruption, budget(noted)) if interruption else "The task ended"
    mark = MarkCrashed(f"{title}: not rerun, because {why}.")
    annotate = _annotate(noted, Phase.NO_RERUN, "the run stays Crashed", why)
    actions = (*_save(snapshot, noted), *(() if is_crashed else (mark,)), *annotate)
    return Decision(Verdict.MARK_CRASHED, f"not rerun: {why}", actions)


def _repeated(snapshot: Snapshot, *, made_due: bool) -> tuple[Annotate, ...]:
    if snapshot.interruption is None or not snapshot.interruption.rerun_on:
        return ()
    if made_due:
        return _annotate_rerun(snapshot)
    moved = f"the run was {one_line(snapshot.run.state.name)} before it could be rerun"
    return _annotate(snapshot, Phase.NO_RERUN, "nothing", moved)


def _change(snapshot: Snapshot) -> RunChange:
    """Return the difference between what the run is and what its rerun needs."""
    run, on_demand = snapshot.run, snapshot.record.next_capacity == FARGATE
    variables = on_demand_variables(run.job_variables) if on_demand else run.job_variables
    policy = replace(run.policy, retries=retries_due(snapshot))
    if policy.retry_type == "in_process":
        policy = replace(policy, retry_type="reschedule")
    ours = {INTERRUPTED_TAG: bool(snapshot.record.interruptions), ON_DEMAND_TAG: on_demand}
    tags = (*run.tags, *(tag for tag, fits in ours.items() if fits and tag not in run.tags))
    return RunChange(
        job_variables=variables if dict(variables) != dict(run.job_variables) else None,
        policy=policy if policy != run.policy else None,
        tags=tags if tags != run.tags else None,
    )


def _save(before: Snapshot, after: Snapshot) -> tuple[Save, ...]:
    return () if after.record == before.record else (Save(after.record),)


def _headline(snapshot: Snapshot) -> str:
    """Return which interruption it is and where its rerun goes."""
    interruption = snapshot.interruption
    title = headline(interruption, budget(snapshot)) if interruption else "No Spot capacity"
    guard = f", by {interruption.guard}" if interruption and interruption.guard else ""
    return f"{title}: rerun on {snapshot.record.next_capacity}{guard}"


def _annotate_rerun(snapshot: Snapshot) -> tuple[Annotate, ...]:
    interruption = snapshot.interruption
    if interruption is None:
        return ()
    why = why_rerun(interruption, snapshot.record.moved, budget(snapshot))
    would = "would be " if snapshot.policy.mode is Mode.OBSERVE else ""
    next_step = f"{would}rerun on {interruption.rerun_on}"
    return _annotate(snapshot, Phase.RERUN, next_step, why)


def _annotate(snapshot: Snapshot, phase: Phase, next_step: str, why: str) -> tuple[Annotate, ...]:
    """Annotate a recorded interruption, once per phase: the record keeps which are done."""
    interruption = snapshot.interruption
    if interruption is None:
        return ()
    has_outcome = phase is not Phase.WARNING or interruption.outcome_annotated
    annotated = replace(interruption, warning_annotated=True, outcome_annotated=has_outcome)
    if annotated == interruption:
        return ()
    annotation = annotation_of(
        snapshot, interruption, budget(snapshot), phase, next_step=next_step, why=why
    )
    return (Annotate(annotation, snapshot.record.with_interruption(annotated)),)
