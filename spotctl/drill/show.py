"""A drill's timeline, as people and programs read it."""

from datetime import datetime

from spotctl.drill.timeline import NEXT_STEPS, Progress, Step, failure
from spotctl.drill.watch import Drilled
from spotctl.render import Output, table_of


def line_of(step: Step, now: datetime) -> str:
    """Return a step's line, for while the drill goes on."""
    at = (step.at or now).strftime("%H:%M:%S")
    mark = "" if step.progress is Progress.DONE else f" {step.progress.value.upper()}"
    return f"  {at}  {step.name}{mark}  {step.found}".rstrip()


def show_drill(drilled: Drilled, output: Output) -> None:
    """Print the verdict and the timeline, with seconds since the stop was asked for."""
    target = drilled.target
    verdict, next_step = verdict_of(drilled)
    began = drilled.steps[0].at
    steps = [
        {
            "step": step.name,
            "state": step.progress.value,
            "at": step.at,
            "seconds": _seconds(began, step.at),
            "found": step.found,
        }
        for step in drilled.steps
    ]
    output.result(
        {
            "passed": drilled.passed,
            "flow_run": {"id": target.run.id, "name": target.run.name},
            "task": target.task.arn,
            "reaction_seconds": drilled.reaction_seconds,
            "steps": steps,
            "next_step": next_step,
        },
        lambda: table_of(
            f"Drill of flow run {target.run.name}: {verdict}",
            ("step", "state", "at", "seconds", "found"),
            [
                (
                    step.name,
                    step.progress.value,
                    step.at.strftime("%H:%M:%S.%f")[:-3] if step.at else "",
                    "" if (seconds := _seconds(began, step.at)) is None else f"{seconds:.1f}",
                    step.found,
                )
                for step in drilled.steps
            ],
        ),
    )
    if next_step:
        output.tell(f"next: {next_step}")


def verdict_of(drilled: Drilled) -> tuple[str, str]:
    """Return what came of it, in words, and what to do next (empty when it passed)."""
    if drilled.passed:
        seconds = drilled.reaction_seconds
        told = "" if seconds is None else f", due again {seconds:.2f} s after the container's exit"
        return f"passed{told}", ""
    broken = failure(drilled.steps)
    name = broken.name if broken else drilled.stuck_at
    step = NEXT_STEPS[name]
    if broken:
        return f"failed at {name}: {broken.found}", step
    return f"not over in time: it waits for {name}", step


def _seconds(began: datetime | None, at: datetime | None) -> float | None:
    return None if began is None or at is None else round((at - began).total_seconds(), 2)
