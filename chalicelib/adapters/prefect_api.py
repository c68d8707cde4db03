"""Prefect's REST API, as far as a rescue needs it: `core.ports.Prefect` over HTTP.

`adapters/prefect_client.py` sends, with tries, deadline and credentials;
`adapters/prefect_answers.py` reads the answers.
"""

import json
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Final, TypeVar
from urllib.parse import quote
from uuid import UUID

from chalicelib.adapters.prefect_answers import (
    Fields,
    read_completed_run,
    read_found,
    read_list,
    read_pool_defaults,
    read_run,
    read_state,
    read_state_answer,
    read_task_run,
    read_uuid,
)
from chalicelib.adapters.prefect_client import JsonHttp
from chalicelib.adapters.prefect_requests import (
    any_of,
    between,
    event_of,
    given,
    search_of,
    state_of,
)
from chalicelib.core.model.flow_run import (
    CompletedRun,
    FlowRun,
    JsonObject,
    PrefectDeployment,
    ProposedState,
    RunChange,
    RunPolicy,
    RunState,
    StateAnswer,
    StateType,
    TaskRun,
)
from chalicelib.core.model.sweeping import UnreadRun
from chalicelib.core.model.text import kept
from chalicelib.core.ports import RunQuery
from chalicelib.core.rescue.actions import Artifact, LogLine, PrefectEvent
from chalicelib.errors import (
    PrefectOutcomeUnknownError,
    PrefectRejectedError,
    PrefectUnavailableError,
    PrefectUnreadableError,
)

if TYPE_CHECKING:
    from chalicelib.core.money.savings import TableArtifact  # 4 ms of a cold start's 220, in CPU

MOST_RUNS: Final = 200
"""How many runs Prefect gives at once, unless its own settings say less: then it refuses."""
LIVE: Final = (StateType.RUNNING, StateType.PENDING, StateType.SCHEDULED)
MOST_DEPTHS: Final = 50
MOST_FOUND: Final = 20_000
"""How many things a search reads that needs them all: some seconds."""
LONGEST_POLICY: Final = 2_000
"""Characters of a subflow's `empirical_policy` besides its retries: 200 as a rule."""
_Read = TypeVar("_Read")
_SUBFLOW: Final = "a subflow"
PAGE_SECONDS: Final = 5.0
"""In which a page of runs has to be there: seven of them, each half as long as the one before, find
one run among a hundred in the time of a scheduled sweep."""


class PrefectRest:
    """`core.ports.Prefect` over HTTP; threads may share one.

    Every method raises what `adapters/prefect_client.py` and `adapters/prefect_answers.py` raise.
    """

    def __init__(
        self, http: JsonHttp, deployment_names: MutableMapping[UUID, str] | None = None
    ) -> None:
        """`deployment_names`: a cache."""
        self._http = http
        self._deployment_names = {} if deployment_names is None else deployment_names

    def read_run(self, flow_run_id: UUID) -> FlowRun | None:
        """Return the run as it is now; None when Prefect does not know it."""
        answer = self._http.get(f"/flow_runs/{flow_run_id}")
        return None if answer is None else read_run(answer)

    def read_history(self, flow_run_id: UUID) -> tuple[RunState, ...]:
        """Return all states the run has been in, oldest first; empty for an unknown run."""
        answer = self._http.get("/flow_run_states/", flow_run_id=str(flow_run_id))
        found = read_list(answer, "state history") if answer is not None else ()
        try:
            states = [*map(read_state, found)]
        except PrefectUnreadableError as error:  # it names no run
            what = f"{error.what}, of flow run {flow_run_id}"
            raise PrefectUnreadableError(what, error.next_step) from None
        return tuple(sorted(states, key=lambda state: state.timestamp))

    def find_runs(self, query: RunQuery) -> tuple[FlowRun | UnreadRun, ...]:
        """Return the runs of a query, in its order, those that cannot be read in their places.

        Prefect answers for an unknown work pool as for one without runs: so an empty first page
        costs another request, and PrefectRejectedError is raised where no pool is known. Runs with
        the same expected start come in any order, another one on each page: on PostgreSQL `offset`
        then skips some and shows others twice. The order by id is safe.
        """
        found = self._find("/flow_runs/filter", query)
        may_be_unknown = not found and query.offset == 0 and not query.known_pool
        pools = query.work_pools
        if may_be_unknown and all(self._http.get(pool_path(pool)) is None for pool in pools):
            what = f"work pool {' or '.join(map(repr, pools))} is not known to Prefect"
            raise PrefectRejectedError(what, "create it or set WORK_POOL")
        return tuple(map(read_found, found))

    def find_run_ids(self, query: RunQuery) -> tuple[UUID, ...]:
        """Return the ids of a query's runs, as Prefect's own UI asks for them; none on 404."""
        try:
            found = self._find("/ui/flow_runs/history", query)
        except PrefectRejectedError:  # it is no part of the API that Prefect documents
            return ()
        return tuple(Fields(answer, "flow run").need("id", read_uuid) for answer in found)

    def find_live_children(self, parents: Sequence[UUID]) -> tuple[FlowRun, ...]:
        """Return the live runs of these parents alone, not their children's; none for none."""
        chosen = {
            "parent_flow_run_id": any_of(parents),
            "deployment_id": {"is_null_": True},
            "state": {"type": any_of(LIVE)},
        }
        if not parents:
            return ()
        return tuple(self._search_all("flow_runs", _child, flow_runs=chosen))

    def find_task_runs_left(self, flow_runs: Sequence[UUID]) -> tuple[tuple[UUID, ...], bool]:
        """As `core.ports.Prefect` has it. Of more than a page, those that wait are not read."""
        live, running = ({"state": {"type": any_of(types)}} for types in (LIVE, LIVE[:1]))
        found: list[tuple[UUID, object]] = []
        for start in range(0, len(flow_runs), MOST_RUNS):
            some = {"id": any_of(flow_runs[start : start + MOST_RUNS])}
            page = self._search("task_runs", flow_runs=some, task_runs=live, limit=MOST_RUNS)
            found += map(_task_run, page)
            if len(page) == MOST_RUNS:
                found += self._search_all("task_runs", _task_run, flow_runs=some, task_runs=running)
        ids = dict.fromkeys(each for each, kind in found if kind == StateType.RUNNING.value)
        return tuple(ids), len(found) >= MOST_RUNS or any(kind == _SUBFLOW for _, kind in found)

    def crash_task_run(self, task_run_id: UUID, message: str) -> None:
        """Propose Crashed for a task run; Prefect keeps the state of one that has ended."""
        crashed = ProposedState(StateType.CRASHED, "Crashed", message)
        body = {"state": state_of(crashed), "force": False}
        self._http.send("POST", f"/task_runs/{task_run_id}/set_state", body)

    def read_task_runs(
        self, flow_run_id: UUID, after: datetime, before: datetime
    ) -> tuple[TaskRun, ...]:
        """Return the task runs of the run and of its subflows in the same process, theirs too.

        As far as MOST_DEPTHS requests for them reach: a flow may call itself without end.
        """
        started = {"start_time": between(after, before)}
        waiting, found = [flow_run_id], list[TaskRun]()
        chosen: dict[str, object] = {}
        seen = set(waiting)  # a task run may stand for a run that is its own parent
        for _ in range(MOST_DEPTHS):
            if not waiting:
                break
            some, waiting = waiting[:MOST_RUNS], waiting[MOST_RUNS:]
            runs = {"id": any_of(some), **chosen}
            for task_run in self._search_all(
                "task_runs", read_task_run, flow_runs=runs, task_runs=started
            ):
                if isinstance(task_run, TaskRun):
                    found.append(task_run)
                elif task_run not in seen:
                    seen.add(task_run)
                    waiting.append(task_run)
            chosen = {"deployment_id": {"is_null_": True}}
        return tuple(found)

    def find_completed_runs(self, deployment_id: UUID, limit: int) -> tuple[CompletedRun, ...]:
        """Return the deployment's runs that completed last, `limit` (200) at most, newest first."""
        completed = {"type": any_of([StateType.COMPLETED])}
        chosen = {"deployment_id": any_of([deployment_id]), "state": completed}
        found = self._search("flow_runs", flow_runs=chosen, sort="END_TIME_DESC", limit=limit)
        return tuple(map(read_completed_run, found))

    def read_deployment_name(self, deployment_id: UUID) -> str:
        """Return flow/deployment, as Prefect calls it; empty for a deployment it does not know."""
        if name := self._deployment_names.get(deployment_id):
            return name
        deployment = self.read_deployment(deployment_id)
        return deployment.name if deployment else ""

    def read_deployment(self, deployment_id: UUID) -> PrefectDeployment | None:
        """Return the deployment, read anew; only its name is kept."""
        answer = self._http.get(f"/deployments/{deployment_id}")
        if answer is None:
            return None
        fields = Fields(answer, "deployment")
        if deployment_id not in self._deployment_names:
            flow = self._http.get(f"/flows/{fields.need('flow_id', read_uuid)}")
            flow_name = Fields(flow or {}, "flow").get("name")
            # Cut: this environment's later invocations have it in memory.
            name = kept(f"{flow_name or '?'}/{fields.get('name')}")
            self._deployment_names[deployment_id] = name
        name = self._deployment_names[deployment_id]
        return PrefectDeployment(name, fields.whole("job_variables", dict))

    def read_pool_defaults(self, work_pool: str) -> JsonObject:
        """Return the defaults of the pool's variables, read anew: one GET, and only for a move."""
        answer = self._http.get(pool_path(work_pool))
        return {} if answer is None else read_pool_defaults(answer)

    def propose_state(
        self, flow_run_id: UUID, state: ProposedState, *, force: bool = False
    ) -> StateAnswer:
        """Propose a state; `force` skips Prefect's orchestration rules.

        When the answer is lost or unreadable, the proposal is not sent again but raises
        PrefectOutcomeUnknownError: Prefect may have accepted it, and a second one would undo what
        came after it.
        """
        body = {"state": state_of(state), "force": force}
        path = f"/flow_runs/{flow_run_id}/set_state"
        answer = self._http.send("POST", path, body, repeatable=False)
        try:
            return read_state_answer(answer)
        except PrefectUnavailableError as error:
            raise PrefectOutcomeUnknownError(error.what, error.next_step) from None

    def change_run(self, flow_run_id: UUID, change: RunChange) -> None:
        """PATCH the run with what the change holds; sends nothing for an empty change."""
        body = given(job_variables=change.job_variables, tags=change.tags)
        if policy := change.policy:
            retries = {"retries": policy.retries, "retry_type": policy.retry_type}
            body["empirical_policy"] = {**policy.others, **retries}
        if body:
            self._http.send("PATCH", f"/flow_runs/{flow_run_id}", body)

    def add_labels(self, flow_run_id: UUID, labels: Mapping[str, str | int]) -> None:
        """Merge labels into the run's, none for none. Rejects a null unsent: reads would fail."""
        for name, value in labels.items():
            if value is None:
                raise PrefectRejectedError(f"label {name!r} is null", "give the label a value")
        if labels:
            self._http.send("PATCH", f"/flow_runs/{flow_run_id}/labels", dict(labels))

    def write_log(self, line: LogLine) -> None:
        """Append a line to the run's log."""
        entry = {
            "name": "prefect-spot",
            "level": line.level,
            "message": line.message,
            "timestamp": line.at.isoformat(),
            "flow_run_id": str(line.flow_run_id),
        }
        self._http.send("POST", "/logs/", [entry])

    def write_artifact(self, artifact: Artifact) -> None:
        """Store an artifact, or a new version of it, on the run."""
        run = {"flow_run_id": str(artifact.flow_run_id)}
        self._write(artifact.key, "markdown", artifact.markdown, artifact.description, **run)

    def write_table(self, table: "TableArtifact") -> None:
        """Store a table, or a new version of it."""
        rows = json.dumps([dict(row) for row in table.rows])
        self._write(table.key, "table", rows, table.description)

    def emit_events(self, events: Sequence[PrefectEvent]) -> None:
        """Emit events in one request, none for none; Prefect drops a second one of the same id."""
        if events:
            self._http.send("POST", "/events", list(map(event_of, events)))

    def _write(self, key: str, kind: str, data: str, description: str, **run: str) -> None:
        body = {"key": key, "type": kind, "data": data, "description": description, **run}
        self._http.send("POST", "/artifacts/", body)

    def _find(self, path: str, query: RunQuery) -> list[object]:
        answer = self._http.send("POST", path, search_of(query), page_seconds=PAGE_SECONDS)
        return read_list(answer, "search for flow_runs")

    def _search(self, kind: str, **criteria: object) -> list[object]:
        return read_list(self._http.send("POST", f"/{kind}/filter", criteria), f"search for {kind}")

    def _search_all(
        self, kind: str, read: Callable[[object], _Read], **criteria: object
    ) -> list[_Read]:
        """Every page, by id: by a time that several share, two pages could overlap and miss one.

        Of each page only what `read` returns is kept.
        """
        found: list[_Read] = []
        while len(found) < MOST_FOUND:
            limits = {"sort": "ID_DESC", "limit": MOST_RUNS, "offset": len(found)}
            page = self._search(kind, **criteria, **limits)
            found += map(read, page)
            if len(page) < MOST_RUNS:
                return found
        what = f"Prefect holds more than {MOST_FOUND} {kind} where we read all"
        raise PrefectUnreadableError(what, next_step="none: the run goes on without them")


def _task_run(answer: object) -> tuple[UUID, object]:
    """Return the id of a task run, and its state's type, or that it stands for a subflow."""
    fields = Fields(answer, "task run")
    state = Fields(fields.get("state") or {}, "task run's state")
    is_subflow = Fields(state.get("state_details") or {}, "state_details").get("child_flow_run_id")
    return fields.need("id", read_uuid), _SUBFLOW if is_subflow else state.get("type")


def _child(answer: object) -> FlowRun:
    """Read a subflow without what may be long: no policy where a PATCH would send much of it."""
    run = read_run(answer)
    state = RunState(run.state.id, run.state.type, "", run.state.timestamp)
    policy = run.policy if len(repr(run.policy.others)) < LONGEST_POLICY else RunPolicy()
    return FlowRun(run.id, "", state, run.run_count, run.deployment_id, policy=policy)


def pool_path(name: str) -> str:
    """Return a work pool's path."""
    return f"/work_pools/{quote(name, safe='')}"
