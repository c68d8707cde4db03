"""The outside world as the functions see it; `wiring.py` fills it in.

Two implementations hold to Prefect's port, by one contract suite: `adapters/prefect.py` over REST
and the in-memory twin in `tests/twin/`. The table and ECS have one each; their twin is moto.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol
from uuid import UUID

from chalicelib.core.record import RunRecord
from chalicelib.core.run import FlowRun, ProposedState, RunChange, RunState, StateAnswer
from chalicelib.core.task import Task


@dataclass(frozen=True, slots=True)
class LogLine:
    """A line for the run's log in the Prefect UI. `level` is Python's (30 is WARNING)."""

    flow_run_id: UUID
    at: datetime
    message: str
    level: int = 30


@dataclass(frozen=True, slots=True)
class Artifact:
    """A Markdown artifact; one more with the same key becomes its newest version."""

    flow_run_id: UUID
    key: str
    markdown: str
    description: str


@dataclass(frozen=True, slots=True)
class PrefectEvent:
    """An event about a flow run, for users' automations. The same `id` twice counts once."""

    id: UUID
    flow_run_id: UUID
    flow_run_name: str
    name: str
    at: datetime
    payload: Mapping[str, object]


class Prefect(Protocol):
    """The part of Prefect's API that a rescue needs.

    Every method may raise PrefectUnavailableError (try again later: connection errors, 429, 5xx,
    or out of time), PrefectRefusedError (401 and 403: the credentials are wrong) or
    PrefectRejectedError (any other 4xx: the request is wrong). See `chalicelib/errors.py`.
    """

    def read_run(self, flow_run_id: UUID) -> FlowRun | None:
        """Return the run as it is now; None when Prefect does not know it."""

    def read_history(self, flow_run_id: UUID) -> tuple[RunState, ...]:
        """Return all states the run has been in, oldest first; empty for an unknown run."""

    def propose_state(
        self, flow_run_id: UUID, state: ProposedState, *, force: bool = False
    ) -> StateAnswer:
        """Ask for a state. `force` skips Prefect's orchestration rules.

        A proposal whose `transition_id` is the current state's is REJECTed: it was accepted before.
        """

    def change_run(self, flow_run_id: UUID, change: RunChange) -> None:
        """PATCH the run with what the change holds; sends nothing for an empty change."""

    def add_labels(self, flow_run_id: UUID, labels: Mapping[str, str | int]) -> None:
        """Merge labels into the run's. A null is not accepted: it breaks the run's reads."""

    def write_log(self, line: LogLine) -> None:
        """Append a line to the run's log."""

    def write_artifact(self, artifact: Artifact) -> None:
        """Store an artifact, or a new version of it, on the run."""

    def emit_event(self, event: PrefectEvent) -> None:
        """Emit an event whose resource is the run."""


class Records(Protocol):
    """The run records, and the lease on each."""

    def read(self, flow_run_id: UUID) -> RunRecord:
        """Return the record as it is, without a lease."""

    def acquire(self, flow_run_id: UUID, now: datetime, lease: timedelta) -> RunRecord:
        """Take the lease and return the record. Raises LeaseHeldError."""

    def save(self, record: RunRecord) -> None:
        """Write the record. Raises LeaseLostError."""

    def release(self, record: RunRecord) -> None:
        """Write the record and give the lease back. Raises LeaseLostError."""


class Tasks(Protocol):
    """ECS's own word about a task."""

    def describe(self, cluster: str, task_arn: str) -> Task | None:
        """Return the task, its tags read; None when ECS has forgotten it."""


class Log(Protocol):
    """A structured logger: keywords become keys of the line."""

    def info(self, msg: object, **keys: Any) -> None:
        """Log a line."""

    def exception(self, msg: object, **keys: Any) -> None:
        """Log a line with the present exception."""
