"""The tasks, and the subflows, of the runs that a sweep or a rescue looks at.

A run has the task that a worker noted, and those tagged with it. The worker notes a task late, or
never, and leaves the note of an earlier attempt; anyone who may run a task can set a tag. So the
noted one decides where it is of this attempt; else a run is taken for orphaned only when ECS shows
no live task that its worker may have started. Where ECS cannot say, it is left.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache, partial
from typing import Any, Final
from uuid import UUID

from chalicelib.core.model.ecs_task import FARGATE, Task, reason_to_ignore
from chalicelib.core.model.flow_run import FlowRun, RunState, StateType
from chalicelib.core.ports import Context, Prefect, Undescribed
from chalicelib.core.rescue.attempt import (
    is_late,
    is_of_attempt,
    is_with_a_worker,
    of_attempt,
    picked_up_at,
)
from chalicelib.core.rescue.orphans import FORGOTTEN_AFTER, by_flow_run, noted_task
from chalicelib.core.rescue.start_failures import is_submission_failure
from chalicelib.errors import ClusterGoneError, PrefectRejectedError, PrefectUnreadableError

MOST_PARENTS: Final = 100
"""Runs whose subflows are read together."""
MOST_READS: Final = 50
"""Requests for them, one for each depth at least: what is nested deeper stays as it is."""
AT_ONCE: Final = 100  # task runs that are ended together
SECONDS_FOR_RERUN: Final = 10.0
"""Left of the invocation, at least, when the run is made due."""
NO_ARN: Final = "what is noted as its task is no ARN of a task"
_TASK_ARN: Final = re.compile(r"arn:[a-z-]+:ecs:[a-z0-9-]+:\d{12}:task/[\w-]+/[\w-]+", re.ASCII)


class RunTasks:
    """What ECS shows during one sweep; all tasks of the clusters are read once, when needed."""

    def __init__(self, context: Context) -> None:
        self._context = context
        # No cached_property: in Python 3.11 it holds one lock for all instances meanwhile.
        self._tagged = cache(partial(_tasks_by_run, context))
        self._noted: dict[UUID, Task | Undescribed] = {}

    def without_live(self, runs: Sequence[FlowRun]) -> list[FlowRun]:
        """Return the runs whose noted task, if any, has been gone for longer than the grace.

        One DescribeTasks per cluster, unless ECS refuses a task. Raises botocore's errors.
        """
        noted: dict[str, dict[UUID, str]] = {}
        for run in runs:
            if (arn := noted_task(run)[1]) and not elsewhere(self._context, run):
                noted.setdefault(arn.split("/")[1], {})[run.id] = arn
        for cluster, arns in noted.items():
            tasks = self._context.tasks.describe_many(cluster, [*arns.values()])
            self._noted |= {run: tasks[arn] for run, arn in arns.items() if arn in tasks}
        return [run for run in runs if self._looks_orphaned(run)]

    def tagged(self, run: FlowRun) -> tuple[Task, ...]:
        """Return the tasks tagged with the run, newest first, those that stopped lately too.

        Raises botocore's errors, and PrefectSpotError when there is none of our clusters.
        """
        return self._tagged()[0].get(run.id, ())

    def unseen(self, run: FlowRun) -> str:
        """Return why a run that shows no live task may still have one; empty for an orphan."""
        is_scheduled = run.state.type is StateType.SCHEDULED
        if run.state.is_final or (is_scheduled and not run.waits_in_process):
            return ""
        if not run.infrastructure_pid and self._tagged()[1]:
            return "a cluster is not found, and the run has no task in the others"
        noted = self._noted.get(run.id)
        if isinstance(noted, Undescribed):
            return noted.reason
        why = elsewhere(self._context, run)
        return "" if why == NO_ARN and self.tagged(run) else why

    def of_attempt(self, run: FlowRun, history: Sequence[RunState]) -> Sequence[Task] | None:
        """Return the tasks to judge a run's attempt by, newest first; all have exited.

        Only the noted one where that is this attempt's. None while one may be alive, or while its
        worker may still bring one up: of a PENDING run, and of one that an automation or an
        observer crashed then. A task that carries the run's id, but no worker noted, proves
        neither a death before that time is over, nor that there is no other.
        """
        tagged, noted = self.tagged(run), self._noted.get(run.id)
        if not isinstance(noted, Task):
            noted = next((task for task in tagged if task.arn == noted_task(run)[1]), None)
        if noted is not None and is_of_attempt(noted, run, history):
            return (noted,) if noted.exited else None
        if not all(task.exited or is_late(task, history) for task in tagged):
            return None
        kinds = [state.type for state in history[-2:]]
        crashed = kinds == [StateType.PENDING, StateType.CRASHED]
        is_placing = crashed and not is_submission_failure(run.state.message)
        if is_placing or run.state.type is StateType.PENDING:
            in_grace = self._context.now() - picked_up_at(history) <= self._context.pending_grace
            if in_grace and is_with_a_worker(history):
                return None
        return of_attempt(tagged, history)

    def _looks_orphaned(self, run: FlowRun) -> bool:
        task, since = self._noted.get(run.id), run.state.timestamp
        if isinstance(task, Task):
            if not task.exited:
                return False
            since = max(since, task.exited_at or since)
        return self._context.now() - since > self._context.grace


def _tasks_by_run(context: Context) -> tuple[Mapping[UUID, tuple[Task, ...]], bool]:
    """Return all tasks by flow run, and whether a cluster was not found."""
    found: list[Task] = []
    gone: list[ClusterGoneError] = []
    for cluster in context.clusters:
        try:
            found += context.tasks.all_of(cluster)
        except ClusterGoneError as error:
            gone.append(error)
    if gone and len(gone) == len(context.clusters):
        raise gone[0]
    return by_flow_run(found), bool(gone)


def elsewhere(context: Context, run: FlowRun) -> str:
    """Return why the task noted on a run cannot be looked at; empty where it can be."""
    if not run.infrastructure_pid:
        return ""
    cluster, arn = noted_task(run)
    watched = {name.rpartition("cluster/")[2] for name in context.clusters}
    if cluster and cluster.rpartition("cluster/")[2] not in watched:
        return "the task is in none of our clusters"
    if not _TASK_ARN.fullmatch(arn):
        return NO_ARN
    cluster_arn = arn.replace(":task/", ":cluster/").rpartition("/")[0]
    # Without the place itself, which may be any text: CloudWatch bills a metric for each reason.
    return reason_to_ignore(Task(arn, cluster_arn), *context.scope).partition(",")[0]


def read_whole(
    context: Context, flow_run_id: UUID, also: Sequence[Callable[[], Any]] = ()
) -> tuple[tuple[FlowRun, tuple[RunState, ...]] | None, list[Any]]:
    """Return the run and its history, the run's own state last; None for an unknown run.

    And what the calls of `also` return, which are made at the same time.
    """
    prefect = context.prefect
    reads = (prefect.read_history, prefect.read_run)
    calls = (*(partial(read, flow_run_id) for read in reads), *also)
    history, run, *others = context.gather(calls)
    if run and run.state.id in {state.id for state in history[:-1]}:
        run = prefect.read_run(flow_run_id)  # it moved on between the two
    if run is None:
        return None, others
    return (run, (*(s for s in history if s.id != run.state.id), run.state)), others


def has_other_task(context: Context, run: FlowRun, history: Sequence[RunState], task: Task) -> bool:
    """Whether `infrastructure_pid` names a later task, one that still runs, or this attempt's.

    A mere mismatch proves nothing: the worker notes the task after RunTask, and sometimes never.
    While another task lives, a rerun would run the flow twice: one that we cannot see is left.
    """
    noted_arn, where = noted_task(run)[1], elsewhere(context, run)
    if noted_arn in ("", task.arn) or where == NO_ARN:
        return noted_arn != task.arn and is_late(task, history)
    if where or is_late(task, history):
        return True
    noted = context.tasks.describe_many(noted_arn.split("/")[1], [noted_arn]).get(noted_arn)
    if isinstance(noted, Undescribed):
        return True
    if noted is not None and (not noted.exited or is_of_attempt(noted, run, history)):
        return True
    if noted is not None and noted.created_at is not None and task.created_at is not None:
        return noted.created_at > task.created_at
    last_seen = task.exited_at or task.updated_at or task.created_at
    return last_seen is None or context.now() - last_seen > FORGOTTEN_AFTER


def live_subflows(prefect: Prefect, parents: Sequence[UUID]) -> Iterator[FlowRun]:
    """Return the runs in these runs' processes that have not ended, theirs too, each once.

    A flow may call itself without end: they are followed with MOST_READS requests.
    """
    seen = set(parents)
    for _ in range(MOST_READS):
        if not parents:
            return
        children = prefect.find_live_children(parents[:MOST_PARENTS])
        new = {child.id: child for child in children if child.id not in seen}
        yield from new.values()
        seen |= new.keys()
        parents = [*parents[MOST_PARENTS:], *new]


def calls_for_remains(
    context: Context, run: FlowRun, history: Sequence[RunState], capacity: str
) -> list[Callable[[], Any]]:
    """Return the calls that read what a dead attempt left, and what its rerun needs in Prefect.

    `capacity`: the rerun's. They return the deployment, the pool's defaults (for FARGATE), and what
    `left_alive` does.
    """
    calls: list[Callable[[], Any]] = [lambda: None, dict, lambda: ((), ())]
    if run.deployment_id is not None:
        calls[0] = partial(context.prefect.read_deployment, run.deployment_id)
    if capacity == FARGATE:
        calls[1] = partial(context.prefect.read_pool_defaults, context.pool_of(run))
    if any(state.type is StateType.RUNNING for state in history):
        calls[2] = partial(left_alive, context, run.id)
    return calls


def left_alive(context: Context, run_id: UUID) -> tuple[tuple[FlowRun, ...], tuple[UUID, ...]]:
    """Return the live subflows, and the running task runs, that a dead attempt left.

    None where one of them cannot be read: the rerun of their run matters more.
    """

    def readable(find: Callable[[], Iterable[Any]]) -> tuple[Any, ...]:
        try:
            return tuple(find())
        except PrefectUnreadableError:
            said = "what the dead attempt left cannot be read"
            context.log.exception(said, flow_run_id=str(run_id))
            return ()

    find = context.prefect.find_task_runs_left
    task_runs, may_have_subflows = readable(lambda: find([run_id])) or ((), True)
    if not may_have_subflows:
        return (), task_runs
    subflows = readable(lambda: live_subflows(context.prefect, [run_id]))
    inner = readable(lambda: find([each.id for each in subflows])) if subflows else ()
    return subflows, (*task_runs, *(inner[0] if inner else ()))


def crash_task_runs(
    context: Context, ids: Sequence[UUID], message: str, log_keys: Mapping[str, str]
) -> None:
    """End what the dead container left RUNNING, as far as the time goes: the rerun matters."""
    crash = context.prefect.crash_task_run
    for start in range(0, len(ids), AT_ONCE):
        if context.seconds_left() < SECONDS_FOR_RERUN:
            context.log.info("no time to end all task runs", **log_keys)
            return
        some = ids[start : start + AT_ONCE]
        with suppress(PrefectRejectedError):  # it is gone
            context.gather([partial(crash, task_run, message) for task_run in some])
