"""What Prefect is sent: searches, states and events, as its REST API takes them."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID

from chalicelib.core.model.flow_run import ProposedState
from chalicelib.core.ports import RunQuery
from chalicelib.core.rescue.actions import PrefectEvent


def search_of(query: RunQuery) -> Mapping[str, object]:
    """Return the criteria of a search for flow runs."""
    names = any_of(query.state_names) if query.state_names else None
    return {
        "flow_runs": {
            "state": given(type=any_of(query.state_types), name=names),
            "expected_start_time": between(query.expected_after, query.expected_before),
            "end_time": between(query.ended_after) or given(is_null_=query.without_end or None),
        },
        "work_pools": {"name": any_of(query.work_pools)},
        "sort": "ID_DESC" if query.is_by_id else "EXPECTED_START_TIME_ASC",
        "limit": query.limit,
        "offset": query.offset,
    }


def any_of(values: Sequence[UUID | str]) -> Mapping[str, object]:
    """Return the criterion: one of these values."""
    return {"any_": list(map(str, values))}


def between(after: datetime | None, before: datetime | None = None) -> Mapping[str, object]:
    """Return the criterion: within these bounds, both included."""
    return given(after_=after and after.isoformat(), before_=before and before.isoformat())


def given(**fields: object) -> dict[str, object]:
    """Return the fields that are not None."""
    return {name: value for name, value in fields.items() if value is not None}


def event_of(event: PrefectEvent) -> Mapping[str, object]:
    """Return an event of a flow run."""
    return {
        "id": str(event.id),
        "occurred": event.at.isoformat(),
        "event": event.name,
        "resource": {
            "prefect.resource.id": f"prefect.flow-run.{event.flow_run_id}",
            "prefect.resource.name": event.flow_run_name,
        },
        "related": [],
        "payload": dict(event.payload),
    }


def state_of(state: ProposedState) -> Mapping[str, object]:
    """Return a state to propose."""
    ours = given(
        transition_id=state.transition_id and str(state.transition_id),
        scheduled_time=state.scheduled_time and state.scheduled_time.isoformat(),
    )
    return given(
        type=state.type,
        name=state.name,
        message=state.message,
        state_details={**state.details, **ours},
        data=state.data,
    )
