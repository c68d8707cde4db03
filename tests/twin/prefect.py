"""Prefect in memory: the port's second implementation, and the hands that move runs in tests.

It passes the same contract suite as real servers. Its rules are in `orchestration.py`; time is the
test's own. `oldest=True` makes it behave as Prefect 3.4 does where that differs.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from chalicelib.adapters import prefect_bounds as bounds
from chalicelib.adapters.prefect_answers import read_found, read_run, read_state
from chalicelib.adapters.prefect_api import LIVE
from chalicelib.core.model.flow_run import (
    FINAL_STATES,
    CompletedRun,
    FlowRun,
    PrefectDeployment,
    ProposedState,
    RunChange,
    RunState,
    StateAnswer,
    StateType,
    TaskRun,
)
from chalicelib.core.model.sweeping import UnreadRun
from chalicelib.core.money.savings import TableArtifact
from chalicelib.core.ports import RunQuery
from chalicelib.core.rescue.actions import Artifact, LogLine, PrefectEvent
from chalicelib.errors import PrefectRejectedError, PrefectSpotError, PrefectUnreadableError
from tests.twin.orchestration import (
    HOLDING_A_SLOT,
    Deployment,
    TwinRun,
    judge,
    judge_forced,
)

PREFETCH = timedelta(seconds=10)
"""How far ahead a worker asks for runs."""

RUNNING = ProposedState(StateType.RUNNING, "Running")

TOO_LONG = bounds.OutOfBoundsError("too long")

NO_TIME = datetime.min.replace(tzinfo=UTC)

MOST_RUNS = 200
"""How many runs a server gives at once, unless it is set otherwise."""

POOL_DEFAULTS: Mapping[str, object] = {"launch_type": "FARGATE", "cpu": 1024}
"""Defaults of an ecs pool's variables, as far as a rescue reads them."""

_FRESH_POLICY: Mapping[str, object] = {
    "max_retries": 0,
    "retry_delay_seconds": 0,
    "retries": None,
    "retry_delay": None,
    "pause_keys": [],
    "resuming": False,
    "retry_type": None,
}


class Hands(ABC):
    """What engines, workers and people do to a run, each by the state that they propose.

    Each returns the state the run is in afterwards. `clock` is the server's.
    """

    clock: Callable[[], datetime]

    @abstractmethod
    def move(
        self, flow_run_id: UUID, proposed: ProposedState, *, persisted: bool = False
    ) -> RunState:
        """Propose a state, as an engine does; return the run's state afterwards."""

    def engine_finishes(self, flow_run_id: UUID, *, persisted: bool = False) -> RunState:
        """The flow returns; `persisted`: its result is stored and referred to by the state."""
        completed = ProposedState(StateType.COMPLETED, "Completed")
        return self.move(flow_run_id, completed, persisted=persisted)

    def engine_fails(self, flow_run_id: UUID, message: str = "Boom") -> RunState:
        """The flow raises: FAILED, or AwaitingRetry in the same process while retries are left."""
        return self.move(flow_run_id, ProposedState(StateType.FAILED, "Failed", message))

    def engine_retries(self, flow_run_id: UUID) -> RunState:
        return self.move(flow_run_id, RUNNING)

    def engine_reschedules(self, flow_run_id: UUID) -> RunState:
        """The engine obeys SIGTERM by `reschedule`: AwaitingRetry, now, without a message."""
        return self.move(flow_run_id, ProposedState(StateType.SCHEDULED, "AwaitingRetry"))

    def crash(self, flow_run_id: UUID, message: str = "Crashed") -> RunState:
        """An engine, a worker or an automation proposes CRASHED."""
        return self.move(flow_run_id, ProposedState(StateType.CRASHED, "Crashed", message))

    def pause(self, flow_run_id: UUID) -> RunState:
        """The flow pauses, in its process."""
        timeout = self.clock() + timedelta(hours=1)
        details = {
            "pause_timeout": timeout.isoformat(),
            "pause_reschedule": False,
            "pause_key": str(uuid4()),
        }
        return self.move(flow_run_id, ProposedState(StateType.PAUSED, "Paused", details=details))

    def resume(self, flow_run_id: UUID) -> RunState:
        """A person resumes the paused run."""
        return self.move(flow_run_id, RUNNING)

    def cancel(self, flow_run_id: UUID) -> RunState:
        """A person cancels the run: CANCELLING, or CANCELLED when nothing is running."""
        return self.move(flow_run_id, ProposedState(StateType.CANCELLING, "Cancelling"))

    def worker_cancels(self, flow_run_id: UUID) -> RunState:
        """The worker has ended the infrastructure of a CANCELLING run."""
        return self.move(flow_run_id, ProposedState(StateType.CANCELLED, "Cancelled"))


class InMemoryPrefect(Hands):
    """Prefect's port, and a server's other users: workers, engines, people.

    Everything written through the port is kept: `log_lines`, `artifacts`, `events` (by id), and
    each run's labels; `calls` names the port's methods in the order they were called. `failure`,
    once set, is raised by every method of the port. `odd`: fields of Prefect's answer about a run
    that stand there in place of its own.
    """

    work_pool_name = "fargate-spot-test"

    def __init__(self, clock: Callable[[], datetime], *, oldest: bool = False) -> None:
        self.runs: dict[UUID, TwinRun] = {}
        self.log_lines: list[LogLine] = []
        self.artifacts: list[Artifact] = []
        self.tables: list[TableArtifact] = []
        self.task_runs: dict[UUID, list[TaskRun]] = {}
        self._slots: dict[str, UUID] = {}
        self._task_run_places: dict[UUID, tuple[UUID, int]] = {}
        self.events: dict[UUID, PrefectEvent] = {}
        self.calls: list[str] = []
        self.failure: PrefectSpotError | None = None
        self.clock = clock
        self._oldest = oldest
        self.work_pools = [self.work_pool_name]
        self.pool_defaults = {self.work_pool_name: dict(POOL_DEFAULTS)}
        self._deployments: dict[UUID, Deployment] = {}
        self.odd: dict[UUID, Mapping[str, object]] = {}

    # The port.

    def read_run(self, flow_run_id: UUID) -> FlowRun | None:
        self._called("read_run")
        run = self.runs.get(flow_run_id)
        return None if run is None else read_run(self._answer(run))

    def read_history(self, flow_run_id: UUID) -> tuple[RunState, ...]:
        self._called("read_history")
        run = self.runs.get(flow_run_id)
        if run is None or flow_run_id not in self.odd:
            return tuple(run.states) if run else ()
        last = self._answer(run)["state"]
        return (*run.states[:-1], read_state(last))

    def find_runs(self, query: RunQuery) -> tuple[FlowRun | UnreadRun, ...]:
        self._called("find_runs")
        return tuple(read_found(self._answer(run)) for run in self._found(query))

    def find_run_ids(self, query: RunQuery) -> tuple[UUID, ...]:
        self._called("find_run_ids")
        return tuple(run.id for run in self._found(query))

    def _found(self, query: RunQuery) -> list[TwinRun]:
        if query.limit > MOST_RUNS:
            raise _refusal(f"Invalid limit: must be less than or equal to {MOST_RUNS}.")
        is_first = query.offset == 0 and not query.known_pool
        if is_first and not {*query.work_pools} & {*self.work_pools}:
            names = " or ".join(map(repr, query.work_pools))
            raise _refusal(f"work pool {names} is not known to Prefect")
        found = [run for run in self.runs.values() if _is_wanted(run, query)]
        found.sort(key=lambda run: _place(run, query))
        return found[query.offset : query.offset + query.limit]

    def find_live_children(self, parents: Sequence[UUID]) -> tuple[FlowRun, ...]:
        if not parents:
            return ()
        self._called("find_live_children")
        found = [run for run in self._within(parents) if run.state.type in LIVE]
        return tuple(read_run(self._answer(run)) for run in found)

    def find_task_runs_left(self, flow_runs: Sequence[UUID]) -> tuple[tuple[UUID, ...], bool]:
        self._called("find_task_runs_left")
        has_subflows = any(run.state.type in LIVE for run in self._within(flow_runs))
        return self._running_task_runs(flow_runs), has_subflows

    def _running_task_runs(self, flow_runs: Sequence[UUID]) -> tuple[UUID, ...]:
        return tuple(
            id_
            for id_, (run_id, place) in self._task_run_places.items()
            if run_id in flow_runs and self.task_runs[run_id][place].state is StateType.RUNNING
        )

    def crash_task_run(self, task_run_id: UUID, message: str) -> None:
        self._called("crash_task_run")
        run_id, place = self._task_run_places[task_run_id]
        found = self.task_runs[run_id][place]
        if found.state not in FINAL_STATES:
            crashed = replace(found, state=StateType.CRASHED, ended_at=self.clock())
            self.task_runs[run_id][place] = crashed

    def read_task_runs(
        self, flow_run_id: UUID, after: datetime, before: datetime
    ) -> tuple[TaskRun, ...]:
        self._called("read_task_runs")
        family = [flow_run_id]
        for parent in family:
            family += [run.id for run in self._within([parent])]
        return tuple(
            task_run
            for run_id in family
            for task_run in self.task_runs.get(run_id, ())
            if after <= task_run.started_at <= before
        )

    def find_completed_runs(self, deployment_id: UUID, limit: int) -> tuple[CompletedRun, ...]:
        self._called("find_completed_runs")
        found = [
            _as_completed(run)
            for run in self.runs.values()
            if run.deployment is not None
            and run.deployment.id == deployment_id
            and run.state.type is StateType.COMPLETED
        ]
        return tuple(sorted(found, key=lambda run: run.ended_at, reverse=True)[:limit])

    def read_deployment_name(self, deployment_id: UUID) -> str:
        self._called("read_deployment_name")
        return _name_of(deployment_id) if deployment_id in self._deployments else ""

    def read_deployment(self, deployment_id: UUID) -> PrefectDeployment | None:
        self._called("read_deployment")
        deployment = self._deployments.get(deployment_id)
        if deployment is None:
            return None
        return PrefectDeployment(_name_of(deployment_id), dict(deployment.job_variables))

    def read_pool_defaults(self, work_pool: str) -> Mapping[str, object]:
        self._called("read_pool_defaults")
        return dict(self.pool_defaults[work_pool]) if work_pool in self.work_pools else {}

    def propose_state(
        self, flow_run_id: UUID, state: ProposedState, *, force: bool = False
    ) -> StateAnswer:
        self._called("propose_state")
        return self._propose(flow_run_id, state, force=force)

    def change_run(self, flow_run_id: UUID, change: RunChange) -> None:
        if change.is_empty:
            return
        self._called("change_run")
        run = self._known(flow_run_id)
        if change.job_variables is not None:
            if run.state.type is not StateType.SCHEDULED:
                raise _refusal(f"Job variables cannot be updated in state {run.state.type}")
            if run.deployment is None or run.deployment.id not in self._deployments:
                raise _refusal("A deployment for the flow run could not be found")
            run.job_variables = dict(change.job_variables)
        if change.policy is not None:
            policy = change.policy
            given = {"retries": policy.retries, "retry_type": policy.retry_type}
            run.policy = {**_FRESH_POLICY, **policy.others, **given}
        if change.tags is not None:
            run.tags = change.tags

    def add_labels(self, flow_run_id: UUID, labels: Mapping[str, str | int]) -> None:
        if any(value is None for value in labels.values()):
            raise _refusal("a label is null: it would make the run unreadable")
        if labels:
            self._called("add_labels")
            self._known(flow_run_id).labels.update(labels)

    def write_log(self, line: LogLine) -> None:
        self._called("write_log")
        self.log_lines.append(line)

    def write_artifact(self, artifact: Artifact) -> None:
        self._called("write_artifact")
        self.artifacts.append(artifact)

    def write_table(self, table: TableArtifact) -> None:
        self._called("write_table")
        self.tables.append(table)

    def emit_events(self, events: Sequence[PrefectEvent]) -> None:
        if not events:
            return
        self._called("emit_events")
        for event in events:
            self.events.setdefault(event.id, event)

    # What a test does to a run, beside `Hands`.

    def create_work_pool(self, **defaults: object) -> str:
        """Create one more work pool, with these defaults of variables; return its name."""
        self.work_pools.append(f"pool-{len(self.work_pools)}")
        self.pool_defaults[self.work_pools[-1]] = {**POOL_DEFAULTS, **defaults}
        return self.work_pools[-1]

    def create_deployment(
        self,
        *,
        concurrency_limit: int | None = None,
        collision: str = "ENQUEUE",
        work_pool: str | None = None,
        job_variables: Mapping[str, object] | None = None,
    ) -> UUID:
        """Create a deployment; `collision` is ENQUEUE or CANCEL_NEW."""
        pool, variables = work_pool or self.work_pool_name, dict(job_variables or {})
        deployment = Deployment(uuid4(), pool, concurrency_limit, collision, variables)
        self._deployments[deployment.id] = deployment
        return deployment.id

    def delete_deployment(self, deployment_id: UUID) -> None:
        """A person deletes the deployment; what is SCHEDULED and never started goes with it."""
        del self._deployments[deployment_id]
        for run in [*self.runs.values()]:
            is_its = run.deployment is not None and run.deployment.id == deployment_id
            if is_its and run.state.type is StateType.SCHEDULED and not run.run_count:
                del self.runs[run.id]

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
        """Create a run: SCHEDULED, for now unless `due` later; `deployed=False`: PENDING."""
        if deployed and deployment_id is None:
            deployment_id = self.create_deployment()
        deployment = self._deployments[deployment_id] if deployment_id else None
        run = TwinRun(
            id=uuid4(),
            name=f"run-{len(self.runs) + 1}",
            work_pool_name=deployment.work_pool_name if deployment else None,
            deployment=deployment,
            tags=tuple(tags),
            job_variables=dict(job_variables or {}),
            policy=dict(_FRESH_POLICY),
            parent_run_id=parent_run_id,
        )
        self.runs[run.id] = run
        first = StateType.SCHEDULED if deployed else StateType.PENDING
        state = ProposedState(first, first.value.title(), scheduled_time=due if deployed else None)
        self._write(run, state, before={}, after={})
        return run.id

    def create_child(self, parent_run_id: UUID) -> UUID:
        """The run's flow calls another one: RUNNING in the same process, without pool and pid."""
        flow_run_id = self.create_run(deployed=False, parent_run_id=parent_run_id)
        self.engine_starts(flow_run_id)
        return flow_run_id

    def is_due(self, flow_run_id: UUID) -> bool:
        """Whether a worker that asks now is given the run."""
        run = self.runs[flow_run_id]
        return (
            run.state.type is StateType.SCHEDULED
            and run.work_pool_name is not None
            and run.policy["retry_type"] != "in_process"
            and run.next_start is not None
            and run.next_start <= self.clock() + PREFETCH
        )

    def worker_picks_up(self, flow_run_id: UUID, pid: str | None = None) -> RunState:
        """A worker that was given the run submits it; a pid is noted when RunTask has answered."""
        assert self.is_due(flow_run_id), "no worker is given this run"
        state = self.move(flow_run_id, ProposedState(StateType.PENDING, "Pending"))
        if pid is not None and state.type is StateType.PENDING:
            self.runs[flow_run_id].infrastructure_pid = pid
        return state

    def engine_starts(
        self, flow_run_id: UUID, *, retries: int = 0, retry_delay: int = 0
    ) -> RunState:
        """The engine writes the flow's own retries where none are noted, and proposes RUNNING."""
        policy = self.runs[flow_run_id].policy
        for key, value in (("retries", retries), ("retry_delay", retry_delay)):
            policy[key] = value if policy[key] is None else policy[key]
        return self.move(flow_run_id, RUNNING)

    def run_task(
        self,
        flow_run_id: UUID,
        kind: StateType = StateType.RUNNING,
        *,
        persisted: bool = False,
        cached: bool = False,
        tags: Sequence[str] = (),
    ) -> None:
        """A task of the run starts now, and is then in that state, its result stored or not.

        `cached`: the result was there already.
        """
        now = self.clock()
        ended_at = now if kind in FINAL_STATES else None
        task_run = TaskRun(kind, now, persisted or cached, ended_at, cached)
        task_runs = self.task_runs.setdefault(flow_run_id, [])
        self._task_run_places[uuid4()] = (flow_run_id, len(task_runs))
        task_runs.append(task_run)

    def create_tag_limit(self) -> str:
        """A tag of which one task run at a time may run."""
        return f"tag-{uuid4()}"

    def take_slot(self, tag: str, task_run_id: UUID) -> bool:
        """What an engine does before a task starts; whether there was a slot."""
        holder = self._slots.get(tag)
        if holder in self._running_task_runs(list(self.task_runs)):
            return False
        self._slots[tag] = task_run_id
        return True

    def add_null_label(self, flow_run_id: UUID) -> None:
        """Some client does: from then on Prefect cannot answer about the run."""
        self.runs[flow_run_id].labels["team"] = None

    # What a person reads in the UI.

    def logs_of(self, flow_run_id: UUID) -> list[tuple[int, str]]:
        return [(x.level, x.message) for x in self.log_lines if x.flow_run_id == flow_run_id]

    def artifacts_of(self, flow_run_id: UUID) -> list[tuple[str, str]]:
        return [(x.key, x.markdown) for x in self.artifacts if x.flow_run_id == flow_run_id]

    def table(self, key: str) -> list[object]:
        """The rows of the newest table with this key."""
        return [dict(row) for row in [x.rows for x in self.tables if x.key == key][-1]]

    def events_of(self, flow_run_id: UUID, *, at_least: int = 1) -> list[tuple[UUID, str]]:
        found = [(x.id, x.name) for x in self.events.values() if x.flow_run_id == flow_run_id]
        return sorted(found, key=lambda event: event[1])

    def labels_of(self, flow_run_id: UUID) -> Mapping[str, object]:
        return self.runs[flow_run_id].labels

    # Within.

    def _called(self, method: str) -> None:
        self.calls.append(method)
        if self.failure is not None:
            raise self.failure

    def _answer(self, run: TwinRun) -> dict[str, Any]:
        """What Prefect answers about a run; it fails over a null label, and a state too large."""
        answer = {**_as_answered(run), **self.odd.get(run.id, {})}
        labels = answer["labels"]
        if isinstance(labels, Mapping) and None in labels.values():
            raise PrefectUnreadableError("Prefect answered 500", next_step="none")
        if run.id in self.odd:
            body = json.dumps(answer).encode()
            try:
                bounds.read_json(body if len(body) < bounds.MOST_BYTES else TOO_LONG)
            except ValueError as error:
                raise PrefectUnreadableError(str(error), next_step="none") from error
        return answer

    def _within(self, parents: Sequence[UUID]) -> list[TwinRun]:
        """The runs that these started in their own process."""
        runs = self.runs.values()
        return [run for run in runs if run.parent_run_id in parents and run.deployment is None]

    def _known(self, flow_run_id: UUID) -> TwinRun:
        if flow_run_id not in self.runs:
            raise _refusal(f"Flow run with id {flow_run_id} not found")
        return self.runs[flow_run_id]

    def move(
        self, flow_run_id: UUID, proposed: ProposedState, *, persisted: bool = False
    ) -> RunState:
        """As Prefect's own client does it: with a transition id of its own."""
        self._propose(flow_run_id, replace(proposed, transition_id=uuid4()), force=False)
        self.runs[flow_run_id].has_persisted_result |= persisted
        return self.runs[flow_run_id].state

    def _propose(self, flow_run_id: UUID, state: ProposedState, *, force: bool) -> StateAnswer:
        run = self._known(flow_run_id)
        if force:
            ruling = judge_forced(run, state, oldest=self._oldest)
        else:
            now, free = self.clock(), self._slot_is_free(run.deployment)
            ruling = judge(run, state, now, slot_free=free, oldest=self._oldest)
        if ruling.written is not None:
            self._write(run, ruling.written, before=ruling.before, after=ruling.after)
        has_state = ruling.written is not None or ruling.verdict.value == "REJECT"
        return StateAnswer(ruling.verdict, ruling.reason, run.state if has_state else None)

    def _slot_is_free(self, deployment: Deployment | None) -> bool:
        if deployment is None or deployment.concurrency_limit is None:
            return True
        holders = [x for x in self.runs.values() if x.deployment is deployment and x.holds_slot]
        return len(holders) < deployment.concurrency_limit

    def _write(
        self,
        run: TwinRun,
        proposed: ProposedState,
        *,
        before: Mapping[str, object],
        after: Mapping[str, object],
    ) -> None:
        run.policy.update(before)
        now, kind = self.clock(), proposed.type
        if run.states:
            now = max(now, run.state.timestamp + timedelta(microseconds=1))
        details = {**proposed.details, "flow_run_id": str(run.id)}
        scheduled_time = proposed.scheduled_time
        if scheduled_time is None and details.get("scheduled_time"):
            scheduled_time = datetime.fromisoformat(str(details["scheduled_time"]))
        if scheduled_time is None and kind is StateType.SCHEDULED:
            scheduled_time = now
        if scheduled_time is not None:
            details["scheduled_time"] = scheduled_time.isoformat()
        transition_id = proposed.transition_id or details.get("transition_id")
        if transition_id is not None:
            details["transition_id"] = str(transition_id)
        run.next_start = scheduled_time if kind is StateType.SCHEDULED else None
        run.expected_start = run.expected_start or run.next_start or now
        self._note_start_and_end(run, kind, now)
        if kind is StateType.RUNNING and not run.policy["resuming"]:
            run.run_count += 1
        state = RunState(
            id=uuid4(),
            type=kind,
            name=proposed.name,
            timestamp=now,
            message=proposed.message,
            transition_id=UUID(str(transition_id)) if transition_id is not None else None,
            details=details,
            data=proposed.data,
        )
        if kind is StateType.RUNNING or state.is_final:
            run.policy["resuming"] = False
        # 3.8 keeps the slot over a retry in the same process; 3.4 gives it away.
        stays = before.get("retry_type") == "in_process" and not self._oldest
        run.holds_slot = (kind in HOLDING_A_SLOT) or (stays and run.holds_slot)
        run.has_persisted_result = False
        run.states.append(state)
        run.policy.update(after)

    def _note_start_and_end(self, run: TwinRun, kind: StateType, now: datetime) -> None:
        if kind is StateType.RUNNING:
            run.started_at = run.started_at or now
        if kind not in FINAL_STATES:
            run.ended_at = None
        elif run.started_at or not self._oldest:  # in 3.4, what never started never ends
            run.started_at = run.started_at or now
            run.ended_at = run.ended_at or now


def _name_of(deployment_id: UUID) -> str:
    return f"etl/deployment-{deployment_id}"


def _refusal(what: str) -> PrefectRejectedError:
    return PrefectRejectedError(what, next_step="none")


def _as_answered(run: TwinRun) -> dict[str, Any]:
    state, at = run.state, run.expected_start
    return {
        "id": str(run.id),
        "name": run.name,
        "labels": run.labels,
        "state": {
            "id": str(state.id),
            "type": state.type.value,
            "name": state.name,
            "timestamp": state.timestamp.isoformat(),
            "message": state.message,
            "state_details": state.details,
            "data": state.data,
        },
        "run_count": run.run_count,
        "deployment_id": str(run.deployment.id) if run.deployment else None,
        "tags": list(run.tags),
        "job_variables": dict(run.job_variables),
        "empirical_policy": dict(run.policy),
        "infrastructure_pid": run.infrastructure_pid,
        "work_pool_name": run.work_pool_name,
        "expected_start_time": at and at.isoformat(),
    }


def _as_completed(run: TwinRun) -> CompletedRun:
    assert run.started_at is not None
    assert run.ended_at is not None
    return CompletedRun(
        id=run.id,
        run_count=run.run_count,
        run_seconds=run.run_seconds,
        started_at=run.started_at,
        ended_at=run.ended_at,
        expected_start=run.expected_start,
    )


def _place(run: TwinRun, query: RunQuery) -> tuple[datetime, int]:
    """As on PostgreSQL: runs with one expected start change places from page to page.

    Only a search that holds nothing else is in the order of the ids.
    """
    at = run.expected_start or run.state.timestamp
    if query.is_by_id:
        return NO_TIME, -run.id.int
    return at, hash((run.id.int, query.offset)) if query.offset else 0


def _is_wanted(run: TwinRun, query: RunQuery) -> bool:
    if run.work_pool_name not in query.work_pools or run.state.type not in query.state_types:
        return False
    if query.state_names and run.state.name not in query.state_names:
        return False
    if query.without_end and run.ended_at is not None:
        return False
    return _is_within(run.expected_start, query.expected_after, query.expected_before) and (
        _is_within(run.ended_at, query.ended_after, None)
    )


def _is_within(at: datetime | None, after: datetime | None, before: datetime | None) -> bool:
    """Both ends included; no time at all is within no bound."""
    if after is None and before is None:
        return True
    return at is not None and (after is None or after <= at) and (before is None or at <= before)
