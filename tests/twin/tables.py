"""Run records and bills in memory: the second implementations of their ports.

Laws and faults run on these; both pass the tables' own tests, beside DynamoDB's. Values are kept as
they are, so each method is one step: it happens whole, or, where its condition fails, not at all.
What DynamoDB refuses, they refuse.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from uuid import UUID

from chalicelib.adapters.records import values_of
from chalicelib.core.model.flow_run import RunRecord
from chalicelib.core.model.policy import Pause
from chalicelib.core.model.sweeping import SweepNotes
from chalicelib.core.money.bill import Bill
from chalicelib.core.money.report import Counts, DailySum, by_day_and_name
from chalicelib.errors import LeaseHeldError, LeaseLostError
from tests.twin.dynamodb import check


@dataclass
class StoredRun:
    """A run's record, and the lease: its owner, empty for none, and its end."""

    record: RunRecord
    owner: str = ""
    until: datetime | None = None


@dataclass
class StoredRecords:
    """What all owners share."""

    runs: dict[UUID, StoredRun] = field(default_factory=dict)
    sweep: SweepNotes = field(default_factory=SweepNotes)
    pause: Pause | None = None


@dataclass
class InMemoryRecords:
    """`core.ports.Records`, as one owner sees it."""

    stored: StoredRecords
    owner: str

    def read(self, flow_run_id: UUID) -> RunRecord:
        run = self.stored.runs.get(flow_run_id)
        return run.record if run else RunRecord(flow_run_id)

    def read_many(self, flow_run_ids: Sequence[UUID]) -> dict[UUID, RunRecord]:
        return {run: self.read(run) for run in flow_run_ids if run in self.stored.runs}

    def read_sweep(self) -> SweepNotes:
        return replace(self.stored.sweep, pause=self.stored.pause)

    def save_sweep(self, notes: SweepNotes) -> None:
        check(values_of(notes))
        self.stored.sweep = notes

    def read_pause(self) -> Pause | None:
        return self.stored.pause

    def acquire(self, flow_run_id: UUID, now: datetime, lease: timedelta) -> RunRecord:
        run = self.stored.runs.setdefault(flow_run_id, StoredRun(RunRecord(flow_run_id)))
        if run.until is not None and run.until >= now and run.owner != self.owner:
            raise LeaseHeldError(
                f"another handler holds the lease on flow run {flow_run_id}", next_step="none"
            )
        run.owner, run.until = self.owner, now + lease
        return run.record

    def save(self, record: RunRecord) -> None:
        held = self._held(record.flow_run_id)
        check(values_of(record))
        held.record = record

    def release(self, record: RunRecord) -> None:
        run = self._held(record.flow_run_id)
        check(values_of(record))
        run.record, run.owner, run.until = record, "", None

    def _held(self, flow_run_id: UUID) -> StoredRun:
        run = self.stored.runs.get(flow_run_id)
        if run is None or run.owner != self.owner:
            raise LeaseLostError(f"the lease on {flow_run_id} passed to another", next_step="none")
        return run


@dataclass
class InMemoryBills:
    """`core.ports.Bills`, and all bills for a replay."""

    bills: dict[str, Bill] = field(default_factory=dict)
    billed_runs: set[UUID | None] = field(default_factory=set)
    sums: dict[tuple[date, str, str], DailySum] = field(default_factory=dict)
    reported: str = ""

    def unbilled(self, task_arns: Sequence[str]) -> tuple[str, ...]:
        return tuple(arn for arn in task_arns if arn not in self.bills)

    def write(self, bill: Bill, first: DailySum, later: DailySum) -> bool:
        if bill.task_arn in self.bills:
            return False
        check({"pk": bill.task_arn, **values_of(bill)})
        is_first = bill.counts_its_run and bill.flow_run_id not in self.billed_runs
        daily = first if is_first else later
        key = daily.day, daily.deployment.key, daily.deployment.work_pool
        before = self.sums.get(key, DailySum(daily.day, daily.deployment, Counts()))
        name = daily.deployment.name or before.deployment.name
        deployment = replace(daily.deployment, name=name)
        counts, rates = before.counts + daily.counts, before.rates | daily.rates
        self.sums[key] = DailySum(daily.day, deployment, counts, rates)
        self.bills[bill.task_arn] = bill
        self.billed_runs |= {bill.flow_run_id} if is_first else set()
        return True

    def read_sums(self, days: Sequence[date]) -> tuple[DailySum, ...]:
        found = [kept for kept in self.sums.values() if kept.day in days]
        return tuple(sorted(found, key=by_day_and_name))

    def read_bills(self) -> Iterable[Bill]:
        return self.bills.values()

    def read_reported(self) -> str:
        return self.reported

    def save_reported(self, day: str) -> None:
        self.reported = day
