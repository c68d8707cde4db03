"""Decide, perform, look again: from a snapshot to the actions that a run needs now.

`decide` runs again after every step that moves the run, so a rerun is no procedure that a crash can
leave half done: whichever handler finds a run parked completes its rerun.
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Final, assert_never
from uuid import UUID

from chalicelib.core.model.ecs_task import FARGATE, Cause, was_interrupted
from chalicelib.core.model.flow_run import StateType
from chalicelib.core.model.policy import Mode, start_delay
from chalicelib.core.policies.facts import Guard, Missing, PolicyFacts
from chalicelib.core.rescue.actions import (
    Action,
    Annotate,
    Change,
    CrashTaskRuns,
    Decision,
    End,
    MakeDue,
    Park,
    Restore,
    Save,
    Verdict,
)
from chalicelib.core.rescue.annotation import annotate, title_of
from chalicelib.core.rescue.capacity import (
    change_for_rerun,
    choose_capacity,
    give_up,
    guards_to_ask,
    record_interruption,
)
from chalicelib.core.rescue.failed_start import (
    choose_retry,
    is_failed_start,
    record_failed_start,
)
from chalicelib.core.rescue.judge import (
    Complete,
    Confirm,
    Ignore,
    Note,
    NotRerun,
    Repeat,
    Rerun,
    Ruling,
    end,
    judge,
)
from chalicelib.core.rescue.rerun_state import Progress, due_id, starts_not_before
from chalicelib.core.rescue.snapshot import Remains, Snapshot
from chalicelib.core.rescue.subflows import change_subflows, record_subflows
from chalicelib.errors import LAMBDA_RETRIES, UnsettledError

PARKED_FOR: Final = timedelta(hours=1)
"""Workers take runs that are due within ten seconds: an hour covers any delay of a handler."""
MOST_LOOKS: Final = 6
"""Looks at a run per event: a rerun takes three, each concurrent change one or two more."""


def decide(snapshot: Snapshot) -> Decision:
    """Return what to do now, if anything; in observe mode it only records and annotates."""
    ruling = judge(snapshot)
    recorded = _record(ruling, snapshot)
    decision = _decision(ruling, recorded, title_of(recorded))
    save = () if recorded.record == snapshot.record else (Save(recorded.record),)
    annotations = annotate(recorded, ruling)
    actions: tuple[Action, ...] = (*save, *decision.actions, *annotations)
    if snapshot.policy.mode is Mode.OBSERVE:
        actions = tuple(a for a in actions if isinstance(a, Save | Annotate))
    elif annotations and isinstance(ruling, Repeat) and ruling.made_due:
        reason, due_at = _reason(recorded, title_of(recorded)), snapshot.rerun_state.due_at
        return Decision(Verdict.FINISH_RERUN, reason, actions, due_at)
    elif annotations and isinstance(ruling, Confirm):
        crashed = snapshot.run.state.type is StateType.CRASHED
        verdict = Verdict.MARK_CRASHED if crashed else Verdict.ANNOTATE
        return Decision(verdict, decision.reason, actions)
    return replace(decision, actions=actions)


def _record(ruling: Ruling, snapshot: Snapshot) -> Snapshot:
    """Return the snapshot with what the ruling asks to have on record."""
    undoes_engine = isinstance(ruling, Restore) and ruling.verdict is Verdict.RESTORE
    interrupted = was_interrupted(snapshot.cause) and snapshot.has_exited
    if undoes_engine and interrupted:
        return record_interruption(snapshot)
    if not isinstance(ruling, Rerun | Complete | Note | NotRerun):
        return snapshot
    record, choose = record_interruption, choose_capacity
    if is_failed_start(snapshot):
        record, choose = record_failed_start, choose_retry
    if isinstance(ruling, Rerun):
        return choose(snapshot)
    if isinstance(ruling, Complete):
        return record_subflows(choose(snapshot))
    recorded = record(snapshot)
    is_parked = snapshot.rerun_state.progress is Progress.PARKED
    return give_up(recorded, ruling.why) if isinstance(ruling, NotRerun) and is_parked else recorded


def facts_needed(snapshot: Snapshot) -> tuple[Guard, ...]:
    """Return the guards whose facts `decide` needs for this snapshot; mostly none."""
    asks = isinstance(judge(snapshot), Rerun) and not is_failed_start(snapshot)
    return guards_to_ask(snapshot) if asks else ()


def needs_remains(snapshot: Snapshot) -> bool:
    """Whether `decide` needs to know what the dead attempt left, to make the run due."""
    return snapshot.remains is None and isinstance(judge(snapshot), Complete)


def settle(
    look: Callable[[], Snapshot | None],
    gather: Callable[[Snapshot, tuple[Guard, ...]], PolicyFacts | Missing],
    perform: Callable[[Snapshot, Decision], bool],
    find_remains: Callable[[Snapshot], Remains | None] = lambda _: None,
) -> Decision:
    """Look, decide and perform until no further look is needed; return the last decision.

    `look` returns None for a run that Prefect does not know. `gather` fetches the facts that guards
    need, `find_remains` what the dead attempt left. `perform` carries a decision out; False asks
    for another look. Raises UnsettledError when the run's state kept changing; retryable.
    """
    decision: Decision | None = None
    for _ in range(MOST_LOOKS):
        snapshot = look()
        if snapshot is None:
            return Decision(Verdict.IGNORE, "Prefect does not know the flow run")
        run_id = snapshot.run.id
        if guards := facts_needed(snapshot):
            snapshot = replace(snapshot, facts=gather(snapshot, guards))
        elif needs_remains(snapshot):
            snapshot = replace(snapshot, remains=find_remains(snapshot))
        decided, decision = decision, decide(snapshot)
        if decision.verdict is Verdict.CONFIRM:
            return decided or decision
        if perform(snapshot, decision):
            return decision
    raise UnsettledError(
        f"the state of flow run {run_id} changed concurrently, {MOST_LOOKS} times",
        next_step=LAMBDA_RETRIES,
    )


def _decision(ruling: Ruling, recorded: Snapshot, title: str) -> Decision:
    """Return verdict, reason and the actions that move the run; `title` names what ended."""
    match ruling:
        case Ignore(reason):
            return Decision(Verdict.IGNORE, reason)
        case Repeat():
            return Decision(Verdict.IGNORE, "this interruption is already handled")
        case Confirm():
            return Decision(Verdict.CONFIRM, "the run is ended, or has moved on since")
        case Restore(verdict=verdict, why=why):
            return Decision(verdict, why, (ruling,))
        case End(state, message):
            crashes = state is StateType.CRASHED
            verdict = Verdict.MARK_CRASHED if crashes else Verdict.MARK_CANCELLED
            return Decision(verdict, message, (ruling,))
        case Note(verdict, reason, _, ends):
            return Decision(verdict, reason, (ends,) if ends else ())
        case NotRerun(why):
            crash = end(recorded, StateType.CRASHED, f"{title}: not rerun, because {why}.")
            actions = () if recorded.run.state.is_final else (crash,)
            return Decision(Verdict.MARK_CRASHED, f"not rerun: {why}", actions)
        case Rerun(park_id):
            return _park(recorded, park_id, title)
        case Complete(park_id):
            return _complete(recorded, park_id, title)
    assert_never(ruling)


def _park(recorded: Snapshot, park_id: UUID, title: str) -> Decision:
    """Park the run; the next look finds it parked, and completes its rerun."""
    reason, until = _reason(recorded, title), recorded.now + PARKED_FOR
    is_cancelled = recorded.run.state.type is StateType.CANCELLED
    park = Park(park_id, until, f"{reason}, being prepared", force=is_cancelled)
    on_demand = recorded.record.next_capacity == FARGATE
    verdict = Verdict.RERUN_ON_DEMAND if on_demand else Verdict.RERUN_ON_SPOT
    return Decision(verdict, reason, (park,))


def _complete(recorded: Snapshot, park_id: UUID, title: str) -> Decision:
    """Change what the rerun needs, then make it due: no earlier than the run would have been."""
    run, failed = recorded.run, recorded.failed_start
    on_demand = recorded.record.next_capacity == FARGATE
    delay = timedelta(0) if on_demand else recorded.policy.rerun_delay(run.id)
    if failed is not None and recorded.cause is Cause.FAILED_START:
        delay = start_delay(run.id, failed.number)
    at = recorded.now + delay
    at = max(at, starts_not_before(recorded.subject.arn, recorded.history) or at)
    change, message = change_for_rerun(recorded), _reason(recorded, title)
    steps: list[Action] = [*change_subflows(recorded)]
    if not change.is_empty:
        steps.append(Change(change))
    if recorded.remains is not None and recorded.remains.task_runs:
        gone = f"{title}: the task run ended with its container"
        steps.append(CrashTaskRuns(recorded.remains.task_runs, gone))
    return Decision(Verdict.MAKE_DUE, message, (*steps, MakeDue(due_id(park_id), at, message)))


def _reason(recorded: Snapshot, title: str) -> str:
    """Return what ended, and where its rerun goes."""
    interruption, failed = recorded.interruption, recorded.failed_start
    if failed is not None and recorded.cause is Cause.FAILED_START:
        return f"{title}: started again on {failed.retry_on}"
    guard = f", by {interruption.guard}" if interruption and interruption.guard else ""
    return f"{title}: rerun on {recorded.record.next_capacity}{guard}"
