"""The run record: a flow run's interruptions, exactly, and what was decided about each.

Prefect has no compare-and-swap and its labels lose concurrent updates, so decisions read this and
never the labels. `adapters/records.py` keeps it in DynamoDB, one item per run, under a lease.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Interruption:
    """One interrupted task of a run. `number` counts from 1, in the order of recording.

    `lost_start` is the run's `run_count` if the interruption cost the flow a start that had
    counted, else 0: a run that never started, or that waited for a retry of its own, lost none.
    `rerun_on` is the capacity that was decided for the rerun, empty while there is none; `guard`
    the one that moved it to FARGATE before the budget would have, empty for none, and
    `guard_reason` its reason, or the fact that a guard lacked. `run_state` and `tags` (those of
    ours) are what the decision saw: `spotctl replay` needs them; empty in records of older
    releases. `..._annotated`: the annotation is on the run.
    """

    task_arn: str
    number: int
    cause: str
    capacity: str
    cluster_arn: str = ""
    stop_code: str = ""
    reason: str = ""
    availability_zone: str = ""
    recorded_at: datetime | None = None
    billed_from: datetime | None = None
    exited_at: datetime | None = None
    lost_start: int = 0
    rerun_on: str = ""
    guard: str = ""
    guard_reason: str = ""
    run_state: str = ""
    tags: tuple[str, ...] = ()
    warning_annotated: bool = False
    outcome_annotated: bool = False


@dataclass(frozen=True, slots=True)
class Moved:
    """A run that a guard moved to FARGATE before its first start; `annotated`: the run shows it."""

    guard: str
    reason: str
    annotated: bool = False


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One run's record. `own_retries` is the flow's original `retries`, None until it is known.

    `next_capacity` is where the next rerun goes: empty, FARGATE_SPOT or, then for good, FARGATE.
    `moved` is None unless a guard moved the run to FARGATE before its first start.
    """

    flow_run_id: UUID
    interruptions: Mapping[str, Interruption] = field(default_factory=dict, hash=False)
    own_retries: int | None = None
    next_capacity: str = ""
    moved: Moved | None = None

    def warned_of(self, task_arn: str) -> bool:
        """Whether an interruption of that task is on record."""
        return task_arn in self.interruptions

    def with_interruption(self, interruption: Interruption) -> "RunRecord":
        """Return the record with that task's interruption added or replaced."""
        return replace(
            self,
            interruptions={**self.interruptions, interruption.task_arn: interruption},
        )

    @property
    def lost_starts(self) -> int:
        """How many of the run's starts were taken by interruptions: by so many `retries` rise."""
        return len({i.lost_start for i in self.interruptions.values() if i.lost_start > 0})
