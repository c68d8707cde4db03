"""Why an interruption of a run would not be answered, as far as it can be known. No I/O."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from chalicelib.core.model.ecs_task import FARGATE, FARGATE_SPOT, Task, reason_to_ignore
from chalicelib.core.model.flow_run import FlowRun
from chalicelib.core.model.policy import (
    Mode,
    Pause,
    Policy,
    other_pool,
    providers_of,
    reason_not_to_rerun,
    runs_on_fargate,
)

ECS_TYPES = ("ecs", "ecs:push")


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a run runs in. `variables`: all job variables that apply; `pool_type`: "" for unknown.

    `clusters`, `account` and `region` are the stage's.
    """

    policy: Policy
    clusters: Sequence[str]
    account: str
    region: str
    pool_type: str = ""
    variables: Mapping[str, Any] = field(default_factory=dict, hash=False)
    pause: Pause | None = None


def obstacles_of(run: FlowRun | None, tasks: Sequence[Task], s: Surroundings) -> Iterator[str]:
    """Yield every reason that is known; none for a run that would be rescued.

    `run` is None where Prefect does not know it; `tasks`: all of the run, not on Fargate too.
    """
    if s.pause is not None:
        yield f"the stage is {s.pause}"
    if s.policy.mode is Mode.OBSERVE:
        yield "MODE is observe: what would be done is recorded, and no run is changed"
    ignored = {reason_to_ignore(task, s.clusters, s.account, s.region) for task in tasks}
    yield from sorted(filter(None, ignored))
    if run is None:
        return
    if run.work_pool_name is None:
        yield "it has no work pool: no worker started it, and so no ECS task"
    elif why := other_pool(run.work_pool_name, s.policy.work_pools):
        yield f"{why}; WORK_POOL is {', '.join(s.policy.work_pools)}"
    elif s.pool_type and s.pool_type not in ECS_TYPES:
        yield f"its work pool is of type {s.pool_type}, not ecs"
    else:
        yield from _of_variables(s)
    if why := reason_not_to_rerun(run, s.policy.mode):
        yield why


def _of_variables(s: Surroundings) -> Iterator[str]:
    where = s.variables.get("launch_type") or FARGATE
    providers = providers_of(s.variables)
    if not runs_on_fargate(s.variables):
        found = ", ".join(providers) or where
        yield f"its job variables place it on {found}: only Fargate tasks are looked at"
    elif FARGATE_SPOT not in (providers or (where,)):
        yield "its job variables place it on FARGATE: on demand, Spot takes no task"
    cluster = str(s.variables.get("cluster") or "")
    if cluster and cluster.rpartition("/")[2] not in {c.rpartition("/")[2] for c in s.clusters}:
        yield f"its job variables name the cluster {cluster}, which is not in ECS_CLUSTER"
