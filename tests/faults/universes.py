"""Whole lives of flow runs in the laws' universe, up to an end that the oracle can judge."""

from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any
from uuid import UUID

from chalicelib.core.model.ecs_task import Task
from chalicelib.core.model.flow_run import StateType
from chalicelib.core.model.policy import Notify
from chalicelib.core.money.report import Counts
from localcloud.oracle import Observation, Verdict, judge
from localcloud.task_life import ContainerLife
from tests.laws.universe import (
    BY_ITSELF,
    DRILL,
    OUT_OF_MEMORY,
    STOPPED_AFTER,
    Befalls,
    Tripwire,
    Universe,
)
from tests.make import AUTO

TOO_LONG_FOR_SPOT = 400_000.0
"""Seconds, by what `auto` expects."""


@dataclass
class Life:
    """A run in its universe, with the tasks it had. `budget` is what the oracle allows it."""

    universe: Universe
    run_id: UUID
    budget: int
    tasks: list[Task] = field(default_factory=list)
    children: list[UUID] = field(default_factory=list)

    @property
    def state(self) -> StateType:
        return self.universe.prefect.runs[self.run_id].state.type

    def live_on(self) -> None:
        """What follows by itself: a worker takes the run if it is due, and the flow ends well."""
        if self.universe.prefect.is_due(self.run_id):
            self.tasks.append(self.universe.start(self.run_id))
            self.universe.prefect.engine_finishes(self.run_id)
            self.universe.stops(self.tasks[-1], **BY_ITSELF)

    def verdict(self, *, rescued: bool = True) -> Verdict:
        return judge(self.observation(rescued=rescued))

    def observation(self, *, rescued: bool = True) -> Observation:
        """What the oracle sees of it: the tasks' lives and the run's states, nothing of ours."""
        states = self.universe.prefect.runs[self.run_id].states
        return Observation(
            str(self.run_id),
            states[-1].type.value,
            [(state.timestamp, state.type.value) for state in states],
            [self._container(self.universe.tasks.get(task.arn, task)) for task in self.tasks],
            self.budget,
            rescued,
        )

    def _container(self, task: Task) -> ContainerLife:
        assert task.created_at is not None
        interrupted = task.stop_code == "SpotInterruption"
        return ContainerLife(
            task_arn=task.arn,
            cluster_arn=task.cluster_arn,
            flow_run_id=str(self.run_id),
            capacity=task.capacity,
            created=task.created_at,
            started=task.started_at,
            exited=task.execution_stopped_at,
            interrupted_at=task.execution_stopped_at if interrupted else None,
            exit_code=None,
            cpu="256",
            memory="512",
            environment={},
        )

    def _counts(self) -> list[tuple[bool, Counts]]:
        """This life's sums, of drills (True) and its run's deployment; others may be there too."""
        deployment = self.universe.prefect.runs[self.run_id].deployment
        ours = {"drills": True, str(deployment.id) if deployment else "": False}
        sums = self.universe.sums()
        return [(ours[s.deployment.key], s.counts) for s in sums if s.deployment.key in ours]

    def _is_billed_in_full(self) -> bool:
        """Whether the sums hold what AWS charges for the tasks that ended: a minute at least."""
        tasks = [self.universe.tasks[task.arn] for task in self.tasks]
        ends = [(task.pull_started_at, task.stopped_at) for task in tasks]
        lasted = [(end - start).total_seconds() for start, end in ends if start and end]
        charged = sum(max(Decimal(60), Decimal(seconds)) for seconds in lasted)
        return charged * 10**6 == sum(c.spot_us + c.on_demand_us for _, c in self._counts())

    def end(self) -> dict[str, Any]:
        """What has to be the same however it came about.

        Of the sums not times and amounts, which depend on when a handler died.
        """
        run = self.universe.prefect.runs[self.run_id]
        record = self.universe.records().read(self.run_id)
        return {
            "state": run.state.type,
            "starts": run.run_count,
            "job_variables": run.job_variables,
            "retries": run.policy["retries"],
            "tags": {tag for tag in run.tags if tag != "spot-interrupted"},
            "capacities": [task.capacity for task in self.tasks],
            "interruptions": [
                (i.number, i.rerun_on, i.guard) for i in record.interruptions.values()
            ],
            "children": [self.universe.prefect.runs[c].state.type for c in self.children],
            "over": run.state.is_final,
            "counted": [
                (drilled, c.runs, c.attempts, c.interruptions, c.spot_reruns, c.on_demand_reruns)
                for drilled, c in self._counts()
            ],
            "billed_in_full": self._is_billed_in_full(),
        }

    def messages(self) -> set[Notify]:
        """What messages were sent about."""
        return {notification.kind for notification in self.universe.notified}


@dataclass(frozen=True)
class Plot:
    """How a life begins, and what handles its misfortune: one event, or a sweep.

    `event` is for `react`, or, where `is_bill`, for `meter`. `rescued`: the run is to come to a
    good end. `needs_facts`: a call that fails takes a fact from a guard, and the end is another.
    """

    name: str
    begin: Callable[[Universe], Life]
    event: Callable[[Life], dict[str, Any]] | None
    then: Callable[[Life], list[dict[str, Any]]] = lambda _: []
    rescued: bool = True
    is_bill: bool = False
    needs_facts: bool = False

    @property
    def function(self) -> str:
        if self.is_bill:
            return "meter"
        return "react" if self.event else "sweep"

    def handle(self, life: Life, wire: Tripwire | None = None) -> list[str]:
        """Run the handler once, its calls through `wire`; return them."""
        if self.event and self.is_bill:
            life.universe.meter(self.event(life), wire)
        elif self.event:
            life.universe.handle(self.event(life), wire)
        else:
            life.universe.sweep(wire)
        return list(life.universe.calls)


def running(universe: Universe, budget: int = 3, **run: Any) -> Life:
    tags = run.pop("tags", (f"spot-retries:{budget}",))
    run_id = universe.prefect.create_run(tags=tags, **run)
    return Life(universe, run_id, budget, [universe.start(run_id, retries=2)])


def _stopped(how: dict[str, str] | None = None, **run: Any) -> Callable[[Universe], Life]:
    """Its task ended: Spot took it, unless `how` says otherwise."""

    def begin(universe: Universe) -> Life:
        life = running(universe, **run)
        universe.stops(life.tasks[0], **(how or {}))
        return life

    return begin


def _too_expensive_on_spot(universe: Universe) -> Life:
    """`auto` moves it at once."""
    universe.policy = AUTO
    deployment = universe.deployment_after(TOO_LONG_FOR_SPOT)
    return _stopped(budget=0, tags=(), deployment_id=deployment)(universe)


def _rescued(universe: Universe) -> Life:
    """React has made the run due again; the task's end is still to be billed."""
    life = _stopped()(universe)
    universe.prefect.run_task(life.run_id, StateType.COMPLETED, persisted=True)
    universe.deliver(_exit(life))
    universe.now += STOPPED_AFTER
    return life


def _drilled(universe: Universe) -> Life:
    life = _stopped(DRILL)(universe)
    universe.deliver(_end(life))
    return life


def _left_parked(universe: Universe) -> Life:
    """A handler died right after it had parked the run."""
    begin = _stopped(budget=0)
    calls = Plot("", begin, _exit).handle(begin(Universe()))
    life = begin(universe)
    universe.handle(_exit(life), Tripwire(Befalls.DIES_AFTER, calls.index("prefect.propose_state")))
    return life


def _out_of_memory(universe: Universe) -> Life:
    life = _stopped(OUT_OF_MEMORY)(universe)
    life.children.append(universe.prefect.create_child(life.run_id))
    return life


def _refused(universe: Universe) -> Life:
    run_id = universe.prefect.create_run(tags=("spot-retries:3",))
    universe.prefect.worker_picks_up(run_id)
    universe.prefect.crash(run_id, "RunTask: Capacity is unavailable at this time.")
    return Life(universe, run_id, -1)


def _crashed_again(universe: Universe) -> Life:
    life = _stopped()(universe)
    universe.deliver(_exit(life))
    universe.prefect.crash(life.run_id, "No heartbeat")
    return life


def _warning(life: Life) -> dict[str, Any]:
    return life.universe.warning(life.tasks[0])


def _exit(life: Life) -> dict[str, Any]:
    return life.universe.exits(life.tasks[0])[1]


def _end(life: Life) -> dict[str, Any]:
    return life.universe.end_of(life.tasks[0])


PLOTS = (
    Plot("warning", running, _warning, lambda life: [_exit(life)]),
    Plot("rerun on Spot", _stopped(), _exit),
    Plot("rerun on FARGATE", _stopped(budget=0), _exit),
    Plot("moved by a guard", _too_expensive_on_spot, _exit, needs_facts=True),
    Plot("not to be rerun", _stopped(tags=("spot:never-rerun",)), _exit, rescued=False),
    Plot("no event was handled", _stopped(), None),
    Plot("left parked", _left_parked, None),
    Plot("out of memory, with a subflow", _out_of_memory, None, rescued=False),
    Plot("refused by Spot", _refused, None),
    Plot("crashed after it was made due", _crashed_again, None),
    Plot("bill of an interruption", _rescued, _end, is_bill=True),
    Plot("bill of a death", _out_of_memory, _end, rescued=False, is_bill=True),
    Plot("bill of a drill", _drilled, _end, is_bill=True),
)


def finish(life: Life, plot: Plot, *, only_sweep: bool) -> None:
    """Bring what remains to its end: the events still to come, or two sweeps instead."""
    if only_sweep:
        for task in life.tasks:
            if not life.universe.tasks[task.arn].exited:
                life.universe.stops(task)
    else:
        for event in plot.then(life):
            life.universe.deliver(event)
    for _ in range(2):
        life.universe.sweep()
    life.live_on()
    life.universe.sweep()
