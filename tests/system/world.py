"""Plays acts in the embedded cloud: each a run that is interrupted once, in conditions of its own.

All are played at the same time, each in a thread of its own. Faults and mischief are distinguished
by the run they are meant for, so that one run's bad day is no other's. The tasks and their engines
are on paper: what misbehaves is between the deployed zip, Prefect's server, AWS and the event bus.
"""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from localcloud.cloud import Cloud, wait_for
from localcloud.events import Delivery, DeliveryPlan, Event, deliver_once
from localcloud.fault_proxy import Fault, FaultProxy, Plan, ProxiedRequest, no_fault
from localcloud.lambdas import Invocation
from localcloud.oracle import Observation, Verdict, judge, observe
from localcloud.task_life import ContainerLife
from tests.system.paper import PaperFargate, PaperWorker

START_SECONDS = 200
"""Until the next attempt starts: all of Lambda's tries, on a busy machine."""

GRACE_SECONDS = 1.0
"""Between Spot's warning and the container's exit, and between that and the task's stop."""

BUDGET = 3


@dataclass(frozen=True)
class Run:
    """A flow run whose tasks are on paper."""

    cloud: Cloud
    worker: PaperWorker
    id: str

    def containers(self) -> list[ContainerLife]:
        return [life for life in self.worker.fargate.ledger() if life.flow_run_id == self.id]

    def starts(self) -> int:
        return self.worker.starts[self.id]

    def state(self) -> str:
        return str(self.cloud.prefect.run(self.id)["state_type"])

    def wait_for_start(self) -> str:
        """Wait until the first attempt is at work; return its task's ARN."""
        seconds = START_SECONDS
        wait_for(f"start 1 of {self.id}", seconds, lambda: self.worker.are_at_work([self.id]))
        return self.worker.running[self.id]

    def interrupt(self, task_arn: str) -> None:
        """Have Spot take the task: the warning, the container's exit, the stop."""
        self.worker.fargate.interrupt(task_arn)
        time.sleep(GRACE_SECONDS)
        self.worker.fargate.end(task_arn, detach_seconds=GRACE_SECONDS)

    def wait_for_end(self) -> None:
        """Wait until the run is over and its last container has exited."""
        prefect = self.cloud.prefect
        wait_for(f"the end of {self.id}", START_SECONDS, lambda: prefect.is_final(self.id))
        wait_for("the last exit", 60, lambda: all(life.exited for life in self.containers()))

    def observation(self) -> Observation:
        prefect = self.cloud.prefect
        run, history = prefect.run(self.id), prefect.history(self.id)
        return observe(run, history, self.containers(), budget=BUDGET)

    def verdict(self) -> Verdict:
        return judge(self.observation())

    def describe(self) -> str:
        """What can be seen of the run, for a test that failed."""
        states = [(s["type"], s["message"]) for s in self.cloud.prefect.history(self.id)]
        return f"run {self.id}: {states}; {self.containers()}"


@dataclass(frozen=True)
class Scene:
    """What an act's own steps look at: the run, and the task that is interrupted."""

    world: "World"
    run: Run
    task_arn: str

    @property
    def task_id(self) -> str:
        return self.task_arn.rpartition("/")[2]

    def invocations(self) -> list[Invocation]:
        """Lambda's tries so far of the events about this task."""
        tries = list(self.world.cloud.lambdas.invocations)
        return [i for i in tries if self.task_id in json.dumps(i.event)]

    def change_conditions(self, prefect: Plan = no_fault, aws: Plan = no_fault) -> None:
        conditions = self.world.conditions[self.run.id]
        conditions.prefect, conditions.aws = prefect, aws


def nothing(_: Scene) -> None:
    """No step of its own."""


@dataclass(frozen=True)
class Act:
    """One interruption, and what goes wrong around it; `faults` is how much has to, at least.

    `seconds`: of the run's second attempt.
    """

    name: str
    prefect: Plan = no_fault
    aws: Plan = no_fault
    events: DeliveryPlan = deliver_once
    before: Callable[[Scene], None] = nothing
    during: Callable[[Scene], None] = nothing
    after: Callable[[Scene], None] = nothing
    faults: int = 1
    seconds: float = 1


@dataclass(frozen=True)
class Outcome:
    """How an act ended. `seconds`: from the interruption to the start of the next attempt."""

    run: Run
    verdict: Verdict
    seconds: float
    faults: int
    complaints: Sequence[str]
    """What the act's own steps found wrong."""
    report: str


@dataclass
class Conditions:
    """What goes wrong for one run, and how often it did."""

    prefect: Plan = no_fault
    aws: Plan = no_fault
    events: DeliveryPlan = deliver_once
    faults: int = 0


@dataclass
class World:
    """The cloud, its two fault proxies, and each run's conditions, by the run's id."""

    cloud: Cloud
    prefect: FaultProxy
    aws: FaultProxy
    worker: PaperWorker
    conditions: dict[str, Conditions] = field(default_factory=dict)
    outcomes: dict[str, Future[Outcome]] = field(default_factory=dict)

    def rule(self) -> None:
        """From now on the conditions are each run's own."""
        self.prefect.plan = self._prefect_fault
        self.aws.plan = self._aws_fault
        self.cloud.router.plan = self._deliveries

    def begin(self, acts: Sequence[Act], pool: ThreadPoolExecutor) -> None:
        """Play the acts, all at once."""
        for act in acts:
            self.outcomes[act.name] = pool.submit(self._play, act)

    def start(self, seconds: float = 1) -> Run:
        """Start a run, in good conditions so far."""
        [run_id] = self.worker.create_runs(1, lambda _: [f"spot-retries:{BUDGET}"], seconds=seconds)
        self.conditions[run_id] = Conditions()
        return Run(self.cloud, self.worker, run_id)

    def runs(self) -> list[Run]:
        return [future.result().run for future in self.outcomes.values()]

    def _play(self, act: Act) -> Outcome:
        run = self.start(act.seconds)
        scene = Scene(self, run, run.wait_for_start())
        complaints = _complaints(act.before, scene)
        conditions = Conditions(act.prefect, act.aws, act.events)
        self.conditions[run.id] = conditions
        began = time.monotonic()
        run.interrupt(scene.task_arn)
        complaints += _complaints(act.during, scene)
        with suppress(TimeoutError):  # the oracle will say so
            wait_for("the next start", START_SECONDS, lambda: run.starts() > 1)
        seconds = time.monotonic() - began
        complaints += _complaints(act.after, scene)
        with suppress(TimeoutError):
            run.wait_for_end()
        verdict = run.verdict()
        tries = [(i.attempt, i.status, i.error) for i in scene.invocations()]
        report = f"{verdict}; {run.describe()}; {tries}"
        return Outcome(run, verdict, seconds, conditions.faults, complaints, report)

    def _prefect_fault(self, request: ProxiedRequest) -> Fault | None:
        return self._fault(request, lambda conditions: conditions.prefect)

    def _aws_fault(self, request: ProxiedRequest) -> Fault | None:
        return self._fault(request, lambda conditions: conditions.aws)

    def _fault(
        self, request: ProxiedRequest, plan_of: Callable[[Conditions], Plan]
    ) -> Fault | None:
        """Ask the plan of the run that is spoken of. SSM speaks of none: all are asked then."""
        text, of_ssm = request.text, request.target.startswith("AmazonSSM")
        for run_id, conditions in list(self.conditions.items()):
            if of_ssm or run_id in text or self.worker.running.get(run_id, run_id) in text:
                fault = plan_of(conditions)(request)
                if fault is not None:
                    conditions.faults += 1
                    return fault
        return None

    def _deliveries(self, event: Event) -> Sequence[Delivery]:
        """DeliveryPlan is made with the news of a stop: it would make one of any other news."""
        detail = event["detail"]
        environment = json.dumps(detail.get("overrides", {}))
        for run_id, conditions in list(self.conditions.items()):
            if run_id in environment and detail["desiredStatus"] == "STOPPED":
                deliveries = conditions.events(event)
                conditions.faults += list(deliveries) != [Delivery(event)]
                return deliveries
        return deliver_once(event)


@contextmanager
def world_on_paper(cloud: Cloud) -> Iterator[World]:
    """The cloud's world, with a worker and tasks on paper in place of the processes."""
    assert cloud.prefect_faults
    assert cloud.aws_faults
    with PaperWorker(cloud, PaperFargate(cloud)) as worker:
        yield World(cloud, cloud.prefect_faults, cloud.aws_faults, worker)
    assert worker.errors == []
    assert cloud.prefect_faults.errors == []
    assert cloud.aws_faults.errors == []


def _complaints(step: Callable[[Scene], None], scene: Scene) -> list[str]:
    """What a step found wrong; the act goes on."""
    try:
        step(scene)
    except Exception as error:
        return [f"{step.__name__}: {error!r}"]
    return []
