"""One drill, from its options to its verdict."""

from dataclasses import dataclass
from datetime import timedelta

from chalicelib.core.money.bill import SAMPLE_OF_DRILLS
from spotctl.context import Context
from spotctl.drill import target, watch
from spotctl.output import Exit, Output


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to interrupt: the task, a new run of a deployment, or of the sample flow; or any.

    `waiting`: how long the run may take to start, and to be rerun.
    """

    task: str
    start: str
    is_sample: bool
    waiting: timedelta


def run(context: Context, output: Output, wanted: Wanted, *, dry_run: bool, yes: bool) -> Exit:
    """Interrupt it and print what became of it; with `dry_run`, only what would be interrupted.

    It asks first, unless `yes`, or the drill starts its own sample flow. Raises RefusedError,
    botocore's errors and PrefectSpotError.
    """
    name = SAMPLE_OF_DRILLS if wanted.is_sample else wanted.start
    if name and dry_run:
        value = {"dry_run": True, "would_start": name}
        output.result(value, lambda: f"would start a run of {name}, and interrupt it")
        return Exit.OK
    if name:
        # Whether it can be started is known before the question; nothing is started before it.
        deployment = None if wanted.is_sample else target.read_deployment(context, name)
        what = f"a run of {name}, {context.about}, and interrupt it"
        if wanted.is_sample:
            output.progress(f"start {what}")
        else:
            output.confirm(f"Start {what}?", yes=yes)
        chosen = target.start(
            context, deployment or target.save_sample_flow(context), wanted.waiting
        )
    else:
        chosen = target.named(context, wanted.task) if wanted.task else target.pick(context)
    about = f"task {chosen.task.arn} of flow run {chosen.run.name} ({chosen.run.id})"
    if dry_run:
        would = target.about(context, chosen)
        lines = (
            f"would interrupt task {chosen.task.arn}",
            f"flow run: {chosen.run.name} ({chosen.run.id}), attempt {would['attempt']}",
            f"deployment: {would['deployment'] or 'none'}",
            f"counts as: {would['counts_as']}",
        )
        output.result({"dry_run": True, **would}, lambda: "\n".join(lines))
        return Exit.OK
    if not name:
        output.confirm(f"Interrupt {about}, {context.about}?", yes=yes)
    output.progress(f"interrupting {about}")
    drilled = watch.drill(context, chosen, wanted.waiting)
    watch.show_drill(drilled, output)
    return Exit.OK if drilled.passed else Exit.FAILED
