"""A small universe for the laws: the twins of Prefect and the tables, ECS as a dictionary, a clock.

Handlers run in it one call at a time; a `Fault` says what befalls one of them at which call.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import Enum, auto
from typing import Any
from uuid import UUID, uuid4

from botocore.exceptions import ClientError

from chalicelib.core.metrics import Measured
from chalicelib.core.model.ecs_task import Task
from chalicelib.core.model.policy import Policy
from chalicelib.core.money.bill import Deployment
from chalicelib.core.money.report import Counts, DailySum
from chalicelib.core.ports import Context, Log
from chalicelib.core.rescue.actions import Decision
from chalicelib.errors import PrefectOutcomeUnknownError, PrefectSpotError, PrefectUnavailableError
from chalicelib.functions.meter import MeterReport, meter
from chalicelib.functions.react import react
from chalicelib.functions.sweep import sweep
from chalicelib.functions.sweep_report import SweepReport
from tests.make import ACCOUNT, CLUSTER_ARN, NOW, TASK_ARN, make_event
from tests.twin.orchestration import TwinRun
from tests.twin.prefect import InMemoryPrefect
from tests.twin.tables import InMemoryBills, InMemoryRecords, StoredRecords
from tests.twin.tasks import InMemoryTasks

LEASE = timedelta(seconds=35)
LAMBDA_RETRY = timedelta(seconds=60)
STOPPED_AFTER = timedelta(seconds=30)
"""From a container's exit to the task's end, as long as its network interface is detached."""

BY_ITSELF = {"stop_code": "EssentialContainerExited", "stopped_reason": "exited"}
OUT_OF_MEMORY = {"stop_code": "EssentialContainerExited", "stopped_reason": "OutOfMemoryError"}
DRILL = {"stop_code": "UserInitiated", "stopped_reason": "prefect-spot drill by a test"}
"""How a task ends that Spot does not take."""


class Killed(BaseException):
    """The handler's process is gone; nothing of it runs any more."""


FAILURES = (Killed, PrefectSpotError, ClientError)
"""How a handler may end without an answer: Lambda retries it."""


class Befalls(Enum):
    """What may happen to a handler at one of its calls; the call that fails leaves it alive.

    `IS_OVERTAKEN`, `FALLS_ASLEEP`: another handler runs.
    """

    DIES_BEFORE = auto()
    DIES_AFTER = auto()
    FAILS_BEFORE = auto()
    FAILS_AFTER = auto()
    IS_OVERTAKEN = auto()
    FALLS_ASLEEP = auto()


def failure_of(call: str, *, lost: bool) -> Exception:
    """What an adapter raises once its own tries are used up: Prefect is busy, AWS throttles.

    `lost`: the call took effect, and its answer was lost.
    """
    if call == "prefect.propose_state" and lost:
        return PrefectOutcomeUnknownError("connection reset", next_step="none")
    if call.startswith(("prefect.", "work_pools.")):
        return PrefectUnavailableError("503 Service Unavailable", next_step="none")
    throttled = {"Error": {"Code": "ThrottlingException", "Message": "Rate exceeded"}}
    return ClientError(throttled, call)  # type: ignore[arg-type]  # botocore fills in the rest


@dataclass
class Lines:
    """A log that can be read: each message with its keys; `exception` is one of them."""

    lines: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def info(self, msg: object, **keys: Any) -> None:
        self.lines.append((str(msg), keys))

    def exception(self, msg: object, **keys: Any) -> None:
        self.lines.append((str(msg), {**keys, "exception": True}))


@dataclass
class Tripwire:
    """Counts the calls of one handler through all its ports; `befalls` happens at one (from 0)."""

    befalls: Befalls | None = None
    at: int = 0
    meanwhile: Callable[[], object] = lambda: None
    calls: list[str] = field(default_factory=list)
    dead: bool = False
    asleep: bool = False

    def around(self, port: object, name: str) -> Any:
        return _Tripped(port, name, self)

    def call(self, name: str, call: Callable[[], Any]) -> Any:
        if self.dead:
            raise Killed
        befalls = self.befalls if self.at == len(self.calls) else None
        self.calls.append(name)
        if befalls in (Befalls.DIES_AFTER, Befalls.FAILS_AFTER):
            call()
        if befalls in (Befalls.DIES_BEFORE, Befalls.DIES_AFTER):
            self.dead = True
            raise Killed
        if befalls in (Befalls.FAILS_BEFORE, Befalls.FAILS_AFTER):
            raise failure_of(name, lost=befalls is Befalls.FAILS_AFTER)
        if befalls in (Befalls.IS_OVERTAKEN, Befalls.FALLS_ASLEEP):
            self.asleep = befalls is Befalls.FALLS_ASLEEP
            self.meanwhile()
        if self.asleep and name.startswith("prefect."):
            # The client's deadline ends with the invocation, which ends before the lease.
            raise PrefectUnavailableError("out of time", next_step="none")
        return call()


def one_by_one(calls: Sequence[Callable[[], Any]]) -> list[Any]:
    """Make all the calls, one after another; return their results, or raise the first failure."""
    results, failures = [], []
    for call in calls:
        try:
            results.append(call())
        except Exception as error:
            failures.append(error)
    if failures:
        raise failures[0]
    return results


@dataclass
class _Tripped:
    port: object
    name: str
    wire: Tripwire

    def __getattr__(self, method: str) -> Callable[..., Any]:
        real, name = getattr(self.port, method), f"{self.name}.{method}"
        return lambda *args, **kwargs: self.wire.call(name, lambda: real(*args, **kwargs))


@dataclass
class Universe:
    """Flow runs and all their tasks. Time stands still unless a test moves it."""

    policy: Policy = field(default_factory=Policy)
    now: datetime = NOW
    tasks: dict[str, Task] = field(default_factory=dict)
    measured: list[Measured] = field(default_factory=list)
    log: Log = field(default_factory=Lines)
    stored: StoredRecords = field(default_factory=StoredRecords)
    bills: InMemoryBills = field(default_factory=InMemoryBills)
    shows_stopped: bool = True
    """Whether ECS lists stopped tasks, for `sweep` to bill."""
    wire: Tripwire = field(default_factory=Tripwire)
    """The newest handler's."""

    def __post_init__(self) -> None:
        self.serve()

    def serve(self, *, oldest: bool = False) -> None:
        """Have a Prefect of its own, whose work pool puts runs on Spot."""
        self.prefect = InMemoryPrefect(self.clock, oldest=oldest)
        self.prefect.pool_defaults[self.prefect.work_pool_name] = {"launch_type": "FARGATE_SPOT"}

    @property
    def calls(self) -> list[str]:
        """The calls of the newest handler."""
        return self.wire.calls

    def clock(self) -> datetime:
        return self.now

    def passes(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    def records(self) -> InMemoryRecords:
        """The run records, as one more handler sees them."""
        return InMemoryRecords(self.stored, owner=str(uuid4()))

    def running(self, *, pid_noted: bool = True, **run: Any) -> tuple[TwinRun, Task]:
        """A new run, and its first task, in which its engine has started the flow."""
        run_id = self.prefect.create_run(**run)
        return self.prefect.runs[run_id], self.start(run_id, pid_noted=pid_noted)

    def deployment_after(self, seconds: float, **job_variables: object) -> UUID:
        """A deployment with one completed run, which took that long; and 90 Spot hours before."""
        deployment_id = self.prefect.create_deployment(job_variables=job_variables)
        run, _ = self.running(deployment_id=deployment_id)
        self.passes(seconds)
        self.prefect.engine_finishes(run.id)
        day, others = self.now.date() - timedelta(days=2), Deployment("others")
        counts = Counts(first_spot_us=90 * 3_600_000_000, first_interruptions=10)
        self.bills.sums[day, others.key] = DailySum(day, others, counts)
        return deployment_id

    def start(self, run_id: UUID, *, retries: int = 0, pid_noted: bool = True) -> Task:
        """A worker picks the run up and starts a task; its engine starts the flow."""
        arn = TASK_ARN[:-32] + uuid4().hex
        self.prefect.worker_picks_up(run_id, f"{CLUSTER_ARN}::{arn}" if pid_noted else None)
        self.passes(1)
        on_demand = self.prefect.runs[run_id].job_variables.get("launch_type") == "FARGATE"
        task = self.tasks[arn] = Task(
            arn=arn,
            cluster_arn=CLUSTER_ARN,
            last_status="RUNNING",
            capacity_provider="" if on_demand else "FARGATE_SPOT",
            flow_run_id=run_id,
            launch_type="FARGATE",
            cpu_units=256,
            memory_mib=512,
            created_at=self.now,
            pull_started_at=self.now,
            started_at=self.now + timedelta(seconds=1),
        )
        self.passes(2)
        self.prefect.engine_starts(run_id, retries=retries)
        self.passes(5)
        return task

    def event(self, task: Task, **detail: Any) -> dict[str, Any]:
        """An event about a task, with times that fit this universe's clock."""
        ordinary = {
            "taskArn": task.arn,
            "capacityProviderName": task.capacity_provider or None,
            "createdAt": task.created_at,
            "pullStartedAt": task.pull_started_at,
            "startedAt": task.started_at,
            "executionStoppedAt": None,
            "updatedAt": self.now,
        }
        values = {**ordinary, **detail}.items()
        event = make_event(
            {name: v.isoformat() if isinstance(v, datetime) else v for name, v in values}
        )
        override = event["detail"]["overrides"]["containerOverrides"][0]
        override["environment"][0]["value"] = str(task.flow_run_id)
        return event

    def warning(self, task: Task, status: str = "RUNNING") -> dict[str, Any]:
        containers = [{"name": "prefect", "lastStatus": "RUNNING"}]
        return self.event(task, lastStatus=status, version=4, containers=containers)

    def exits(self, task: Task) -> list[dict[str, Any]]:
        """Spot takes the task; return every event about its container's exit, in ECS's order."""
        self.stops(task)
        return [
            self.event(task, lastStatus=status, version=version, executionStoppedAt=self.now)
            for version, status in enumerate(("RUNNING", "DEPROVISIONING", "STOPPED"), start=5)
        ]

    def end_of(self, task: Task) -> dict[str, Any]:
        """The event about the task's end, as ECS noted it."""
        ended = self.tasks[task.arn]
        unstarted: dict[str, Any] = {} if ended.started_at else {"containers": []}
        return self.event(
            ended,
            lastStatus="STOPPED",
            version=7,
            stopCode=ended.stop_code,
            stoppedReason=ended.stopped_reason,
            executionStoppedAt=ended.execution_stopped_at,
            stoppedAt=ended.stopped_at,
            **unstarted,
        )

    def stops(self, task: Task, **how: Any) -> None:
        """ECS notes the task's end: an interruption, unless `how` says otherwise."""
        interrupted = {
            "last_status": "STOPPED",
            "desired_status": "STOPPED",
            "execution_stopped_at": self.now,
            "stopped_at": self.now + STOPPED_AFTER,
            "stop_code": "SpotInterruption",
            "stopped_reason": "Your Spot Task was interrupted.",
        }
        self.tasks[task.arn] = replace(task, **{**interrupted, **how})

    def context(self, wire: Tripwire | None = None) -> Context:
        """The context as one handler sees it, whose calls go through `wire`."""
        self.wire = wire or Tripwire()
        prefect = self.wire.around(self.prefect, "prefect")
        records = self.wire.around(self.records(), "records")
        return Context(
            prefect=prefect,
            with_timeout=lambda _seconds: prefect,
            records=records,
            bills=self.wire.around(self.bills, "bills"),
            bills_in_time=self.wire.around(self.bills, "bills"),
            tasks=self.wire.around(InMemoryTasks(self.tasks, self.shows_stopped), "tasks"),
            log=self.log,
            now=self.clock,
            lease=LEASE,
            policy=self.policy,
            clusters=("prefect-spot-dev",),
            account=ACCOUNT,
            region="us-east-1",
            work_pool=self.prefect.work_pool_name,
            grace=timedelta(minutes=3),
            pending_grace=timedelta(minutes=15),
            seconds_left=lambda: 60.0,
            pause=self.passes,
            gather=one_by_one,
            measure=self.measured.append,
            paused=records.read_pause,
        )

    def handle(self, event: dict[str, Any], wire: Tripwire | None = None) -> Decision | None:
        """One handler answers one event; None when it raised, or was killed."""
        with suppress(*FAILURES):
            return react(self.context(wire), event)
        return None

    def deliver(self, event: dict[str, Any], wire: Tripwire | None = None) -> None:
        """Deliver as Lambda does, with two retries. The wire is the first handler's."""
        if self.handle(event, wire) is None:
            self.now += LAMBDA_RETRY
            if self.handle(event) is None:
                self.now += LAMBDA_RETRY * 2
                assert self.handle(event) is not None, "the event is lost"

    def sweep(self, wire: Tripwire | None = None) -> SweepReport | None:
        """One sweep, after the grace; None when it raised, or was killed."""
        self.passes(300)
        with suppress(*FAILURES):
            return sweep(self.context(wire), {})
        return None

    def meter(self, event: dict[str, Any], wire: Tripwire | None = None) -> MeterReport | None:
        """One `meter` bills the task of one event; None when it raised, or was killed."""
        with suppress(*FAILURES):
            return meter(self.context(wire), event)
        return None

    def sums(self) -> tuple[DailySum, ...]:
        """All that was counted, on the few days that such a life takes."""
        today = self.now.date()
        return self.bills.read_sums([today + timedelta(days=n) for n in (-1, 0, 1)])
