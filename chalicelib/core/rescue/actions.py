"""What a decision asks for: a closed set of actions; `functions/rescue.py` performs them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from chalicelib.core.model.flow_run import RunChange, RunRecord, RunState, StateType


class Verdict(StrEnum):
    """The decision in a word, as the logs show it."""

    IGNORE = "ignore"
    WARNED = "warned"
    ANNOTATE = "annotate"
    AWAIT_RESUME = "await-resume"
    MARK_CRASHED = "mark-crashed"
    MARK_CANCELLED = "mark-cancelled"
    RERUN_ON_SPOT = "rerun-on-spot"
    RERUN_ON_DEMAND = "rerun-on-demand"
    FINISH_RERUN = "finish-rerun"
    MAKE_DUE = "make-due"
    UNDO_RERUN = "undo-rerun"
    RESTORE = "restore"
    CONFIRM = "confirm"
    PAUSED = "paused"


@dataclass(frozen=True, slots=True)
class Save:
    """Write the record; no later action happens before it is stored."""

    record: RunRecord


@dataclass(frozen=True, slots=True)
class Park:
    """Schedule the run far ahead, so that no worker takes it while it is changed; look again.

    `force`: out of CANCELLED, which Prefect 3.4 refuses otherwise.
    """

    transition_id: UUID
    until: datetime
    message: str
    force: bool = False


@dataclass(frozen=True, slots=True)
class Change:
    """PATCH the run. Prefect accepts new job variables only while the run is scheduled."""

    change: RunChange


@dataclass(frozen=True, slots=True)
class ChangeSubflow:
    """PATCH a run in the process of the run that is rerun."""

    flow_run_id: UUID
    change: RunChange


@dataclass(frozen=True, slots=True)
class CrashTaskRuns:
    """Set task runs of a dead container Crashed: that frees their slots of a concurrency limit."""

    ids: tuple[UUID, ...]
    message: str


@dataclass(frozen=True, slots=True)
class MakeDue:
    """Schedule the parked run for `at`, when workers may take it; look again."""

    transition_id: UUID
    at: datetime
    message: str


@dataclass(frozen=True, slots=True)
class Restore:
    """Restore a state that was replaced by mistake; look again.

    By us, while another client set it (UNDO_RERUN), or by an engine (RESTORE); `why` says how.
    """

    state: RunState
    verdict: Verdict
    why: str
    transition_id: UUID


@dataclass(frozen=True, slots=True)
class End:
    """Set the run Crashed, or Cancelled where that was requested; say why; look again at last."""

    state: StateType
    message: str
    transition_id: UUID


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


@dataclass(frozen=True, slots=True)
class Annotation:
    """Everything that is added to the run. What is None, or empty, stays as it is."""

    log: LogLine
    artifact: Artifact | None
    events: tuple[PrefectEvent, ...]
    labels: Mapping[str, str | int] | None = field(default=None, hash=False)
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Annotate:
    """Annotate the run. It may fail without harm; `record` is kept when it succeeds."""

    annotation: Annotation
    record: RunRecord


Action = Save | Park | Change | ChangeSubflow | CrashTaskRuns | MakeDue | Restore | End | Annotate


@dataclass(frozen=True, slots=True)
class Decision:
    """A verdict, its reason in words, and the actions that carry it out.

    `due_at`: when a run that was rerun is due (UTC).
    """

    verdict: Verdict
    reason: str
    actions: tuple[Action, ...] = ()
    due_at: datetime | None = None

    @property
    def summary(self) -> dict[str, str]:
        """What the function returns to Lambda."""
        return {"decision": self.verdict.value, "reason": self.reason}
