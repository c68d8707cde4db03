"""What a test does to runs beside the port: as a worker, an engine, or a person.

The twin and real servers (`tests/contract/real.py`, through Prefect's own client) both offer it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

from chalicelib.core.run import RunState, StateType


class Controls(Protocol):
    """See `InMemoryPrefect`; every move returns the state that the run is in afterwards."""

    work_pool_name: str
    """Where deployments go that name no other."""

    def create_work_pool(self) -> str: ...
    def create_deployment(
        self,
        *,
        concurrency_limit: int | None = None,
        collision: str = "ENQUEUE",
        work_pool: str | None = None,
    ) -> UUID: ...
    def create_run(
        self,
        *,
        deployed: bool = True,
        deployment_id: UUID | None = None,
        job_variables: Mapping[str, object] | None = None,
        tags: Sequence[str] = (),
        parent_run_id: UUID | None = None,
        due: datetime | None = None,
    ) -> UUID: ...
    def create_child(self, parent_run_id: UUID) -> UUID: ...
    def is_due(self, flow_run_id: UUID) -> bool: ...
    def worker_picks_up(self, flow_run_id: UUID, pid: str | None = None) -> RunState: ...
    def engine_starts(
        self, flow_run_id: UUID, *, retries: int = 0, retry_delay: int = 0
    ) -> RunState: ...
    def engine_finishes(self, flow_run_id: UUID, *, persisted: bool = False) -> RunState: ...
    def engine_fails(self, flow_run_id: UUID, message: str = "Boom") -> RunState: ...
    def engine_retries(self, flow_run_id: UUID) -> RunState: ...
    def engine_reschedules(self, flow_run_id: UUID) -> RunState: ...
    def crash(self, flow_run_id: UUID, message: str = "Crashed") -> RunState: ...
    def pause(self, flow_run_id: UUID, *, suspend: bool = False) -> RunState: ...
    def resume(self, flow_run_id: UUID) -> RunState: ...
    def cancel(self, flow_run_id: UUID) -> RunState: ...
    def worker_cancels(self, flow_run_id: UUID) -> RunState: ...
    def run_task(
        self,
        flow_run_id: UUID,
        kind: StateType = StateType.RUNNING,
        *,
        persisted: bool = False,
        cached: bool = False,
    ) -> None: ...
    def table(self, key: str) -> list[object]: ...
    def logs_of(self, flow_run_id: UUID) -> list[tuple[int, str]]: ...
    def artifacts_of(self, flow_run_id: UUID) -> list[tuple[str, str]]: ...
    def events_of(self, flow_run_id: UUID, *, at_least: int = 1) -> list[tuple[UUID, str]]: ...
    def labels_of(self, flow_run_id: UUID) -> Mapping[str, object]: ...


@dataclass(slots=True)
class PoolSeen:
    """A work pool as people see it; `queues` holds their concurrency limits, None for none."""

    type: str
    base_job_template: dict[str, Any]
    concurrency_limit: int | None = None
    is_paused: bool = False
    description: str | None = None
    queues: dict[str, int | None] = field(default_factory=lambda: {"default": None})


class PoolControls(Protocol):
    """What people do to work pools; see `InMemoryWorkPools`."""

    def create_pool(self, name: str, *, kind: str = "ecs", template: Mapping[str, Any]) -> None: ...
    def settle(self, name: str, *, concurrency_limit: int, description: str) -> None: ...
    def look(self, name: str) -> PoolSeen: ...
