"""Plays stories in the embedded cloud: a run, interrupted once per act, each in new conditions.

Stories are played at the same time, each in a thread of its own. Faults and mischief are told apart
by the run they are meant for, so that one run's bad day is no other's.
"""

import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from localcloud.cloud import Cloud, wait_for
from localcloud.events import Delivery, Event, Mischief, deliver_once
from localcloud.fault_proxy import Fault, FaultProxy, Plan, ProxiedRequest, no_fault
from localcloud.lambdas import Invocation
from localcloud.oracle import Fault as Wrong
from localcloud.oracle import Verdict
from tests.e2e.scenario import Run, Stage
from tests.faults.ledger import FOLDER

START_SECONDS = 400
"""Until the next attempt starts: all of Lambda's tries, other runs' starts, a busy machine."""

MANY_ON_SPOT = "spot-retries:50"


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
    """One interruption, and what goes wrong around it; `faults` is how much has to, at least."""

    name: str
    prefect: Plan = no_fault
    aws: Plan = no_fault
    events: Mischief = deliver_once
    before: Callable[[Scene], None] = nothing
    during: Callable[[Scene], None] = nothing
    after: Callable[[Scene], None] = nothing
    faults: int = 1


@dataclass(frozen=True)
class Story:
    """One run, and its interruptions one after the other. `seconds`: of its last attempt.

    Played `alone`, once all others are over, where a busy machine would be too slow for the fault.
    """

    name: str
    acts: Sequence[Act]
    seconds: float = 1
    alone: bool = False


@dataclass(frozen=True)
class Outcome:
    """How an act ended. `seconds`: from the interruption to the start of the next attempt."""

    name: str
    lost: int
    run_twice: int
    seconds: float
    faults: int
    invocations: int
    complaints: Sequence[str]
    """What the act's own steps found wrong."""
    report: str

    def row(self) -> dict[str, Any]:
        """For the report; `tries` are interruptions."""
        return {
            "name": self.name,
            "tries": 1,
            "lost": self.lost,
            "run_twice": self.run_twice,
            "seconds": round(self.seconds, 1),
            "faults": self.faults,
            "invocations": self.invocations,
        }


@dataclass
class Conditions:
    """What goes wrong for one run, and how often it did."""

    prefect: Plan = no_fault
    aws: Plan = no_fault
    events: Mischief = deliver_once
    faults: int = 0


@dataclass
class World:
    """The cloud, its two fault proxies, and each run's conditions, by the run's id."""

    stage: Stage
    prefect: FaultProxy
    aws: FaultProxy
    conditions: dict[str, Conditions] = field(default_factory=dict)
    outcomes: dict[str, Future[Outcome]] = field(default_factory=dict)
    runs: dict[str, Future[Run]] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)

    @property
    def cloud(self) -> Cloud:
        return self.stage.cloud

    def rule(self) -> None:
        """From now on the conditions are each run's own."""
        self.prefect.plan = self._prefect_fault
        self.aws.plan = self._aws_fault
        self.cloud.router.mischief = self._deliveries

    def begin(self, stories: Sequence[Story], pool: ThreadPoolExecutor) -> None:
        """Play the stories, all at once as far as the pool goes."""
        for story in stories:
            self.runs[story.name] = Future()
            self.outcomes.update({act.name: Future() for act in story.acts})
        others = [self.runs[story.name] for story in stories if not story.alone]
        for story in stories:
            pool.submit(self._play, story, others if story.alone else ())

    def note(
        self, name: str, verdict: Verdict, seconds: float, tries: int = 1, **more: object
    ) -> None:
        """Write a row for a case that is no act of a story."""
        self.rows.append(
            {
                "name": name,
                "tries": tries,
                "lost": verdict.count(Wrong.LOST),
                "run_twice": verdict.count(Wrong.RUN_TWICE),
                "seconds": round(seconds, 1),
                **more,
            }
        )

    def write(self) -> None:
        """Write the rows of all that was played, for `report.py`."""
        FOLDER.mkdir(parents=True, exist_ok=True)
        played = [f.result() for f in self.outcomes.values() if f.done() and not f.exception()]
        rows = [*(outcome.row() for outcome in played), *self.rows]
        (FOLDER / "misbehaving_world.json").write_text(json.dumps({"cases": rows}, indent=2) + "\n")

    def _play(self, story: Story, before: Sequence[Future[Run]]) -> None:
        try:
            wait(before)
            run = self.stage.start(
                "waits",
                tags=(MANY_ON_SPOT,),
                interruptions=len(story.acts),
                seconds=story.seconds,
            )
            self.conditions[run.id] = Conditions()
            for number, act in enumerate(story.acts, start=1):
                outcome = self._act(run, number, act)
                self.outcomes[act.name].set_result(outcome)
                if outcome.lost:
                    raise RuntimeError(f"the run was lost: {act.name}")
            wait_for(f"the end of {story.name}", 120, lambda: self.cloud.prefect.is_final(run.id))
            self.runs[story.name].set_result(run)
        except BaseException as error:
            futures: list[Future[Any]] = [self.outcomes[act.name] for act in story.acts]
            for future in (*futures, self.runs[story.name]):
                if not future.done():
                    future.set_exception(RuntimeError(f"story {story.name!r} broke off: {error!r}"))

    def _act(self, run: Run, number: int, act: Act) -> Outcome:
        wait_for(f"start {number} of {run.id}", START_SECONDS, lambda: run.starts() >= number)
        scene = Scene(self, run, run.containers()[-1].task_arn)
        wrong_before = run.verdict(budget=50)
        complaints = _complaints(act.before, scene)
        conditions = Conditions(act.prefect, act.aws, act.events)
        self.conditions[run.id] = conditions
        began = time.monotonic()
        run.interrupt()
        complaints += _complaints(act.during, scene)
        with suppress(TimeoutError):  # the oracle will say so
            wait_for("the next start", START_SECONDS, lambda: run.starts() > number)
        seconds = time.monotonic() - began
        complaints += _complaints(act.after, scene)
        verdict = run.verdict(budget=50)
        tries = [(i.attempt, i.status, i.error) for i in scene.invocations()]
        message = self.cloud.prefect.run(run.id)["state"]["message"]
        return Outcome(
            name=act.name,
            lost=verdict.count(Wrong.LOST) - wrong_before.count(Wrong.LOST),
            run_twice=verdict.count(Wrong.RUN_TWICE) - wrong_before.count(Wrong.RUN_TWICE),
            seconds=seconds,
            faults=conditions.faults,
            invocations=len(tries),
            complaints=complaints,
            report=f"{verdict}; {run.states()}: {message}; {tries}",
        )

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
            if of_ssm or run_id in text or any(arn in text for arn in self.cloud.tasks(run_id)):
                fault = plan_of(conditions)(request)
                if fault is not None:
                    conditions.faults += 1
                    return fault
        return None

    def _deliveries(self, event: Event) -> Sequence[Delivery]:
        """Mischief is made with the news of a stop: it would make one of any other news."""
        detail = event["detail"]
        environment = json.dumps(detail.get("overrides", {}))
        for run_id, conditions in list(self.conditions.items()):
            if run_id in environment and detail["desiredStatus"] == "STOPPED":
                deliveries = conditions.events(event)
                conditions.faults += list(deliveries) != [Delivery(event)]
                return deliveries
        return deliver_once(event)


def _complaints(step: Callable[[Scene], None], scene: Scene) -> list[str]:
    """What a step found wrong; the story goes on."""
    try:
        step(scene)
    except Exception as error:
        return [f"{step.__name__}: {error!r}"]
    return []
