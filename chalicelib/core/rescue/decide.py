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
from chalicelib.core.model.flow_run import StateType
from chalicelib.core.model.policy import Mode
from chalicelib.core.model.text import one_line
from chalicelib.core.policies.facts import Guard, Missing, PolicyFacts
from chalicelib.core.rescue.actions import (
    Action,
    Annotate,
    Change,
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
    guards_to_ask,
    record_interruption,
)
from chalicelib.core.rescue.judge import (
    Complete,
    Ignore,
    Note,
    NotRerun,
    Repeat,
    Rerun,
    Ruling,
    judge,
)
from chalicelib.core.rescue.snapshot import Snapshot, due_id
from chalicelib.errors import LAMBDA_RETRIES, UnsettledError

PARKED_FOR: Final = timedelta(hours=1)
"""Workers take runs that are due within ten seconds: an hour covers any delay of a handler."""
MOST_LOOKS: Final = 4
"""Looks at a run per event: parking and completing take two, a concurrent change one more."""


def decide(snapshot: Snapshot) -> Decision:
    """Return what to do now, if anything; in observe mode it only records and annotates."""
    ruling = judge(snapshot)
    match ruling:
        case Rerun() | Complete():
            recorded = choose_capacity(snapshot)
        case Note() | NotRerun():
            recorded = record_interruption(snapshot)
        case _:
            recorded = snapshot
    decision = _decision(ruling, recorded, title_of(recorded))
    save = () if recorded.record == snapshot.record else (Save(recorded.record),)
    actions: tuple[Action, ...] = (*save, *decision.actions, *annotate(recorded, ruling))
    if snapshot.policy.mode is Mode.OBSERVE:
        actions = tuple(a for a in actions if isinstance(a, Save | Annotate))
    return replace(decision, actions=actions)


def facts_needed(snapshot: Snapshot) -> tuple[Guard, ...]:
    """Return the guards whose facts `decide` needs for this snapshot; mostly none."""
    return guards_to_ask(snapshot) if isinstance(judge(snapshot), Rerun) else ()


def settle(
    look: Callable[[], Snapshot | None],
    gather: Callable[[Snapshot, tuple[Guard, ...]], PolicyFacts | Missing],
    perform: Callable[[Snapshot, Decision], bool],
) -> Decision:
    """Look, decide and perform until no further look is needed; return the last decision.

    `look` returns None for a run that Prefect does not know. `gather` fetches the facts that guards
    need. `perform` carries a decision out; False asks for another look. Raises UnsettledError when
    the run's state kept changing; retryable.
    """
    for _ in range(MOST_LOOKS):
        snapshot = look()
        if snapshot is None:
            return Decision(Verdict.IGNORE, "Prefect does not know the flow run")
        run_id = snapshot.run.id
        if guards := facts_needed(snapshot):
            snapshot = replace(snapshot, facts=gather(snapshot, guards))
        decision = decide(snapshot)
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
        case Restore(state):
            reason = f"the run had become {one_line(state.name)} while it was being parked"
            return Decision(Verdict.UNDO_RERUN, reason, (ruling,))
        case End(state, message):
            crashes = state is StateType.CRASHED
            verdict = Verdict.MARK_CRASHED if crashes else Verdict.MARK_CANCELLED
            return Decision(verdict, message, (ruling,))
        case Note(verdict, reason, _, end):
            return Decision(verdict, reason, (end,) if end else ())
        case NotRerun(why):
            end = End(StateType.CRASHED, f"{title}: not rerun, because {why}.")
            ended = recorded.run.state.type is StateType.CRASHED
            return Decision(Verdict.MARK_CRASHED, f"not rerun: {why}", () if ended else (end,))
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
    on_demand = recorded.record.next_capacity == FARGATE
    delay = timedelta(0) if on_demand else recorded.policy.rerun_delay(recorded.run.id)
    change, message = change_for_rerun(recorded), _reason(recorded, title)
    due = MakeDue(due_id(park_id), recorded.now + delay, message)
    steps = (due,) if change.is_empty else (Change(change), due)
    return Decision(Verdict.FINISH_RERUN, message, steps)


def _reason(recorded: Snapshot, title: str) -> str:
    """Return what ended, and where its rerun goes."""
    interruption = recorded.interruption
    guard = f", by {interruption.guard}" if interruption and interruption.guard else ""
    return f"{title}: rerun on {recorded.record.next_capacity}{guard}"
