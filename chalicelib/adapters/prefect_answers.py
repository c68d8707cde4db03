"""Reads Prefect's answers; a field that matters and is missing or senseless is raised.

An answer that cannot be read never becomes an empty value, which a PATCH would then write. Every
`read_...` takes decoded JSON and raises PrefectUnreadableError, naming the field; `read_found` has
a run that cannot be read as one that was not.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final, TypeVar
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
from chalicelib.core.model.sweeping import UnreadRun
from chalicelib.errors import PrefectUnreadableError

_Value = TypeVar("_Value")
_YEARS: Final = range(1970, 9000)


def read_state_answer(answer: object) -> StateAnswer:
    """Read Prefect's answer to a proposed state."""
    fields = Fields(answer, "set_state")
    reason = Fields(fields.get("details") or {}, "set_state").get("reason") or ""
    verdict, state = fields.need("status", StateVerdict), fields.want("state", read_state)
    return StateAnswer(verdict, reason if isinstance(reason, str) else "", state)


def read_run(answer: object) -> FlowRun:
    """Read a flow run. What a PATCH replaces whole must be there, or the PATCH would wipe it."""
    flow_run_id = Fields(answer, "flow run").need("id", read_uuid)
    fields = Fields(answer, thing := f"flow run {flow_run_id}")
    policy = Fields(fields.whole("empirical_policy", dict), thing)
    tags = fields.whole("tags", list)
    if not all(isinstance(tag, str) for tag in tags):
        raise _unreadable(thing, "tags")
    return FlowRun(
        id=flow_run_id,
        name=fields.want("name", _label) or "",
        state=read_state(fields.get("state")),
        run_count=fields.want("run_count", _number) or 0,
        deployment_id=fields.want("deployment_id", read_uuid),
        tags=tuple(tags),
        job_variables=fields.whole("job_variables", dict),
        policy=RunPolicy(
            retries=policy.want("retries", _number),
            retry_type=policy.want("retry_type", _text),
            others={k: v for k, v in policy.items() if k not in ("retries", "retry_type")},
        ),
        infrastructure_pid=fields.want("infrastructure_pid", _text),
        work_pool_name=fields.want("work_pool_name", _text),
        expected_start=fields.want("expected_start_time", _time),
    )


def read_found(answer: object) -> FlowRun | UnreadRun:
    """Read a flow run out of a search: whatever one holds, the others are read."""
    try:
        return read_run(answer)
    except PrefectUnreadableError as error:
        found = answer.get("id") if isinstance(answer, Mapping) else None
        with suppress(ValueError):
            return UnreadRun(error.what, read_uuid(found))
        return UnreadRun(error.what)


def read_completed_run(answer: object) -> CompletedRun:
    """Read a completed flow run; `run_seconds` is Prefect's `total_run_time`."""
    fields = Fields(answer, "flow run")
    return CompletedRun(
        id=fields.need("id", read_uuid),
        run_count=fields.want("run_count", _number) or 0,
        run_seconds=fields.need("total_run_time", _seconds),
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
        name=fields.want("name", _label) or kind.title(),
        timestamp=fields.need("timestamp", _time),
        message=fields.want("message", _label) or "",
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
        except (TypeError, ValueError, OverflowError, RecursionError):
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


def _unreadable(thing: str, field: str) -> PrefectUnreadableError:
    what = f"Prefect's answer holds no readable {field!r} of a {thing}"
    return PrefectUnreadableError(what, next_step=CHECK_API_URL)


def read_uuid(value: object) -> UUID:
    """Return the id. Raises ValueError."""
    if not isinstance(value, str):
        raise ValueError("no text")
    return UUID(value)


def _number(value: object) -> int:
    """Prefect's own column has 32 bits."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**31:
        return value
    raise ValueError("no whole number, or out of range")


def _seconds(value: object) -> float:
    if isinstance(value, int | float) and 0 <= value < 10**12:
        return float(value)
    raise ValueError("no seconds, or out of range")


def _time(value: object) -> datetime:
    """Return a moment that can be calculated with: in UTC, and not at the end of the calendar."""
    moment = datetime.fromisoformat(value) if isinstance(value, str) else None
    if moment is None or moment.tzinfo is None or moment.year not in _YEARS:
        raise ValueError("no time, without a zone, or out of range")
    return moment.astimezone(UTC)


def _label(value: object) -> str:
    """Return a text that is shown and compared; empty for null."""
    if isinstance(value, str):
        return value
    raise ValueError("no text")


def _text(value: object) -> str | None:
    return _label(value) or None
