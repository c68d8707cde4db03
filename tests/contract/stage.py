"""What a contract test works on: the ports, the controls beside them, and runs in each state."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

from chalicelib.adapters.prefect_client import Connections
from chalicelib.core.model.flow_run import FlowRun, ProposedState, RunState, StateAnswer, StateType
from chalicelib.core.ports import Prefect
from chalicelib.functions.provision import WorkPools
from tests.contract.real import HOUR, RealPrefect
from tests.twin.prefect import InMemoryPrefect
from tests.twin.work_pools import InMemoryWorkPools

PID = "prefect-spot-test::arn:aws:ecs:us-east-1:111122223333:task/prefect-spot-test/0123"


@dataclass(frozen=True, slots=True)
class Stage:
    """`is_oldest`: Prefect 3.4's rules hold. `unauthorized` has wrong credentials.

    `protected`: the connections, if the server has CSRF protection.
    """

    prefect: Prefect
    controls: InMemoryPrefect | RealPrefect
    is_oldest: bool
    asks_for_credentials: bool
    unauthorized: Prefect
    work_pools: WorkPools
    pool_controls: InMemoryWorkPools | RealPrefect
    protected: Connections | None = None

    def loses_csrf_token(self) -> bool:
        """Make our CSRF token good for nothing, as a restarted server does; False without one."""
        if self.protected is None:
            return False
        assert isinstance(self.controls, RealPrefect)
        self.controls.api.replace_csrf_token(self.protected.client)
        return True

    def run(self, flow_run_id: UUID) -> FlowRun:
        run = self.prefect.read_run(flow_run_id)
        assert run is not None
        return run

    def history(self, flow_run_id: UUID) -> list[tuple[str, UUID | None]]:
        return [(x.name, x.transition_id) for x in self.prefect.read_history(flow_run_id)]

    def propose(self, flow_run_id: UUID, kind: StateType, message: str = "") -> StateAnswer:
        proposed = ProposedState(kind, kind.value.title(), message)
        return self.prefect.propose_state(flow_run_id, proposed)

    def park(
        self,
        flow_run_id: UUID,
        transition_id: UUID | None = None,
        *,
        ahead: timedelta = HOUR,
        force: bool = False,
    ) -> StateAnswer:
        """Propose AwaitingRetry so far ahead."""
        due_at, id_ = datetime.now(UTC) + ahead, transition_id or uuid4()
        proposed = ProposedState(
            StateType.SCHEDULED, "AwaitingRetry", "Spot took the task", id_, due_at
        )
        return self.prefect.propose_state(flow_run_id, proposed, force=force)

    def make_due(self, flow_run_id: UUID, transition_id: UUID | None = None) -> StateAnswer:
        return self.park(flow_run_id, transition_id, ahead=timedelta())

    def restore(self, flow_run_id: UUID, state: RunState) -> StateAnswer:
        """Propose a state as it was, by force."""
        was = ProposedState(
            state.type, state.name, state.message, details=state.details, data=state.data
        )
        return self.prefect.propose_state(flow_run_id, was, force=True)

    def pending(self, deployment_id: UUID | None = None) -> UUID:
        flow_run_id = self.controls.create_run(deployment_id=deployment_id)
        self.controls.worker_picks_up(flow_run_id, PID)
        return flow_run_id

    def running(self, deployment_id: UUID | None = None, *, retries: int = 0) -> UUID:
        flow_run_id = self.pending(deployment_id)
        self.controls.engine_starts(flow_run_id, retries=retries)
        return flow_run_id

    def running_ad_hoc(self) -> UUID:
        """A run without a deployment."""
        flow_run_id = self.controls.create_run(deployed=False)
        self.controls.engine_starts(flow_run_id)
        return flow_run_id

    def run_in(self, state: str) -> UUID:
        """A run in that state, whose name is in lower case."""
        if state == "scheduled":
            return self.controls.create_run()
        if state == "pending":
            return self.pending()
        controls, flow_run_id = self.controls, self.running()
        moves: dict[str, tuple[Callable[[UUID], object], ...]] = {
            "running": (),
            "crashed": (controls.crash,),
            "cancelling": (controls.cancel,),
            "cancelled": (controls.cancel, controls.worker_cancels),
            "completed": (controls.engine_finishes,),
            "failed": (controls.engine_fails,),
            "paused": (controls.pause,),
            "parked": (self.park,),
        }
        for move in moves[state]:
            move(flow_run_id)
        return flow_run_id
