"""`spotctl teardown`: deletes a stage, in an order in which nothing is created again or left over.

`provision` would create the stack anew, so it is held first; a bucket can be deleted only when it
is empty, a cluster only without tasks. It stops at the first step that fails, and can be run again.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from shlex import quote
from typing import Any, Final

from chalicelib.adapters.aws import EcsTasks
from chalicelib.adapters.provisioning import stack_of
from chalicelib.core.model.ecs_task import Task
from chalicelib.core.provision.pool_template import strangers_roles
from chalicelib.errors import PrefectSpotError
from spotctl.chalice_record import deployed, restore_record
from spotctl.context import Context
from spotctl.errors import RefusedError, find
from spotctl.output import (
    Exit,
    Output,
    Row,
    State,
    csv_of_rows,
    exit_of,
    failed,
    ok,
    table_of_rows,
    warning,
)
from spotctl.status.provisioning import FUNCTION
from spotctl.status.stack import WORKER_SERVICE, describe_stack

PAUSE_SECONDS: Final = 2.0
MOST_PAUSES: Final = 900
"""Half an hour for each thing that is waited for."""

_NEXT_STEP: Final = "fix it, then run spotctl teardown again"

STOP_REASON: Final = "spotctl teardown"


@dataclass(frozen=True, slots=True)
class Stack:
    """The stage's stack. `id` is empty where there is none, as are its bucket and cluster."""

    id: str = ""
    bucket: str = ""
    cluster: str = ""


def find_stack(context: Context) -> Stack:
    """Return the stage's stack, empty where there is none.

    Raises RefusedError: another stage or tool created the stack of that name. Also botocore's
    errors.
    """
    described = describe_stack(context)
    if described is None:
        return Stack()
    found = stack_of(described)
    if owner := found.owner_other_than(context.project.settings.stage):
        raise RefusedError(
            f"the stack {found.name} was created by {owner}, and is not touched",
            next_step="correct STACK_NAME",
        )
    cluster = "" if context.project.is_rescue_only else found.outputs.get("ClusterName", "")
    return Stack(found.id, found.outputs.get("ResultsBucket", ""), cluster)


def running_flows(context: Context, stack: Stack) -> list[Task]:
    """Return the tasks of flow runs in the stack's cluster that have not exited.

    Raises botocore's errors.
    """
    tasks = _tasks(context, stack.cluster) if stack.cluster else ()
    return [task for task in tasks if task.flow_run_id and not task.exited]


def teardown(context: Context, stack: Stack, *, work_pool: bool) -> Iterator[Row]:
    """Delete the stage; yield a row per step, and stop after one that failed.

    `work_pool`: delete that as well. Raises botocore's errors.
    """
    steps = (
        (_hold_provision, True),
        (_stop_worker, stack.cluster),
        (_stop_flows, stack.cluster),
        (_empty_bucket, stack.bucket),
        (_delete_stack, stack.id),
        (_delete_functions, True),
        (_delete_work_pool, work_pool),
    )
    for step in [step for step, applies in steps if applies]:
        row = step(context, stack)
        context.progress(f"{row.part}: {row.found}")
        yield row
        if row.state is State.FAILED:
            return


def what_stays(context: Context, *, work_pool: bool) -> list[str]:
    """Return what teardown leaves, each with why. `work_pool`: that was deleted.

    Raises botocore's errors.
    """
    settings, project = context.project.settings, context.project
    stays = [
        f"the SSM parameter {name}: you created it, others may use it"
        for name in settings.secrets.values()
    ]
    prefix = f"/aws/lambda/{project.function_name('')}"
    pages = context.aws.client("logs").get_paginator("describe_log_groups")
    groups = pages.paginate(logGroupNamePrefix=prefix).search("logGroups[].logGroupName")
    own = {f"{prefix}{name}" for name in project.functions}  # `prod-` begins `prod-eu-react` too
    stays += [f"the log group {group}: Lambda's own" for group in groups if group in own]
    if project.is_rescue_only:
        return stays
    if not work_pool:
        pools = ", ".join(settings.work_pools)
        stays.append(f"the work pool {pools}: it has your deployments (--delete-work-pool)")
    return [
        *stays,
        "the role AWSServiceRoleForECS: the account's, others may use it",
        "deregistered task definitions: ECS keeps them, and they cost nothing",
    ]


def plan_teardown(context: Context, stack: Stack, *, work_pool: bool) -> list[Row]:
    """Return a row for each step that `teardown` would take, in its order. Changes nothing.

    Raises botocore's errors.
    """
    flows = ", ".join(str(task.flow_run_id) for task in running_flows(context, stack)) or "none"
    names = ", ".join(each["name"] for each in deployed(context)) or "none"
    planned = (
        ("provision", "would be held, so that it creates nothing again", True),
        ("worker", "would be stopped", stack.cluster),
        ("flow runs", f"would be cancelled: {flows}", stack.cluster),
        (f"bucket {stack.bucket}", "would be emptied", stack.bucket),
        (f"stack {context.project.stack}", "would be deleted, with its table", stack.id),
        ("functions", f"would be deleted: {names}", True),
        (
            f"work pool {context.project.settings.work_pools[0]}",
            "would be deleted, with its deployments",
            work_pool,
        ),
    )
    return [ok(part, found) for part, found, applies in planned if applies]


def show_teardown(
    context: Context, output: Output, rows: list[Row], *, work_pool: bool, dry_run: bool
) -> Exit:
    """Print the rows, and what stays where none failed; return their exit code."""
    verdict = exit_of(rows)
    stays = what_stays(context, work_pool=work_pool) if verdict is Exit.OK else []
    title = f"{'Plan of the teardown' if dry_run else 'Teardown'} of {context.about}"
    output.result(
        {
            "stage": context.project.stage,
            "dry_run": dry_run,
            "ok": verdict is Exit.OK,
            "rows": rows,
            "stays": stays,
        },
        lambda: table_of_rows(title, rows, notes=[f"stays: {each}" for each in stays]),
        lambda: csv_of_rows(rows),
    )
    return verdict


def _hold_provision(context: Context, _stack: Stack) -> Row:
    name, client = context.project.function_name(FUNCTION), context.aws.client("lambda")
    held = find(
        lambda: client.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=0),
        client.exceptions.ResourceNotFoundException,
    )
    found = "held, by a reserved concurrency of 0" if held else "it is not deployed"
    return ok("provision", found)


def _stop_worker(context: Context, stack: Stack) -> Row:
    """Scale the service to 0, so that no further flow starts; the stack deletes the service."""
    ecs = context.aws.client("ecs")

    def running() -> int:
        found = ecs.describe_services(cluster=stack.cluster, services=[WORKER_SERVICE])["services"]
        return sum(int(service["runningCount"]) for service in found)

    errors = ecs.exceptions
    if not find(
        lambda: ecs.update_service(cluster=stack.cluster, service=WORKER_SERVICE, desiredCount=0),
        (
            errors.ServiceNotFoundException,
            errors.ServiceNotActiveException,
            errors.ClusterNotFoundException,
        ),
    ):
        return ok("worker", "there is none")
    context.progress("worker: stopping")
    if not _wait(context, lambda: running() == 0):
        return failed("worker", "it does not stop", "look at its tasks in ECS, then try again")
    return ok("worker", "stopped")


def _stop_flows(context: Context, stack: Stack) -> Row:
    """Stop all tasks, which keep a cluster from being deleted, and cancel their runs."""
    ecs = context.aws.client("ecs")
    tasks = running_flows(context, stack)
    if not tasks:
        return ok("flow runs", "none is running")
    for task in tasks:
        context.progress(f"flow runs: stopping {task.flow_run_id}")
        ecs.stop_task(cluster=stack.cluster, task=task.arn, reason=STOP_REASON)
    if not _wait(context, lambda: all(task.exited for task in _tasks(context, stack.cluster))):
        return failed("flow runs", "a task does not stop", "look at it in ECS, then try again")
    try:
        for task in tasks:
            run = context.prefect.runs.read_run(task.flow_run_id) if task.flow_run_id else None
            if run is not None and not run.state.is_final:
                context.prefect.cancel(run.id, "Cancelled: spotctl teardown stopped its task.")
    except PrefectSpotError as error:
        found = f"stopped, but not cancelled: {error.what}"
        return warning("flow runs", found, f"cancel them by hand; {error.next_step}")
    return ok("flow runs", f"{len(tasks)} were cancelled")


def _empty_bucket(context: Context, stack: Stack) -> Row:
    s3, part, deleted = context.aws.client("s3"), f"bucket {stack.bucket}", 0
    try:
        # Always the first page: a page's marker may be among the deleted objects.
        while keys := _versions(s3.list_object_versions(Bucket=stack.bucket)):
            answer = s3.delete_objects(Bucket=stack.bucket, Delete={"Objects": keys, "Quiet": True})
            if errors := answer.get("Errors"):
                found = f"S3 did not delete {errors[0]['Key']}: {errors[0]['Message']}"
                return failed(part, found, _NEXT_STEP)
            deleted += len(keys)
            context.progress(f"{part}: {deleted} objects are deleted")
    except s3.exceptions.NoSuchBucket:
        return ok(part, "it is gone already")
    return ok(part, f"emptied of {deleted} objects, their versions counted")


def _versions(page: Mapping[str, Any]) -> list[dict[str, str]]:
    found = [*page.get("Versions", ()), *page.get("DeleteMarkers", ())]
    return [{"Key": each["Key"], "VersionId": each["VersionId"]} for each in found]


def _delete_stack(context: Context, stack: Stack) -> Row:
    client, name = context.aws.client("cloudformation"), context.project.stack
    client.delete_stack(StackName=stack.id)
    status = ""

    def is_over() -> bool:
        nonlocal status
        # Only its id finds a deleted stack; its name might find another one, created since.
        found = client.describe_stacks(StackName=stack.id)["Stacks"][0]
        if found["StackStatus"] != status:
            status = found["StackStatus"]
            context.progress(f"stack {name}: {status}")
        return status in ("DELETE_COMPLETE", "DELETE_FAILED")

    finished = _wait(context, is_over)
    if status == "DELETE_COMPLETE":
        return ok(f"stack {name}", "deleted")
    why = _why(client, stack.id) if finished else "not finished after half an hour"
    return failed(f"stack {name}", f"{status}: {why}", _NEXT_STEP)


def _why(client: Any, stack_id: str) -> str:
    events = client.describe_stack_events(StackName=stack_id)["StackEvents"]
    failures = [
        f"{event['LogicalResourceId']}: {event.get('ResourceStatusReason', 'no reason')}"
        for event in events
        if event["ResourceStatus"] == "DELETE_FAILED" and event["PhysicalResourceId"] != stack_id
    ]
    return "; ".join(failures[:3]) or "CloudFormation gives no reason"


def _delete_functions(context: Context, _stack: Stack) -> Row:
    record = context.project.folder / ".chalice" / "deployed" / f"{context.project.stage}.json"
    restore_record(context, record)
    code = context.chalice("delete")
    if left := [each["name"] for each in deployed(context)]:
        found = f"chalice delete ended with exit code {code} and left {', '.join(left)}"
        return failed("functions", found, _NEXT_STEP)
    record.unlink(missing_ok=True)
    return ok("functions", "deleted, with their rules and roles")


def _delete_work_pool(context: Context, _stack: Stack) -> Row:
    [name], own = context.project.settings.work_pools, context.project.stack
    try:
        pool = context.prefect.work_pool(name)
        if pool is None:
            return ok(f"work pool {name}", "it is gone already")
        if roles := strangers_roles(pool.template, own):
            found = f"it is of another stack: it gives flows {', '.join(roles)}"
            return failed(f"work pool {name}", found, "correct WORK_POOL, or delete it in Prefect")
        context.prefect.delete_work_pool(name)
    except PrefectSpotError as error:
        step = f"prefect work-pool delete {quote(name)}; {error.next_step}"
        return failed(f"work pool {name}", error.what, step)
    return ok(f"work pool {name}", "deleted")


def _tasks(context: Context, cluster: str) -> list[Task]:
    ecs = context.aws.client("ecs")
    missing = ecs.exceptions.ClusterNotFoundException
    return find(lambda: list(EcsTasks(ecs).all_of(cluster)), missing) or []


def _wait(context: Context, is_done: Callable[[], bool]) -> bool:
    """Poll until it is done; False after half an hour."""
    for _ in range(MOST_PAUSES):
        if is_done():
            return True
        context.pause(PAUSE_SECONDS)
    return False
