"""What a decision is made of: one stopped task, its run, its record, and the user's policy."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Final

from chalicelib.core.model.ecs_task import FARGATE, Cause, Task, classify
from chalicelib.core.model.flow_run import FlowRun, RunState
from chalicelib.core.model.pricing import Rates
from chalicelib.core.model.run_record import RunRecord
from chalicelib.core.policies.facts import GuardFacts, GuardPolicy

SPOT_RETRIES_TAG: Final = "spot-retries:"
OPT_IN_TAG: Final = "spot:rerun"
NEVER_RERUN_TAG: Final = "spot:never-rerun"
_DECIDING_TAG: Final = re.compile(
    rf"{SPOT_RETRIES_TAG}[0-9]{{1,6}}|{OPT_IN_TAG}|{NEVER_RERUN_TAG}"
    r"|spot-deadline:(?:[0-9]{1,8}[dhms]){1,4}"
)
INTERRUPTED_TAG: Final = "spot-interrupted"
ON_DEMAND_TAG: Final = "spot-on-demand"


class Mode(StrEnum):
    """Who is rescued: everybody with a deployment, runs tagged for it, or nobody."""

    RESCUE = "rescue"
    OPT_IN = "opt-in"
    OBSERVE = "observe"


@dataclass(frozen=True, slots=True)
class Policy:
    """What the user has set. `rerun_delay_seconds` is the wait before a rerun on Spot."""

    mode: Mode = Mode.RESCUE
    spot_retries: int = 3
    rerun_delay_seconds: int = 0
    rates: Rates = field(default_factory=dict, hash=False)
    guards: GuardPolicy = field(default_factory=GuardPolicy)


@dataclass(frozen=True, slots=True)
class Budget:
    """Interruptions allowed on Spot, and who says so."""

    allowed: int
    source: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The truth at one moment, as ECS, Prefect and the table tell it.

    `newer_task`: the run's `infrastructure_pid` names a task created later than this one.
    `grace_over`: the fast path had its time; `no_live_task`: ECS was asked by tag, and has no task
    of this run that lives. Only `sweep` says either.
    `history` holds the run's states, oldest first, its present one last.
    `facts` is what the guards judge by, where some are on.
    """

    task: Task
    run: FlowRun
    history: tuple[RunState, ...]
    record: RunRecord
    policy: Policy
    now: datetime
    newer_task: bool = False
    grace_over: bool = False
    no_live_task: bool = False
    facts: GuardFacts = field(default_factory=GuardFacts)

    @property
    def cause(self) -> Cause:
        """Why the task stopped, with what is on record about it."""
        return classify(self.task, warned=self.record.warned_of(self.task.arn))

    def after(self, record: RunRecord) -> "Snapshot":
        """Return the same situation with another record."""
        return replace(self, record=record)


def budget_of(tags: Iterable[str], own_retries: int | None, policy: Policy) -> Budget:
    """Interruptions a run may suffer on Spot: its tag, else its own retries, else the setting.

    A tag without a number that makes sense is passed over.
    """
    for tag in tags:
        number = tag.removeprefix(SPOT_RETRIES_TAG)
        if number != tag and number.isascii() and number.isdigit() and len(number) <= 6:
            return Budget(int(number), f"tag {SPOT_RETRIES_TAG}{int(number)}")
    if own_retries is not None and own_retries > 0:
        return Budget(own_retries, f"the flow's own retries={own_retries}")
    return Budget(policy.spot_retries, f"SPOT_RETRIES={policy.spot_retries}")


def deciding_tags(run: FlowRun) -> tuple[str, ...]:
    """Return those of the run's tags that a decision can make sense of: no foreign text."""
    return tuple(tag for tag in run.tags if _DECIDING_TAG.fullmatch(tag))


def reason_not_to_rerun(run: FlowRun, mode: Mode) -> str:
    """Say why this run is not rerun whatever happens to it; empty when it may be."""
    if run.deployment_id is None:
        return "it has no deployment, so Prefect cannot run it again"
    if NEVER_RERUN_TAG in run.tags:
        return f"it is tagged {NEVER_RERUN_TAG}"
    if mode is Mode.OPT_IN and OPT_IN_TAG not in run.tags:
        return f"MODE is opt-in and it is not tagged {OPT_IN_TAG}"
    return ""


def is_on_demand(run: FlowRun) -> bool:
    """Whether the run's own variables put it on on-demand capacity, as a rescue or a user does."""
    return run.job_variables.get("launch_type") == FARGATE


def on_demand_variables(job_variables: Mapping[str, object]) -> dict[str, object]:
    """Return the job variables with on-demand capacity, all others kept.

    A capacity provider strategy would win over the launch type, so it is emptied.
    """
    return {**job_variables, "launch_type": FARGATE, "capacity_provider_strategy": []}
