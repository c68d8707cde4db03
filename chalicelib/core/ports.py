"""The outside world as the functions see it, and the context of one invocation.

`wiring.py` provides both. Each port has two implementations, which pass the same contract tests: an
adapter, and an in-memory twin in `tests/twin/`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol
from uuid import UUID

from chalicelib.core.model.ecs_task import Task
from chalicelib.core.model.flow_run import (
    CompletedRun,
    FlowRun,
    JsonObject,
    PrefectDeployment,
    ProposedState,
    RunChange,
    RunRecord,
    RunState,
    StateAnswer,
    StateType,
    TaskRun,
)
from chalicelib.core.model.policy import Pause, Policy
from chalicelib.core.model.sweeping import SweepNotes, UnreadRun
from chalicelib.core.rescue.actions import Artifact, LogLine, PrefectEvent
from chalicelib.core.rescue.notification import Notification

if TYPE_CHECKING:  # `react` bills nothing: its cold start does without
    from chalicelib.core.metrics import Measured
    from chalicelib.core.money.bill import Bill
    from chalicelib.core.money.report import DailySum
    from chalicelib.core.money.savings import TableArtifact


@dataclass(frozen=True, slots=True)
class RunQuery:
    """Which runs `find_runs` shall return: those of these work pools, in some states.

    `state_names`: Prefect's own names (AwaitingRetry), empty for any. `expected_after` and
    `expected_before` bound the expected start, both included; `ended_after` the end; `without_end`:
    only runs that have none, as one has on Prefect 3.4 that crashed before its start. At most
    `limit` (200) runs come back, after skipping `offset`: by expected start, earliest first, or
    `by_id`, the greatest first, which is an order that two searches agree on. `known_pool`: a
    work pool is there, so that an empty answer needs no second request.
    """

    work_pools: tuple[str, ...]
    state_types: tuple[StateType, ...]
    state_names: tuple[str, ...] = ()
    expected_after: datetime | None = None
    expected_before: datetime | None = None
    ended_after: datetime | None = None
    without_end: bool = False
    limit: int = 200
    offset: int = 0
    by_id: bool = False
    known_pool: bool = False

    @property
    def is_by_id(self) -> bool:
        """Whether the runs come by id: of one moment they do."""
        return self.by_id or self.expected_after == self.expected_before is not None


class Prefect(Protocol):
    """The part of Prefect's API that a rescue needs.

    Every method may raise PrefectUnavailableError (try again later: connection errors, 429, 5xx,
    or out of time), PrefectRefusedError (401 and 403: the credentials are wrong) or
    PrefectRejectedError (any other 4xx: the request is wrong). See `chalicelib/errors.py`.
    """

    def read_run(self, flow_run_id: UUID) -> FlowRun | None:
        """Return the run as it is now; None when Prefect does not know it."""

    def read_history(self, flow_run_id: UUID) -> tuple[RunState, ...]:
        """Return all states the run has been in, oldest first; empty for an unknown run."""

    def find_runs(self, query: RunQuery) -> tuple[FlowRun | UnreadRun, ...]:
        """Return the runs of a query, in its order, those that cannot be read in their places.

        Raises PrefectUnreadableError, at once, when Prefect fails over this page, as it does over
        each that holds a run with a null among its labels.
        """

    def find_run_ids(self, query: RunQuery) -> tuple[UUID, ...]:
        """Return the ids of a query's runs without reading the runs; none where Prefect cannot."""

    def find_live_children(self, parents: Sequence[UUID]) -> tuple[FlowRun, ...]:
        """Return the runs in the processes of these parents (100 at most), not their children's.

        Those that are RUNNING or PENDING, or wait for a retry of their own (SCHEDULED). Only id,
        state without texts, `run_count` and policy of each are sure to be there.
        """

    def find_task_runs_left(self, flow_runs: Sequence[UUID]) -> tuple[tuple[UUID, ...], bool]:
        """Return the task runs of these runs that say RUNNING, and whether one may be a subflow's.

        Each live subflow has one, in the subflow's state. It is not among those that are returned:
        Prefect 3.9 would start the subflow anew if its task run had ended.
        """

    def crash_task_run(self, task_run_id: UUID, message: str) -> None:
        """Set a task run Crashed, which frees its slot of a tag's limit; one that ended stays."""

    def read_task_runs(
        self, flow_run_id: UUID, after: datetime, before: datetime
    ) -> tuple[TaskRun, ...]:
        """Return the task runs that started between these times, both included.

        Of the run and of its subflows in the same process; not those that stand for a subflow.
        """

    def find_completed_runs(self, deployment_id: UUID, limit: int) -> tuple[CompletedRun, ...]:
        """Return the deployment's runs that completed last, `limit` (200) at most, newest first."""

    def read_deployment_name(self, deployment_id: UUID) -> str:
        """Return flow/deployment, as Prefect calls it; empty for a deployment it does not know.

        It may be remembered: whether a deployment still exists, only `read_deployment` answers.
        """

    def read_deployment(self, deployment_id: UUID) -> PrefectDeployment | None:
        """Return the deployment as it is now; None when Prefect does not know it."""

    def read_pool_defaults(self, work_pool: str) -> JsonObject:
        """Return the defaults of the variables of the pool's base job template, by name.

        A null is left out: workers take it for none. Empty for a pool that Prefect does not know.
        """

    def propose_state(
        self, flow_run_id: UUID, state: ProposedState, *, force: bool = False
    ) -> StateAnswer:
        """Ask for a state. `force` skips Prefect's orchestration rules.

        A proposal whose `transition_id` is the current state's is REJECTed: it was accepted before.
        Raises PrefectOutcomeUnknownError when the answer is lost: the run may have the state.
        """

    def change_run(self, flow_run_id: UUID, change: RunChange) -> None:
        """PATCH the run with what the change holds; sends nothing for an empty change."""

    def add_labels(self, flow_run_id: UUID, labels: Mapping[str, str | int]) -> None:
        """Merge labels into the run's. A null is not accepted: it breaks the run's reads."""

    def write_log(self, line: LogLine) -> None:
        """Append a line to the run's log."""

    def write_artifact(self, artifact: Artifact) -> None:
        """Store an artifact, or a new version of it, on the run."""

    def write_table(self, table: "TableArtifact") -> None:
        """Store a table, or a new version of it."""

    def emit_events(self, events: Sequence[PrefectEvent]) -> None:
        """Emit events, the resource of each being its run; sends nothing for none."""


class Records(Protocol):
    """The run records, and the lease on each."""

    def read(self, flow_run_id: UUID) -> RunRecord:
        """Return the record as it is, without a lease."""

    def read_many(self, flow_run_ids: Sequence[UUID]) -> Mapping[UUID, RunRecord]:
        """Return the records that there are, of a hundred runs at most: one request, as a rule."""

    def read_sweep(self) -> SweepNotes:
        """Return what the last sweep left."""

    def save_sweep(self, notes: SweepNotes) -> None:
        """Write it, in place of what is there."""

    def read_pause(self) -> Pause | None:
        """Return the stage's pause; None when it is not paused."""

    def acquire(self, flow_run_id: UUID, now: datetime, lease: timedelta) -> RunRecord:
        """Take the lease and return the record. Raises LeaseHeldError."""

    def save(self, record: RunRecord) -> None:
        """Write the record. Raises LeaseLostError."""

    def release(self, record: RunRecord) -> None:
        """Write the record and give the lease back. Raises LeaseLostError."""


class Bills(Protocol):
    """The bills, one per task, and the daily sums that are written with them."""

    def unbilled(self, task_arns: Sequence[str]) -> tuple[str, ...]:
        """Return those of the tasks (any number) that have no bill."""

    def write(self, bill: "Bill", first: "DailySum", later: "DailySum") -> bool:
        """Store the bill and add its sum, both or neither; False: the task has a bill already.

        `first` is added where this is the run's first bill, `later` where it is not. Raises
        ThrottledError: other handlers write to the same sums.
        """

    def read_sums(self, days: Sequence[date]) -> "tuple[DailySum, ...]":
        """Return the sums of these days, by day and deployment."""

    def read_reported(self) -> str:
        """Return the day that the savings were last put into Prefect; empty: never."""

    def save_reported(self, day: str) -> None:
        """Note the day that the savings were put into Prefect."""


@dataclass(frozen=True, slots=True)
class Undescribed:
    """ECS says neither what a task is like nor that it has forgotten it, and why.

    `arn`: the task's, where it is not returned by ARN.
    """

    reason: str
    arn: str = ""


class Tasks(Protocol):
    """Tasks as ECS describes them. Every method raises botocore's errors, and PrefectSpotError."""

    def describe(self, cluster: str, task_arn: str) -> Task | None:
        """Return the task, its tags read; None when ECS has forgotten it."""

    def describe_many(
        self, cluster: str, task_arns: Sequence[str]
    ) -> Mapping[str, Task | Undescribed]:
        """Return the tasks that ECS still knows, by ARN, asking for a hundred at a time."""

    def all_of(self, cluster: str) -> tuple[Task, ...]:
        """Return every task of the cluster, those stopped in the last hour included, with tags.

        Raises ClusterGoneError for a cluster that ECS does not know; so does `stopped_of`.
        """

    def stopped_of(self, cluster: str) -> tuple[Task | Undescribed, ...]:
        """Return the tasks of the cluster that were stopped in the last hour, with tags."""


class Log(Protocol):
    """A structured logger: keywords become keys of the line."""

    def info(self, msg: object, **keys: Any) -> None:
        """Log a line."""

    def warning(self, msg: object, **keys: Any) -> None:
        """Log a line at level WARNING."""

    def exception(self, msg: object, **keys: Any) -> None:
        """Log a line with the present exception."""


@dataclass(frozen=True, slots=True)
class Context:
    """The ports, the clock and the user's policy. `account`, `region`: ours; empty: not checked.

    `lease` is longer than the invocation can last, so that it never ends under a living handler;
    `grace` is what `react` is given before `sweep` repairs, `pending_grace` what a worker is given
    to bring up the task of a run that it picked up. `gather` makes calls that do not depend
    on each other, all of them whatever fails, and returns their results or raises the first
    failure. `with_timeout` makes a Prefect that gives up after so many seconds; `bills_in_time`
    gives up each request after two. `pause` waits so many seconds; `seconds_left` of the
    invocation. `measure` hands on values for CloudWatch. `paused` returns the stage's pause, as it
    was ten seconds ago at most. `notify` sends a message.
    """

    prefect: Prefect
    with_timeout: Callable[[float], Prefect]
    records: Records
    bills: Bills
    bills_in_time: Bills
    tasks: Tasks
    log: Log
    now: Callable[[], datetime]
    lease: timedelta
    policy: Policy
    clusters: tuple[str, ...]
    account: str
    region: str
    work_pools: tuple[str, ...]
    grace: timedelta
    pending_grace: timedelta
    seconds_left: Callable[[], float]
    pause: Callable[[float], None]
    gather: Callable[[Sequence[Callable[[], Any]]], list[Any]]
    measure: "Callable[[Measured], None]"
    paused: Callable[[], Pause | None]
    notify: Callable[[Notification], None] = lambda _: None

    @property
    def scope(self) -> tuple[tuple[str, ...], str, str]:
        """Clusters, account and region: what `reason_to_ignore` compares a task with."""
        return self.clusters, self.account, self.region

    def pool_of(self, run: FlowRun) -> str:
        """Return the run's work pool; the first of ours for one that names none."""
        return run.work_pool_name or self.work_pools[0]
