"""How a page of runs is repaired: which of them are judged, and that no odd one stops the others.

`functions/sweep.py` reads the pages; what ECS shows of the runs is `functions/run_tasks.py`'s.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from enum import Enum
from functools import cache
from itertools import islice
from typing import Final
from uuid import UUID

from chalicelib import errors
from chalicelib.core.model.ecs_task import FARGATE, FARGATE_SPOT, Task, reason_to_ignore
from chalicelib.core.model.flow_run import FlowRun, ProposedState, RunRecord, StateType
from chalicelib.core.model.policy import Mode, is_on_demand, runs_on_fargate
from chalicelib.core.model.sweeping import Place, SweepNotes
from chalicelib.core.ports import Context, Prefect
from chalicelib.core.rescue.actions import Verdict
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
from chalicelib.functions.pages import check
from chalicelib.functions.rescue import rescue
from chalicelib.functions.run_tasks import NO_ARN, RunTasks, elsewhere, live_subflows
from chalicelib.functions.sweep_report import SweepReport, UnjudgedRuns

STAYS_ENDED: Final = (
    Verdict.ANNOTATE,
    Verdict.CONFIRM,
    Verdict.MARK_CRASHED,
    Verdict.MARK_CANCELLED,
)
"""Decisions after which a run that has ended stays ended."""
ENDED_WITHIN: Final = timedelta(hours=1)
"""How far back runs are read that have ended."""
LOOKED_BACK: Final = timedelta(minutes=10)
"""How far back failed submissions are read: as long as failed calls and their retries may take."""
SECONDS_PER_RUN: Final = 5.0
"""Must be left of the invocation, or no further run of a page is repaired."""
MOST_ANSWERED: Final = 2000
"""How many states are kept that were answered, in the same item: others are judged once more."""
UNNOTED_FOR: Final = timedelta(hours=1)
"""How long a run waits for the end of a task that carries its id, but is not noted on it."""
UNNOTED: Final = "a task carries its id, but none of this attempt is noted on it"
OURS: Final = ("", NO_ARN)
"""Of a run that has ended: what is noted as its task does not make it another's."""
ENDED_WITH_PARENT: Final = ProposedState(
    StateType.CRASHED, "Crashed", "Crashed with its parent run, whose ECS task is gone."
)
Repair = Callable[["Repairs", Sequence[FlowRun]], FlowRun | None]
"""How a page of runs is repaired."""
Outcome = Enum("Outcome", ["STAYS", "WAITS", "REPAIRED", "FAILED"])
"""What became of a run. STAYS: there was nothing to repair; WAITS: it may have a live task;
FAILED: not judged, or not repaired."""


class Repairs:
    """One invocation: what it repairs, set by set, and what it counts.

    Each method that repairs takes runs in the order of their page, and returns the first that there
    was no time for, None when there was for all. Raises PrefectSpotError when the table or ECS
    cannot be read; also botocore's errors, where they concern all runs.
    """

    def __init__(self, context: Context, notes: SweepNotes) -> None:
        self.context = context
        self.report = SweepReport()
        self.unjudged = UnjudgedRuns(context, notes.unjudged, self.report.unjudged)
        self.tasks = RunTasks(context)
        self.answered: frozenset[UUID] = frozenset()
        self.place = notes.bookmark or Place()
        self.swept_at = notes.swept_at
        self.is_old_server = False
        self._notes = notes
        self._outcomes: dict[UUID, Outcome] = {}
        self._inherited = cache(lambda *of: _inherited_variables(self.context.prefect, *of))

    def notes(self, stages: int) -> SweepNotes:
        """Return what the next sweep has to know; a place behind the last stage is no bookmark."""
        now, notes = self.context.now(), self._notes
        bookmark = notes.bookmark if self.place == (notes.bookmark or Place()) else self.place
        return replace(
            notes,
            bookmark=None if self.place.stage >= stages else bookmark,
            swept_at=self.swept_at,
            unjudged=self.unjudged.kept(),
            answered=frozenset(islice(self.answered, MOST_ANSWERED)),
            without_end_at=now if self.is_old_server else notes.without_end_at,
        )

    def repair(self, repair: Repair, runs: Sequence[FlowRun]) -> FlowRun | None:
        """Repair a page; in halves where that fails for what may be one run's, until it is found.

        Returns the first run that there was no time for, None for none.
        """
        try:
            return repair(self, runs)
        except Exception as error:
            if errors.concerns_all(error) or isinstance(error, errors.PrefectSpotError):
                raise
            if len(runs) == 1:
                self._count_failure(runs[0].id)
                self._leave(runs[0], f"judging it failed: {type(error).__name__}")
                return None
        half = len(runs) // 2
        return self.repair(repair, runs[:half]) or self.repair(repair, runs[half:])

    def judged(self, runs: Sequence[FlowRun]) -> None:
        """Forget of these runs that they could not be judged, unless they still cannot be."""
        done = [run.id for run in runs if self._outcomes.get(run.id) is not Outcome.FAILED]
        self.unjudged.forget(done)

    def repair_scheduled(self, runs: Sequence[FlowRun]) -> FlowRun | None:
        """Complete reruns that were left parked, keep deadlines, and rerun what waits for a retry
        in a process that is gone: no worker ever takes that.
        """
        moved = [run for run in self._overdue(runs) if run.waits_in_process or _was_moved(run)]
        late = keep_deadlines(self.context, runs, self._records, self.report.decisions)
        undone = [late, self.repair_live(moved)]
        return min(filter(None, undone), key=runs.index, default=None)

    def repair_live(self, runs: Sequence[FlowRun]) -> FlowRun | None:
        """Repair runs that are alive in Prefect and have no live task."""
        return self._repair(self.tasks.without_live(runs))

    def repair_ended(self, runs: Sequence[FlowRun]) -> FlowRun | None:
        """Rerun runs that Spot ended lately; end the subflows of all that stay ended."""
        overdue = self._overdue(self._ours(runs, ENDED_WITHIN))
        undone = self._repair(overdue)
        done = overdue if undone is None else overdue[: overdue.index(undone)]
        stays = (Outcome.STAYS, Outcome.WAITS)
        stay = [r.id for r in done if self._outcomes.get(r.id, Outcome.STAYS) in stays]
        self._end_subflows(stay)  # a run that is rerun goes on with its own
        return undone

    def answer_failed_submissions(self, runs: Sequence[FlowRun]) -> FlowRun | None:
        """Judge, without a grace and each once, runs that a worker could not submit.

        A refused placement has no task; for other failures ECS is asked by tag.
        """
        failed = [run for run in runs if is_submission_failure(run.state.message)]
        answered = {run.state.id for run in failed} & self._notes.answered
        new = [run for run in self._ours(failed, LOOKED_BACK) if run.state.id not in answered]
        undone = self._repair(new)
        for run in new:
            if self._outcomes.get(run.id) in (Outcome.STAYS, Outcome.REPAIRED):
                answered.add(run.state.id)
        self.answered |= answered
        return undone

    def _ours(self, runs: Sequence[FlowRun], within: timedelta) -> list[FlowRun]:
        """Return those of these ended runs that ended lately, and have no task elsewhere."""
        since = self.context.now() - within
        lately = [run for run in runs if run.state.timestamp >= since]
        return [run for run in lately if elsewhere(self.context, run) in OURS]

    def _needs_no_record(self, run: FlowRun) -> bool:
        """Whether a run is judged though no handler has met it: its history may say more.

        A failed one is rerun on the evidence of a recorded warning only.
        """
        kind = run.state.type
        if kind is StateType.CANCELLED:
            return bool(self.tasks.tagged(run))
        return kind is not StateType.FAILED and (
            kind is not StateType.SCHEDULED or run.waits_in_process
        )

    def _repair(self, suspects: Sequence[FlowRun]) -> FlowRun | None:
        """Rescue the orphans that have a record, or need none.

        Returns the first that it had no time for, None when it had for all; it judges one at least.
        """
        records = self._records(suspects)
        for run in suspects:
            is_known = run.id in records or self._needs_no_record(run)
            if run.id in self._outcomes or not is_known:
                continue
            if not _was_refused(run):
                self.tasks.tagged(run)  # read here: where ECS fails, it fails for all
            if self._outcomes and self.context.seconds_left() < SECONDS_PER_RUN:
                return run
            try:
                record = records.get(run.id, RunRecord(run.id))
                self._outcomes[run.id] = self._judge(run, record)
            except Exception as error:  # whatever is odd about one run, the others are judged
                if errors.concerns_all(error):
                    raise
                self._count_failure(run.id)
                self._outcomes[run.id] = Outcome.FAILED
                if not self._is_passing(error):
                    self._leave(run, f"judging it failed: {type(error).__name__}")
        return None

    def _is_passing(self, error: Exception) -> bool:
        """Whether the next sweep may judge the run: yes where Prefect fails over all of them."""
        if isinstance(error, errors.PrefectUnreadableError):
            with suppress(errors.PrefectSpotError):
                check(self.context)
                return False
        return isinstance(error, errors.PASSING)

    def _judge(self, run: FlowRun, record: RunRecord) -> Outcome:
        context = self.context
        if why := self.tasks.unseen(run):
            return self._leave(run, why)
        history = context.prefect.read_history(run.id)
        refused = not history or _was_refused(run)
        known = () if refused else self.tasks.of_attempt(run, history)
        if known is None:
            is_old = context.now() - run.state.timestamp > UNNOTED_FOR + context.pending_grace
            return self._leave(run, UNNOTED) if is_old else Outcome.WAITS
        if not history:
            return Outcome.STAYS
        subject = subject_of(run, history, known, record, context.now())
        subject = self._placed(run, subject, known) if subject else None
        if subject is None:
            return Outcome.STAYS
        self.report.stranded += 1
        decision = rescue(context, run.id, subject, swept=run.state.id)
        self.report.decisions[decision.verdict.value] += 1
        if not isinstance(subject, Task):  # `meter` bills those that have one
            failed = context.records.read(run.id).failed_starts.get(subject.arn)
            if failed is not None and not refused_by_spot(failed):
                bill_failed_start(context, run, failed)
        return Outcome.STAYS if decision.verdict in STAYS_ENDED else Outcome.REPAIRED

    def _placed(self, run: FlowRun, subject: Subject, known: Sequence[Task]) -> Subject | None:
        """Return the subject with its capacity; None where its task is, or was to be, none of ours.

        Of a task that ECS does not show, all job variables that apply say it.
        """
        if isinstance(subject, Task):  # one on record was ours
            foreign = subject in known and reason_to_ignore(subject, *self.context.scope)
            return None if foreign else subject
        pool = self.context.pool_of(run)
        variables = {**self._inherited(pool, run.deployment_id), **run.job_variables}
        if not runs_on_fargate(variables) or not _is_watched(self.context, variables):
            return None
        on_demand = is_on_demand(replace(run, job_variables=variables))
        return replace(subject, capacity=FARGATE if on_demand else FARGATE_SPOT)

    def _records(self, runs: Sequence[FlowRun]) -> Mapping[UUID, RunRecord]:
        """Return the records that there are; one that cannot be read costs its own run only."""
        try:
            return self.context.records.read_many([run.id for run in runs]) if runs else {}
        except Exception as error:
            if errors.concerns_all(error) or isinstance(error, errors.PrefectSpotError):
                raise
            if len(runs) == 1:
                self._leave(runs[0], f"its record cannot be read: {type(error).__name__}")
                return {}
        half = len(runs) // 2
        return {**self._records(runs[:half]), **self._records(runs[half:])}

    def _leave(self, run: FlowRun, why: str) -> Outcome:
        self.unjudged.add(run.id, why)
        self._outcomes[run.id] = Outcome.FAILED
        return Outcome.FAILED

    def _count_failure(self, flow_run_id: UUID) -> None:
        self.report.failed += 1
        self.context.log.exception("repairing the flow run failed", flow_run_id=str(flow_run_id))

    def _overdue(self, runs: Sequence[FlowRun]) -> list[FlowRun]:
        """Return the runs that have been in their state for longer than the grace."""
        overdue = self.context.now() - self.context.grace
        return [run for run in runs if run.state.timestamp < overdue]

    def _end_subflows(self, parents: Sequence[UUID]) -> None:
        """Crash the live runs in the processes of parents that have ended: no process is left."""
        if self.context.policy.mode is Mode.OBSERVE or not parents:
            return
        subflows: list[FlowRun] = []
        try:
            subflows += live_subflows(self.context.prefect, parents)
        except Exception:  # what was found until then ends all the same
            if len(parents) > 1:
                half = len(parents) // 2
                self._end_subflows(parents[:half])
                self._end_subflows(parents[half:])
                return
            self._count_failure(parents[0])
        for subflow in self._overdue(subflows):
            if self.context.seconds_left() < SECONDS_PER_RUN:
                break  # the next sweep ends the others
            try:
                self.context.prefect.propose_state(subflow.id, ENDED_WITH_PARENT)
                self.report.decisions["subflow-crashed"] += 1
            except Exception:  # the others end all the same; the next sweep tries again
                self._count_failure(subflow.id)


def _inherited_variables(
    prefect: Prefect, work_pool: str, deployment_id: UUID | None
) -> Mapping[str, object]:
    """Return the job variables of the runs of a deployment that set none of their own."""
    deployment = prefect.read_deployment(deployment_id) if deployment_id else None
    defaults = prefect.read_pool_defaults(work_pool)
    return {**defaults, **deployment.job_variables} if deployment else defaults


def _is_watched(context: Context, job_variables: Mapping[str, object]) -> bool:
    """Whether these variables name one of our clusters, or none."""
    cluster = str(job_variables.get("cluster") or "").rpartition("cluster/")[2]
    return cluster in {"", *(name.rpartition("cluster/")[2] for name in context.clusters)}


def _was_moved(run: FlowRun) -> bool:
    """Whether a state was ever proposed to the run: Prefect's scheduler gives no transition id."""
    return bool(run.run_count or run.infrastructure_pid or run.state.transition_id)


def _was_refused(run: FlowRun) -> bool:
    """Whether RunTask refused the run's placement: then no container can be at work on it."""
    message = run.state.message
    return is_submission_failure(message) and (
        start_failure_of(message).kind is StartFailureKind.REFUSAL
    )
