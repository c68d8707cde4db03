"""What the user has set about reruns: by settings or a pause for all runs, by tags for one."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from hashlib import blake2b
from typing import Final, Literal
from uuid import UUID

from chalicelib.core.model.ecs_task import FARGATE, FARGATE_SPOT
from chalicelib.core.model.flow_run import FlowRun
from chalicelib.core.model.pricing import Rates
from chalicelib.core.model.text import one_line

SPOT_RETRIES_TAG: Final = "spot-retries:"
START_RETRIES_TAG: Final = "start-retries:"
DEADLINE_TAG: Final = "spot-deadline:"
OPT_IN_TAG: Final = "spot:rerun"
NEVER_RERUN_TAG: Final = "spot:never-rerun"
INTERRUPTED_TAG: Final = "spot-interrupted"
ON_DEMAND_TAG: Final = "spot-on-demand"
STRATEGY: Final = "capacity_provider_strategy"
"""The job variable with a capacity provider strategy, which wins over the launch type."""
ON_FARGATE: Final = {"capacityProvider": FARGATE, "weight": 1, "base": 0}
"""The strategy's item that a move names. Prefect refuses one without `base`, which prefect-aws's
template requires; 0 is what RunTask takes for none."""
AUTO: Final = "auto"
"""As a budget: the expected cost decides after each interruption, `core/policies/economics.py`."""
SpotRetries = int | Literal["auto"]
MOST_ON_SPOT: Final = 20
"""Interruptions of a run on Spot under `auto`, however cheap Spot is expected to be."""
BUDGET_WITHOUT_FACTS: Final = 3
"""The budget that `auto` is while a fact is missing."""
ALL_POOLS: Final = "<all>"
"""In metrics, all work pools of a stage that has several: Prefect takes no such name for one."""
MOST_TAGS: Final = 10
"""Of a kind, that a record keeps: of most kinds a decision reads the first."""
_DECIDING_TAG: Final = re.compile(
    rf"(?:{SPOT_RETRIES_TAG}|{START_RETRIES_TAG})[0-9]{{1,6}}|{SPOT_RETRIES_TAG}{AUTO}"
    rf"|{OPT_IN_TAG}|{NEVER_RERUN_TAG}|{DEADLINE_TAG}(?:[0-9]{{1,8}}[dhms]){{1,4}}"
)


class Mode(StrEnum):
    """Which runs are rerun: all that have a deployment, those tagged for it, or none."""

    RESCUE = "rescue"
    OPT_IN = "opt-in"
    OBSERVE = "observe"

    @property
    def ends_runs(self) -> bool:
        """Whether we end or rerun every run whose task is gone: then no other component has to."""
        return self is not Mode.OBSERVE


class Notify(StrEnum):
    """What messages are sent about; a message is about one of the first two."""

    MOVES = "moves"
    LOSSES = "losses"
    ALL = "all"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Pause:
    """Since when (UTC) a stage reacts to nothing, who paused it (an ARN), and why; or empty."""

    paused_at: datetime
    paused_by: str
    reason: str = ""

    def __str__(self) -> str:
        """Return all of it in words."""
        why = f": {self.reason}" if self.reason else ""
        return f"paused since {self.paused_at:%Y-%m-%d %H:%M} UTC by {self.paused_by}{why}"


@dataclass(frozen=True, slots=True)
class Policy:
    """The settings that decide about a rerun.

    `spot_retries`: interruptions before a run moves to FARGATE; `rerun_delay_seconds`: the wait
    before a rerun on Spot; `start_retries`: how often an attempt that failed to start is started
    again; `work_pools`: whose runs are ours, empty for any.
    """

    mode: Mode = Mode.RESCUE
    spot_retries: SpotRetries = 3
    start_retries: int = 2
    rerun_delay_seconds: int = 0
    rates: Rates = field(default_factory=dict, hash=False)
    work_pools: tuple[str, ...] = ()

    def rerun_delay(self, flow_run_id: UUID) -> timedelta:
        """Return the delay, and up to as much again by the run's id: many runs then spread out."""
        return timedelta(seconds=self.rerun_delay_seconds * (1 + _spread(flow_run_id)))


def _spread(flow_run_id: UUID) -> float:
    """Return a number from 0 to 1, always the same of a run."""
    return int.from_bytes(blake2b(flow_run_id.bytes, digest_size=2).digest()) / 0xFFFF


def start_delay(flow_run_id: UUID, number: int) -> timedelta:
    """Return the wait before an attempt that failed to start `number` times is started again.

    30, 60, then 120 seconds, and up to half as much again by the run's id.
    """
    seconds = min(30 * 2 ** (number - 1), 120)
    return timedelta(seconds=seconds * (1 + _spread(flow_run_id) / 2))


@dataclass(frozen=True, slots=True)
class Budget:
    """How many interruptions, or failed starts, a run may have; which tag or setting says so.

    `is_auto`: that is the most; below it, the expected cost decides.
    """

    allowed: int
    source: str
    is_auto: bool = False


def budget_of(tags: Iterable[str], own_retries: int | None, policy: Policy) -> Budget:
    """Return the run's budget: by its tag, else by the flow's own retries, else by the setting.

    A `spot-retries:` tag without `auto` or a number of at most six digits is ignored.
    """
    if (tagged := _tagged(tags, SPOT_RETRIES_TAG)) is not None:
        return tagged
    if own_retries is not None and own_retries > 0:
        return Budget(own_retries, f"the flow's own retries={own_retries}")
    return _budget(str(policy.spot_retries), f"SPOT_RETRIES={policy.spot_retries}")


def start_budget_of(tags: Iterable[str], policy: Policy) -> Budget:
    """Return how often an attempt that failed to start is started again; tags as `budget_of`."""
    setting = Budget(policy.start_retries, f"START_RETRIES={policy.start_retries}")
    return _tagged(tags, START_RETRIES_TAG) or setting


def unread_budgets(tags: Iterable[str]) -> list[str]:
    """Return the tags that name a budget of either kind in a form that is ignored."""
    kinds = (SPOT_RETRIES_TAG, START_RETRIES_TAG)
    return [tag for tag in tags if tag.startswith(kinds) and not _DECIDING_TAG.fullmatch(tag)]


def _tagged(tags: Iterable[str], prefix: str) -> Budget | None:
    for tag in tags:
        if tag.startswith(prefix) and _DECIDING_TAG.fullmatch(tag):
            return _budget(tag.removeprefix(prefix), f"tag {tag}")
    return None


def _budget(text: str, source: str) -> Budget:
    return Budget(MOST_ON_SPOT, source, True) if text == AUTO else Budget(int(text), source)


def deciding_tags(run: FlowRun) -> tuple[str, ...]:
    """Return those of the run's tags that a decision reads, a few of each: no foreign text."""
    found = filter(_DECIDING_TAG.fullmatch, run.tags)
    by_kind: dict[str, list[str]] = {}
    for tag in dict.fromkeys(found):
        by_kind.setdefault(tag.partition(":")[0], []).append(tag)
    return tuple(tag for tags in by_kind.values() for tag in tags[:MOST_TAGS])


def has_deadline_tag(tags: Iterable[str]) -> bool:
    """Whether a tag names a deadline, readable or not."""
    return any(tag.startswith(DEADLINE_TAG) for tag in tags)


def other_pool(work_pool: str | None, pools: Sequence[str]) -> str:
    """Return why a run of that work pool is not ours; empty: it is, or it has no pool."""
    if not (work_pool and pools) or work_pool in pools:
        return ""
    return f"the run is of another work pool, {one_line(work_pool)}"


def pool_of_stage(pools: Sequence[str]) -> str:
    """Return under which name metrics count all of a stage's runs: its only pool's, if any."""
    return pools[0] if len(pools) == 1 else ALL_POOLS


def reason_not_to_rerun(run: FlowRun, mode: Mode) -> str:
    """Return why this run is never rerun, whatever ends it; empty when it may be."""
    if run.deployment_id is None:
        return "it has no deployment, so Prefect cannot run it again"
    if NEVER_RERUN_TAG in run.tags:
        return f"it is tagged {NEVER_RERUN_TAG}"
    if mode is Mode.OPT_IN and OPT_IN_TAG not in run.tags:
        return f"MODE is opt-in and it is not tagged {OPT_IN_TAG}"
    return ""


def is_on_demand(run: FlowRun) -> bool:
    """Whether the run's own job variables put it on FARGATE, as a rescue or a user does."""
    is_fargate = run.job_variables.get("launch_type") == FARGATE
    return is_fargate and {*providers_of(run.job_variables)} <= {FARGATE}


def runs_on_fargate(job_variables: Mapping[str, object]) -> bool:
    """Whether a worker places a run with these job variables on Fargate, on Spot or not.

    `job_variables`: all that apply, the pool's defaults and the deployment's included.
    """
    launch_type = str(job_variables.get("launch_type") or FARGATE)
    return {*(providers_of(job_variables) or (launch_type,))} <= {FARGATE, FARGATE_SPOT}


def on_demand_variables(
    own: Mapping[str, object], *inherited: Mapping[str, object]
) -> dict[str, object]:
    """Return the run's job variables with FARGATE as launch type, all but its strategy kept.

    `own`: the run's job variables; `inherited`: those of its deployment, and its pool's defaults.
    RunTask refuses a launch type beside a strategy, an empty one perhaps too, so none is named
    unless one has to be displaced: the run's own, which wins over the launch type, or an inherited
    one, which is sent to RunTask beside the launch type even where it is empty or null. A worker
    sends no launch type beside a strategy that is not empty.
    """
    kept = {name: value for name, value in own.items() if name != STRATEGY}
    displaces = own.get(STRATEGY) or any(STRATEGY in variables for variables in inherited)
    return {**kept, "launch_type": FARGATE, **({STRATEGY: [dict(ON_FARGATE)]} if displaces else {})}


def providers_of(job_variables: Mapping[str, object]) -> tuple[str, ...]:
    """Return the capacity providers of the strategy; "?" for one that cannot be read."""
    strategy = job_variables.get(STRATEGY) or []
    items = strategy if isinstance(strategy, list | tuple) else [strategy]
    objects = [item if isinstance(item, Mapping) else {} for item in items]
    return tuple(
        str(item.get("capacityProvider") or item.get("capacity_provider") or "?")
        for item in objects
    )
