"""The `sweep` Lambda: repairs from state, on a schedule, what no event reported.

It reads the work pool's runs a page at a time, with a bounded number of calls per page; when its
time ends, it leaves a bookmark for the next sweep. Each orphaned run goes the way of an event:
`rescue`, under the run's lease, by the same decisions.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final
from uuid import UUID

from chalicelib.core.metrics import Measured, Metric
from chalicelib.core.model.flow_run import FlowRun, ProposedState, RunRecord, StateType
from chalicelib.core.model.policy import Mode
from chalicelib.core.model.sweeping import Place, SweepNotes, Unjudged
from chalicelib.core.ports import Context, RunQuery
from chalicelib.core.rescue.orphans import subject_of
from chalicelib.errors import PrefectSpotError, concerns_all
from chalicelib.functions.deadlines import keep_deadlines
from chalicelib.functions.meter import bill_missed, publish_savings
from chalicelib.functions.rescue import rescue
from chalicelib.functions.run_tasks import NO_ARN, RunTasks, waits_in_process

PAGE: Final = 100
"""Runs read together: what DescribeTasks and BatchGetItem take in one request."""
ENDED_WITHIN: Final = timedelta(hours=1)
"""How far back runs are read that were crashed or cancelled."""
SECONDS_PER_PAGE: Final = 10.0
"""Must be left of the invocation, or no further page is begun."""
SECONDS_PER_RUN: Final = 5.0
"""Must be left of the invocation, or no further run of a page is repaired."""
LOOKED_AHEAD: Final = timedelta(minutes=15)
"""How early a run that waits for its start is read: three sweeps before it is due."""
UNJUDGED_FOR: Final = timedelta(hours=1)
"""How long a run that could not be judged is kept, and named by `spotctl status`, once it is no
longer met: it left Prefect's set."""
MOST_UNJUDGED: Final = 500
"""How many of those are kept, the last ones: their item in the table is read every minute."""


@dataclass(slots=True)
class SweepReport:
    """What a sweep did. `finished`: it came to the end, and left no bookmark.

    `unjudged`: runs that could not be judged, by reason, each counted once until it can; `failed`:
    runs that were not repaired.
    """

    seen: int = 0
    stranded: int = 0
    failed: int = 0
    billed: int = 0
    finished: bool = False
    unjudged: Counter[str] = field(default_factory=Counter)
    decisions: Counter[str] = field(default_factory=Counter)

    @property
    def summary(self) -> dict[str, object]:
        """What the function returns to Lambda."""
        figures = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "decisions"}
        return {**figures, "unjudged": dict(self.unjudged), **self.decisions}


class _Sweep:
    """One invocation: what it repairs, stage by stage, and what it counts."""

    def __init__(self, context: Context, notes: SweepNotes) -> None:
        self.context = context
        self.unjudged = dict(notes.unjudged)
        self.report = SweepReport()
        self.tasks = RunTasks(context)
        self._judged: set[UUID] = set()
        self._repaired: set[UUID] = set()
        self._left: set[UUID] = set()
        self._unread: dict[UUID, str] = {}

    def read(self, place: Place) -> tuple[Place, Sequence[FlowRun]]:
        """Return the page at a place; the place is moved back when runs left the set before it."""
        step = PAGE
        while True:
            page = self.context.prefect.find_runs(STAGES[place.stage].query(self.context, place))
            if place.joins(page):
                self.report.seen += len(page)
                return place, page
            place, step = replace(place, offset=max(0, place.offset - step)), step * 2

    def repair(self, place: Place, page: Sequence[FlowRun]) -> tuple[Place, bool]:
        """Repair the runs of a page; return the place after them, and whether there was time."""
        before, rest = self.report.stranded, place.rest(page)
        undone = STAGES[place.stage].repair(self, rest)
        for run in rest if undone is None else rest[: rest.index(undone)]:
            if run.id not in self._left:  # judged now: it counts again if it fails again
                self.unjudged.pop(run.id, None)
        if undone is not None:
            return place.before(undone, rest), False
        return place.next(page, PAGE, self.report.stranded - before), True

    def repair_scheduled(self, runs: Sequence[FlowRun]) -> FlowRun | None:
        """Complete reruns that were left parked, keep deadlines, and rerun what waits for a retry
        in a process that is gone: no worker ever takes that.
        """
        overdue = self._overdue(runs)
        orphans = self.tasks.without_live([run for run in overdue if waits_in_process(run)])
        is_orphan = {run.id for run in orphans}
        suspects = [
            run
            for run in overdue
            if (run.id in is_orphan if waits_in_process(run) else _was_moved(run))
        ]
        late = keep_deadlines(self.context, runs, self._records, self.report.decisions)
        undone = [late, self._repair(suspects, waits_in_process)]
        return min(filter(None, undone), key=runs.index, default=None)

    def repair_live(self, runs: Sequence[FlowRun]) -> FlowRun | None:
        """Repair runs that are alive in Prefect and have no live task."""
        return self._repair(self.tasks.without_live(runs), lambda _: True)

    def repair_ended(self, runs: Sequence[FlowRun]) -> FlowRun | None:
        """Rerun runs that Spot ended; end the subflows of all that stay ended."""
        ours = ("", NO_ARN)
        overdue = self._overdue([run for run in runs if self.tasks.elsewhere(run) in ours])
        undone = self._repair(overdue, self._may_need_repair)
        done = overdue if undone is None else overdue[: overdue.index(undone)]
        self._end_subflows([run for run in done if run.id not in self._repaired])
        return undone

    def _may_need_repair(self, run: FlowRun) -> bool:
        """Whether a run that has ended, and has no record, is looked at: its history may say more.

        A failed one is rerun on the evidence of a recorded warning only.
        """
        kind = run.state.type
        return kind is StateType.CRASHED or (
            kind is StateType.CANCELLED and bool(self.tasks.tagged(run))
        )

    def _repair(
        self, suspects: Sequence[FlowRun], without_record: Callable[[FlowRun], bool]
    ) -> FlowRun | None:
        """Rescue the orphans that have a record, or pass the test.

        Returns the first that it had no time for, None when it had for all; it judges one at least.
        """
        records = self._records(suspects)
        for run in suspects:
            if run.id in self._judged or not (
                run.id in records or run.id in self._unread or without_record(run)
            ):
                continue
            if not all(task.exited for task in self.tasks.tagged(run)):
                continue
            if self._judged and self.context.seconds_left() < SECONDS_PER_RUN:
                return run
            self._judged.add(run.id)
            try:
                self._judge(run, records.get(run.id, RunRecord(run.id)))
            except Exception as error:  # whatever is odd about one run, the others are judged
                if concerns_all(error):
                    raise
                self._fail(run.id)
                if not isinstance(error, PrefectSpotError):
                    self._leave(run, f"judging it failed: {type(error).__name__}")
        return None

    def _judge(self, run: FlowRun, record: RunRecord) -> None:
        context = self.context
        if why := self._unread.get(run.id, "") or self.tasks.unseen(run):
            self._leave(run, why)
            return
        history = context.prefect.read_history(run.id)
        known = self.tasks.of_attempt(run, history)
        if not history or known is None:
            return
        subject = subject_of(run, history, known, record, context.now())
        if subject is None:
            return
        self.report.stranded += 1
        self._repaired.add(run.id)
        decision = rescue(context, run.id, subject, swept=run.state.id)
        self.report.decisions[decision.verdict.value] += 1

    def _records(self, runs: Sequence[FlowRun]) -> Mapping[UUID, RunRecord]:
        """Return the records that there are; one that cannot be read costs its own run only."""
        ids, table = [run.id for run in runs], self.context.records
        try:
            return table.read_many(ids) if ids else {}
        except Exception as error:
            if concerns_all(error) or isinstance(error, PrefectSpotError):
                raise
            if len(ids) == 1:
                self._unread[ids[0]] = f"its record cannot be read: {type(error).__name__}"
                return {}
        half = len(runs) // 2
        return {**self._records(runs[:half]), **self._records(runs[half:])}

    def _leave(self, run: FlowRun, why: str) -> None:
        if run.id not in self.unjudged:
            self.report.unjudged[why] += 1
            self.context.log.info("could not be judged", flow_run_id=str(run.id), reason=why)
        self.unjudged[run.id] = Unjudged(why, self.context.now())
        self._left.add(run.id)

    def notes(self, place: str) -> SweepNotes:
        """Return what the next sweep has to know."""
        now = self.context.now()
        met = [kept for kept in self.unjudged.items() if now - kept[1].met_at < UNJUDGED_FOR]
        newest = sorted(met, key=lambda kept: kept[1].met_at)[-MOST_UNJUDGED:]
        return SweepNotes(place, now, dict(newest))

    def _fail(self, flow_run_id: UUID) -> None:
        self.report.failed += 1
        self.context.log.exception("repairing the flow run failed", flow_run_id=str(flow_run_id))

    def _overdue(self, runs: Sequence[FlowRun]) -> list[FlowRun]:
        """Return the runs that have been in their state for longer than the grace."""
        now, grace = self.context.now(), self.context.grace
        return [run for run in runs if now - run.state.timestamp > grace]

    def _end_subflows(self, parents: Sequence[FlowRun]) -> None:
        """Crash the live runs in the processes of parents that have ended: no process is left."""
        context = self.context
        if context.policy.mode is Mode.OBSERVE:
            return
        why = "Crashed with its parent run, whose ECS task is gone."
        crashed = ProposedState(StateType.CRASHED, "Crashed", why)
        generation = [parent.id for parent in parents]
        while generation:
            parent_ids, generation = generation[:PAGE], generation[PAGE:]
            try:
                children = self._overdue(context.prefect.find_live_children(parent_ids))
            except Exception:  # the runs themselves are repaired all the same
                self._fail(parent_ids[0])
                continue
            for child in children:
                try:
                    context.prefect.propose_state(child.id, crashed)
                    self.report.decisions["subflow-crashed"] += 1
                except Exception:  # the others end all the same; the next sweep tries again
                    self._fail(child.id)
            generation += [child.id for child in children]


@dataclass(frozen=True, slots=True)
class Stage:
    """A group of runs: how they are found, and how a page of them is repaired.

    `repair` returns the first run that there was no time for, None for none. `narrow` bounds the
    query by time.
    """

    repair: Callable[[_Sweep, Sequence[FlowRun]], FlowRun | None]
    state_types: tuple[StateType, ...]
    narrow: Callable[[RunQuery, datetime], RunQuery] = lambda query, _now: query

    def query(self, context: Context, place: Place) -> RunQuery:
        """Return the query for the page at a place."""
        query = RunQuery(
            context.work_pool,
            self.state_types,
            expected_after=place.after,
            limit=PAGE,
            offset=place.offset,
        )
        query = self.narrow(query, context.now())
        return replace(query, expected_before=query.expected_after) if place.moment else query


def _was_moved(run: FlowRun) -> bool:
    """Whether a state was ever proposed to the run: Prefect's scheduler gives no transition id."""
    return bool(run.run_count or run.infrastructure_pid or run.state.transition_id)


def _expected_lately(query: RunQuery, now: datetime) -> RunQuery:
    after = now - ENDED_WITHIN
    return replace(query, expected_after=max(after, query.expected_after or after))


STAGES: Final = (
    Stage(
        _Sweep.repair_scheduled,
        (StateType.SCHEDULED,),
        narrow=lambda query, now: replace(query, expected_before=now + LOOKED_AHEAD),
    ),
    Stage(_Sweep.repair_live, (StateType.RUNNING, StateType.PENDING, StateType.CANCELLING)),
    Stage(
        _Sweep.repair_ended,
        (StateType.CRASHED, StateType.CANCELLED, StateType.FAILED),
        narrow=lambda query, now: replace(query, ended_after=now - ENDED_WITHIN),
    ),
    # Prefect 3.4 gives no end to a run that crashed before its start: one that Spot refused.
    Stage(_Sweep.repair_ended, (StateType.CRASHED,), narrow=_expected_lately),
)


def sweep(context: Context, _event: object) -> SweepReport:
    """Repair the orphaned runs of the pool, from the bookmark on; return what was done.

    A run whose repair fails is counted and logged; the next sweep tries again. Raises
    PrefectSpotError when a page could not be read; also botocore's errors.
    """
    notes = context.records.read_sweep()
    sweeping = _Sweep(context, notes)
    report = sweeping.report
    place, has_time = Place.read(notes.place), True
    place = place if place.stage < len(STAGES) else Place()
    while has_time and place.stage < len(STAGES):
        if report.seen and context.seconds_left() < SECONDS_PER_PAGE:
            break
        place, has_time = sweeping.repair(*sweeping.read(place))
    report.finished = place.stage == len(STAGES)
    context.records.save_sweep(sweeping.notes("" if report.finished else str(place)))
    if counted := report.unjudged.total():
        context.measure(Measured("", {Metric.SWEEP_UNJUDGED: Decimal(counted)}))
    try:
        report.billed = bill_missed(context)
        publish_savings(context)
    except Exception:  # runs are repaired by now, which comes first; the next sweep bills
        context.log.exception("billing what was missed failed")
    context.log.info("swept", **report.summary)
    return report
