"""A drill's timeline, as people and programs read it."""

from datetime import datetime

from spotctl.drill.timeline import NEXT_STEPS, Progress, Step, failure
from spotctl.drill.watch import Drilled
from spotctl.output import Output, table_of


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
    steps = [(step, _seconds(began, step.at)) for step in drilled.steps]
    output.result(
        {
            "passed": drilled.passed,
            "flow_run": {"id": target.run.id, "name": target.run.name},
            "task": target.task.arn,
            "reaction_seconds": drilled.reaction_seconds,
            "steps": [
                {"step": s.name, "state": s.progress, "at": s.at, "seconds": at, "found": s.found}
                for s, at in steps
            ],
            "next_step": next_step,
        },
        lambda: table_of(
            f"Drill of flow run {target.run.name}: {verdict}",
            ("step", "state", "at", "seconds", "found"),
            [
                (s.name, s.progress, _clock(s.at), "" if at is None else f"{at:.1f}", s.found)
                for s, at in steps
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
    if broken := failure(drilled.steps):
        return f"failed at {broken.name}: {broken.found}", NEXT_STEPS[broken.name]
    waiting = next(step.name for step in drilled.steps if step.progress is Progress.WAITING)
    return f"not over in time: it waits for {waiting}", NEXT_STEPS[waiting]


def _clock(at: datetime | None) -> str:
    return f"{at:%H:%M:%S.%f}"[:-3] if at else ""


def _seconds(began: datetime | None, at: datetime | None) -> float | None:
    return None if began is None or at is None else round((at - began).total_seconds(), 2)
