"""Reads Prefect's answers; a field that matters and is missing or senseless is raised.

An answer that cannot be read never becomes an empty value, which a PATCH would then write. Every
`read_...` takes decoded JSON and raises PrefectUnavailableError, naming the field.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

from chalicelib.adapters.prefect_client import CHECK_API_URL
from chalicelib.core.model.flow_run import (
    CompletedRun,
    FlowRun,
    RunPolicy,
    RunState,
    StateAnswer,
    StateType,
    StateVerdict,
    TaskRun,
)
from chalicelib.errors import PrefectUnavailableError

_Whole = TypeVar("_Whole", dict[str, Any], list[Any])


def read_state_answer(answer: object) -> StateAnswer:
    """Read Prefect's answer to a proposed state."""
    fields = read_fields(answer, "set_state")
    try:
        verdict = StateVerdict(str(fields.get("status")))
    except ValueError:
        raise unreadable("set_state", "status") from None
    details = fields.get("details")
    reason = details.get("reason") if isinstance(details, Mapping) else None
    state = fields.get("state")
    return StateAnswer(verdict, str(reason or ""), None if state is None else read_state(state))


def read_run(answer: object) -> FlowRun:
    """Read a flow run. What a PATCH replaces whole must be there, or the PATCH would wipe it."""
    fields = read_fields(answer, "flow run")
    policy = dict(_whole(fields, "empirical_policy", dict))
    return FlowRun(
        id=read_uuid(fields, "id", "flow run"),
        name=str(fields.get("name") or ""),
        state=read_state(fields.get("state")),
        run_count=_number(fields, "run_count") or 0,
        deployment_id=_uuid_or_none(fields, "deployment_id", "flow run"),
        tags=tuple(map(str, _whole(fields, "tags", list))),
        job_variables=_whole(fields, "job_variables", dict),
        policy=RunPolicy(
            retries=_number({"retries": policy.pop("retries", None)}, "retries"),
            retry_type=_text_or_none(policy.pop("retry_type", None)),
            others=policy,
        ),
        infrastructure_pid=_text_or_none(fields.get("infrastructure_pid")),
        work_pool_name=_text_or_none(fields.get("work_pool_name")),
        expected_start=_time_or_none(fields, "expected_start_time", "flow run"),
    )


def read_completed_run(answer: object) -> CompletedRun:
    """Read a completed flow run; `run_seconds` is Prefect's `total_run_time`."""
    fields = read_fields(answer, "flow run")
    seconds = fields.get("total_run_time")
    if not isinstance(seconds, int | float):
        raise unreadable("flow run", "total_run_time")
    return CompletedRun(
        id=read_uuid(fields, "id", "flow run"),
        run_count=_number(fields, "run_count") or 0,
        run_seconds=float(seconds),
        started_at=_time(fields, "start_time", "flow run"),
        ended_at=_time(fields, "end_time", "flow run"),
        expected_start=_time_or_none(fields, "expected_start_time", "flow run"),
    )


def read_called_flow_run(fields: Mapping[str, object]) -> UUID | None:
    """Return the id of the subflow run that a task run stands for; None for a task."""
    state = read_fields(fields.get("state") or {}, "task run")
    details = read_fields(state.get("state_details") or {}, "task run")
    return _uuid_or_none(details, "child_flow_run_id", "task run")


def read_task_run(fields: Mapping[str, object]) -> TaskRun:
    """Read a task run that has started. Only a persisted result has a storage key."""
    state = read_state(fields.get("state"))
    stored = state.data.get("storage_key") if isinstance(state.data, Mapping) else None
    return TaskRun(
        state=state.type,
        started_at=_time(fields, "start_time", "task run"),
        persisted=bool(stored),
        ended_at=_time_or_none(fields, "end_time", "task run"),
        cached=state.name == "Cached",
    )


def read_state(value: object) -> RunState:
    """Read a state, of a flow run or of a task run."""
    fields = read_fields(value, "state")
    kind = fields.get("type")
    if not isinstance(kind, str):
        raise unreadable("state", "type")
    details = read_fields(fields.get("state_details") or {}, "state_details")
    return RunState(
        id=read_uuid(fields, "id", "state"),
        type=StateType(kind) if kind in StateType.__members__ else StateType.UNKNOWN,
        name=str(fields.get("name") or kind.title()),
        timestamp=_time(fields, "timestamp", "state"),
        message=str(fields.get("message") or ""),
        transition_id=_uuid_or_none(details, "transition_id", "state_details"),
        details=details,
        data=fields.get("data"),
    )


def unreadable(thing: str, field: str) -> PrefectUnavailableError:
    """Return the error for an answer that lacks a field, or holds another type there."""
    what = f"Prefect's answer holds no readable {field!r} of a {thing}"
    return PrefectUnavailableError(what, next_step=CHECK_API_URL)


def read_fields(value: object, thing: str) -> Mapping[str, object]:
    """Return `value` where it is a JSON object."""
    if not isinstance(value, Mapping):
        raise unreadable(thing, "object")
    return value


def _whole(fields: Mapping[str, object], name: str, kind: type[_Whole]) -> _Whole:
    """A part of a run that a PATCH replaces whole: there, or null; absent is unreadable."""
    value = fields.get(name, ...)
    if value is None:
        return kind()
    if not isinstance(value, kind):
        raise unreadable("flow run", name)
    return value


def _number(fields: Mapping[str, object], name: str) -> int | None:
    value = fields.get(name)
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    raise unreadable("flow run", name)


def read_uuid(fields: Mapping[str, object], name: str, thing: str) -> UUID:
    """Return the id under `name`."""
    value = _uuid_or_none(fields, name, thing)
    if value is None:
        raise unreadable(thing, name)
    return value


def _uuid_or_none(fields: Mapping[str, object], name: str, thing: str) -> UUID | None:
    value = fields.get(name)
    try:
        return None if value is None else UUID(str(value))
    except ValueError:
        raise unreadable(thing, name) from None


def _time(fields: Mapping[str, object], name: str, thing: str) -> datetime:
    try:
        moment = datetime.fromisoformat(str(fields.get(name)))
    except ValueError:
        raise unreadable(thing, name) from None
    if moment.tzinfo is None:
        raise unreadable(thing, name)
    return moment


def _time_or_none(fields: Mapping[str, object], name: str, thing: str) -> datetime | None:
    return None if fields.get(name) is None else _time(fields, name, thing)


def _text_or_none(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
