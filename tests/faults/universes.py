"""Whole lives of flow runs in the laws' universe, up to an end that the oracle can judge."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any
from uuid import UUID

from chalicelib.core.model.ecs_task import Task
from chalicelib.core.model.flow_run import FINAL_STATES, StateType
from chalicelib.core.money.daily_sums import DailySum
from localcloud.oracle import Observation, Verdict, judge
from localcloud.task_life import ContainerLife
from tests.laws.guarded import ECONOMICS, LONG, after_a_run_of
from tests.laws.universe import STOPPED_AFTER, Befalls, Fault, Universe

BY_ITSELF = {"stop_code": "EssentialContainerExited", "stopped_reason": "exited"}
OUT_OF_MEMORY = {"stop_code": "EssentialContainerExited", "stopped_reason": "OutOfMemoryError"}
DRILL = {"stop_code": "UserInitiated", "stopped_reason": "prefect-spot drill by a test"}


@dataclass
class Life:
    """A run in its universe, with the tasks it had."""

    universe: Universe
    run_id: UUID
    budget: int
    tasks: list[Task]
    children: list[UUID]

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
        """What the oracle says of it."""
        return judge(self.observation(rescued=rescued))

    def observation(self, *, rescued: bool = True) -> Observation:
        """What the oracle sees of it: the tasks' lives and the run's states, nothing of ours."""
        run = self.universe.prefect.runs[self.run_id]
        states = [(state.timestamp, state.type.value) for state in run.states]
        containers = [self._container(task) for task in self.tasks]
        return Observation(
            str(self.run_id), run.state.type.value, states, containers, self.budget, rescued
        )

    def _container(self, task: Task) -> ContainerLife:
        now = self.universe.tasks.get(task.arn, task)
        assert task.created_at is not None
        interrupted = now.stop_code == "SpotInterruption"
        return ContainerLife(
            task_arn=task.arn,
            cluster_arn=task.cluster_arn,
            flow_run_id=str(self.run_id),
            capacity=task.capacity,
            created=task.created_at,
            started=task.started_at,
            exited=now.execution_stopped_at,
            interrupted_at=now.execution_stopped_at if interrupted else None,
            exit_code=None,
            cpu="256",
            memory="512",
            environment={},
        )

    def _sums(self) -> list[DailySum]:
        """This life's: drills, and its run's deployment; it may not be alone in its universe."""
        deployment = self.universe.prefect.runs[self.run_id].deployment
        ours = ("drills", str(deployment.id) if deployment else "")
        return [daily for daily in self.universe.sums() if daily.deployment.key in ours]

    def _counted(self) -> Any:
        """What the books hold but for times and amounts, which hang on when a handler died."""
        return [
            (
                daily.deployment.key == "drills",
                daily.counts.runs,
                daily.counts.attempts,
                daily.counts.interruptions,
                daily.counts.spot_reruns,
                daily.counts.on_demand_reruns,
            )
            for daily in self._sums()
        ]

    def _billed_seconds(self) -> Decimal:
        counts = [daily.counts for daily in self._sums()]
        return Decimal(sum(c.spot_us + c.on_demand_us for c in counts)) / 10**6

    def _charged_seconds(self) -> Decimal:
        """What AWS charges for the tasks that ended: a minute at least for each."""
        ended = [self.universe.tasks[task.arn] for task in self.tasks]
        return sum(
            (
                max(Decimal(60), Decimal((task.stopped_at - task.pull_started_at).total_seconds()))
                for task in ended
                if task.stopped_at and task.pull_started_at
            ),
            Decimal(0),
        )

    def end(self) -> Any:
        """What has to be the same however it came about."""
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
            "over": run.state.type in FINAL_STATES,
            "counted": self._counted(),
            "billed_in_full": self._billed_seconds() == self._charged_seconds(),
        }


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

    def handle(self, life: Life, fault: Fault | None = None) -> list[str]:
        """Run the handler once, under a fault or none; return the calls it made."""
        if self.event and self.is_bill:
            life.universe.meter(self.event(life), fault)
        elif self.event:
            life.universe.handle(self.event(life), fault)
        else:
            life.universe.sweep(fault)
        assert life.universe.wire is not None
        return list(life.universe.wire.calls)


def _life(universe: Universe, *, budget: int = 3, tags: tuple[str, ...] = ()) -> Life:
    run_id = universe.prefect.create_run(tags=(f"spot-retries:{budget}", *tags))
    task = universe.start(run_id, retries=2)
    return Life(universe, run_id, budget, [task], [])


def _interrupted(budget: int = 3, tags: tuple[str, ...] = ()) -> Callable[[Universe], Life]:
    def begin(universe: Universe) -> Life:
        life = _life(universe, budget=budget, tags=tags)
        universe.stops(life.tasks[0])
        return life

    return begin


def _too_dear_on_spot(universe: Universe) -> Life:
    """A guard moves it at once, as if nothing of the budget were left."""
    universe.policy = ECONOMICS
    deployment_id = after_a_run_of(universe, LONG)
    run_id = universe.prefect.create_run(deployment_id=deployment_id)
    task = universe.start(run_id, retries=2)
    universe.stops(task)
    return Life(universe, run_id, 0, [task], [])


def _warned(universe: Universe) -> Life:
    return _life(universe)


def _exit(life: Life) -> dict[str, Any]:
    return life.universe.exits(life.tasks[0])[1]


def _rescued(universe: Universe) -> Life:
    """React has made the run due again; the task's end is still to be billed."""
    life = _interrupted()(universe)
    universe.prefect.run_task(life.run_id, StateType.COMPLETED, persisted=True)
    universe.deliver(_exit(life))
    universe.now += STOPPED_AFTER
    return life


def _drilled(universe: Universe) -> Life:
    life = _life(universe)
    universe.stops(life.tasks[0], **DRILL)
    universe.deliver(universe.end_of(life.tasks[0]))
    return life


def _end(life: Life) -> dict[str, Any]:
    return life.universe.end_of(life.tasks[0])


def _left_parked(universe: Universe) -> Life:
    """A handler died right after it had parked the run."""
    life = _interrupted(budget=0)(universe)
    park = "prefect.propose_state"
    calls = Plot("", _interrupted(budget=0), _exit).handle(_interrupted(budget=0)(universe))
    universe.handle(_exit(life), Fault(Befalls.DIES_AFTER, calls.index(park)))
    return life


def _out_of_memory(universe: Universe) -> Life:
    life = _life(universe)
    life.children.append(universe.prefect.create_child(life.run_id))
    universe.stops(life.tasks[0], **OUT_OF_MEMORY)
    return life


def _refused(universe: Universe) -> Life:
    run_id = universe.prefect.create_run(tags=("spot-retries:3",))
    universe.prefect.worker_picks_up(run_id)
    universe.prefect.crash(run_id, "RunTask: Capacity is unavailable at this time.")
    return Life(universe, run_id, -1, [], [])


def _crashed_again(universe: Universe) -> Life:
    life = _interrupted()(universe)
    universe.deliver(_exit(life))
    universe.prefect.crash(life.run_id, "No heartbeat")
    return life


PLOTS = (
    Plot(
        "warning", _warned, lambda life: life.universe.warning(life.tasks[0]), lambda x: [_exit(x)]
    ),
    Plot("rerun on Spot", _interrupted(), _exit),
    Plot("rerun on FARGATE", _interrupted(budget=0), _exit),
    Plot("moved by a guard", _too_dear_on_spot, _exit, needs_facts=True),
    Plot("not to be rerun", _interrupted(tags=("spot:never-rerun",)), _exit, rescued=False),
    Plot("nobody told", _interrupted(), None),
    Plot("left parked", _left_parked, None),
    Plot("out of memory, with a subflow", _out_of_memory, None, rescued=False),
    Plot("refused by Spot", _refused, None),
    Plot("crashed under our hands", _crashed_again, None),
    Plot("bill of an interruption", _rescued, _end, is_bill=True),
    Plot("bill of a death", _out_of_memory, _end, rescued=False, is_bill=True),
    Plot("bill of a drill", _drilled, _end, is_bill=True),
)


def finish(life: Life, plot: Plot, *, only_sweep: bool) -> None:
    """Bring what remains to its end: the events still to come, or two sweeps instead."""
    events = [] if only_sweep else plot.then(life)
    if only_sweep and life.universe.tasks:
        _stop_what_was_warned(life)
    for event in events:
        life.universe.deliver(event)
    for _ in range(2):
        life.universe.sweep()
    life.live_on()
    life.universe.sweep()


def _stop_what_was_warned(life: Life) -> None:
    for task in life.tasks:
        if not life.universe.tasks[task.arn].exited:
            life.universe.stops(replace(task))
