"""What the `provision` Lambda answers, as the operator reads it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from spotctl.context import Context
from spotctl.lambdas import invoke

FUNCTION: Final = "provision"

READY: Final = "ready"
OVER: Final = frozenset({READY, "blocked", "failed"})
"""States in which calling again changes nothing: all is well, or a person has to do something."""


@dataclass(frozen=True, slots=True)
class Provisioned:
    """Where provisioning stands. `state` is empty when the function itself failed."""

    state: str
    stack_status: str = ""
    steps: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def is_over(self) -> bool:
        """Whether calling again is of no use."""
        return self.state in OVER or not self.state


def provision(context: Context, *, dry_run: bool) -> Provisioned:
    """Let the function go one step, or with `dry_run` say what it would do.

    Raises botocore's errors.
    """
    name = context.project.function_name(FUNCTION)
    answer = invoke(context, name, json.dumps({"dry_run": dry_run}).encode())
    if answer.error or not isinstance(answer.value, Mapping):
        return Provisioned("", problems=(answer.error or "provision answered nothing",))
    value: Mapping[str, Any] = answer.value
    stack: Mapping[str, Any] = value.get("stack") or {}
    problems = [problem.get("message", "") for problem in value.get("problems") or ()]
    return Provisioned(
        state=str(value.get("state", "")),
        stack_status=str(stack.get("status", "")),
        steps=tuple(map(str, value.get("steps") or ())),
        problems=tuple(map(str, problems)),
    )
