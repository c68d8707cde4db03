"""Reads Prefect's answers; a field that matters and is missing or senseless is raised.

An answer that cannot be read never becomes an empty value, which a PATCH would then write. Every
`read_...` takes decoded JSON and raises PrefectUnavailableError, naming the field.
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

from chalicelib.adapters.prefect_errors import CHECK_API_URL
from chalicelib.core.model.flow_run import (
    CompletedRun,
    FlowRun,
    JsonObject,
    RunPolicy,
    RunState,
    StateAnswer,
    StateType,
    StateVerdict,
    TaskRun,
)
from chalicelib.errors import PrefectUnavailableError

_Value = TypeVar("_Value")


def read_state_answer(answer: object) -> StateAnswer:
    """Read Prefect's answer to a proposed state."""
    fields = Fields(answer, "set_state")
    reason = Fields(fields.get("details") or {}, "set_state").get("reason") or ""
    verdict, state = fields.need("status", StateVerdict), fields.want("state", read_state)
    return StateAnswer(verdict, str(reason), state)


def read_run(answer: object) -> FlowRun:
    """Read a flow run. What a PATCH replaces whole must be there, or the PATCH would wipe it."""
    fields = Fields(answer, "flow run")
    policy = Fields(fields.whole("empirical_policy", dict), "flow run")
    return FlowRun(
        id=fields.need("id", read_uuid),
        name=str(fields.get("name") or ""),
        state=read_state(fields.get("state")),
        run_count=fields.want("run_count", _number) or 0,
        deployment_id=fields.want("deployment_id", read_uuid),
        tags=tuple(map(str, fields.whole("tags", list))),
        job_variables=fields.whole("job_variables", dict),
        policy=RunPolicy(
            retries=policy.want("retries", _number),
            retry_type=_text(policy.get("retry_type")),
            others={k: v for k, v in policy.items() if k not in ("retries", "retry_type")},
        ),
        infrastructure_pid=_text(fields.get("infrastructure_pid")),
        work_pool_name=_text(fields.get("work_pool_name")),
        expected_start=fields.want("expected_start_time", _time),
    )


def read_completed_run(answer: object) -> CompletedRun:
    """Read a completed flow run; `run_seconds` is Prefect's `total_run_time`."""
    fields = Fields(answer, "flow run")
    return CompletedRun(
        id=fields.need("id", read_uuid),
        run_count=fields.want("run_count", _number) or 0,
        run_seconds=fields.need("total_run_time", float),
        started_at=fields.need("start_time", _time),
        ended_at=fields.need("end_time", _time),
        expected_start=fields.want("expected_start_time", _time),
    )


def read_task_run(answer: object) -> TaskRun | UUID:
    """Read a task run that has started; of one that stands for a subflow run, that run's id.

    Only a persisted result has a storage key.
    """
    fields = Fields(answer, "task run")
    state = read_state(fields.get("state"))
    if called := Fields(state.details, "task run").want("child_flow_run_id", read_uuid):
        return called
    return TaskRun(
        state=state.type,
        started_at=fields.need("start_time", _time),
        persisted=bool(isinstance(state.data, Mapping) and state.data.get("storage_key")),
        ended_at=fields.want("end_time", _time),
        cached=state.name == "Cached",
    )


def read_state(answer: object) -> RunState:
    """Read a state, of a flow run or of a task run."""
    fields = Fields(answer, "state")
    kind = fields.need("type", _text)
    details = Fields(fields.get("state_details") or {}, "state_details")
    return RunState(
        id=fields.need("id", read_uuid),
        type=StateType(kind) if kind in StateType.__members__ else StateType.UNKNOWN,
        name=str(fields.get("name") or kind.title()),
        timestamp=fields.need("timestamp", _time),
        message=str(fields.get("message") or ""),
        transition_id=details.want("transition_id", read_uuid),
        details=dict(details),
        data=fields.get("data"),
    )


def read_pool_defaults(answer: object) -> JsonObject:
    """Read the defaults of a work pool's variables; workers take a null for none."""
    template = Fields(Fields(answer, "work pool").whole("base_job_template", dict), "template")
    variables = Fields(template.get("variables") or {}, "template's variables")
    known = Fields(variables.get("properties") or {}, "template's variables")
    defaults = {name: Fields(of, f"variable {name}").get("default") for name, of in known.items()}
    return {name: default for name, default in defaults.items() if default is not None}


def read_list(answer: object, thing: str) -> list[Any]:
    """Return the answer where it is a JSON list."""
    if not isinstance(answer, list):
        raise _unreadable(thing, "list")
    return answer


class Fields(dict[str, Any]):
    """The fields of a JSON object; `thing` names it in errors."""

    def __init__(self, answer: object, thing: str) -> None:
        if not isinstance(answer, Mapping):
            raise _unreadable(thing, "object")
        super().__init__(answer)
        self._thing = thing

    def want(self, name: str, read: Callable[[Any], _Value | None]) -> _Value | None:
        """Return what `read` makes of the field; None where it is absent or null."""
        value = self.get(name)
        try:
            return None if value is None else read(value)
        except (TypeError, ValueError):
            raise _unreadable(self._thing, name) from None

    def need(self, name: str, read: Callable[[Any], _Value | None]) -> _Value:
        """Return what `read` makes of the field, which must be there."""
        value = self.want(name, read)
        if value is None:
            raise _unreadable(self._thing, name)
        return value

    def whole(self, name: str, kind: type[_Value]) -> _Value:
        """Return a part that a PATCH replaces whole: null is empty, absent is unreadable."""
        value = self.get(name, ...)
        if value is not None and not isinstance(value, kind):
            raise _unreadable(self._thing, name)
        return kind() if value is None else value


def _unreadable(thing: str, field: str) -> PrefectUnavailableError:
    what = f"Prefect's answer holds no readable {field!r} of a {thing}"
    return PrefectUnavailableError(what, next_step=CHECK_API_URL)


def read_uuid(value: object) -> UUID:
    """Return the id. Raises ValueError."""
    return UUID(str(value))


def _number(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise ValueError(value)


def _time(value: object) -> datetime:
    moment = datetime.fromisoformat(str(value))
    if moment.tzinfo is None:
        raise ValueError(value)
    return moment


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
