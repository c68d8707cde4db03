"""What Prefect's API sends and takes, as JSON, to and from the in-memory twin's values."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final
from uuid import NAMESPACE_URL, UUID, uuid5

from chalicelib.core.ports import RunQuery
from chalicelib.core.run import (
    ProposedState,
    RunChange,
    RunPolicy,
    RunState,
    StateAnswer,
    StateType,
    StateVerdict,
)
from tests.twin.orchestration import TwinRun

FLOW_NAME: Final = "etl"
FLOW_ID: Final = uuid5(NAMESPACE_URL, FLOW_NAME)

WAIT_SECONDS: Final = 30
"""What a run that starts too early is told; nobody here waits."""

Json = Mapping[str, Any]

_DETAILS: Final = {
    StateVerdict.ACCEPT: "accept_details",
    StateVerdict.REJECT: "reject_details",
    StateVerdict.ABORT: "abort_details",
    StateVerdict.WAIT: "wait_details",
}


def state_json(state: RunState) -> Json:
    """Return a state as Prefect sends it."""
    return {
        "id": str(state.id),
        "type": state.type.value,
        "name": state.name,
        "timestamp": state.timestamp.isoformat(),
        "message": state.message,
        "state_details": state.details,
        "data": state.data,
    }


def run_json(run: TwinRun) -> Json:
    """Return a flow run as Prefect sends it."""
    return {
        "id": str(run.id),
        "name": run.name,
        "flow_id": str(FLOW_ID),
        "deployment_id": str(run.deployment.id) if run.deployment else None,
        "work_pool_name": run.work_pool_name,
        "state": state_json(run.state),
        "state_id": str(run.state.id),
        "state_type": run.state.type.value,
        "state_name": run.state.name,
        "run_count": run.run_count,
        "tags": list(run.tags),
        "labels": run.labels,
        "job_variables": run.job_variables,
        "empirical_policy": run.policy,
        "infrastructure_pid": run.infrastructure_pid,
        "expected_start_time": _time_json(run.expected_start),
        "next_scheduled_start_time": _time_json(run.next_start),
        "start_time": _time_json(run.started_at),
        "end_time": _time_json(run.ended_at),
        "total_run_time": run.run_seconds,
    }


def answer_json(answer: StateAnswer) -> Json:
    """Return what became of a proposed state."""
    details: dict[str, object] = {"type": _DETAILS[answer.verdict]}
    if answer.verdict is not StateVerdict.ACCEPT:
        details["reason"] = answer.reason
    if answer.verdict is StateVerdict.WAIT:
        details["delay_seconds"] = WAIT_SECONDS
    state = None if answer.state is None else state_json(answer.state)
    return {"state": state, "status": answer.verdict.value, "details": details}


def read_proposal(body: Json) -> ProposedState:
    """Read a proposed state; Prefect's client sends null for what it leaves open."""
    details = {k: v for k, v in (body.get("state_details") or {}).items() if v is not None}
    transition_id, scheduled = details.get("transition_id"), details.get("scheduled_time")
    return ProposedState(
        type=StateType(body["type"]),
        name=body.get("name") or str(body["type"]).title(),
        message=body.get("message") or "",
        transition_id=UUID(transition_id) if transition_id else None,
        scheduled_time=read_time(scheduled) if scheduled else None,
        details=details,
        data=body.get("data"),
    )


def read_change(body: Json) -> RunChange:
    """Read a PATCH of a flow run."""
    policy, tags = body.get("empirical_policy"), body.get("tags")
    others = {k: v for k, v in (policy or {}).items() if k not in ("retries", "retry_type")}
    return RunChange(
        job_variables=body.get("job_variables"),
        policy=policy and RunPolicy(policy.get("retries"), policy.get("retry_type"), others),
        tags=None if tags is None else tuple(tags),
    )


def read_query(body: Json) -> RunQuery:
    """Read a search for the runs of a work pool."""
    chosen = body["flow_runs"]
    expected, ended = chosen.get("expected_start_time", {}), chosen.get("end_time", {})
    return RunQuery(
        work_pool=body["work_pools"]["name"]["any_"][0],
        state_types=tuple(StateType(kind) for kind in chosen["state"]["type"]["any_"]),
        state_names=tuple(chosen["state"].get("name", {}).get("any_", ())),
        expected_after=_time(expected, "after_"),
        expected_before=_time(expected, "before_"),
        ended_after=_time(ended, "after_"),
        limit=body.get("limit", 200),
        offset=body.get("offset", 0),
    )


def read_time(text: str) -> datetime:
    """Read a time with its zone."""
    return datetime.fromisoformat(text)


def _time(bounds: Json, side: str) -> datetime | None:
    return read_time(bounds[side]) if side in bounds else None


def _time_json(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()
