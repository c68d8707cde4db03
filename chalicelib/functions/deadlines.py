"""`sweep` puts scheduled runs with a deadline on FARGATE when a first attempt on Spot is too risky.

That takes one PATCH while the run is scheduled; Prefect refuses it once a worker has the run. The
run is not parked for it: a worker that polled just before would submit the parked run all the same,
and its flow would wait until the park ends. Price: a worker that polled before the PATCH and
submits after it has the old variables, and starts on Spot.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final
from uuid import UUID

from chalicelib.core.model.ecs_task import FARGATE
from chalicelib.core.model.flow_run import FlowRun, Moved, RunChange, RunRecord, StateType
from chalicelib.core.model.policy import (
    ON_DEMAND_TAG,
    Mode,
    Notify,
    has_deadline_tag,
    is_on_demand,
    on_demand_variables,
    reason_not_to_rerun,
    runs_on_fargate,
)
from chalicelib.core.policies import facts
from chalicelib.core.policies.deadline import deadline_of, deadline_opinion
from chalicelib.core.policies.facts import GoOnDemand, Guard, Missing, PreviousRuns, Progress
from chalicelib.core.ports import Context
from chalicelib.core.rescue.annotation import annotation_of_move
from chalicelib.core.rescue.notification import Notification
from chalicelib.errors import PrefectRejectedError, concerns_all
from chalicelib.functions.annotating import annotate, notify
from chalicelib.functions.policy_facts import SECONDS_FOR_FACTS, read_previous_runs

MOVED: Final = "on-demand-before-start"
"""What a sweep counts it as."""
SECONDS_PER_RUN: Final = 10.0
"""Left of the invocation, or no further run is looked at."""


def keep_deadlines(
    context: Context,
    runs: Sequence[FlowRun],
    read_records: Callable[[Sequence[FlowRun]], Mapping[UUID, RunRecord]],
    decisions: Counter[str],
) -> FlowRun | None:
    """Put those of a page's waiting runs on demand that an attempt on Spot might make late.

    Costs nothing for runs without a deadline; else one read of the table for all, the past of each
    deployment once, and some calls for each run moved. Returns the first run that there was no time
    for, None for none.
    """
    tagged = [run for run in runs if _has_a_deadline(run, context.policy.mode)]
    records = read_records(tagged)
    past: dict[UUID | None, PreviousRuns | Missing] = {}
    for run in tagged:
        record = records.get(run.id, RunRecord(run.id))
        settled = record.moved.annotated if record.moved else is_on_demand(run)
        if settled:
            continue
        if context.seconds_left() < SECONDS_PER_RUN:
            return run
        try:
            if record.moved is None and run.deployment_id not in past:
                prefect = context.with_timeout(SECONDS_FOR_FACTS)
                past[run.deployment_id] = read_previous_runs(context, prefect, run.deployment_id)
            moved = record.moved or _judged(context, run, past[run.deployment_id])
            if moved is not None and _move(context, run, moved):
                decisions[MOVED] += 1
        except Exception as error:  # the next sweep tries again
            if concerns_all(error):
                raise
            context.log.exception("putting the run on demand failed", flow_run_id=str(run.id))
    return None


def _has_a_deadline(run: FlowRun, mode: Mode) -> bool:
    readable = has_deadline_tag(run.tags) and not isinstance(deadline_of(run.tags), Missing)
    return readable and _waits(run) and not reason_not_to_rerun(run, mode)


def _waits(run: FlowRun) -> bool:
    """Whether no worker has taken it yet."""
    unstarted = run.run_count == 0 and run.infrastructure_pid is None
    is_parked = run.state.name == "AwaitingRetry"  # or a start that is tried again
    return run.state.type is StateType.SCHEDULED and unstarted and not is_parked


def _judged(context: Context, run: FlowRun, past: PreviousRuns | Missing) -> Moved | None:
    """Return the move to FARGATE, if the deadline guard rejects a first attempt on Spot."""
    begins = max(context.now(), run.expected_start or context.now())
    known = facts.facts_of(past, Progress(), facts.restart_overhead_of((), past))
    opinion = deadline_opinion(run, known, begins)
    return Moved(Guard.DEADLINE.value, opinion.why) if isinstance(opinion, GoOnDemand) else None


def _change_for_move(context: Context, run: FlowRun) -> RunChange | None:
    """Return what puts the run on FARGATE, if anything; None where it is not to be moved."""
    if context.policy.mode is Mode.OBSERVE or is_on_demand(run):
        return RunChange()
    own, prefect = run.job_variables, context.prefect
    deployment = prefect.read_deployment(run.deployment_id) if run.deployment_id else None
    if deployment is None:  # Prefect refuses the PATCH
        return None
    defaults = prefect.read_pool_defaults(context.pool_of(run))
    if not runs_on_fargate({**defaults, **deployment.job_variables, **own}):
        return None
    variables = on_demand_variables(own, deployment.job_variables, defaults)
    missing = () if ON_DEMAND_TAG in run.tags else (ON_DEMAND_TAG,)
    return RunChange(job_variables=variables, tags=(*run.tags, *missing))


def _move(context: Context, run: FlowRun, moved: Moved) -> bool:
    """Move the run under its lease; False when a worker has it already, or it cannot be moved."""
    mode = context.policy.mode
    before = record = context.records.acquire(run.id, context.now(), context.lease)
    try:
        fresh = context.prefect.read_run(run.id)
        if fresh is None or not _waits(fresh):
            return False
        change = _change_for_move(context, fresh)
        if change is None:
            return False
        if record.moved is None:  # the next sweep completes a run that was left half moved
            capacity = record.next_capacity if mode is Mode.OBSERVE else FARGATE
            record = replace(record, moved=moved, next_capacity=capacity)
            context.records.save(record)
        if not change.is_empty:
            context.prefect.change_run(run.id, change)
        moved = record.moved or moved
        annotate(context, annotation_of_move(fresh, moved, mode, context.now()))
        if mode is not Mode.OBSERVE:
            why = f"{moved.guard}: {moved.reason}"
            notify(context, fresh, Notification(Notify.MOVES, run.id, run.name, why))
        context.log.info(
            "decided",
            decision=MOVED,
            reason=moved.reason,
            guard=moved.guard,
            mode=mode.value,
            flow_run_id=str(run.id),
        )
        record = replace(record, moved=replace(moved, annotated=True))
    except PrefectRejectedError:
        record = before  # a worker has the run already
        context.log.exception("the run could not be put on demand", flow_run_id=str(run.id))
        return False
    finally:
        context.records.release(record)
    return True
