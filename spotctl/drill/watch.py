"""Interrupts the target, polls how far its run has come, and shows it."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from shlex import quote
from uuid import UUID

from chalicelib.adapters.aws import EcsTasks
from chalicelib.adapters.records import RunTable
from chalicelib.core.model.ecs_task import DRILL_STOP_REASON, Ignored, Task, parse_task
from chalicelib.core.model.flow_run import StateType
from chalicelib.core.model.policy import Mode
from chalicelib.core.rescue.orphans import noted_task
from chalicelib.errors import PrefectUnavailableError
from spotctl.context import Context
from spotctl.drill.target import POLL_SECONDS, Target, newest_task
from spotctl.drill.timeline import (
    NEXT_STEPS,
    Progress,
    Seen,
    Step,
    by_time,
    failure,
    is_passed,
    reaction_seconds,
    timeline,
)
from spotctl.output import Output, table_of


@dataclass(frozen=True, slots=True)
class Drilled:
    """The result of a drill: what was interrupted, and what was seen last."""

    target: Target
    seen: Seen

    @property
    def steps(self) -> tuple[Step, ...]:
        """The timeline of what was seen."""
        return timeline(self.seen)

    @property
    def passed(self) -> bool:
        """Whether all steps are done."""
        return is_passed(self.steps)


def drill(context: Context, target: Target, timeout: timedelta) -> Drilled:
    """Interrupt the task, and follow its run until it runs again, failed, or timed out.

    Prints each step once it is done. Raises botocore's errors and PrefectSpotError.
    """
    ecs = context.aws.client("ecs")
    asked_at = context.now()
    ecs.stop_task(cluster=target.task.cluster_arn, task=target.task.arn, reason=DRILL_STOP_REASON)
    shown: set[str] = set()
    for seen in _poll(context, target, asked_at, asked_at + timeout):
        steps = timeline(seen)
        for step in by_time(steps):
            if step.progress is not Progress.WAITING and step.name not in shown:
                shown.add(step.name)
                context.progress(_line_of(step, context.now()))
        if is_passed(steps) or failure(steps):
            break
    if target.is_own_run and seen.is_observing:
        # In observe mode no handler ends the run that the drill started and interrupted.
        context.prefect.cancel(target.run.id, "Ended by spotctl drill, which had started it.")
    return Drilled(target, seen)


def show_drill(drilled: Drilled, output: Output) -> None:
    """Print verdict and timeline, each step with its seconds since StopTask.

    On a terminal, which has shown each step as it was done, the verdict alone.
    """
    target = drilled.target
    verdict, next_step = verdict_of(drilled)
    title = f"Drill of flow run {target.run.name}: {verdict}"
    since = {step: _seconds(drilled.seen.asked_at, step.at) for step in drilled.steps}
    lines = [
        (s.name, s.progress, _clock(s.at), "" if s.at is None else f"{since[s]:.1f}", s.found)
        for s in by_time(since)
    ]
    output.result(
        {
            "passed": drilled.passed,
            "flow_run": {"id": target.run.id, "name": target.run.name},
            "task": target.task.arn,
            "reaction_seconds": reaction_seconds(drilled.seen),
            "steps": [
                {"step": s.name, "state": s.progress, "at": s.at, "seconds": at, "found": s.found}
                for s, at in since.items()
            ],
            "next_step": next_step,
        },
        lambda: (
            title
            if output.is_watched
            else table_of(title, ("step", "state", "at", "seconds", "found"), lines)
        ),
    )
    if next_step:
        output.progress(f"next step: {next_step}")
    output.progress(f"the whole story: spotctl explain {quote(target.run.name)}")


def verdict_of(drilled: Drilled) -> tuple[str, str]:
    """Return the verdict in words, and the next step (empty where the drill passed)."""
    if drilled.passed:
        seconds = reaction_seconds(drilled.seen)
        due = "" if seconds is None else f", due again {seconds:.2f} s after the container's exit"
        return f"passed{due}", ""
    if broken := failure(drilled.steps):
        return f"failed at {broken.name}: {broken.found}", NEXT_STEPS[broken.name]
    waiting = next(step.name for step in drilled.steps if step.progress is Progress.WAITING)
    return f"timed out waiting for {waiting}", NEXT_STEPS[waiting]


def _poll(
    context: Context, target: Target, asked_at: datetime, ends_at: datetime
) -> Iterator[Seen]:
    """Look at least once, then until `ends_at`; a moment without Prefect is skipped."""
    seen = Seen(asked_at, target.task, is_observing=context.project.settings.mode is Mode.OBSERVE)
    while True:
        try:
            seen = _look(context, seen)
        except PrefectUnavailableError:
            if context.now() >= ends_at:
                raise
        yield seen
        if context.now() >= ends_at:
            return
        context.pause(POLL_SECONDS)


def _look(context: Context, before: Seen) -> Seen:
    ecs = context.aws.client("ecs")
    task, run_id = before.task, before.task.flow_run_id
    assert run_id is not None  # noqa: S101  # a target has one
    described = ecs.describe_tasks(cluster=task.cluster_arn, tasks=[task.arn], include=["TAGS"])
    stopping_at, newer = before.stopping_at, before.newer
    for raw in described["tasks"]:
        parsed = parse_task(raw)
        task = task if isinstance(parsed, Ignored) else parsed
        stopping_at = raw.get("stoppingAt") or stopping_at
    records = RunTable(context.aws.client("dynamodb"), context.project.stack, owner="spotctl")
    return replace(
        before,
        task=task,
        stopping_at=stopping_at,
        interruption=records.read(run_id).interruptions.get(task.arn),
        history=context.prefect.runs.read_history(run_id),
        newer=newer if newer and newer.started_at else _newer(context, task, run_id),
    )


def _newer(context: Context, task: Task, run_id: UUID) -> Task | None:
    """The run's next task: the one that the worker noted on the run, otherwise by its tag."""
    run = context.prefect.runs.read_run(run_id)
    cluster, arn = noted_task(run) if run else ("", "")
    if arn and arn != task.arn:
        return EcsTasks(context.aws.client("ecs")).describe(cluster or task.cluster_arn, arn)
    if run is None or run.state.type is not StateType.RUNNING:
        return None
    newest = newest_task(context, run.id)
    return newest if newest and newest.arn != task.arn else None


def _line_of(step: Step, now: datetime) -> str:
    mark = "" if step.progress is Progress.DONE else f" {step.progress.value.upper()}"
    return f"  {step.at or now:%H:%M:%S}  {step.name}{mark}  {step.found}".rstrip()


def _clock(at: datetime | None) -> str:
    return f"{at:%H:%M:%S.%f}"[:-3] if at else ""


def _seconds(began: datetime, at: datetime | None) -> float | None:
    return None if at is None else round((at - began).total_seconds(), 2)
