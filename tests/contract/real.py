"""A real Prefect server's other users: workers, engines and people, by Prefect's own client.

Never our adapter: what that wrote is to be seen by Prefect's eyes. Imported late, once
`conftest.py` has made sure that nothing of the host's Prefect settings applies.
"""

import json
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    ArtifactFilterKey,
    LogFilter,
    LogFilterFlowRunId,
)
from prefect.client.schemas.objects import (
    ConcurrencyLimitStrategy,
    ConcurrencyOptions,
    FlowRunPolicy,
    State,
)
from prefect.events.filters import EventFilter, EventResourceFilter
from prefect.results import ResultRecord, ResultRecordMetadata  # type: ignore[attr-defined]
from prefect.states import (
    AwaitingRetry,
    Cancelled,
    Cancelling,
    Completed,
    Crashed,
    Failed,
    Paused,
    Pending,
    Running,
    Scheduled,
)
from prefect.tasks import Task
from prefect_aws.workers import ECSWorker

from chalicelib.core.model.flow_run import RunState, StateType
from tests.twin.work_pools import PoolSeen

PREFETCH = timedelta(seconds=10)
EVENT_SECONDS = 30.0

TEMPLATE = ECSWorker.get_default_base_job_template()


class _AdHocFlow:
    name = "ad-hoc"
    version = None
    retries = None
    retry_delay_seconds = None


class RealPrefect:
    """What `InMemoryPrefect` and `InMemoryWorkPools` do beside their ports, on a real server.

    Tests of a server share one work pool and one deployment: making these costs 0.2 s each.
    """

    def __init__(self, api_url: str, auth_string: str | None) -> None:
        self._client = SyncPrefectClient(api_url, auth_string=auth_string)
        self._pool_of: dict[UUID, str] = {}
        """Of each deployment, and of each run of one."""
        self.work_pool_name = self.create_work_pool()
        self._flow_id = self._client.create_flow_from_name("etl")
        self._deployment_id = self.create_deployment()

    def close(self) -> None:
        self._client.__exit__(None, None, None)

    def create_work_pool(self) -> str:
        name = f"pool-{uuid4()}"
        self._client.create_work_pool(
            WorkPoolCreate(name=name, type="ecs", base_job_template=TEMPLATE)
        )
        return name

    def create_deployment(
        self,
        *,
        concurrency_limit: int | None = None,
        collision: str = "ENQUEUE",
        work_pool: str | None = None,
    ) -> UUID:
        options = ConcurrencyOptions(collision_strategy=ConcurrencyLimitStrategy(collision))
        deployment_id = self._client.create_deployment(
            flow_id=self._flow_id,
            name=f"deployment-{uuid4()}",
            work_pool_name=work_pool or self.work_pool_name,
            job_variables={"image": "etl:1"},
            concurrency_limit=concurrency_limit,
            concurrency_options=options if concurrency_limit is not None else None,
        )
        self._pool_of[deployment_id] = work_pool or self.work_pool_name
        return deployment_id

    def create_run(
        self,
        *,
        deployed: bool = True,
        deployment_id: UUID | None = None,
        job_variables: Mapping[str, object] | None = None,
        tags: Sequence[str] = (),
        parent_run_id: UUID | None = None,
        due: datetime | None = None,
    ) -> UUID:
        call_id = None if parent_run_id is None else self._call_within(parent_run_id)
        if not deployed:
            flow: Any = _AdHocFlow()
            return self._client.create_flow_run(
                flow, tags=list(tags), parent_task_run_id=call_id
            ).id
        deployment_id = deployment_id or self._deployment_id
        flow_run_id = self._client.create_flow_run_from_deployment(
            deployment_id,
            state=Scheduled(scheduled_time=due),
            job_variables=dict(job_variables or {}),
            tags=list(tags),
            parent_task_run_id=call_id,
        ).id
        self._pool_of[flow_run_id] = self._pool_of[deployment_id]
        return flow_run_id

    def create_child(self, parent_run_id: UUID) -> UUID:
        flow_run_id = self.create_run(deployed=False, parent_run_id=parent_run_id)
        self.engine_starts(flow_run_id)
        return flow_run_id

    def is_due(self, flow_run_id: UUID) -> bool:
        given = self._client.get_scheduled_flow_runs_for_work_pool(
            self._pool_of.get(flow_run_id, self.work_pool_name),
            scheduled_before=datetime.now(UTC) + PREFETCH,
        )
        return flow_run_id in [answer.flow_run.id for answer in given]

    def worker_picks_up(self, flow_run_id: UUID, pid: str | None = None) -> RunState:
        assert self.is_due(flow_run_id), "no worker is given this run"
        state = self._move(flow_run_id, Pending())
        if pid is not None and state.type is StateType.PENDING:
            self._client.update_flow_run(flow_run_id, infrastructure_pid=pid)
        return state

    def engine_starts(
        self, flow_run_id: UUID, *, retries: int = 0, retry_delay: int = 0
    ) -> RunState:
        """What `prefect/flow_engine.py` does before it proposes RUNNING."""
        policy: FlowRunPolicy = self._client.read_flow_run(flow_run_id).empirical_policy
        if policy.retry_delay is None:
            policy.retry_delay = retry_delay
        if policy.retries is None:
            policy.retries = retries
        self._client.update_flow_run(flow_run_id, empirical_policy=policy)
        return self._move(flow_run_id, Running())

    def engine_finishes(self, flow_run_id: UUID, *, persisted: bool = False) -> RunState:
        if not persisted:
            return self._move(flow_run_id, Completed())
        record = ResultRecord(metadata=ResultRecordMetadata(storage_key="result"), result="done")
        record.mark_persisted()
        return self._move(flow_run_id, Completed(data=record))

    def engine_fails(self, flow_run_id: UUID, message: str = "Boom") -> RunState:
        return self._move(flow_run_id, Failed(message=message))

    def engine_retries(self, flow_run_id: UUID) -> RunState:
        return self._move(flow_run_id, Running())

    def engine_reschedules(self, flow_run_id: UUID) -> RunState:
        return self._move(flow_run_id, AwaitingRetry())

    def crash(self, flow_run_id: UUID, message: str = "Crashed") -> RunState:
        return self._move(flow_run_id, Crashed(message=message))

    def pause(self, flow_run_id: UUID, *, suspend: bool = False) -> RunState:
        name = "Suspended" if suspend else "Paused"
        key = str(uuid4())
        return self._move(
            flow_run_id,
            Paused(name=name, timeout_seconds=3600, reschedule=suspend, pause_key=key),
        )

    def resume(self, flow_run_id: UUID) -> RunState:
        self._client.resume_flow_run(flow_run_id)
        return self._state(flow_run_id)

    def cancel(self, flow_run_id: UUID) -> RunState:
        return self._move(flow_run_id, Cancelling())

    def worker_cancels(self, flow_run_id: UUID) -> RunState:
        return self._move(flow_run_id, Cancelled())

    def run_task(
        self,
        flow_run_id: UUID,
        kind: StateType = StateType.RUNNING,
        *,
        persisted: bool = False,
        cached: bool = False,
    ) -> None:
        """As an engine makes it known; its own way, by events, is for the end-to-end tests."""
        task = Task(fn=lambda: None, name="load")
        task_run = self._client.create_task_run(
            task, flow_run_id, dynamic_key=str(uuid4()), state=Running()
        )
        if kind is StateType.COMPLETED:
            record = ResultRecord(metadata=ResultRecordMetadata(storage_key="key"), result="done")
            record.mark_persisted()
            name = "Cached" if cached else "Completed"
            data = record if persisted or cached else None
            state: State[Any] = Completed(name=name, data=data)
            self._client.set_task_run_state(task_run.id, state, force=True)
        elif kind is StateType.CRASHED:
            self._client.set_task_run_state(task_run.id, Crashed(), force=True)

    def table(self, key: str) -> list[object]:
        chosen = ArtifactFilter(key=ArtifactFilterKey(any_=[key]))
        artifacts = self._client.read_artifacts(artifact_filter=chosen)
        artifacts.sort(key=lambda artifact: artifact.created or datetime.min.replace(tzinfo=UTC))
        assert artifacts[-1].type == "table"
        rows: list[object] = json.loads(str(artifacts[-1].data))
        return rows

    def logs_of(self, flow_run_id: UUID) -> list[tuple[int, str]]:
        chosen = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[flow_run_id]))
        return [(log.level, log.message) for log in self._client.read_logs(chosen)]

    def artifacts_of(self, flow_run_id: UUID) -> list[tuple[str, str]]:
        chosen = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[flow_run_id]))
        artifacts = self._client.read_artifacts(artifact_filter=chosen)
        artifacts.sort(key=lambda artifact: artifact.created or datetime.min.replace(tzinfo=UTC))
        return [(str(artifact.key), str(artifact.data)) for artifact in artifacts]

    def events_of(self, flow_run_id: UUID, *, at_least: int = 1) -> list[tuple[UUID, str]]:
        """The run's events of ours; the server stores them a few seconds after it took them."""
        chosen = _of_resource(f"prefect.flow-run.{flow_run_id}")
        deadline = time.monotonic() + EVENT_SECONDS
        while True:
            page = self._client.read_events(chosen, limit=50)
            ours = [(x.id, x.event) for x in page.events if x.event.startswith("prefect-spot.")]
            if len(ours) >= at_least or time.monotonic() > deadline:
                return sorted(ours, key=lambda event: event[1])
            time.sleep(0.5)

    def labels_of(self, flow_run_id: UUID) -> Mapping[str, object]:
        return self._client.read_flow_run(flow_run_id).labels

    def create_pool(self, name: str, *, kind: str = "ecs", template: Mapping[str, Any]) -> None:
        self._client.create_work_pool(
            WorkPoolCreate(name=name, type=kind, base_job_template=dict(template))
        )

    def settle(self, name: str, *, concurrency_limit: int, description: str) -> None:
        self._client.update_work_pool(
            name,
            WorkPoolUpdate(
                concurrency_limit=concurrency_limit, description=description, is_paused=True
            ),
        )
        self._request(
            "POST", f"/work_pools/{name}/queues", {"name": "urgent", "concurrency_limit": 2}
        )

    def look(self, name: str) -> PoolSeen:
        pool = self._client.read_work_pool(name)
        queues = self._request("POST", f"/work_pools/{name}/queues/filter", {})
        return PoolSeen(
            type=pool.type,
            base_job_template=pool.base_job_template,
            concurrency_limit=pool.concurrency_limit,
            is_paused=pool.is_paused,
            description=pool.description,
            queues={queue["name"]: queue["concurrency_limit"] for queue in queues},
        )

    def _request(self, method: str, path: str, body: object) -> Any:
        """What Prefect's synchronous client has no method for."""
        return self._client._client.request(method, path, json=body).raise_for_status().json()

    def _call_within(self, parent_run_id: UUID) -> UUID:
        """The task run that stands for the call, as `prefect/flow_engine.py` makes it."""
        call = Task(fn=lambda: None, name="child")
        return self._client.create_task_run(call, parent_run_id, dynamic_key=str(uuid4())).id

    def _move(self, flow_run_id: UUID, state: State[Any]) -> RunState:
        self._client.set_flow_run_state(flow_run_id, state)
        return self._state(flow_run_id)

    def _state(self, flow_run_id: UUID) -> RunState:
        state = self._client.read_flow_run(flow_run_id).state
        assert state is not None
        details = state.state_details.model_dump(mode="json")
        return RunState(
            id=state.id,
            type=StateType(state.type.value),
            name=state.name or "",
            timestamp=state.timestamp,
            message=state.message or "",
            transition_id=state.state_details.transition_id,
            details=details,
        )


def _of_resource(resource: str) -> EventFilter:
    return EventFilter(resource=EventResourceFilter(id=[resource]))
