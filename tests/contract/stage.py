"""What a contract test works on: the port, the hands beside it, and how the pieces are moved."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

from chalicelib.core.model.flow_run import FlowRun, ProposedState, RunState, StateAnswer, StateType
from chalicelib.core.ports import Prefect
from chalicelib.functions.provision import WorkPools
from tests.twin.prefect import InMemoryPrefect
from tests.twin.work_pools import InMemoryWorkPools

if TYPE_CHECKING:
    from tests.contract.real import RealPrefect  # late: see its docstring

HOUR = timedelta(hours=1)
PID = "prefect-spot-test::arn:aws:ecs:us-east-1:111122223333:task/prefect-spot-test/0123"


@dataclass(frozen=True, slots=True)
class Stage:
    """`is_oldest`: Prefect 3.4's rules hold. `stranger` has wrong credentials."""

    prefect: Prefect
    controls: "InMemoryPrefect | RealPrefect"
    is_oldest: bool
    asks_for_credentials: bool
    stranger: Callable[[], Prefect]
    work_pools: WorkPools
    pool_controls: "InMemoryWorkPools | RealPrefect"

    def run(self, flow_run_id: UUID) -> FlowRun:
        run = self.prefect.read_run(flow_run_id)
        assert run is not None
        return run

    def history(self, flow_run_id: UUID) -> list[tuple[str, UUID | None]]:
        return [(x.name, x.transition_id) for x in self.prefect.read_history(flow_run_id)]

    def propose(
        self, flow_run_id: UUID, kind: StateType, name: str | None = None, message: str = ""
    ) -> StateAnswer:
        proposed = ProposedState(kind, name or kind.value.title(), message)
        return self.prefect.propose_state(flow_run_id, proposed)

    def park(
        self, flow_run_id: UUID, transition_id: UUID | None = None, *, force: bool = False
    ) -> StateAnswer:
        """AwaitingRetry one hour ahead."""
        at = datetime.now(UTC) + HOUR
        return self._await_retry(flow_run_id, transition_id or uuid4(), at, force=force)

    def make_due(self, flow_run_id: UUID, transition_id: UUID | None = None) -> StateAnswer:
        """AwaitingRetry now."""
        return self._await_retry(flow_run_id, transition_id or uuid4(), datetime.now(UTC))

    def put_back(self, flow_run_id: UUID, state: RunState) -> StateAnswer:
        """Restore a state as it was, by force."""
        was = ProposedState(
            state.type, state.name, state.message, details=state.details, data=state.data
        )
        return self.prefect.propose_state(flow_run_id, was, force=True)

    def _await_retry(
        self, flow_run_id: UUID, transition_id: UUID, at: datetime, *, force: bool = False
    ) -> StateAnswer:
        proposed = ProposedState(
            StateType.SCHEDULED, "AwaitingRetry", "Spot took the task", transition_id, at
        )
        return self.prefect.propose_state(flow_run_id, proposed, force=force)

    # Runs in the states that a rescue meets.

    def scheduled(self) -> UUID:
        return self.controls.create_run()

    def pending(self) -> UUID:
        flow_run_id = self.scheduled()
        self.controls.worker_picks_up(flow_run_id, PID)
        return flow_run_id

    def running(self, *, retries: int = 0) -> UUID:
        flow_run_id = self.pending()
        self.controls.engine_starts(flow_run_id, retries=retries)
        return flow_run_id

    def running_ad_hoc(self) -> UUID:
        flow_run_id = self.controls.create_run(deployed=False)
        self.controls.engine_starts(flow_run_id)
        return flow_run_id

    def crashed(self) -> UUID:
        flow_run_id = self.running()
        self.controls.crash(flow_run_id)
        return flow_run_id

    def cancelled(self) -> UUID:
        flow_run_id = self.cancelling()
        self.controls.worker_cancels(flow_run_id)
        return flow_run_id

    def cancelling(self) -> UUID:
        flow_run_id = self.running()
        self.controls.cancel(flow_run_id)
        return flow_run_id

    def completed(self, *, persisted: bool = False) -> UUID:
        flow_run_id = self.running()
        self.controls.engine_finishes(flow_run_id, persisted=persisted)
        return flow_run_id

    def paused(self) -> UUID:
        flow_run_id = self.running()
        self.controls.pause(flow_run_id)
        return flow_run_id

    def failed(self) -> UUID:
        flow_run_id = self.running()
        self.controls.engine_fails(flow_run_id)
        return flow_run_id
