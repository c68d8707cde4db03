"""The `sweep` Lambda: what no event told is repaired from state, on a schedule.

It goes through the work pool's runs a page at a time, with a bounded number of calls per page, and
where its time ends it leaves a bookmark for the next. Each stranded run goes the way of an event:
`rescue`, under the run's lease, by the same decisions.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import Enum, auto
from typing import Final
from uuid import UUID

from chalicelib.core.context import Context
from chalicelib.core.model.ecs_task import NO_CAPACITY_REASON, Task
from chalicelib.core.model.flow_run import FlowRun, ProposedState, StateType
from chalicelib.core.model.run_record import RunRecord
from chalicelib.core.ports import RunQuery
from chalicelib.core.rescue.orphans import by_flow_run, evidence, lives, noted_task
from chalicelib.core.rescue.snapshot import Mode
from chalicelib.errors import PrefectSpotError
from chalicelib.functions.deadlines import keep_deadlines
from chalicelib.functions.meter import bill_missed, publish_savings
from chalicelib.functions.rescue import rescue

PAGE: Final = 100
"""Runs looked at together: what DescribeTasks and BatchGetItem take in one request."""

ENDED_WITHIN: Final = timedelta(hours=1)
"""How far back runs are looked at that were ended under our hands."""

SECONDS_PER_PAGE: Final = 10.0
"""Left of the invocation, or no further page is begun."""

SECONDS_PER_RUN: Final = 5.0
"""Left of the invocation, or no further run of a page is repaired."""

WAITING_NAMES: Final = ("Scheduled", "Late", "AwaitingConcurrencySlot")
LOOKED_AHEAD: Final = timedelta(minutes=15)
"""How early a run that waits for its start is looked at: three sweeps before it is due."""

SUBFLOW_MESSAGE: Final = "Crashed with its parent run, whose ECS task is gone."


class Since(Enum):
    """By which of its times a run has to be recent, to be looked at."""

    ANY = auto()
    END = auto()
    EXPECTED_START = auto()


@dataclass(frozen=True, slots=True)
class Stage:
    """One of the groups of runs that a sweep goes through."""

    name: str
    state_types: tuple[StateType, ...]
    state_names: tuple[str, ...] = ()
    since: Since = Since.ANY
    ahead: timedelta | None = None
    """How far ahead its runs may be due, to be looked at; None: any."""

    @property
    def is_ended(self) -> bool:
        """Whether its runs were ended by somebody."""
        return self.since is not Since.ANY


STAGES: Final = (
    Stage("parked", (StateType.SCHEDULED,), ("AwaitingRetry",)),
    Stage("live", (StateType.RUNNING, StateType.PENDING, StateType.CANCELLING)),
    Stage("ended", (StateType.CRASHED, StateType.CANCELLED), since=Since.END),
    # Prefect 3.4 gives no end to a run that crashed before its start: one that Spot refused.
    Stage("never started", (StateType.CRASHED,), since=Since.EXPECTED_START),
    Stage("waiting", (StateType.SCHEDULED,), WAITING_NAMES, ahead=LOOKED_AHEAD),
)


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
        return {
            "seen": self.seen,
            "stranded": self.stranded,
            "failed": self.failed,
            "billed": self.billed,
            "finished": self.finished,
            **self.decisions,
        }


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a sweep is: the stage, and from which expected start on.

    Prefect sorts by expected start, and runs that share one in no order at all; `moment` is the
    way through those, by `offset`, for then it sorts them by id.
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
        """Where to go on after a page; runs at its last moment come once more."""
        is_full = len(runs) == PAGE
        if self.moment and is_full:
            return replace(self, offset=self.offset + PAGE)
        if self.moment and self.after is not None:
            return _Place(self.stage, self.after + timedelta(microseconds=1))
        if not is_full:
            return _Place(self.stage + 1)
        first, last = runs[0].expected_start, runs[-1].expected_start
        return _Place(self.stage, last, moment=first == last)


def sweep(context: Context, _event: object) -> SweepReport:
    """Look at all runs of the pool, from the bookmark on, and repair those that are stranded.

    A run whose repair fails is counted and logged, and looked at again by the next sweep.

    Raises:
        PrefectSpotError: Prefect or AWS could not be asked for a page; also botocore's errors.
    """
    report = SweepReport()
    tasks = _TasksByTag(context)
    place = _Place.read(context.records.read_bookmark())
    while place.stage < len(STAGES):
        if report.seen and context.seconds_left() < SECONDS_PER_PAGE:
            break
        runs = context.prefect.find_runs(_query(context, place))
        report.seen += len(runs)
        if not _repair(context, STAGES[place.stage], _ours(context, runs), tasks, report):
            break
        place = place.next(runs)
    report.finished = place.stage == len(STAGES)
    context.records.save_bookmark("" if report.finished else str(place), context.now())
    _see_to_the_books(context, report)
    context.log.info("swept", **report.summary)
    return report


def _see_to_the_books(context: Context, report: SweepReport) -> None:
    """Bill what was missed, and publish the savings; a failure waits for the next sweep."""
    try:
        report.billed = bill_missed(context)
        publish_savings(context)
    except Exception:  # runs have been repaired by now, and that comes first
        context.log.exception("billing what was missed failed")


def _query(context: Context, place: _Place) -> RunQuery:
    stage = STAGES[place.stage]
    recent = context.now() - ENDED_WITHIN
    after = place.after
    before = context.now() + stage.ahead if stage.ahead is not None else None
    if stage.since is Since.EXPECTED_START:
        after = max(recent, after) if after else recent
    return RunQuery(
        work_pool=context.work_pool,
        state_types=stage.state_types,
        state_names=stage.state_names,
        expected_after=after,
        expected_before=after if place.moment else before,
        ended_after=recent if stage.since is Since.END else None,
        limit=PAGE,
        offset=place.offset,
    )


def _ours(context: Context, runs: Sequence[FlowRun]) -> list[FlowRun]:
    """Leave out runs whose noted task is in a cluster that is not ours."""
    ours = []
    for run in runs:
        cluster, _ = noted_task(run)
        if not cluster or cluster.rpartition("cluster/")[2] in _cluster_names(context):
            ours.append(run)
    return ours


def _cluster_names(context: Context) -> set[str]:
    return {cluster.rpartition("cluster/")[2] for cluster in context.clusters}


def _repair(
    context: Context, stage: Stage, runs: list[FlowRun], tasks: "_TasksByTag", report: SweepReport
) -> bool:
    """Repair the stranded ones of a page; False when the time ended before they were through."""
    if stage.name == "waiting":
        return keep_deadlines(context, runs, report.decisions)
    due = [run for run in runs if context.now() - run.state.timestamp > context.grace]
    suspects = due if stage.name != "live" else _without_live_task(context, runs)
    if not suspects:
        return True
    if stage.is_ended:
        _end_subflows(context, suspects, report)
    records = context.records.read_many([run.id for run in suspects])
    for run in suspects:
        record = records.get(run.id)
        if stage.name == "parked" and record is None:
            continue  # a retry of its own, that waits
        known = tasks.of(run)
        refused = NO_CAPACITY_REASON in run.state.message
        if stage.is_ended and record is None and not known and not refused:
            continue  # nothing says that Spot had a part in it
        if any(lives(task) for task in known):
            continue
        if report.stranded and context.seconds_left() < SECONDS_PER_RUN:
            return False
        _rescue(context, run, known, record or RunRecord(run.id), report)
    return True


def _without_live_task(context: Context, runs: list[FlowRun]) -> list[FlowRun]:
    """The runs whose noted task does not live, or that have none, for longer than the grace."""
    noted: dict[str, list[str]] = {}
    for run in runs:
        cluster, arn = noted_task(run)
        if arn:
            noted.setdefault(cluster, []).append(arn)
    found: dict[str, Task] = {}
    for cluster, arns in noted.items():
        found.update(context.tasks.describe_many(cluster, arns))
    return [run for run in runs if _looks_stranded(context, run, found.get(noted_task(run)[1]))]


def _looks_stranded(context: Context, run: FlowRun, task: Task | None) -> bool:
    """Whether the fast path had its time with a run that has no live task noted."""
    if task is not None and lives(task):
        return False
    since = run.state.timestamp
    if task is not None and task.exited_at is not None:
        since = max(since, task.exited_at)
    return context.now() - since > context.grace


def _rescue(
    context: Context, run: FlowRun, known: Sequence[Task], record: RunRecord, report: SweepReport
) -> None:
    try:
        history = context.prefect.read_history(run.id)
        task = evidence(run, history, known, record, context.now()) if history else None
        if task is None:
            return
        report.stranded += 1
        decision = rescue(context, run.id, task, swept=True)
        report.decisions[decision.verdict.value] += 1
    except PrefectSpotError:
        report.failed += 1
        context.log.exception("repairing the flow run failed", flow_run_id=str(run.id))


def _end_subflows(context: Context, parents: list[FlowRun], report: SweepReport) -> None:
    """Runs in the process of a parent that is over have nobody left to end them."""
    if context.policy.mode is Mode.OBSERVE:
        return
    crashed = ProposedState(StateType.CRASHED, "Crashed", SUBFLOW_MESSAGE)
    generation = [parent.id for parent in parents]
    while generation:
        children = context.prefect.find_live_children(generation[:PAGE])
        due = [c for c in children if context.now() - c.state.timestamp > context.grace]
        for child in due:
            context.prefect.propose_state(child.id, crashed)
            report.decisions["subflow-crashed"] += 1
        generation = [*generation[PAGE:], *(child.id for child in due)]


class _TasksByTag:
    """All tasks of our clusters by the run they are tagged with; asked for once, when needed.

    The worker notes a run's task only after it has started one, and sometimes never: before a run
    is judged to have none, this is where it is looked for.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._tasks: Mapping[UUID, tuple[Task, ...]] | None = None

    def of(self, run: FlowRun) -> tuple[Task, ...]:
        if self._tasks is None:
            clusters = self._context.clusters
            everything = [task for name in clusters for task in self._context.tasks.all_of(name)]
            self._tasks = by_flow_run(everything)
        return self._tasks.get(run.id, ())
