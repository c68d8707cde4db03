"""ECS's tasks as it describes them, and metrics as CloudWatch reads them out of Lambda's log."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final, Literal

from botocore.exceptions import ClientError

from chalicelib.core.metrics import NAMESPACE, UNITS, Measured
from chalicelib.core.model.ecs_task import Ignored, Task, parse_task
from chalicelib.core.model.policy import pool_of_stage
from chalicelib.core.model.text import one_line
from chalicelib.core.ports import Undescribed
from chalicelib.errors import RETRY_LATER, ClusterGoneError, PrefectSpotError, concerns_all

if TYPE_CHECKING:
    from mypy_boto3_ecs import ECSClient

MOST_TASKS: Final = 100
"""How many tasks ECS describes, and lists, per call."""
_NO_CLUSTER: Final = "ClusterNotFoundException"
LONGEST_VALUE: Final = 250
"""Characters of a dimension's value. CloudWatch takes 1024, and did take 255 for long."""


class EcsTasks:
    """`core.ports.Tasks` through DescribeTasks and ListTasks.

    Every method raises whatever botocore raises, throttling included, after botocore's own retries.
    All but `describe_many` raise ClusterGoneError for an unknown cluster. `describe` and `all_of`
    raise PrefectSpotError when ECS says neither what a task is like nor that it is MISSING: a task
    that counted as forgotten by mistake would have its run started twice.
    """

    def __init__(self, client: "ECSClient") -> None:
        self._client = client

    def describe(self, cluster: str, task_arn: str) -> Task | None:
        """Return the task with its tags; None when ECS has forgotten it (after about an hour)."""
        return self._described(cluster, [task_arn]).get(task_arn)

    def describe_many(
        self, cluster: str, task_arns: Sequence[str]
    ) -> Mapping[str, Task | Undescribed]:
        """Return the tasks that ECS still knows, with tags, by ARN: one call per hundred.

        ECS refuses a request whole for one odd ARN: such a request is halved until that one stands
        alone, some 14 calls for one in a hundred.
        """
        wanted = list(dict.fromkeys(task_arns))
        tasks: dict[str, Task | Undescribed] = {}
        for start in range(0, len(wanted), MOST_TASKS):
            tasks |= self._describe(cluster, wanted[start : start + MOST_TASKS])
        return tasks

    def all_of(self, cluster: str) -> tuple[Task, ...]:
        """Return every task of the cluster; at most two calls per hundred tasks, and two more."""
        # In this order a task that stops meanwhile is listed twice; in the other, not at all. ECS
        # gives no task a third desired status.
        arns = [*self._list(cluster, "RUNNING"), *self._list(cluster, "STOPPED")]
        return tuple(self._described(cluster, arns).values())

    def stopped_of(self, cluster: str) -> tuple[Task | Undescribed, ...]:
        """Return the tasks stopped in the last hour, or being stopped, with tags."""
        found = self.describe_many(cluster, [*self._list(cluster, "STOPPED")])
        return tuple(t if isinstance(t, Task) else replace(t, arn=arn) for arn, t in found.items())

    def _describe(self, cluster: str, arns: Sequence[str]) -> dict[str, Task | Undescribed]:
        try:
            answer = self._client.describe_tasks(cluster=cluster, tasks=arns, include=["TAGS"])
        except ClientError as error:
            code = error.response["Error"]["Code"]
            if code == _NO_CLUSTER:
                return dict.fromkeys(arns, Undescribed("its cluster is not found"))
            if concerns_all(error):
                raise
            if len(arns) == 1:
                return {arns[0]: Undescribed(f"ECS refuses to describe its task: {code}")}
            half = len(arns) // 2
            return self._describe(cluster, arns[:half]) | self._describe(cluster, arns[half:])
        parsed = map(parse_task, answer["tasks"])
        found: dict[str, Task | Undescribed]
        found = {task.arn: task for task in parsed if not isinstance(task, Ignored)}
        reasons = {failure.get("arn"): failure.get("reason") for failure in answer["failures"]}
        for arn in arns:
            if arn not in found and reasons.get(arn) != "MISSING":
                why = reasons.get(arn) or "no reason given"
                found[arn] = Undescribed(f"ECS did not describe its task: {why}")
        return found

    def _described(self, cluster: str, arns: Sequence[str]) -> dict[str, Task]:
        tasks: dict[str, Task] = {}
        for arn, task in self.describe_many(cluster, arns).items():
            if isinstance(task, Undescribed):
                raise PrefectSpotError(f"{task.reason} (task {arn})", RETRY_LATER)
            tasks[arn] = task
        return tasks

    def _list(self, cluster: str, desired: Literal["RUNNING", "STOPPED"]) -> Iterator[str]:
        pages = self._client.get_paginator("list_tasks").paginate(
            cluster=cluster, desiredStatus=desired, PaginationConfig={"PageSize": MOST_TASKS}
        )
        try:
            for page in pages:
                yield from page["taskArns"]
        except ClientError as error:
            if error.response["Error"]["Code"] != _NO_CLUSTER:
                raise
            what = f"ECS cluster {cluster!r} is not found"
            raise ClusterGoneError(what, "create it or correct ECS_CLUSTER") from error


class EmfMetrics:
    """Prints values by stage and work pool; by reason too, where there is one.

    `by_deployment`: by deployment too, a series of each metric that CloudWatch charges for. With
    several work pools, all values are printed a second time, for `ALL_POOLS`: an alarm can read one
    series only. What is of no pool is printed for these alone.

    In CloudWatch's embedded metric format: one line on stdout each time; nothing is sent. Values
    are floats there; what is exact is the table.
    """

    def __init__(
        self, stage: str, work_pools: Sequence[str], *, by_deployment: bool = False
    ) -> None:
        self._by_deployment = by_deployment
        self._stage, self._pools = _value(stage), work_pools

    def measure(self, measured: Measured) -> None:
        """Print the values, a line for each work pool's series; nothing for none."""
        if not measured.values:
            return
        whole = pool_of_stage(self._pools)
        own = measured.work_pool if measured.work_pool in self._pools else whole
        for pool in {own: None, whole: None}:
            self._print(measured, pool, is_own=pool == own)

    def _print(self, measured: Measured, pool: str, *, is_own: bool) -> None:
        from aws_lambda_powertools.metrics import EphemeralMetrics  # `spotctl` does without

        metrics = EphemeralMetrics(namespace=NAMESPACE)
        metrics.service = ""  # else the variable POWERTOOLS_SERVICE_NAME adds a dimension
        dimensions = {"Stage": self._stage, "WorkPool": _value(pool)}
        for name, value in dimensions.items():
            metrics.add_dimension(name, value)
        if measured.deployment and self._by_deployment and is_own:
            metrics.add_dimensions(**dimensions, Deployment=_value(measured.deployment))
        if measured.reason:
            metrics.add_dimensions(**dimensions, Reason=_value(measured.reason))
        for metric, amount in measured.values.items():
            metrics.add_metric(metric.value, UNITS[metric], float(amount))
        metrics.flush_metrics()


def _value(text: str) -> str:
    """Return text from outside as CloudWatch takes it: ASCII, not empty, without leading colon."""
    ascii_only = one_line(text, LONGEST_VALUE).encode("ascii", "backslashreplace").decode()
    return ascii_only[:LONGEST_VALUE].lstrip(": ") or "-"
