"""What an interruption, or a failed start, adds to the run in Prefect.

A log line, an artifact, events; an interruption labels and tags as well.

Texts from outside (stop reasons, zones, names) are cut and escaped by `core/model/text.py`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Final
from uuid import UUID, uuid5

from chalicelib.core.model.ecs_task import FARGATE, Cause
from chalicelib.core.model.flow_run import FailedStart, FlowRun, Interruption, Moved, StateType
from chalicelib.core.model.policy import INTERRUPTED_TAG, Budget, Mode
from chalicelib.core.model.pricing import billed_seconds, cost_usd, seconds_between, size_of
from chalicelib.core.model.text import counted, escaped, one_line
from chalicelib.core.rescue import judge
from chalicelib.core.rescue.actions import Annotate, Annotation, Artifact, LogLine, PrefectEvent
from chalicelib.core.rescue.failed_start import start_retries_of
from chalicelib.core.rescue.judge import Phase, Ruling, Words
from chalicelib.core.rescue.rerun_state import park_id_of_task
from chalicelib.core.rescue.snapshot import Snapshot, start_failure

INTERRUPTIONS_LABEL: Final = "prefect-spot.interruptions"
CAPACITY_LABEL: Final = "prefect-spot.capacity"
INTERRUPTED_EVENT: Final = "prefect-spot.interrupted"
RERUN_EVENT: Final = "prefect-spot.rerun"
ON_DEMAND_EVENT: Final = "prefect-spot.on-demand"
START_RETRIED_EVENT: Final = "prefect-spot.start-retried"
WHY_LENGTH: Final = 600
"""Characters of a reason, which may hold those of several guards."""
_UNKNOWN: Final = "not reported by ECS"


def annotate(recorded: Snapshot, ruling: Ruling) -> tuple[Annotate, ...]:
    """Return the action that annotates what was ruled about an end that is on record.

    None for a ruling that needs no annotation, and none for a phase that is annotated already. In
    observe mode nothing is written on the run itself.
    """
    words, record = _words(recorded, ruling), recorded.record
    if words is None:
        return ()
    if interruption := recorded.interruption:
        has_outcome = words.phase is not Phase.WARNING or interruption.outcome_annotated
        annotated = replace(interruption, warning_annotated=True, outcome_annotated=has_outcome)
        if annotated == interruption:
            return ()
        if words.phase is not Phase.WARNING:
            annotated = replace(annotated, why=_in_short(words))
        annotation = _annotation(recorded, interruption, words)
        return (Annotate(annotation, record.with_interruption(annotated)),)
    failed = recorded.failed_start
    if failed is None or failed.annotated:
        return ()
    annotation = _annotation_of_failed_start(recorded, failed, words)
    annotated_start = replace(failed, annotated=True, why=_in_short(words))
    return (Annotate(annotation, record.with_failed_start(annotated_start)),)


def _in_short(words: Words) -> str:
    return one_line(f"{words.next_step}: {words.why}", WHY_LENGTH)


def title_of(snapshot: Snapshot) -> str:
    """Return what ended in a line: which interruption, or failed start, of how many allowed."""
    if interruption := snapshot.interruption:
        return _title(interruption, snapshot.budget)
    failed = snapshot.failed_start
    if failed is None or snapshot.cause is not Cause.FAILED_START:
        return "No Spot capacity"
    allowed = start_retries_of(snapshot)
    if failed.retry_on:
        return f"Failed start, retry {failed.number} of {allowed}"
    return f"Failed start {failed.number} (retries allowed: {allowed})"


def _words(recorded: Snapshot, ruling: Ruling) -> Words | None:
    observing = recorded.policy.mode is Mode.OBSERVE
    interruption, failed = recorded.interruption, recorded.failed_start
    rerun_on = interruption.rerun_on if interruption else failed.retry_on if failed else ""
    match ruling:
        case judge.Note(words=words):
            return words
        case judge.Confirm():  # the handler that ended the run left it out
            state = recorded.run.state
            stays = f"the run stays {one_line(state.name)}" if state.is_final else "nothing"
            return Words(Phase.NO_RERUN, stays, state.message or "the run has moved on")
        case judge.NotRerun(why):
            kind = recorded.run.state.type
            stays = "Failed" if kind is StateType.FAILED else "Crashed"
            return Words(Phase.NO_RERUN, f"the run stays {stays}", why)
        case judge.Repeat() if not rerun_on:
            return None
        case judge.Repeat(made_due=False) if recorded.run.state.type is StateType.PAUSED:
            return Words(Phase.WARNING, "a rerun once the run is resumed", "the run is paused")
        case judge.Repeat(made_due=False):
            moved = f"the run was {one_line(recorded.run.state.name)} before it could be rerun"
            return Words(Phase.NO_RERUN, "nothing", moved)
        case judge.Rerun() if not observing:
            return None  # the look that finds the run due annotates it
        case judge.Rerun() | judge.Repeat():
            retried = interruption is None and recorded.cause is Cause.FAILED_START
            how = "started again" if retried else "rerun"
            due_at = recorded.rerun_state.due_at if retried else None
            when = f", due at {due_at:%H:%M:%S} UTC" if due_at else ""
            rerun = f"{'would be ' if observing else ''}{how} on {rerun_on}{when}"
            why = _why_rerun(recorded, interruption) if interruption else _why_retried(recorded)
            return Words(Phase.RERUN, rerun, why)
        case _:
            return None


def _why_retried(recorded: Snapshot) -> str:
    failure = start_failure(recorded.subject)
    return failure.what if failure else "the start failed"


def _annotation_of_failed_start(
    snapshot: Snapshot, failed: FailedStart, words: Words
) -> Annotation:
    run, now, observing = snapshot.run, snapshot.now, snapshot.policy.mode is Mode.OBSERVE
    is_refusal = snapshot.cause is Cause.NO_SPOT_CAPACITY
    name = ON_DEMAND_EVENT if is_refusal else START_RETRIED_EVENT
    payload = {
        "failed_start": failed.number,
        "allowed": start_retries_of(snapshot),
        "kind": failed.kind,
        "task_arn": failed.key if snapshot.task else "",
        "rerun_on": failed.retry_on,
        "mode": snapshot.policy.mode.value,
    }
    event = _event(run, uuid5(park_id_of_task(failed.key), name), name, now, payload)
    title, failure = title_of(snapshot), start_failure(snapshot.subject)
    rows = [
        ("Failed start", f"{failed.kind}: {failure.what}" if failure else failed.kind),
        ("Reason", escaped(failed.reason, WHY_LENGTH)),
        ("Task", escaped(failed.key.rpartition("/")[2]) if snapshot.task else "none was started"),
        ("Capacity", escaped(failed.capacity)),
        ("Time", f"{failed.recorded_at:%Y-%m-%d %H:%M:%S} UTC" if failed.recorded_at else ""),
        ("What to do", failure.remedy if failure and words.phase is Phase.NO_RERUN else "nothing"),
    ]
    key = f"spot-failed-start-{str(run.id)[:8]}"
    return Annotation(
        *_texts(run, now, key, title, words, heading=title, table=_rows(rows)),
        events=(event,) if words.phase is Phase.RERUN and not observing else (),
        labels={CAPACITY_LABEL: FARGATE} if is_refusal and not observing else None,
    )


def _annotation(snapshot: Snapshot, interruption: Interruption, words: Words) -> Annotation:
    phase, budget, run_id = words.phase, snapshot.budget, snapshot.run.id
    observing = snapshot.policy.mode is Mode.OBSERVE
    labels: dict[str, str | int] = {
        INTERRUPTIONS_LABEL: snapshot.record.interrupted,
        CAPACITY_LABEL: interruption.rerun_on or interruption.capacity,
    }
    log, artifact = _texts(
        snapshot.run,
        snapshot.now,
        f"spot-interruption-{str(run_id)[:8]}",
        _title(interruption, budget),
        words,
        # Prefect's UI renders an artifact's description as Markdown too: no text from outside.
        heading=_title(replace(interruption, availability_zone=""), budget),
        table=_table(snapshot, interruption),
    )
    events = _events(snapshot, interruption, phase)
    if phase is Phase.WARNING and not snapshot.has_exited:  # the rest comes with the exit
        return Annotation(log, None, events)
    return Annotation(
        log,
        artifact,
        events,
        labels=None if observing else labels,
        tags=() if observing or phase is Phase.RERUN else (INTERRUPTED_TAG,),
    )


def annotation_of_move(run: FlowRun, moved: Moved, mode: Mode, now: datetime) -> Annotation:
    """Return the annotation of a run that a guard puts on FARGATE before its first start."""
    observing, title = mode is Mode.OBSERVE, "On demand before its start"
    next_step = f"{'would start' if observing else 'it starts'} on {FARGATE}"
    words = Words(Phase.RERUN, next_step, f"{moved.guard}: {moved.reason}")
    payload = {"guard": moved.guard, "mode": mode.value}
    event = _event(run, uuid5(run.id, ON_DEMAND_EVENT), ON_DEMAND_EVENT, now, payload)
    return Annotation(
        *_texts(run, now, f"spot-deadline-{str(run.id)[:8]}", title, words, heading=title),
        events=() if observing else (event,),
        labels=None if observing else {CAPACITY_LABEL: FARGATE},
    )


def _texts(
    run: FlowRun, now: datetime, key: str, title: str, words: Words, heading: str, table: str = ""
) -> tuple[LogLine, Artifact]:
    """Return an annotation's log line, which has `title`, and its artifact under `heading`."""
    next_step, why = words.next_step, words.why
    line = f"{title}. Next: {next_step}. Why: {one_line(why, WHY_LENGTH)}."
    parts = (
        f"## {escaped(heading)}",
        table,
        f"**What happens next:** {escaped(next_step)}.",
        f"**Why:** {escaped(why, WHY_LENGTH)}.\n",
    )
    markdown = "\n\n".join(filter(None, parts))
    description = f"{heading}. Next: {next_step}."
    return LogLine(run.id, now, line), Artifact(run.id, key, markdown, description)


def _table(snapshot: Snapshot, interruption: Interruption) -> str:
    why = interruption.reason or interruption.stop_code
    at = interruption.exited_at or interruption.recorded_at
    rows = [
        ("Cause", f"{interruption.cause}: {escaped(why)}" if why else interruption.cause),
        ("Task", escaped(interruption.task_arn.rpartition("/")[2])),
        ("Capacity", escaped(interruption.capacity)),
        ("Availability zone", escaped(interruption.availability_zone) or _UNKNOWN),
        ("Time", f"{at:%Y-%m-%d %H:%M:%S} UTC" if at else _UNKNOWN),
        ("Wasted", _wasted(snapshot, interruption)),
    ]
    return _rows(rows)


def _rows(rows: Iterable[tuple[str, str]]) -> str:
    # The first row is the table's header: an empty one is shown as an empty bar.
    header, *rest = (f"| {name} | {value} |" for name, value in rows)
    return "\n".join([header, "|---|---|", *rest])


def _wasted(snapshot: Snapshot, interruption: Interruption) -> str:
    """Return the time and the money of the attempt until its exit, in words.

    Before Prefect is asked which task runs are done: the bill counts to the task's stop, less them.
    """
    task, start, end = snapshot.task, interruption.billed_from, interruption.exited_at
    if start is None or end is None:
        return _UNKNOWN
    time = f"{seconds_between(start, end):.0f} s until the exit"
    less = "; less, where task results were persisted"
    if task is None:
        return f"{time}{less}"
    rate = snapshot.policy.rates.get((task.region, task.architecture, interruption.capacity))
    if rate is None:
        where = f"{escaped(interruption.capacity)} in {escaped(task.region)}"
        return f"{time}{less}; no rate known for {where}"
    if (size := size_of(task)) is None:
        return f"{time}{less}; ECS did not report the task's size"
    usd = cost_usd(rate, billed_seconds(start, end), size)
    return f"{time}, {usd:f} USD, estimated{', at an assumed rate' * rate.is_assumed}{less}"


def _events(
    snapshot: Snapshot, interruption: Interruption, phase: Phase
) -> tuple[PrefectEvent, ...]:
    """Return events for automations. Their ids derive from the task: Prefect drops a repeat."""
    mode = snapshot.policy.mode
    names = [] if interruption.warning_annotated else [INTERRUPTED_EVENT]
    if phase is Phase.RERUN and mode is not Mode.OBSERVE:
        names.append(ON_DEMAND_EVENT if interruption.rerun_on == FARGATE else RERUN_EVENT)
    payload = {
        "interruption": interruption.number,
        "allowed_on_spot": snapshot.budget.allowed,
        "cause": interruption.cause,
        "task_arn": interruption.task_arn,
        "availability_zone": one_line(interruption.availability_zone),
        "rerun_on": interruption.rerun_on,
        "mode": mode.value,
    }
    task_id = park_id_of_task(interruption.task_arn)
    run, now = snapshot.run, snapshot.now
    return tuple(_event(run, uuid5(task_id, name), name, now, payload) for name in names)


def _event(
    run: FlowRun, event_id: UUID, name: str, now: datetime, payload: Mapping[str, object]
) -> PrefectEvent:
    return PrefectEvent(event_id, run.id, one_line(run.name), name, now, payload)


def _title(interruption: Interruption, budget: Budget) -> str:
    cause = "Drill" if interruption.cause == Cause.DRILL else "Spot interruption"
    count = f"{interruption.number} of {budget.allowed}"
    if interruption.number > budget.allowed:
        count = f"{interruption.number} (allowed on Spot: {budget.allowed})"
    zone = one_line(interruption.availability_zone)
    return f"{cause} {count} in {zone}" if zone else f"{cause} {count}"


def _why_rerun(snapshot: Snapshot, interruption: Interruption) -> str:
    """Return why the rerun goes where it goes: a guard's reason, or the budget's."""
    budget, moved = snapshot.budget, snapshot.record.moved
    within_budget = interruption.number <= budget.allowed
    expects = budget.is_auto and within_budget and moved is None and interruption.guard_reason
    if interruption.guard or expects:
        return f"{interruption.guard or budget.source}: {interruption.guard_reason}"
    are = "is" if budget.allowed == 1 else "are"
    allowed = counted(budget.allowed, "interruption")
    why = f"the {allowed} allowed on Spot {are} spent ({budget.source})"
    if moved is not None and within_budget and interruption.rerun_on == FARGATE:
        why = f"{moved.guard}: {moved.reason}, as was decided before its start"
    elif within_budget:
        why = f"{interruption.number} of {budget.allowed} interruptions on Spot ({budget.source})"
    return f"{why}; {interruption.guard_reason}" if interruption.guard_reason else why
