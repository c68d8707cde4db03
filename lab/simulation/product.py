"""The product's own answers for a simulated run: ECS's task, and times in seconds.

`spotctl.replay.run_in_memory` follows the decisions; nothing of budget, guards or capacity is
decided here.
"""

from collections.abc import Sequence
from typing import Final

from chalicelib.core.model.ecs_task import FARGATE, FARGATE_SPOT, SPOT_STOP_REASON, Task
from chalicelib.core.model.policy import Policy, has_deadline_tag
from chalicelib.core.policies.deadline import deadline_opinion
from chalicelib.core.policies.facts import GoOnDemand, PolicyFacts
from lab.simulation.work import ARCHITECTURE, REGION, SIZE, Attempt, moment, seconds_at
from spotctl.replay.run_in_memory import RUN_ID, Gather, RunInMemory

_CLUSTER: Final = f"arn:aws:ecs:{REGION}:111122223333:cluster/simulation"


class SimulatedRun:
    """A flow run that the product handles. Times are seconds on its pool's clock."""

    def __init__(self, policy: Policy, at: float, tags: Sequence[str] = ()) -> None:
        """`at`: when it is scheduled to start."""
        self._run = RunInMemory(policy, moment(at), tags=tags)

    @property
    def capacity(self) -> str:
        """Where a worker would place the run's next task, as the job variables say."""
        return self._run.capacity

    def before_start(self, known: PolicyFacts) -> None:
        """Have the deadline guard judge the first attempt, and move the run as `sweep` does."""
        run = self._run.run
        if not has_deadline_tag(run.tags) or run.expected_start is None:
            return
        if isinstance(deadline_opinion(run, known, run.expected_start), GoOnDemand):
            self._run.move_to_on_demand()

    def started(self, due_at: float, begins_at: float) -> None:
        """Enter the states that worker and engine would set."""
        self._run.start(moment(due_at), moment(begins_at))

    def interrupted(self, tried: Attempt, gather: Gather) -> float:
        """Have the product judge the attempt's task as ECS shows it; return when it is due again.

        Raises:
            UnexpectedActionError: the product decided anything but a rerun.
        """
        number = len(self._run.record.interruptions) + 1
        task = Task(
            arn=f"{_CLUSTER.replace(':cluster/', ':task/')}/{number}",
            cluster_arn=_CLUSTER,
            last_status="DEPROVISIONING",
            desired_status="STOPPED",
            stop_code="SpotInterruption",
            stopped_reason=f"{SPOT_STOP_REASON}.",
            launch_type=FARGATE,
            capacity_provider=FARGATE_SPOT,
            flow_run_id=RUN_ID,
            flow_container_stopped=True,
            cpu_units=SIZE.cpu_units,
            memory_mib=SIZE.memory_mib,
            architecture=ARCHITECTURE,
            created_at=moment(tried.due_at),
            pull_started_at=moment(tried.pulled_at),
            started_at=moment(tried.pulled_at),
            execution_stopped_at=moment(tried.ended_at),
        )
        return seconds_at(self._run.end_task(task, moment(tried.ended_at), gather))
