"""One run as Prefect and the run record have it, and the product's own answer to its interruption.

`decide` is asked as `chalicelib/functions/rescue.py` asks it: with a look at the run after each
step that moves it, until it asks for nothing more. Nothing of budget, guards or capacity is decided
here.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Final, Protocol
from uuid import NAMESPACE_URL, UUID, uuid5

from chalicelib.core.actions import (
    Annotate,
    Change,
    Decision,
    MakeDue,
    Park,
    Save,
    Verdict,
)
from chalicelib.core.decide import decide
from chalicelib.core.guards.advice import guards_on
from chalicelib.core.guards.deadline import opinion_on_attempt
from chalicelib.core.guards.facts import GuardFacts, has_deadline_tag
from chalicelib.core.guards.opinion import GoOnDemand
from chalicelib.core.record import RunRecord
from chalicelib.core.run import FlowRun, RunChange, RunPolicy, RunState, StateType
from chalicelib.core.situation import Policy, Situation, is_on_demand, on_demand_variables
from chalicelib.core.task import FARGATE, FARGATE_SPOT, SPOT_STOP_REASON, Task
from simulation.work import ARCHITECTURE, REGION, SIZE, Attempt, moment, seconds_at

Facts = Callable[[Situation], GuardFacts]

MOST_LOOKS: Final = 4
_CLUSTER: Final = f"arn:aws:ecs:{REGION}:111122223333:cluster/simulation"
_DEPLOYMENT: Final = uuid5(NAMESPACE_URL, "simulation/deployment")


class UnexpectedDecisionError(AssertionError):
    """The product decided something that a simulated run has no way to follow."""


class Run(Protocol):
    """A flow run under the product's care. Times are seconds on the pool's clock."""

    @property
    def capacity(self) -> str:
        """Where a worker would place the run's next task, as the job variables say."""

    def before_start(self, known: GuardFacts) -> None:
        """Let the guards judge the run before its first attempt, where they do."""

    def started(self, due_at: float, begins_at: float) -> None:
        """Note that a worker has picked the run up, and that its flow runs."""

    def interrupted(self, tried: Attempt, facts: Facts) -> float:
        """Have the product answer an interruption; return when the run is due again.

        Raises:
            UnexpectedDecisionError: it decided anything but a rerun.
        """


def run_under(policy: Policy, name: str, at: float, tags: tuple[str, ...] = ()) -> Run:
    """Return a run; one without guards is answered from memory of what the product said before."""
    if policy == replace(Policy(rates=policy.rates), spot_retries=policy.spot_retries) and not tags:
        return RememberedRun(policy)
    return AskingRun(name, at, policy, tags)


class AskingRun:
    """A run of which the product is asked each time. `at`: when it is scheduled to start."""

    def __init__(self, name: str, at: float, policy: Policy, tags: tuple[str, ...] = ()) -> None:
        self._name: Final = name
        self._policy: Final = policy
        self._states = 0
        self.history: tuple[RunState, ...] = ()
        first = self._state(StateType.SCHEDULED, "Scheduled", at)
        self.run = FlowRun(
            id=uuid5(NAMESPACE_URL, name),
            name=name,
            state=first,
            deployment_id=_DEPLOYMENT,
            tags=tags,
            job_variables={"launch_type": FARGATE_SPOT},
            policy=RunPolicy(retries=0),
            expected_start=moment(at),
        )
        self.record = RunRecord(self.run.id)
        self._enter(first)

    @property
    def capacity(self) -> str:
        """As the job variables say."""
        return FARGATE if is_on_demand(self.run) else FARGATE_SPOT

    def before_start(self, known: GuardFacts) -> None:
        """Have the deadline judge the first attempt, and move the run as `sweep` does."""
        begins = self.run.expected_start
        if not has_deadline_tag(self.run.tags) or begins is None:
            return
        if isinstance(opinion_on_attempt(self.run, known, begins), GoOnDemand):
            variables = on_demand_variables(self.run.job_variables)
            self.run = replace(self.run, job_variables=variables)
            self.record = replace(self.record, next_capacity=FARGATE)

    def started(self, due_at: float, begins_at: float) -> None:
        """Enter the states that worker and engine would set."""
        self._enter(self._state(StateType.PENDING, "Pending", due_at))
        self._enter(self._state(StateType.RUNNING, "Running", begins_at))
        self.run = replace(self.run, run_count=self.run.run_count + 1)

    def interrupted(self, tried: Attempt, facts: Facts) -> float:
        """Have `decide` judge the attempt's task, as ECS would tell of it."""
        number = len(self.record.interruptions) + 1
        task = Task(
            arn=f"{_CLUSTER.replace(':cluster/', ':task/')}/{self.run.id.hex}-{number}",
            cluster_arn=_CLUSTER,
            last_status="DEPROVISIONING",
            desired_status="STOPPED",
            stop_code="SpotInterruption",
            stopped_reason=f"{SPOT_STOP_REASON}.",
            launch_type=FARGATE,
            capacity_provider=FARGATE_SPOT,
            flow_run_id=self.run.id,
            deployment_id=_DEPLOYMENT,
            flow_container_stopped=True,
            cpu_units=SIZE.cpu_units,
            memory_mib=SIZE.memory_mib,
            architecture=ARCHITECTURE,
            created_at=moment(tried.due_at),
            pull_started_at=moment(tried.pulled_at),
            started_at=moment(tried.pulled_at),
            execution_stopped_at=moment(tried.ended_at),
        )
        return self._answered(task, tried.ended_at, facts)

    def _answered(self, task: Task, at: float, facts: Facts) -> float:
        for _ in range(MOST_LOOKS):
            s = Situation(
                task=task,
                run=self.run,
                history=self.history,
                record=self.record,
                policy=self._policy,
                now=moment(at),
            )
            decision = decide(s)
            if decision.verdict is Verdict.RERUN_ON_SPOT and guards_on(s):
                decision = decide(replace(s, facts=facts(s)))
            due = self._follow(decision, at)
            if due is not None:
                return due
        raise UnexpectedDecisionError(f"{self._name} was not settled in {MOST_LOOKS} looks")

    def _follow(self, decision: Decision, at: float) -> float | None:
        """Do what is asked for; None when another look has to tell what is next."""
        due: float | None = None
        for action in decision.actions:
            match action:
                case Save(record):
                    self.record = record
                case Park(transition_id, _, message):
                    self._await_retry(at, message, transition_id)
                    return None
                case Change(change):
                    self._change(change)
                case MakeDue(transition_id, when, message):
                    self._await_retry(at, message, transition_id)
                    due = seconds_at(when)
                case Annotate(_, record):
                    self.record = record
                case _:
                    raise UnexpectedDecisionError(f"{self._name}: {action}")
        if due is None or decision.verdict is not Verdict.FINISH_RERUN:
            raise UnexpectedDecisionError(f"{self._name}: {decision.verdict}, {decision.reason}")
        return due

    def _change(self, change: RunChange) -> None:
        self.run = replace(
            self.run,
            job_variables=(
                self.run.job_variables if change.job_variables is None else change.job_variables
            ),
            policy=change.policy or self.run.policy,
            tags=self.run.tags if change.tags is None else change.tags,
        )

    def _await_retry(self, at: float, message: str, transition_id: UUID) -> None:
        kind = StateType.SCHEDULED
        self._enter(self._state(kind, "AwaitingRetry", at, message, transition_id))

    def _enter(self, state: RunState) -> None:
        self.run = replace(self.run, state=state)
        self.history = (*self.history, state)

    def _state(
        self,
        kind: StateType,
        name: str,
        at: float,
        message: str = "",
        transition_id: UUID | None = None,
    ) -> RunState:
        self._states += 1
        state_id = uuid5(NAMESPACE_URL, f"{self._name}/state/{self._states}")
        return RunState(state_id, kind, name, moment(at), message, transition_id)


class RememberedRun:
    """A run without guards: what it is answered hangs on nothing but how often it was interrupted.

    So the product is asked once for each policy and number, of a run of its own; a test asks it
    in every situation of a contest, and finds the same.
    """

    def __init__(self, policy: Policy) -> None:
        self._policy: Final = policy
        self._interruptions = 0
        self._capacity = FARGATE_SPOT

    @property
    def capacity(self) -> str:
        """As last answered."""
        return self._capacity

    def before_start(self, known: GuardFacts) -> None:
        """There is no guard."""

    def started(self, due_at: float, begins_at: float) -> None:
        """Nothing of it is needed."""

    def interrupted(self, tried: Attempt, facts: Facts) -> float:  # noqa: ARG002  # no guards
        """Answer as the product did when it was asked."""
        self._interruptions += 1
        self._capacity, delay = _answer(self._policy, self._interruptions)
        return tried.ended_at + delay


def _no_facts(_: Situation) -> GuardFacts:
    return GuardFacts()


@cache
def _answer(policy: Policy, interruptions: int) -> tuple[str, float]:
    """Capacity and delay in seconds after the last of so many interruptions, an hour apart."""
    run, due_at, ended_at = AskingRun("remembered", 0.0, policy), 0.0, 0.0
    for _ in range(interruptions):
        run.started(due_at, due_at + 60)
        ended_at = due_at + 3600
        hour = Attempt(FARGATE_SPOT, due_at, due_at + 40, ended_at, 0.0, 0, True)
        due_at = run.interrupted(hour, _no_facts)
    return run.capacity, due_at - ended_at
