"""One flow run in memory, which follows the product's own decisions step by step.

`core.rescue.decide.settle` looks at it and has it perform what was decided, as it does with a run
in Prefect. Nothing of budget, guards or capacity is decided here.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final
from uuid import NAMESPACE_URL, UUID, uuid5

from chalicelib.core.model.ecs_task import FARGATE, FARGATE_SPOT, Task
from chalicelib.core.model.flow_run import (
    FlowRun,
    RunChange,
    RunPolicy,
    RunRecord,
    RunState,
    StateType,
)
from chalicelib.core.model.policy import Policy, is_on_demand, on_demand_variables
from chalicelib.core.policies.facts import NOT_GATHERED, Guard, Missing, PolicyFacts
from chalicelib.core.rescue.actions import Annotate, Change, Decision, MakeDue, Park, Save, Verdict
from chalicelib.core.rescue.decide import settle
from chalicelib.core.rescue.snapshot import Snapshot

RUN_ID: Final = uuid5(NAMESPACE_URL, "prefect-spot/run-in-memory")
_DEPLOYMENT_ID: Final = uuid5(NAMESPACE_URL, "prefect-spot/deployment-in-memory")

Gather = Callable[[Snapshot, tuple[Guard, ...]], PolicyFacts | Missing]
"""Returns the facts that these guards need."""


def no_facts(_snapshot: Snapshot, _guards: tuple[Guard, ...]) -> PolicyFacts | Missing:
    """Gather nothing: every guard then lacks its facts, and the budget decides."""
    return NOT_GATHERED


class UnexpectedActionError(AssertionError):
    """The product asked for something that a run in memory has no way to follow."""


class RunInMemory:
    """A run of a deployment, scheduled at `at`, in the worker's and engine's absence."""

    def __init__(
        self,
        policy: Policy,
        at: datetime,
        *,
        tags: Sequence[str] = (),
        record: RunRecord | None = None,
    ) -> None:
        self._policy: Final = policy
        self._history: tuple[RunState, ...] = ()
        self._due_at = at
        self.record = record or RunRecord(RUN_ID, own_retries=0)
        self.run = FlowRun(
            id=RUN_ID,
            name="in-memory",
            state=self._enter(StateType.SCHEDULED, "Scheduled", at),
            deployment_id=_DEPLOYMENT_ID,
            tags=tuple(tags),
            job_variables={"launch_type": FARGATE_SPOT},
            policy=RunPolicy(retries=0),
            expected_start=at,
        )

    @property
    def capacity(self) -> str:
        """Where a worker would place the run's next task, as its job variables say."""
        return FARGATE if is_on_demand(self.run) else FARGATE_SPOT

    def move_to_on_demand(self) -> None:
        """Put the run on FARGATE before its start, as `sweep` does for a deadline."""
        variables = on_demand_variables(self.run.job_variables)
        self.run = replace(self.run, job_variables=variables)
        self.record = replace(self.record, next_capacity=FARGATE)

    def start(self, pending_at: datetime, running_at: datetime) -> None:
        """Enter the states that worker and engine would set."""
        self._enter(StateType.PENDING, "Pending", pending_at)
        running = self._enter(StateType.RUNNING, "Running", running_at)
        self.run = replace(self.run, state=running, run_count=self.run.run_count + 1)

    def end_task(self, task: Task, now: datetime, gather: Gather = no_facts) -> datetime:
        """Have the product handle the end of the run's task; return when the run is due again.

        Raises UnexpectedActionError: it asked for anything but a rerun.
        """

        def look() -> Snapshot:
            return Snapshot(task, self.run, self._history, self.record, self._policy, now)

        settle(look, gather, lambda snapshot, decision: self._perform(snapshot.now, decision))
        return self._due_at

    def _perform(self, now: datetime, decision: Decision) -> bool:
        for action in decision.actions:
            match action:
                case Save(record) | Annotate(_, record):
                    self.record = record
                case Park(transition_id, _, message):
                    self._await_retry(now, message, transition_id)
                    return False
                case Change(change):
                    self._change(change)
                case MakeDue(transition_id, at, message):
                    self._await_retry(now, message, transition_id)
                    self._due_at = at
                    return False
                case _:
                    raise UnexpectedActionError(f"{action}")
        if decision.verdict is not Verdict.FINISH_RERUN:
            raise UnexpectedActionError(f"{decision.verdict}, {decision.reason}")
        return True

    def _change(self, change: RunChange) -> None:
        run, variables = self.run, change.job_variables
        self.run = replace(
            run,
            job_variables=run.job_variables if variables is None else variables,
            policy=change.policy or run.policy,
            tags=run.tags if change.tags is None else change.tags,
        )

    def _await_retry(self, at: datetime, message: str, transition_id: UUID) -> None:
        waiting = self._enter(StateType.SCHEDULED, "AwaitingRetry", at, message, transition_id)
        self.run = replace(self.run, state=waiting)

    def _enter(
        self,
        kind: StateType,
        name: str,
        at: datetime,
        message: str = "",
        transition_id: UUID | None = None,
    ) -> RunState:
        state_id = UUID(int=len(self._history))
        state = RunState(state_id, kind, name, at, message, transition_id)
        self._history = (*self._history, state)
        return state
