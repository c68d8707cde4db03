"""The recorded history of runs: their bills, one per attempt, joined with their records."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from uuid import UUID

from chalicelib.core.model.ecs_task import FARGATE_SPOT, was_interrupted
from chalicelib.core.model.flow_run import OVER_STATES, Interruption, RunRecord
from chalicelib.core.model.pricing import seconds_between
from chalicelib.core.money.bill import Bill


@dataclass(frozen=True, slots=True)
class Attempt:
    """One task of a run, as it was billed. Times are UTC; `interruption` is None without a record.

    `began_at` is exact in bills of this release; an older bill's is its end less its seconds.
    """

    bill: Bill
    interruption: Interruption | None = None

    @property
    def began_at(self) -> datetime:
        """When AWS began to charge for it."""
        seconds = float(self.bill.seconds or 0)
        return self.bill.began_at or self.bill.ended_at - timedelta(seconds=seconds)

    @property
    def is_interrupted(self) -> bool:
        """Whether its end counts against the budget: by Spot, or as a drill."""
        return was_interrupted(self.bill.cause)

    @property
    def ends_run(self) -> bool:
        """Whether the run was over with it: it ended by itself, or Spot came after the end.

        A failed start ends none.
        """
        state = self.interruption.run_state if self.interruption else ""
        return not self.bill.is_redone or state in OVER_STATES

    @property
    def useful_seconds(self) -> Decimal:
        """Seconds of it, as it ran, that nothing after it had to do again."""
        lasted = seconds_between(self.began_at, self.bill.ended_at)
        return max(Decimal(0), lasted - self.bill.wasted_seconds)


@dataclass(frozen=True, slots=True)
class RecordedRun:
    """A run with all its attempts, in the order of their beginning, and its record's retries."""

    flow_run_id: UUID
    attempts: tuple[Attempt, ...]
    own_retries: int | None = None


def runs_of(bills: Iterable[Bill], since: date) -> dict[UUID, list[Bill]]:
    """Group bills by run: whole runs, of those whose last task ended on `since` (UTC) or later.

    A run that was nothing but a drill is left out, as in the report.
    """
    runs: dict[UUID, list[Bill]] = {}
    for bill in bills:
        if bill.flow_run_id is not None:
            runs.setdefault(bill.flow_run_id, []).append(bill)
    return {
        run: billed
        for run, billed in runs.items()
        if max(bill.ended_at for bill in billed).date() >= since
        and not all(bill.is_drill for bill in billed)
    }


def interrupted_runs(runs: Mapping[UUID, Sequence[Bill]]) -> list[UUID]:
    """Return the runs whose records are needed."""
    return [run for run, bills in runs.items() if any(was_interrupted(b.cause) for b in bills)]


def join(
    runs: Mapping[UUID, Sequence[Bill]], records: Mapping[UUID, RunRecord]
) -> tuple[RecordedRun, ...]:
    """Join each run's bills with its record, if there is one; the earliest run first."""
    joined = []
    for flow_run_id, bills in runs.items():
        record = records.get(flow_run_id) or RunRecord(flow_run_id)
        attempts = [Attempt(bill, record.interruptions.get(bill.task_arn)) for bill in bills]
        attempts.sort(key=lambda attempt: (attempt.began_at, attempt.bill.ended_at))
        joined.append(RecordedRun(flow_run_id, tuple(attempts), record.own_retries))
    return tuple(sorted(joined, key=lambda run: (run.attempts[0].began_at, run.flow_run_id)))


def usd_per_second(run: RecordedRun, capacity: str) -> Decimal | None:
    """Return what the run's own bills say of its price; None where none of them says it.

    It is that of the longest attempt, divided: exact to 1e-8 USD over that.
    """
    bills = [attempt.bill for attempt in run.attempts]
    if capacity == FARGATE_SPOT:
        bills = [bill for bill in bills if bill.capacity == FARGATE_SPOT]
    priced = [(b.seconds, b.amounts) for b in bills if b.seconds and b.amounts]
    if not priced:
        return None
    seconds, amounts = max(priced, key=lambda each: each[0])
    return (amounts.cost_usd if capacity == FARGATE_SPOT else amounts.on_demand_usd) / seconds
