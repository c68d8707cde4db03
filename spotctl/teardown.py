"""`spotctl teardown`: takes a stage down, in an order in which nothing comes back or is forgotten.

`provision` would make the stack anew, so it is kept from running first; a bucket is deleted only
when it is empty, a cluster only without tasks. It stops at the first step that fails, and can be
run again.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from chalicelib.adapters.ecs import EcsTasks
from chalicelib.core.model.ecs_task import Task
from chalicelib.core.model.flow_run import FINAL_STATES
from chalicelib.core.provision.model import TEMPLATE_TAG
from chalicelib.errors import PrefectSpotError
from spotctl.errors import RefusedError
from spotctl.provisioning import FUNCTION
from spotctl.rows import Row, State, failed, ok, warning
from spotctl.status.stack import WORKER_SERVICE, describe_stack
from spotctl.world import World

PAUSE_SECONDS: Final = 2.0
MOST_PAUSES: Final = 900
"""So half an hour for each thing that is waited for."""

_NEXT: Final = "fix that, then run spotctl teardown again"

STOP_REASON: Final = "spotctl teardown"

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Stack:
    """The stage's stack; `bucket` and `cluster` are empty where it has none."""

    id: str
    bucket: str
    cluster: str


def find_stack(world: World) -> Stack | None:
    """Return the stack, None when there is none.

    Raises:
        RefusedError: a stack of that name was not made by prefect-spot; also botocore's errors.
    """
    found = describe_stack(world)
    if found is None:
        return None
    if TEMPLATE_TAG not in {tag["Key"] for tag in found.get("Tags", ())}:
        raise RefusedError(
            f"stack {world.project.stack} was not made by prefect-spot, and is left alone",
            next_step="correct STACK_NAME",
        )
    outputs = {o["OutputKey"]: o["OutputValue"] for o in found.get("Outputs", ())}
    cluster = "" if world.project.is_rescue_only else outputs.get("ClusterName", "")
    return Stack(found["StackId"], outputs.get("ResultsBucket", ""), cluster)


def running_flows(world: World, stack: Stack | None) -> list[Task]:
    """Return the tasks of flow runs in the stack's cluster that have not exited."""
    if stack is None or not stack.cluster:
        return []
    return [task for task in _tasks(world, stack.cluster) if task.flow_run_id and not task.exited]


def teardown(world: World, stack: Stack | None, *, work_pool: bool, tell: Tell) -> Iterator[Row]:
    """Take the stage down; say of each step what became of it, and stop at one that failed.

    `work_pool`: delete that as well. Raises botocore's errors.
    """
    steps: list[Callable[[], Row]] = [lambda: _hold_provision(world)]
    if stack is not None and stack.cluster:
        steps += [
            lambda: _stop_worker(world, stack, tell),
            lambda: _stop_flows(world, stack, tell),
        ]
    if stack is not None and stack.bucket:
        steps.append(lambda: _empty_bucket(world.aws.client("s3"), stack.bucket, tell))
    if stack is not None:
        steps.append(lambda: _delete_stack(world, stack, tell))
    steps.append(lambda: _delete_functions(world, tell))
    if work_pool:
        steps.append(lambda: _delete_work_pool(world))
    for step in steps:
        row = step()
        tell(f"{row.part}: {row.found}")
        yield row
        if row.state is State.FAILED:
            return


def what_stays(world: World, *, work_pool: bool) -> list[str]:
    """Return what teardown leaves, each with why. Raises botocore's errors."""
    settings, project = world.project.settings, world.project
    stays = [
        f"the SSM parameter {name}: you made it, others may use it"
        for name in (settings.prefect_api_key_parameter, settings.prefect_api_auth_string_parameter)
        if name
    ]
    prefix = f"/aws/lambda/{project.app_name}-{project.stage}-"
    groups = world.aws.client("logs").describe_log_groups(logGroupNamePrefix=prefix)["logGroups"]
    stays += [f"the log group {group['logGroupName']}: Lambda's own" for group in groups]
    if project.is_rescue_only:
        return stays
    if not work_pool:
        stays.append(f"the work pool {settings.work_pool}: it has your deployments (--work-pool)")
    return [
        *stays,
        "the role AWSServiceRoleForECS: the account's, others may use it",
        "deregistered task definitions: ECS keeps them, and they cost nothing",
    ]


def _hold_provision(world: World) -> Row:
    name = world.project.function_name(FUNCTION)
    client = world.aws.client("lambda")
    try:
        client.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=0)
    except client.exceptions.ResourceNotFoundException:
        return ok("provision", "it is not deployed")
    return ok("provision", "kept from running")


def _stop_worker(world: World, stack: Stack, tell: Tell) -> Row:
    """Nobody is to start another flow; the service itself is the stack's to delete."""
    ecs = world.aws.client("ecs")

    def running() -> int:
        found = ecs.describe_services(cluster=stack.cluster, services=[WORKER_SERVICE])["services"]
        return sum(int(service["runningCount"]) for service in found)

    try:
        ecs.update_service(cluster=stack.cluster, service=WORKER_SERVICE, desiredCount=0)
    except (
        ecs.exceptions.ServiceNotFoundException,
        ecs.exceptions.ServiceNotActiveException,
        ecs.exceptions.ClusterNotFoundException,
    ):
        return ok("worker", "there is none")
    tell("worker: it stops")
    if not _wait(world, lambda: running() == 0):
        return failed("worker", "it does not stop", "look at its tasks in ECS, then try again")
    return ok("worker", "stopped")


def _stop_flows(world: World, stack: Stack, tell: Tell) -> Row:
    """A cluster with tasks cannot be deleted, and nobody would end their runs afterwards."""
    ecs = world.aws.client("ecs")
    tasks = running_flows(world, stack)
    if not tasks:
        return ok("flow runs", "none is running")
    for task in tasks:
        tell(f"flow runs: {task.flow_run_id} is stopped")
        ecs.stop_task(cluster=stack.cluster, task=task.arn, reason=STOP_REASON)
    if not _wait(world, lambda: not [t for t in _tasks(world, stack.cluster) if not t.exited]):
        return failed("flow runs", "a task does not stop", "look at it in ECS, then try again")
    try:
        for task in tasks:
            run = world.prefect.runs.read_run(task.flow_run_id) if task.flow_run_id else None
            if run is not None and run.state.type not in FINAL_STATES:
                world.prefect.cancel(run.id, "Cancelled: spotctl teardown stopped its task.")
    except PrefectSpotError as error:
        found = f"stopped, but not cancelled: {error.what}"
        return warning("flow runs", found, f"cancel them by hand; {error.next_step}")
    return ok("flow runs", f"{len(tasks)} were cancelled")


def _empty_bucket(s3: Any, bucket: str, tell: Tell) -> Row:
    part, deleted = f"bucket {bucket}", 0
    try:
        # From the beginning each time: the marker of a page may be gone with what was deleted.
        while keys := _versions(s3.list_object_versions(Bucket=bucket)):
            answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": keys, "Quiet": True})
            if errors := answer.get("Errors"):
                told = f"not all can be deleted: {errors[0]['Key']}: {errors[0]['Message']}"
                return failed(part, told, _NEXT)
            deleted += len(keys)
            tell(f"{part}: {deleted} objects are deleted")
    except s3.exceptions.NoSuchBucket:
        return ok(part, "it is gone already")
    return ok(part, f"emptied of {deleted} objects, their versions counted")


def _versions(page: Mapping[str, Any]) -> list[dict[str, str]]:
    found = [*page.get("Versions", ()), *page.get("DeleteMarkers", ())]
    return [{"Key": each["Key"], "VersionId": each["VersionId"]} for each in found]


def _delete_stack(world: World, stack: Stack, tell: Tell) -> Row:
    client, name = world.aws.client("cloudformation"), world.project.stack
    client.delete_stack(StackName=stack.id)
    told = ""

    def status() -> str:
        nonlocal told
        # By its id a deleted stack can still be described, by its name a successor might be.
        found = client.describe_stacks(StackName=stack.id)["Stacks"][0]
        if found["StackStatus"] != told:
            told = found["StackStatus"]
            tell(f"stack {name}: {told}")
        return told

    is_over = _wait(world, lambda: status() in ("DELETE_COMPLETE", "DELETE_FAILED"))
    if told == "DELETE_COMPLETE":
        return ok(f"stack {name}", "deleted")
    why = _why(client, stack.id) if is_over else "it is not over after half an hour"
    return failed(f"stack {name}", f"{told}: {why}", _NEXT)


def _why(client: Any, stack_id: str) -> str:
    events = client.describe_stack_events(StackName=stack_id)["StackEvents"]
    failures = [
        f"{event['LogicalResourceId']}: {event.get('ResourceStatusReason', 'no reason')}"
        for event in events
        if event["ResourceStatus"] == "DELETE_FAILED" and event["PhysicalResourceId"] != stack_id
    ]
    return "; ".join(failures[:3]) or "CloudFormation gives no reason"


def _delete_functions(world: World, tell: Tell) -> Row:
    project = world.project
    code = world.chalice("delete", tell)
    left = [n for n in map(project.function_name, project.functions) if _is_there(world, n)]
    if code == 0 and not left:
        return ok("functions", "deleted, with their rules and roles")
    deployed = project.folder / ".chalice" / "deployed" / f"{project.stage}.json"
    why = f"{', '.join(left)}: not known to {deployed}, it was deployed from elsewhere"
    if code:
        why = f"chalice delete ended with exit code {code}"
    step = f"run teardown where {deployed.name} is, or delete them by hand"
    return failed("functions", why, step)


def _is_there(world: World, function_name: str) -> bool:
    client = world.aws.client("lambda")
    try:
        client.get_function_configuration(FunctionName=function_name)
    except client.exceptions.ResourceNotFoundException:
        return False
    return True


def _delete_work_pool(world: World) -> Row:
    name = world.project.settings.work_pool
    try:
        if world.prefect.work_pool(name) is None:
            return ok(f"work pool {name}", "it is gone already")
        world.prefect.delete_work_pool(name)
    except PrefectSpotError as error:
        step = f"prefect work-pool delete {name}; {error.next_step}"
        return failed(f"work pool {name}", error.what, step)
    return ok(f"work pool {name}", "deleted")


def _tasks(world: World, cluster: str) -> list[Task]:
    ecs = world.aws.client("ecs")
    try:
        return list(EcsTasks(ecs).all_of(cluster))
    except ecs.exceptions.ClusterNotFoundException:
        return []


def _wait(world: World, is_done: Callable[[], bool]) -> bool:
    """Ask until it is done; False when half an hour is over."""
    for _ in range(MOST_PAUSES):
        if is_done():
            return True
        world.pause(PAUSE_SECONDS)
    return False
