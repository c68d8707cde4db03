"""The answer of the `provision` Lambda: for a deploy, and as a dry run for the status.

The dry run changes nothing. It also shows whether the Lambdas reach Prefect, which this machine
cannot find out.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from spotctl.context import Context
from spotctl.errors import find
from spotctl.output import Row, failed, ok, warning

FUNCTION: Final = "provision"

READY: Final = "ready"
SETTLED: Final = frozenset({READY, "blocked", "failed"})
"""States that another call does not change: up to date, or waiting for a person."""


@dataclass(frozen=True, slots=True)
class Provisioned:
    """An answer of `provision`. `state` is empty where the function itself failed.

    `steps`: what it did, or in a dry run would do. `problems`: what keeps it from going on;
    `warnings`: what does not.
    """

    state: str
    steps: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def provision(context: Context, *, dry_run: bool) -> Provisioned:
    """Invoke `provision` once: it takes one step, or with `dry_run` only plans.

    Raises botocore's errors.
    """
    name = context.project.function_name(FUNCTION)
    answer = context.aws.invoke(name, {"dry_run": dry_run})
    if answer.error or not isinstance(answer.value, Mapping):
        return Provisioned("", problems=(answer.error or "provision returned nothing",))
    value: Mapping[str, Any] = answer.value
    return Provisioned(
        state=str(value.get("state", "")),
        steps=tuple(map(str, value.get("steps") or ())),
        problems=_messages(value, "problems"),
        warnings=_messages(value, "warnings"),
    )


def _messages(answer: Mapping[str, Any], kind: str) -> tuple[str, ...]:
    return tuple(str(each.get("message", "")) for each in answer.get(kind) or ())


def read(context: Context) -> Provisioned | None:
    """Return the function's plan; None where this stage has none. Raises botocore's errors."""
    if FUNCTION not in context.project.functions:
        return None
    missing = context.aws.client("lambda").exceptions.ResourceNotFoundException
    return find(lambda: provision(context, dry_run=True), missing)


def rows(found: Provisioned | None) -> list[Row]:
    """Judge the plan: it is ok without steps and problems; each warning is a row of its own."""
    if found is None:
        return []  # the handler's rows show that the function is missing
    step = "do what it says; provision continues by itself"
    warned = [warning("provision", each, step) for each in found.warnings]
    if found.problems:
        return [*(failed("provision", problem, step) for problem in found.problems), *warned]
    if found.state == READY:
        return [ok("provision", "up to date, and the Lambdas reach Prefect"), *warned]
    steps = "; ".join(found.steps) or "it waits for CloudFormation"
    row = warning("provision", f"{found.state}: {steps}", "wait, or run spotctl deploy")
    return [row, *warned]
