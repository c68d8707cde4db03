"""How a page of runs is repaired: which of them are judged, and that no odd one stops the others.

`functions/sweep.py` reads the pages; what ECS shows of the runs is `functions/run_tasks.py`'s.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import timedelta
from typing import Final
from uuid import UUID

from chalicelib import errors
from chalicelib.core.model.ecs_task import Task, reason_to_ignore
from chalicelib.core.model.flow_run import FlowRun, ProposedState, RunRecord, StateType
from chalicelib.core.model.policy import Mode, runs_on_fargate
from chalicelib.core.model.sweeping import SweepNotes, Unjudged
from chalicelib.core.ports import Context
from chalicelib.core.rescue.failed_start import refused_by_spot
from chalicelib.core.rescue.orphans import subject_of
from chalicelib.core.rescue.snapshot import Subject
from chalicelib.core.rescue.start_failures import (
    StartFailureKind,
    is_submission_failure,
    start_failure_of,
)
from chalicelib.functions.deadlines import keep_deadlines
from chalicelib.functions.meter import bill_failed_start
from chalicelib.functions.rescue import rescue
from chalicelib.functions.run_tasks import NO_ARN, RunTasks, waits_in_process

MOST_PARENTS: Final = 100
"""How many parents' subflows are read together."""
ENDED_WITHIN: Final = timedelta(hours=1)
"""How far back runs are read that have ended."""
LOOKED_BACK: Final = timedelta(minutes=10)
"""How far back failed submissions are read: as long as failed calls and their retries may take."""
SECONDS_PER_RUN: Final = 5.0
"""Must be left of the invocation, or no further run of a page is repaired."""
UNJUDGED_FOR: Final = timedelta(hours=1)
"""How long a run that could not be judged is kept, and named by `spotctl status`, once it is no
longer met: it left Prefect's set."""
MOST_UNJUDGED: Final = 500
"""How many of those are kept, the last ones: their item in the table is read every minute."""
OURS: Final = ("", NO_ARN)
"""Of a run that has ended: what is noted as its task does not make it another's."""
PASSING: Final = (
    errors.LeaseHeldError,
    errors.LeaseLostError,
    errors.PrefectUnavailableError,
    errors.ThrottledError,
    errors.UnsettledError,
)
"""After these the next sweep tries again; any other failure keeps a run from being judged."""


@dataclass(slots=True)
class SweepReport:
    """What a sweep did. `light`: it looked at failed submissions only. `finished`: it came to the
    end of all runs, and left no bookmark.

    `unjudged`: runs that could not be judged, by reason, each counted once until it can; `failed`:
    runs that were not repaired.
    """

    seen: int = 0
    stranded: int = 0
    failed: int = 0
    billed: int = 0
    light: bool = False
    finished: bool = False
    unjudged: Counter[str] = field(default_factory=Counter)
    decisions: Counter[str] = field(default_factory=Counter)

    @property
    def summary(self) -> dict[str, object]:
        """What the function returns to Lambda."""
        figures = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "decisions"}
        return {**figures, "unjudged": dict(self.unjudged), **self.decisions}


class Repairs:
    """One invocation: what it repairs, set by set, and what it counts.

    Each method that repairs takes runs in the order of their page, and returns the first that there
    was no time for, None when there was for all. Raises PrefectSpotError when the table or ECS
    cannot be read; also botocore's errors, where they concern all runs.
    """

    def __init__(self, context: Context, notes: SweepNotes) -> None:
        self.context = context
        self.report = SweepReport()
        self.tasks = RunTasks(context)
        self.answered: frozenset[UUID] = frozenset()
        self._notes = notes
        self._unjudged = dict(notes.unjudged)
        self._judged: set[UUID] = set()
        self._repaired: set[UUID] = set()
        self._failed: set[UUID] = set()
        self._left: set[UUID] = set()
        self._inherited: dict[UUID | None, Mapping[str, object]] = {}
        self._unread: dict[UUID, str] = {}

    def notes(self) -> SweepNotes:
        """Return what the next sweep has to know, at the same place."""
        now = self.context.now()
        met = [kept for kept in self._unjudged.items() if now - kept[1].met_at < UNJUDGED_FOR]
        newest = sorted(met, key=lambda kept: kept[1].met_at)[-MOST_UNJUDGED:]
        return replace(self._notes, unjudged=dict(newest), answered=self.answered)

    def judged(self, runs: Sequence[FlowRun]) -> None:
        """Forget of these runs that they could not be judged, but for those just met."""
        for run in runs:
            if run.id not in self._left:
                self._unjudged.pop(run.id, None)

    def repair_scheduled(self, runs: Sequence[FlowRun]) -> FlowRun | None:
        """Complete reruns that were left parked, keep deadlines, and rerun what waits for a retry
        in a process that is gone: no worker ever takes that.
        """
        overdue = self._overdue(runs)
        orphans = self.tasks.without_live([run for run in overdue if waits_in_process(run)])
        is_orphan = {run.id for run in orphans}
        suspects = [
            run
            for run in overdue
            if (run.id in is_orphan if waits_in_process(run) else _was_moved(run))
        ]
        late = keep_deadlines(self.context, runs, self._records, self.report.decisions)
        undone = [late, self._repair(suspects, waits_in_process)]
        return min(filter(None, undone), key=runs.index, default=None)

    def repair_live(self, runs: Sequence[FlowRun]) -> FlowRun | None:
        """Repair runs that are alive in Prefect and have no live task."""
        return self._repair(self.tasks.without_live(runs), lambda _: True)

    def repair_ended(self, runs: Sequence[FlowRun]) -> FlowRun | None:
        """Rerun runs that Spot ended; end the subflows of all that stay ended."""
        overdue = self._overdue([run for run in runs if self.tasks.elsewhere(run) in OURS])
        undone = self._repair(overdue, self._may_need_repair)
        done = overdue if undone is None else overdue[: overdue.index(undone)]
        others = self._repaired | self._failed  # a run that is rerun goes on with its subflows
        self._end_subflows([run for run in done if run.id not in others])
        return undone

    def repair_without_end(self, runs: Sequence[FlowRun]) -> FlowRun | None:
        """Repair those of an old server's runs without an end that ended lately."""
        now = self.context.now()
        if runs:
            self._notes = replace(self._notes, without_end_at=now)
        return self.repair_ended([run for run in runs if now - run.state.timestamp <= ENDED_WITHIN])

    def answer_failed_submissions(self, runs: Sequence[FlowRun]) -> FlowRun | None:
        """Judge, without a grace and each once, runs that a worker could not submit.

        A refused placement has no task; for other failures ECS is asked by tag.
        """
        now, answered = self.context.now(), self._notes.answered
        failed = [run for run in runs if is_submission_failure(run.state.message)]
        new = [
            run
            for run in failed
            if run.state.id not in answered
            and now - run.state.timestamp < LOOKED_BACK
            and self.tasks.elsewhere(run) in OURS
        ]
        undone = self._repair(new, lambda _: True)
        judged = {run.state.id for run in new if run.id in self._judged - self._failed}
        self.answered |= judged | (answered & {run.state.id for run in failed})
        return undone

    def _may_need_repair(self, run: FlowRun) -> bool:
        """Whether a run that has ended, and has no record, is looked at: its history may say more.

        A failed one is rerun on the evidence of a recorded warning only.
        """
        kind = run.state.type
        return kind is StateType.CRASHED or (
            kind is StateType.CANCELLED and bool(self.tasks.tagged(run))
        )

    def _repair(
        self, suspects: Sequence[FlowRun], without_record: Callable[[FlowRun], bool]
    ) -> FlowRun | None:
        """Rescue the orphans that have a record, or pass the test.

        Returns the first that it had no time for, None when it had for all; it judges one at least.
        """
        records = self._records(suspects)
        for run in suspects:
            if run.id in self._judged or not (
                run.id in records or run.id in self._unread or without_record(run)
            ):
                continue
            if not _was_refused(run) and not all(t.exited for t in self.tasks.tagged(run)):
                continue
            if self._judged and self.context.seconds_left() < SECONDS_PER_RUN:
                return run
            self._judged.add(run.id)
            try:
                self._judge(run, records.get(run.id, RunRecord(run.id)))
            except Exception as error:  # whatever is odd about one run, the others are judged
                if errors.concerns_all(error):
                    raise
                self._fail(run.id)
                if not isinstance(error, PASSING):
                    self._leave(run, f"judging it failed: {type(error).__name__}")
        return None

    def _judge(self, run: FlowRun, record: RunRecord) -> None:
        context = self.context
        if why := self._unread.get(run.id, "") or self.tasks.unseen(run):
            self._leave(run, why)
            return
        history = context.prefect.read_history(run.id)
        known = () if _was_refused(run) else self.tasks.of_attempt(run, history)
        if not history or known is None:
            return
        subject = subject_of(run, history, known, record, context.now())
        if subject is None or self._is_foreign(run, subject, known):
            return
        self.report.stranded += 1
        self._repaired.add(run.id)
        decision = rescue(context, run.id, subject, swept=run.state.id)
        self.report.decisions[decision.verdict.value] += 1
        if not isinstance(subject, Task):  # `meter` bills those that have one
            failed = context.records.read(run.id).failed_starts.get(subject.arn)
            if failed is not None and not refused_by_spot(failed):
                bill_failed_start(context, run, failed)

    def _is_foreign(self, run: FlowRun, subject: Subject, known: Sequence[Task]) -> bool:
        """Whether the run's task is none of ours; of one that is gone, the job variables say it."""
        if isinstance(subject, Task):  # one on record was ours
            return subject in known and bool(reason_to_ignore(subject, *self.context.scope))
        if run.deployment_id not in self._inherited:
            prefect, pool = self.context.prefect, run.work_pool_name or self.context.work_pool
            found = prefect.read_deployment(run.deployment_id) if run.deployment_id else None
            inherited = {
                **prefect.read_pool_defaults(pool),
                **(found.job_variables if found else {}),
            }
            self._inherited[run.deployment_id] = inherited
        return not runs_on_fargate({**self._inherited[run.deployment_id], **run.job_variables})

    def _records(self, runs: Sequence[FlowRun]) -> Mapping[UUID, RunRecord]:
        """Return the records that there are; one that cannot be read costs its own run only."""
        ids, table = [run.id for run in runs], self.context.records
        try:
            return table.read_many(ids) if ids else {}
        except Exception as error:
            if errors.concerns_all(error) or isinstance(error, errors.PrefectSpotError):
                raise
            if len(ids) == 1:
                self._unread[ids[0]] = f"its record cannot be read: {type(error).__name__}"
                return {}
        half = len(runs) // 2
        return {**self._records(runs[:half]), **self._records(runs[half:])}

    def _leave(self, run: FlowRun, why: str) -> None:
        if run.id not in self._unjudged:
            self.report.unjudged[why] += 1
            self.context.log.info("could not be judged", flow_run_id=str(run.id), reason=why)
        self._unjudged[run.id] = Unjudged(why, self.context.now())
        self._left.add(run.id)

    def _fail(self, flow_run_id: UUID) -> None:
        self.report.failed += 1
        self._failed.add(flow_run_id)
        self.context.log.exception("repairing the flow run failed", flow_run_id=str(flow_run_id))

    def _overdue(self, runs: Sequence[FlowRun]) -> list[FlowRun]:
        """Return the runs that have been in their state for longer than the grace."""
        now, grace = self.context.now(), self.context.grace
        return [run for run in runs if now - run.state.timestamp > grace]

    def _end_subflows(self, parents: Sequence[FlowRun]) -> None:
        """Crash the live runs in the processes of parents that have ended: no process is left."""
        context = self.context
        if context.policy.mode is Mode.OBSERVE:
            return
        why = "Crashed with its parent run, whose ECS task is gone."
        crashed = ProposedState(StateType.CRASHED, "Crashed", why)
        generation = [parent.id for parent in parents]
        while generation:
            parent_ids, generation = generation[:MOST_PARENTS], generation[MOST_PARENTS:]
            try:
                children = self._overdue(context.prefect.find_live_children(parent_ids))
            except Exception:  # the runs themselves are repaired all the same
                self._fail(parent_ids[0])
                continue
            for child in children:
                try:
                    context.prefect.propose_state(child.id, crashed)
                    self.report.decisions["subflow-crashed"] += 1
                except Exception:  # the others end all the same; the next sweep tries again
                    self._fail(child.id)
            generation += [child.id for child in children]


def _was_moved(run: FlowRun) -> bool:
    """Whether a state was ever proposed to the run: Prefect's scheduler gives no transition id."""
    return bool(run.run_count or run.infrastructure_pid or run.state.transition_id)


def _was_refused(run: FlowRun) -> bool:
    """Whether RunTask refused the run's placement: then no container can be at work on it."""
    message = run.state.message
    return is_submission_failure(message) and (
        start_failure_of(message).kind is StartFailureKind.REFUSAL
    )
