"""How much of an interrupted attempt has to be done again, from what Prefect tells of its tasks.

Without persisted results that is the whole attempt. With them, it is per task run to be redone the
time from its start to the end of the attempt, overlaps counted once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from chalicelib.core.model.flow_run import RunState, StateType
from chalicelib.core.model.pricing import seconds_between


@dataclass(frozen=True, slots=True)
class TaskRun:
    """A task run as Prefect tells it; `persisted`: its result is stored, so a rerun skips it.

    `ended_at` is None while it runs. `cached`: it found its result stored, and did nothing.
    """

    state: StateType
    started_at: datetime
    persisted: bool
    ended_at: datetime | None = None
    cached: bool = False

    @property
    def is_kept(self) -> bool:
        """Whether a rerun finds it done."""
        return self.state is StateType.COMPLETED and self.persisted


@dataclass(frozen=True, slots=True)
class Span:
    """An attempt as it is charged: UTC times, and `seconds`, which are a minute at least.

    `exited_at` is when the flow's container was gone; the task's own end comes later.
    """

    start: datetime
    exited_at: datetime
    end: datetime
    seconds: Decimal


def wasted_seconds(
    span: Span, history: Sequence[RunState], task_runs: Sequence[TaskRun]
) -> Decimal:
    """Seconds of the attempt that have to be done again, at most those that are charged.

    `history`: the run's states, oldest first; a run that was over when its container went has
    nothing to do again. `task_runs`: of the run and its subflows, this attempt's or others' too.
    """
    before = [state for state in history if state.timestamp <= span.exited_at]
    if before and before[-1].is_over:
        return Decimal(0)
    attempt = [t for t in task_runs if span.start <= t.started_at <= span.end]
    if not any(task_run.is_kept for task_run in attempt):
        return span.seconds
    again = [task_run.started_at for task_run in attempt if not task_run.is_kept]
    # All of them count to the same end, so the earliest covers the others.
    return min(seconds_between(min(again), span.end), span.seconds) if again else Decimal(0)
