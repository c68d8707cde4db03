"""The `sweep` Lambda: repairs from state, on a schedule, what no event reported.

It reads the work pool's runs a page at a time, with a bounded number of calls per page; when its
time ends, it leaves a bookmark for the next sweep. Each orphaned run goes the way of an event:
`rescue`, under the run's lease, by the same decisions.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from chalicelib.core.model.ecs_task import Task, reason_to_ignore
from chalicelib.core.model.flow_run import FlowRun, ProposedState, RunRecord, StateType
from chalicelib.core.model.policy import Mode, runs_on_fargate
from chalicelib.core.ports import Context, RunQuery
from chalicelib.core.rescue.orphans import by_flow_run, noted_task, subject_of
from chalicelib.core.rescue.snapshot import Subject
from chalicelib.core.rescue.start_failures import is_submission_failure
from chalicelib.errors import PrefectSpotError
from chalicelib.functions.deadlines import keep_deadlines
from chalicelib.functions.meter import bill_missed, publish_savings
from chalicelib.functions.rescue import rescue

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


@dataclass(slots=True)
class SweepReport:
    """What a sweep did. `finished`: it came to the end, and left no bookmark."""

    seen: int = 0
    stranded: int = 0
    failed: int = 0
    billed: int = 0
    finished: bool = False
    decisions: Counter[str] = field(default_factory=Counter)

    @property
    def summary(self) -> dict[str, object]:
        """What the function returns to Lambda."""
        figures = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "decisions"}
        return {**figures, **self.decisions}


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a sweep is: the stage, and the expected start to read on from.

    Prefect sorts by expected start; runs that share one come in no fixed order. `moment` reads
    those by `offset`, for which Prefect sorts them by id.
    """

    stage: int = 0
    after: datetime | None = None
    moment: bool = False
    offset: int = 0

    def __str__(self) -> str:
        after = self.after.isoformat() if self.after else ""
        return f"{self.stage} {int(self.moment)} {self.offset} {after}"

    @classmethod
    def read(cls, bookmark: str) -> "_Place":
        stage, moment, offset, after = [*bookmark.split(" "), "", "", ""][:4]
        if not bookmark or int(stage) >= len(STAGES):
            return cls()
        since = datetime.fromisoformat(after) if after else None
        return cls(int(stage), since, moment == "1", int(offset))

    def next(self, runs: Sequence[FlowRun]) -> "_Place":
        """Return the place after a page; runs at its last moment are read once more."""
        is_full = len(runs) == PAGE
        if self.moment and is_full:
            return replace(self, offset=self.offset + PAGE)
        if self.moment and self.after is not None:
            return _Place(self.stage, self.after + timedelta(microseconds=1))
        if not is_full:
            return _Place(self.stage + 1)
        first, last = runs[0].expected_start, runs[-1].expected_start
        return _Place(self.stage, last, moment=first == last)


class _Sweep:
    """One invocation: what it repairs, stage by stage, and what it counts."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.report = SweepReport()
        self._tasks: Mapping[UUID, tuple[Task, ...]] | None = None
        self._inherited: dict[UUID | None, Mapping[str, object]] = {}

    def repair_parked(self, runs: Sequence[FlowRun]) -> bool:
        """Complete reruns that were left parked. One without a record waits for an own retry."""
        return self._repair(self._overdue(runs), lambda _: False)

    def repair_live(self, runs: Sequence[FlowRun]) -> bool:
        """Repair runs that are alive in Prefect and have no live task."""
        return self._repair(self._without_live_task(runs), lambda _: True)

    def repair_ended(self, runs: Sequence[FlowRun]) -> bool:
        """Rerun runs that Spot ended; end the subflows of all that stay ended."""
        overdue = self._overdue(runs)
        self._end_subflows(overdue)
        return self._repair(
            overdue,
            lambda run: is_submission_failure(run.state.message) or bool(self._tasks_of(run)),
        )

    def keep_deadlines(self, runs: Sequence[FlowRun]) -> bool:
        """Put runs on demand that a first attempt on Spot might make late."""
        return keep_deadlines(self.context, runs, self.report.decisions)

    def _repair(
        self, suspects: Sequence[FlowRun], without_record: Callable[[FlowRun], bool]
    ) -> bool:
        """Rescue the orphans that have a record, or pass the test; False when the time ended."""
        ids = [run.id for run in suspects]
        records = self.context.records.read_many(ids) if ids else {}
        for run in suspects:
            if run.id not in records and not without_record(run):
                continue
            known = self._tasks_of(run)
            if not all(task.exited for task in known):
                continue
            if self.report.stranded and self.context.seconds_left() < SECONDS_PER_RUN:
                return False
            self._rescue(run, known, records.get(run.id, RunRecord(run.id)))
        return True

    def _rescue(self, run: FlowRun, known: Sequence[Task], record: RunRecord) -> None:
        context = self.context
        try:
            history = context.prefect.read_history(run.id)
            subject = subject_of(run, history, known, record, context.now()) if history else None
            if subject is None or self._is_foreign(run, subject, known):
                return
            self.report.stranded += 1
            decision = rescue(context, run.id, subject, swept=run.state.id)
            self.report.decisions[decision.verdict.value] += 1
        except PrefectSpotError:
            self.report.failed += 1
            context.log.exception("repairing the flow run failed", flow_run_id=str(run.id))

    def _is_foreign(self, run: FlowRun, subject: Subject, known: Sequence[Task]) -> bool:
        """Whether the run's task is none of ours; of one that is gone, the job variables say it."""
        if isinstance(subject, Task):  # one on record was ours
            return subject in known and bool(reason_to_ignore(subject, *self.context.scope))
        if run.deployment_id not in self._inherited:
            prefect, pool = self.context.prefect, run.work_pool_name or self.context.work_pool
            found = prefect.read_deployment(run.deployment_id) if run.deployment_id else None
            inherited = {
                **prefect.read_pool_defaults(pool),
                **(found.job_variables if found else {}),
            }
            self._inherited[run.deployment_id] = inherited
        return not runs_on_fargate({**self._inherited[run.deployment_id], **run.job_variables})

    def _overdue(self, runs: Sequence[FlowRun]) -> list[FlowRun]:
        """Return the runs that have been in their state for longer than the grace."""
        now, grace = self.context.now(), self.context.grace
        return [run for run in runs if now - run.state.timestamp > grace]

    def _without_live_task(self, runs: Sequence[FlowRun]) -> list[FlowRun]:
        """Return the runs whose noted task, if any, has been gone for longer than the grace."""
        noted = defaultdict[str, list[str]](list)
        for cluster, arn in map(noted_task, runs):
            if arn:
                noted[cluster].append(arn)
        found: dict[str, Task] = {}
        for cluster, arns in noted.items():
            found.update(self.context.tasks.describe_many(cluster, arns))
        return [run for run in runs if self._looks_orphaned(run, found.get(noted_task(run)[1]))]

    def _looks_orphaned(self, run: FlowRun, task: Task | None) -> bool:
        if task is not None and not task.exited:
            return False
        exited_at = task.exited_at if task else None
        since = max(run.state.timestamp, exited_at or run.state.timestamp)
        return self.context.now() - since > self.context.grace

    def _end_subflows(self, parents: Sequence[FlowRun]) -> None:
        """Crash the live runs in the processes of parents that have ended: no process is left."""
        context = self.context
        if context.policy.mode is Mode.OBSERVE:
            return
        why = "Crashed with its parent run, whose ECS task is gone."
        crashed = ProposedState(StateType.CRASHED, "Crashed", why)
        generation = [parent.id for parent in parents]
        while generation:
            children = self._overdue(context.prefect.find_live_children(generation[:PAGE]))
            for child in children:
                context.prefect.propose_state(child.id, crashed)
                self.report.decisions["subflow-crashed"] += 1
            generation = [*generation[PAGE:], *(child.id for child in children)]

    def _tasks_of(self, run: FlowRun) -> tuple[Task, ...]:
        """Return the tasks tagged with the run: the worker notes a task late, or never."""
        if self._tasks is None:
            names = self.context.clusters
            self._tasks = by_flow_run(t for name in names for t in self.context.tasks.all_of(name))
        return self._tasks.get(run.id, ())


@dataclass(frozen=True, slots=True)
class Stage:
    """A group of runs: how they are found, and how a page of them is repaired.

    `repair` returns False when the time ended before the page. `narrow` bounds the query by time.
    """

    repair: Callable[[_Sweep, Sequence[FlowRun]], bool]
    state_types: tuple[StateType, ...]
    state_names: tuple[str, ...] = ()
    narrow: Callable[[RunQuery, datetime], RunQuery] = lambda query, _now: query

    def query(self, context: Context, place: "_Place") -> RunQuery:
        """Return the query for the page at a place."""
        query = RunQuery(
            context.work_pool,
            self.state_types,
            self.state_names,
            expected_after=place.after,
            limit=PAGE,
            offset=place.offset,
        )
        query = self.narrow(query, context.now())
        return replace(query, expected_before=query.expected_after) if place.moment else query


def _expected_lately(query: RunQuery, now: datetime) -> RunQuery:
    after = now - ENDED_WITHIN
    return replace(query, expected_after=max(after, query.expected_after or after))


STAGES: Final = (
    Stage(_Sweep.repair_parked, (StateType.SCHEDULED,), ("AwaitingRetry",)),
    Stage(_Sweep.repair_live, (StateType.RUNNING, StateType.PENDING, StateType.CANCELLING)),
    Stage(
        _Sweep.repair_ended,
        (StateType.CRASHED, StateType.CANCELLED),
        narrow=lambda query, now: replace(query, ended_after=now - ENDED_WITHIN),
    ),
    # Prefect 3.4 gives no end to a run that crashed before its start: one that Spot refused.
    Stage(_Sweep.repair_ended, (StateType.CRASHED,), narrow=_expected_lately),
    Stage(
        _Sweep.keep_deadlines,
        (StateType.SCHEDULED,),
        ("Scheduled", "Late", "AwaitingConcurrencySlot"),
        narrow=lambda query, now: replace(query, expected_before=now + LOOKED_AHEAD),
    ),
)


def sweep(context: Context, _event: object) -> SweepReport:
    """Repair the orphaned runs of the pool, from the bookmark on; return what was done.

    A run whose repair fails is counted and logged; the next sweep tries again. Raises
    PrefectSpotError when a page could not be read; also botocore's errors.
    """
    sweeping = _Sweep(context)
    report = sweeping.report
    place = _Place.read(context.records.read_bookmark())
    while place.stage < len(STAGES):
        if report.seen and context.seconds_left() < SECONDS_PER_PAGE:
            break
        stage = STAGES[place.stage]
        runs = context.prefect.find_runs(stage.query(context, place))
        report.seen += len(runs)
        if not stage.repair(sweeping, [run for run in runs if _is_in_our_clusters(context, run)]):
            break
        place = place.next(runs)
    report.finished = place.stage == len(STAGES)
    context.records.save_bookmark("" if report.finished else str(place), context.now())
    try:
        report.billed = bill_missed(context)
        publish_savings(context)
    except Exception:  # runs are repaired by now, which comes first; the next sweep bills
        context.log.exception("billing what was missed failed")
    context.log.info("swept", **report.summary)
    return report


def _is_in_our_clusters(context: Context, run: FlowRun) -> bool:
    """Whether the run's noted task, if it has one, is in one of our clusters."""
    cluster, _ = noted_task(run)
    ours = {name.rpartition("cluster/")[2] for name in context.clusters}
    return not cluster or cluster.rpartition("cluster/")[2] in ours
