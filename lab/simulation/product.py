"""One run as Prefect and the run record have it, and the product's own answer to its interruption.

`decide` is asked as `chalicelib/functions/rescue.py` asks it: with a look at the run after each
step that moves it, until it asks for nothing more. Nothing of budget, guards or capacity is decided
here.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final
from uuid import NAMESPACE_URL, UUID, uuid5

from chalicelib.core.model.ecs_task import FARGATE, FARGATE_SPOT, SPOT_STOP_REASON, Task
from chalicelib.core.model.flow_run import FlowRun, RunChange, RunPolicy, RunState, StateType
from chalicelib.core.model.run_record import RunRecord
from chalicelib.core.policies.advice import guards_on
from chalicelib.core.policies.deadline import opinion_on_attempt
from chalicelib.core.policies.facts import GuardFacts, has_deadline_tag
from chalicelib.core.policies.opinion import GoOnDemand
from chalicelib.core.rescue.actions import Annotate, Change, Decision, MakeDue, Park, Save, Verdict
from chalicelib.core.rescue.decide import decide
from chalicelib.core.rescue.snapshot import Policy, Snapshot, is_on_demand, on_demand_variables
from lab.simulation.work import ARCHITECTURE, REGION, SIZE, Attempt, moment, seconds_at

MOST_LOOKS: Final = 4
_CLUSTER: Final = f"arn:aws:ecs:{REGION}:111122223333:cluster/simulation"
_RUN: Final = uuid5(NAMESPACE_URL, "lab/simulation/run")
_DEPLOYMENT: Final = uuid5(NAMESPACE_URL, "lab/simulation/deployment")


class UnexpectedDecisionError(AssertionError):
    """The product decided something that a simulated run has no way to follow."""


class SimulatedRun:
    """A flow run under the product's care. Times are seconds on its pool's clock."""

    def __init__(self, policy: Policy, at: float, tags: Sequence[str] = ()) -> None:
        """`at`: when it is scheduled to start."""
        self._policy: Final = policy
        self._history: tuple[RunState, ...] = ()
        scheduled = self._enter(StateType.SCHEDULED, "Scheduled", at)
        self._run = FlowRun(
            id=_RUN,
            name="simulated",
            state=scheduled,
            deployment_id=_DEPLOYMENT,
            tags=tuple(tags),
            job_variables={"launch_type": FARGATE_SPOT},
            policy=RunPolicy(retries=0),
            expected_start=moment(at),
        )
        self._record = RunRecord(_RUN)

    @property
    def capacity(self) -> str:
        """Where a worker would place the run's next task, as the job variables say."""
        return FARGATE if is_on_demand(self._run) else FARGATE_SPOT

    def before_start(self, known: GuardFacts) -> None:
        """Have the deadline judge the first attempt, and move the run as `sweep` does."""
        begins = self._run.expected_start
        if not has_deadline_tag(self._run.tags) or begins is None:
            return
        if isinstance(opinion_on_attempt(self._run, known, begins), GoOnDemand):
            variables = on_demand_variables(self._run.job_variables)
            self._run = replace(self._run, job_variables=variables)
            self._record = replace(self._record, next_capacity=FARGATE)

    def started(self, due_at: float, begins_at: float) -> None:
        """Enter the states that worker and engine would set."""
        self._enter(StateType.PENDING, "Pending", due_at)
        running = self._enter(StateType.RUNNING, "Running", begins_at)
        self._run = replace(self._run, state=running, run_count=self._run.run_count + 1)

    def interrupted(self, tried: Attempt, facts: Callable[[Snapshot], GuardFacts]) -> float:
        """Have `decide` judge the attempt's task as ECS shows it; return when the run is due again.

        Raises:
            UnexpectedDecisionError: it decided anything but a rerun.
        """
        task = self._task_of(tried)
        for _ in range(MOST_LOOKS):
            s = Snapshot(
                task=task,
                run=self._run,
                history=self._history,
                record=self._record,
                policy=self._policy,
                now=moment(tried.ended_at),
            )
            decision = decide(s)
            if decision.verdict is Verdict.RERUN_ON_SPOT and guards_on(s):
                decision = decide(replace(s, facts=facts(s)))
            due_at = self._follow(decision, tried.ended_at)
            if due_at is not None:
                return due_at
        raise UnexpectedDecisionError(f"the run was not settled in {MOST_LOOKS} looks")

    def _task_of(self, tried: Attempt) -> Task:
        number = len(self._record.interruptions) + 1
        return Task(
            arn=f"{_CLUSTER.replace(':cluster/', ':task/')}/{number}",
            cluster_arn=_CLUSTER,
            last_status="DEPROVISIONING",
            desired_status="STOPPED",
            stop_code="SpotInterruption",
            stopped_reason=f"{SPOT_STOP_REASON}.",
            launch_type=FARGATE,
            capacity_provider=FARGATE_SPOT,
            flow_run_id=_RUN,
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

    def _follow(self, decision: Decision, at: float) -> float | None:
        """Do what is asked for; None when another look has to show what is next."""
        due: float | None = None
        for action in decision.actions:
            match action:
                case Save(record) | Annotate(_, record):
                    self._record = record
                case Park(transition_id, _, message):
                    self._await_retry(at, message, transition_id)
                    return None
                case Change(change):
                    self._change(change)
                case MakeDue(transition_id, when, message):
                    self._await_retry(at, message, transition_id)
                    due = seconds_at(when)
                case _:
                    raise UnexpectedDecisionError(f"{action}")
        if due is None or decision.verdict is not Verdict.FINISH_RERUN:
            raise UnexpectedDecisionError(f"{decision.verdict}, {decision.reason}")
        return due

    def _change(self, change: RunChange) -> None:
        run = self._run
        self._run = replace(
            run,
            job_variables=(
                run.job_variables if change.job_variables is None else change.job_variables
            ),
            policy=change.policy or run.policy,
            tags=run.tags if change.tags is None else change.tags,
        )

    def _await_retry(self, at: float, message: str, transition_id: UUID) -> None:
        waiting = self._enter(StateType.SCHEDULED, "AwaitingRetry", at, message, transition_id)
        self._run = replace(self._run, state=waiting)

    def _enter(
        self,
        kind: StateType,
        name: str,
        at: float,
        message: str = "",
        transition_id: UUID | None = None,
    ) -> RunState:
        state_id = UUID(int=len(self._history))
        state = RunState(state_id, kind, name, moment(at), message, transition_id)
        self._history = (*self._history, state)
        return state
