"""The `sweep` Lambda: repairs from state, on a schedule, what no event reported.

Each minute it takes a light look: at runs that a worker could not submit, for which ECS sends no
event. Every five minutes it reads all of the work pools' runs, a page at a time, with a bounded
number of calls per page; when its time ends, it leaves a bookmark for the next minute. Each run
goes the way of an event: `rescue`, under the run's lease, by the same decisions.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

from chalicelib.core.metrics import Measured, Metric
from chalicelib.core.model.flow_run import FlowRun, StateType
from chalicelib.core.model.policy import Pause
from chalicelib.core.model.sweeping import Place, SweepNotes
from chalicelib.core.ports import Context, RunQuery
from chalicelib.errors import PrefectSpotError, concerns_all
from chalicelib.functions.meter import keep_accounts
from chalicelib.functions.pages import SECONDS_PER_PAGE, Pages
from chalicelib.functions.repairs import ENDED_WITHIN, LOOKED_BACK, Repairs
from chalicelib.functions.sweep_report import SweepReport

PAGE: Final = 100
"""Runs read together: what DescribeTasks and BatchGetItem take in one request."""
SECONDS_PER_CALL: Final = 50.0
"""What a call uses, so that a pause which begins meanwhile holds within a minute, and the next call
of the schedule finds none at work. Two at once only read runs twice: a lease keeps their repairs
apart. Where one execution is reserved, Lambda drops a call that it throttles for a minute."""
SECONDS_OF_LIGHT_LOOK: Final = 20.0
"""Of these, what a light look uses when all runs are read after it."""
SECONDS_TO_FINISH: Final = 10.0
"""After these, when Prefect must have answered the light look about its last run."""
LOOKED_AHEAD: Final = timedelta(minutes=15)
"""How early a run that waits for its start is read: three sweeps before it is due."""
SWEPT_EVERY: Final = timedelta(minutes=4, seconds=30)
"""After this, the schedule's next call reads all runs: every five minutes, with what a call takes.
"""
DUE_WITHIN: Final = timedelta(days=1)
"""How far back, by their expected start, runs without an end are read."""
OLD_SERVER_FOR: Final = timedelta(days=30)
"""How long a server counts as one that gives no end to what never started, once it did not."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A set of runs: how they are found, and how a page of them is repaired.

    `repair` returns the first run that there was no time for, None for none. `without_end`: only
    those that have no end: Prefect 3.4 gives none to a run that crashed before its start.
    """

    repair: Callable[[Repairs, Sequence[FlowRun]], FlowRun | None]
    state_types: tuple[StateType, ...]
    due_within: timedelta | None = None
    ended_within: timedelta | None = None
    without_end: bool = False

    def query(self, context: Context, place: Place) -> RunQuery:
        """Return the query for the page at a place. Only the first one checks the work pool."""
        now, after = context.now(), place.after
        before = now + self.due_within if self.due_within else None
        if self.without_end:
            after = max(now - DUE_WITHIN, after or now - DUE_WITHIN)
        return RunQuery(
            context.work_pools,
            self.state_types,
            expected_after=after,
            expected_before=after if place.moment else before,
            ended_after=now - self.ended_within if self.ended_within else None,
            without_end=self.without_end,
            limit=PAGE,
            offset=place.offset,
            by_id=place.by_id,
            known_pool=self is not STAGES[0],
        )


CRASHED: Final = (StateType.CRASHED,)
LIVE: Final = (StateType.RUNNING, StateType.PENDING, StateType.CANCELLING)
ENDED: Final = (*CRASHED, StateType.CANCELLED, StateType.FAILED)
STAGES: Final = (
    Stage(Repairs.repair_scheduled, (StateType.SCHEDULED,), due_within=LOOKED_AHEAD),
    Stage(Repairs.repair_live, LIVE),
    Stage(Repairs.repair_ended, ENDED, ended_within=ENDED_WITHIN),
    Stage(Repairs.repair_ended, CRASHED, without_end=True),
)
LIGHT_STAGES: Final = (
    Stage(Repairs.answer_failed_submissions, CRASHED, ended_within=LOOKED_BACK),
    Stage(Repairs.answer_failed_submissions, CRASHED, without_end=True),
)
"""The second is for old servers only."""


def sweep(context: Context, event: object) -> SweepReport:
    """Repair the orphaned runs of the pools; return what was done.

    The schedule's event brings a light look; a sweep from the bookmark on follows when the last one
    left a bookmark, or is some minutes ago. Any other event brings both. A light look costs a read
    of the table and one request to Prefect (two for 3.4) where it finds nothing to do. While the
    stage is paused, bills are all that is made up for.

    A run whose repair fails is counted and logged; the next sweep tries again. Raises
    PrefectSpotError when Prefect does not answer, asks for time, or the table fails; also
    botocore's errors. Even then the bookmark is left behind what was done.
    """
    notes = context.records.read_sweep()
    if notes.pause:
        return _rest(context, notes, notes.pause)
    is_scheduled = isinstance(event, Mapping) and event.get("detail-type") == "Scheduled Event"
    context = _with_seconds(context, SECONDS_PER_CALL)
    repairs = Repairs(context, notes)
    report = repairs.report
    try:
        report.light = is_scheduled and not _is_due(notes, context.now())
        if not report.light:  # one run that Prefect is slow about would take the time of all
            repairs.context = _with_seconds(context, SECONDS_OF_LIGHT_LOOK)
            prefect = context.with_timeout(SECONDS_OF_LIGHT_LOOK + SECONDS_TO_FINISH)
            repairs.context = replace(repairs.context, prefect=prefect)
        _take_light_look(repairs, notes)
        repairs.context = context
        if not report.light:
            _run(repairs, STAGES)
            report.finished = repairs.place.stage >= len(STAGES)
            repairs.swept_at = context.now()
    except Exception:
        with suppress(Exception):  # the first failure is the one to know
            _save(repairs, notes)
        raise
    left = _save(repairs, notes)
    if not report.light:
        report.billed = keep_accounts(context, left)
    if not report.light or report.stranded or report.failed:
        context.log.info("swept", **report.summary)
    return report


def _save(repairs: Repairs, notes: SweepNotes) -> SweepNotes:
    """Leave what the next sweep has to know, and return it; count what could not be judged."""
    context, left = repairs.context, repairs.notes(len(STAGES))
    if left != notes:
        context.records.save_sweep(left)
    for reason, counted in repairs.report.unjudged.items():
        context.measure(Measured("", {Metric.SWEEP_UNJUDGED: Decimal(counted)}, reason))
    return left


def _rest(context: Context, notes: SweepNotes, pause: Pause) -> SweepReport:
    """Touch no run; bill, which ECS's memory of an hour does not let wait."""
    report = SweepReport(light=True, paused=str(pause))
    seconds = Decimal(int((context.now() - pause.paused_at).total_seconds()))
    context.measure(Measured("", {Metric.PAUSED_SECONDS: seconds}))
    report.billed = keep_accounts(context, notes)
    context.log.info("swept", **report.summary)
    return report


def _take_light_look(repairs: Repairs, notes: SweepNotes) -> None:
    """Answer what workers could not submit; the next minute tries again what fails here."""
    context, at = repairs.context, notes.without_end_at
    is_old_server = at is not None and context.now() - at < OLD_SERVER_FOR
    stages = LIGHT_STAGES if is_old_server else LIGHT_STAGES[:1]
    bookmark, repairs.place = repairs.place, Place()
    try:
        _run(repairs, stages)
        is_whole = repairs.place.stage == len(stages)
    except PrefectSpotError as error:
        if concerns_all(error):
            raise
        repairs.report.failed += 1
        context.log.exception("looking at failed submissions failed")
        is_whole = False
    finally:
        repairs.place = bookmark
    if not is_whole:
        repairs.answered |= notes.answered


def _is_due(notes: SweepNotes, now: datetime) -> bool:
    """Whether all runs are to be read again."""
    return bool(notes.bookmark) or notes.swept_at is None or now - notes.swept_at > SWEPT_EVERY


def _with_seconds(context: Context, seconds: float) -> Context:
    """Return the context of an invocation that ends after so many seconds, or earlier."""
    began, left = context.now(), context.seconds_left

    def seconds_left() -> float:
        return min(left(), seconds - (context.now() - began).total_seconds())

    return replace(context, seconds_left=seconds_left)


def _run(repairs: Repairs, stages: Sequence[Stage]) -> None:
    """Repair the runs of these stages from `repairs.place` on, and leave that where time ended."""
    pages, seen, has_time = Pages(repairs.context), repairs.report.seen, True
    while has_time and repairs.place.stage < len(stages):
        is_short = repairs.context.seconds_left() < SECONDS_PER_PAGE
        if repairs.report.seen > seen and is_short:
            break
        stage = stages[repairs.place.stage]
        repairs.place, has_time = _repair_page(repairs, pages, stage, repairs.place)


def _repair_page(repairs: Repairs, pages: Pages, stage: Stage, place: Place) -> tuple[Place, bool]:
    """Repair the runs of the page at a place; return the next one, and whether there was time.

    The place is moved back when runs left the set before it.
    """
    context, step = repairs.context, PAGE
    while (page := pages.read(stage.query(context, place))) is None or not place.joins(page.found):
        if page is None:
            place = Place(place.stage, place.after, by_id=True)
            continue
        place, step = replace(place, offset=max(0, place.offset - step)), step * 2
        if not page.whole:
            return place, False
    if not (page.found or page.whole):
        return place, False
    repairs.report.seen += len(page.found)
    repairs.is_old_server |= stage is STAGES[-1] and bool(page.found)
    repairs.unjudged.add_unread(page.found)
    before, rest = repairs.report.stranded, place.rest(page.found)
    undone = repairs.repair(stage.repair, rest)
    repairs.judged(rest if undone is None else rest[: rest.index(undone)])
    if undone is not None:
        return place.before(undone, rest), False
    left = repairs.report.stranded - before
    return place.next(page.found, PAGE, left, whole=page.whole), page.whole
