"""What people read about an interruption: state message, log line, Markdown, labels, events.

Texts from outside (stop reasons, zones, names) pass through `core/model/text.py` first.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Final
from uuid import UUID, uuid5

from chalicelib.core.model.ecs_task import FARGATE, Cause
from chalicelib.core.model.flow_run import FlowRun
from chalicelib.core.model.pricing import billed_seconds, cost_usd, seconds_between, size_of
from chalicelib.core.model.run_record import Interruption, Moved
from chalicelib.core.model.text import escaped, one_line
from chalicelib.core.ports import Artifact, LogLine, PrefectEvent
from chalicelib.core.rescue.rerun_state import park_id_of_task
from chalicelib.core.rescue.snapshot import INTERRUPTED_TAG, Budget, Mode, Snapshot

INTERRUPTIONS_LABEL: Final = "prefect-spot.interruptions"
CAPACITY_LABEL: Final = "prefect-spot.capacity"
INTERRUPTED_EVENT: Final = "prefect-spot.interrupted"
RERUN_EVENT: Final = "prefect-spot.rerun"
ON_DEMAND_EVENT: Final = "prefect-spot.on-demand"

WHY_LENGTH: Final = 600
"""Our own words, of several guards it may be."""


class Moment(StrEnum):
    """At which point of an interruption people are told."""

    WARNING = "warning"
    RERUN = "rerun"
    NO_RERUN = "no rerun"


@dataclass(frozen=True, slots=True)
class Annotation:
    """Everything to be put on the run. `labels` is None, `tags` empty, where it stays untouched."""

    log: LogLine
    artifact: Artifact
    events: tuple[PrefectEvent, ...]
    labels: Mapping[str, str | int] | None = field(default=None, hash=False)
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Telling:
    """What there is to tell: the interruption, its budget, what happens next and why."""

    moment: Moment
    interruption: Interruption
    budget: Budget
    next_step: str
    why: str


def annotation_of(s: Snapshot, telling: Telling) -> Annotation:
    """Compose the annotation. In observe mode nothing of it is written on the run itself."""
    title = headline(telling.interruption, telling.budget)
    placeless = headline(replace(telling.interruption, availability_zone=""), telling.budget)
    why = one_line(telling.why, WHY_LENGTH)
    sentence = f"{title}. Next: {telling.next_step}. Why: {why}."
    observing = s.policy.mode is Mode.OBSERVE
    return Annotation(
        log=LogLine(s.run.id, s.now, sentence),
        artifact=Artifact(
            flow_run_id=s.run.id,
            key=f"spot-interruption-{str(s.run.id)[:8]}",
            markdown=_markdown(s, telling, placeless),
            # Prefect's UI renders this as Markdown too: no text from outside in it.
            description=f"{placeless}. Next: {telling.next_step}.",
        ),
        events=_events(s, telling),
        labels=None if observing else _labels(s, telling.interruption),
        tags=() if observing or telling.moment is Moment.RERUN else (INTERRUPTED_TAG,),
    )


def annotation_of_move(run: FlowRun, moved: Moved, mode: Mode, now: datetime) -> Annotation:
    """Tell that a guard put a run on demand before its start; in observe mode, that it would."""
    observing = mode is Mode.OBSERVE
    next_step = f"{'would start' if observing else 'it starts'} on {FARGATE}"
    title = "On demand before its start"
    event = PrefectEvent(
        id=uuid5(run.id, ON_DEMAND_EVENT),
        flow_run_id=run.id,
        flow_run_name=one_line(run.name),
        name=ON_DEMAND_EVENT,
        at=now,
        payload={"guard": moved.guard, "mode": mode.value},
    )
    why = f"{moved.guard}: {moved.reason}"
    return Annotation(
        log=LogLine(run.id, now, f"{title}. Next: {next_step}. Why: {why}."),
        artifact=Artifact(
            flow_run_id=run.id,
            key=f"spot-deadline-{str(run.id)[:8]}",
            markdown=(
                f"## {title}\n\n**What happens next:** {next_step}.\n\n"
                f"**Why:** {escaped(why, WHY_LENGTH)}.\n"
            ),
            description=f"{title}. Next: {next_step}.",
        ),
        events=() if observing else (event,),
        labels=None if observing else {CAPACITY_LABEL: FARGATE},
    )


def headline(interruption: Interruption, budget: Budget) -> str:
    """Name the interruption in a line: which one it is, of how many, why and where."""
    cause = "Drill" if interruption.cause == Cause.DRILL else "Spot interruption"
    count = f"{interruption.number} of {budget.allowed}"
    if interruption.number > budget.allowed:
        count = f"{interruption.number} (allowed on Spot: {budget.allowed})"
    place = (
        f" in {one_line(interruption.availability_zone)}" if interruption.availability_zone else ""
    )
    return f"{cause} {count}{place}"


def why_rerun(interruption: Interruption, moved: Moved | None, budget: Budget) -> str:
    """Say why the rerun goes where it goes: a guard's words, or the budget's and what it lacked."""
    within_budget = interruption.number <= budget.allowed
    if interruption.guard:
        return f"{interruption.guard}: {interruption.guard_reason}"
    if moved is not None and within_budget and interruption.rerun_on == FARGATE:
        return f"{moved.guard}: {moved.reason}, as was decided before its start"
    why = f"all {budget.allowed} interruptions allowed on Spot are spent ({budget.source})"
    if within_budget:
        why = f"{interruption.number} of {budget.allowed} interruptions on Spot ({budget.source})"
    return f"{why}; {interruption.guard_reason}" if interruption.guard_reason else why


def _markdown(s: Snapshot, telling: Telling, title: str) -> str:
    interruption = telling.interruption
    rows = [
        ("Cause", _cause(interruption)),
        ("Task", escaped(interruption.task_arn.rpartition("/")[2])),
        ("Capacity", escaped(interruption.capacity)),
        ("Availability zone", escaped(interruption.availability_zone) or "not told by ECS"),
        ("Time", _utc(interruption.exited_at or interruption.recorded_at)),
        ("Time lost", _time_lost(interruption)),
        ("Money lost", _money_lost(s, interruption)),
    ]
    # The first row is the table's header: an empty one is shown as an empty bar.
    header, *rest = (f"| {name} | {value} |" for name, value in rows)
    table = "\n".join([header, "|---|---|", *rest])
    return (
        f"## {escaped(title)}\n\n{table}\n\n"
        f"**What happens next:** {escaped(telling.next_step)}.\n\n"
        f"**Why:** {escaped(telling.why, WHY_LENGTH)}.\n"
    )


def _cause(interruption: Interruption) -> str:
    told = interruption.reason or interruption.stop_code
    return f"{interruption.cause}: {escaped(told)}" if told else interruption.cause


def attempt_seconds(interruption: Interruption) -> Decimal | None:
    """Seconds from the image pull to the container's exit; None while either is unknown."""
    if interruption.billed_from is None or interruption.exited_at is None:
        return None
    return seconds_between(interruption.billed_from, interruption.exited_at)


def _time_lost(interruption: Interruption) -> str:
    seconds = attempt_seconds(interruption)
    if seconds is None:
        return "known once the container has exited"
    return f"at most {seconds:.0f} s \\(less, where task results were persisted\\)"


def _money_lost(s: Snapshot, interruption: Interruption) -> str:
    task, start, end = s.task, interruption.billed_from, interruption.exited_at
    rate = s.policy.rates.get((task.region, task.architecture, interruption.capacity))
    size = size_of(task)
    if start is None or end is None:
        return "known once the container has exited"
    if rate is None:
        return f"no rate known for {interruption.capacity} in {escaped(task.region)}".replace(
            "FARGATE_SPOT", "FARGATE\\_SPOT"
        )
    if size is None:
        return "ECS did not tell the task's size"
    cost = cost_usd(rate, billed_seconds(start, end), size)
    return f"at most {cost:f} USD, estimated"


def _utc(at: datetime | None) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC" if at else "not told by ECS"


def _labels(s: Snapshot, interruption: Interruption) -> Mapping[str, str | int]:
    return {
        INTERRUPTIONS_LABEL: len(s.record.interruptions),
        CAPACITY_LABEL: interruption.rerun_on or interruption.capacity,
    }


def _events(s: Snapshot, telling: Telling) -> tuple[PrefectEvent, ...]:
    """Events for automations. Ids are made of the task, so that telling twice counts once."""
    interruption = telling.interruption
    names = [] if interruption.warning_annotated else [INTERRUPTED_EVENT]
    if telling.moment is Moment.RERUN and s.policy.mode is not Mode.OBSERVE:
        names.append(ON_DEMAND_EVENT if interruption.rerun_on == FARGATE else RERUN_EVENT)
    payload = {
        "interruption": interruption.number,
        "allowed_on_spot": telling.budget.allowed,
        "cause": interruption.cause,
        "task_arn": interruption.task_arn,
        "availability_zone": one_line(interruption.availability_zone),
        "rerun_on": interruption.rerun_on,
        "mode": s.policy.mode.value,
    }
    return tuple(
        PrefectEvent(
            id=_event_id(interruption.task_arn, name),
            flow_run_id=s.run.id,
            flow_run_name=one_line(s.run.name),
            name=name,
            at=s.now,
            payload=payload,
        )
        for name in names
    )


def _event_id(task_arn: str, name: str) -> UUID:
    return uuid5(park_id_of_task(task_arn), name)
