"""What moto 5.2.5 lacks, added to moto's own classes; each addition has its reason beside it.

`EmulatedAws` installs them once per process. ECS asks Fargate to run, stop and describe tasks, and
Lambda's Invoke asks the Lambda service, by the hooks that these connect; without hooks, both stay
as moto makes them.
"""

import copy
import json
import os
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from moto.awslambda import urls as lambda_urls
from moto.awslambda.models import LambdaFunction
from moto.awslambda.responses import LambdaResponse
from moto.core.responses import ActionResult, BaseResponse
from moto.dynamodb.models import DynamoDBBackend
from moto.dynamodb.models.dynamo_type import DynamoType
from moto.dynamodb.models.table import Table
from moto.dynamodb.responses import DynamoHandler
from moto.ecs.exceptions import InvalidParameterException
from moto.ecs.models import EC2ContainerServiceBackend, Task, TaskDefinition
from moto.ecs.responses import DESCRIBE_TASKS_TAGS, EC2ContainerServiceResponse
from moto.iam.models import SERVICE_NAME_CONVERSION
from moto.moto_api import state_manager
from moto.s3.models import FakeBucket
from moto.s3.responses import S3Response

NO_CAPACITY = (
    "Capacity is unavailable at this time. "
    "Please try again later or in a different availability zone"
)

LAMBDA_QUOTA = "MOTO_LAMBDA_CONCURRENCY_QUOTA"
"""An environment variable with the account's concurrent executions, read at each request; moto's
PutFunctionConcurrency obeys it. Without it 1,000 are shown, AWS's default, and any are reserved."""

Description = dict[str, Any]


@dataclass(frozen=True)
class EcsHooks:
    """How moto's ECS reaches what runs the tasks."""

    has_capacity: Callable[[str, Mapping[str, Any]], bool]
    place: Callable[[Task, TaskDefinition, str], None]
    stop: Callable[[Task, str | None], None]
    describe: Callable[[Task], Description]


@dataclass(frozen=True)
class LambdaAnswer:
    """What a function answered to a synchronous invocation; `failed`: with an error."""

    payload: object
    failed: bool = False


@dataclass(frozen=True)
class LambdaHooks:
    """How moto's Lambda reaches what runs the functions, by their names."""

    invoke: Callable[[str, object], LambdaAnswer]
    invoke_async: Callable[[str, object], object]


calls: set[tuple[str, str]] = set()
"""Who called what over HTTP: the access key's id, and service:Operation."""

requests: set[tuple[str, str, str]] = set()
"""The same, with S3's, and what each names, as JSON: of `NAMING` what it has, and a REST path."""

NAMING: Final = (
    *("TableName", "RequestItems", "TransactItems", "Name", "QueueUrl", "QueueName", "StackName"),
    *("RoleName", "Role", "Rule", "logGroupName", "cluster", "clusters", "tasks", "task"),
    *("services", "service", "taskDefinition", "family", "taskRoleArn", "executionRoleArn"),
    *("AWSServiceName", "logStreamName", "TopicArn"),
)

_hooks: EcsHooks | None = None
_lambda_hooks: LambdaHooks | None = None
_installed = False


def connect_ecs(hooks: EcsHooks | None) -> None:
    """Hand ECS's tasks to `hooks`, or with None back to moto."""
    global _hooks
    _hooks = hooks


def connect_lambda(hooks: LambdaHooks | None) -> None:
    """Hand invocations to `hooks`, or with None back to moto."""
    global _lambda_hooks
    _lambda_hooks = hooks


def install() -> None:
    """Add everything to moto's classes; a second call changes nothing."""
    global _installed
    # moto lets a task's state advance whenever it is described. Set every time, since moto's API
    # may have set it otherwise.
    state_manager.set_transition("ecs::task", {"progression": "manual", "times": 10**9})
    if _installed:
        return
    _installed = True
    _lock_dynamodb_requests()
    _keep_little_for_a_transactions_rollback()
    _record_each_call()
    ecs: Any = EC2ContainerServiceResponse
    ecs.run_task = _run_task
    ecs.stop_task = _stop_task
    ecs.describe_tasks = _describe_tasks
    SERVICE_NAME_CONVERSION["ecs"] = "ECS"  # else its role is called AWSServiceRoleForecs
    _leave_out_conditional_statements_of_bucket_policies()
    _hand_invocations_to_hooks()
    _show_lambdas_account_settings()


def run_tasks(
    backend: EC2ContainerServiceBackend, request: Mapping[str, Any]
) -> tuple[list[Task], list[dict[str, str]]]:
    """RunTask as ECS does it on Fargate: the tasks placed, and a failure for each one that was not.

    `request` has RunTask's parameters in AWS's spelling.

    Why moto's own is not enough: it takes the first provider of a strategy, never lacks capacity,
    starts nothing, and fails where AWS takes the VPC's default security group.
    """
    launch_type, strategy = request.get("launchType"), request.get("capacityProviderStrategy")
    if launch_type and strategy is not None:
        raise InvalidParameterException("Name a launch type or a strategy, not both.")
    if not launch_type and len(strategy or []) != 1:  # a cluster's own strategy is not emulated
        raise InvalidParameterException("Name a launch type or a strategy of one provider.")
    provider = strategy[0]["capacityProvider"] if strategy else None
    capacity, overrides = provider or launch_type or "", request.get("overrides") or {}
    if network := request.get("networkConfiguration"):
        network.get("awsvpcConfiguration", {}).setdefault("securityGroups", [])
    count = int(request.get("count", 1))
    if _hooks and not _hooks.has_capacity(capacity, overrides):
        return [], [{"reason": NO_CAPACITY}] * count
    tasks = backend.run_task(
        request.get("cluster", "default"),
        request["taskDefinition"],
        count,
        overrides,
        request.get("startedBy", ""),
        request.get("tags"),
        launch_type,
        network,
        request.get("group"),
        request.get("platformVersion"),
        [{"capacityProvider": provider}] if provider else None,
    )
    for task in tasks:
        task.launch_type = "FARGATE"  # on Spot too; moto leaves it empty there
        if _hooks:
            definition = backend.describe_task_definition(request["taskDefinition"])
            _hooks.place(task, definition, capacity)
    return tasks, []


def _run_task(self: EC2ContainerServiceResponse) -> ActionResult:
    tasks, failures = run_tasks(self.ecs_backend, json.loads(self.body))
    return ActionResult({"tasks": [_described(task) for task in tasks], "failures": failures})


def _stop_task(self: EC2ContainerServiceResponse) -> ActionResult:
    """As it comes, StopTask leaves the container running, and an unknown task is a 500."""
    cluster, reason = self._get_param("cluster", "default"), self._get_param("reason")
    task = _find(self.ecs_backend, cluster, self._get_param("task"))
    if task is None:
        raise InvalidParameterException("The referenced task was not found.")
    if _hooks:
        _hooks.stop(task, reason)
    else:
        self.ecs_backend.stop_task(cluster, task.task_arn, reason)
    return ActionResult({"task": _described(task)})


MOST_TASKS = 100
_IDENTIFIER = re.compile(r"(arn:[\w-]+:ecs:[\w-]+:\d{12}:task/([\w-]+/)?)?[\w-]{1,255}", re.ASCII)
"""What ECS takes for a task: its id, or an ARN. One that it does not take fails the whole call."""


def _describe_tasks(self: EC2ContainerServiceResponse) -> ActionResult:
    """As it comes, DescribeTasks knows few fields, looks into all clusters, and misses nothing.

    It also keeps "with tags or without" on a class, where two requests overwrite each other.
    """
    wanted, cluster = self._get_param("tasks", []), self._get_param("cluster", "default")
    if not wanted:
        raise InvalidParameterException("Tasks cannot be empty.")
    if len(wanted) > MOST_TASKS:
        raise InvalidParameterException(f"Tasks cannot have more than {MOST_TASKS} elements.")
    if not all(_IDENTIFIER.fullmatch(name) for name in wanted):
        raise InvalidParameterException("Identifiers are invalid.")
    found = {name: _find(self.ecs_backend, cluster, name) for name in wanted}
    descriptions = [_described(task) for task in found.values() if task]
    for description in descriptions:
        if isinstance(description, dict) and "TAGS" not in self._get_param("include", []):
            del description["tags"]
    self._include_in_response(DESCRIBE_TASKS_TAGS)
    missing = [{"arn": name, "reason": "MISSING"} for name, task in found.items() if not task]
    return ActionResult({"tasks": descriptions, "failures": missing})


def _described(task: Task) -> Any:
    return _hooks.describe(task) if _hooks else task


def _find(backend: EC2ContainerServiceBackend, cluster: str, id_or_arn: str) -> Task | None:
    tasks = list(backend.tasks.get(backend._get_cluster(cluster).name, {}).values())
    task_id = id_or_arn.split("/")[-1]
    return next((task for task in tasks if task.id == task_id), None)


def _leave_out_conditional_statements_of_bucket_policies() -> None:
    """As it comes, no condition is read: what is denied without TLS is denied always."""
    original = FakeBucket.get_permission

    def get_permission(self: FakeBucket, action: str, resource: str) -> Any:
        if self.policy is None:
            return original(self, action, resource)
        document = json.loads(self.policy)
        meant = [s for s in document["Statement"] if "Condition" not in s]
        for_now = copy.copy(self)
        for_now.policy = json.dumps({**document, "Statement": meant}).encode()
        return original(for_now, action, resource)

    FakeBucket.get_permission = get_permission  # type: ignore[method-assign]  # meant


def _record_each_call() -> None:
    """As it comes, moto keeps no record of who called what."""
    original, original_of_s3 = (
        BaseResponse.call_action,
        S3Response._authenticate_and_authorize_s3_action,
    )

    def call_action(self: BaseResponse) -> Any:
        who, service = _caller(self), str(self.service_name).removeprefix("aws")  # awslambda
        operation = f"{service}:{self._get_action()}"
        calls.add((who, operation))
        requests.add((who, operation, json.dumps(_named(self), sort_keys=True)))
        return original(self)

    def authorize(
        self: S3Response, bucket_name: str | None = None, key_name: str | None = None
    ) -> None:
        named = {"Bucket": bucket_name, "Key": key_name}
        requests.add((_caller(self), f"s3:{self._get_action()}", json.dumps(named)))
        original_of_s3(self, bucket_name, key_name)

    BaseResponse.call_action = call_action  # type: ignore[method-assign]  # meant
    S3Response._authenticate_and_authorize_s3_action = authorize  # type: ignore[assignment,method-assign]  # so here


def _caller(response: BaseResponse) -> str:
    found = re.search(r"Credential=([^/]+)/", response.headers.get("Authorization", ""))
    return found.group(1) if found else ""


def _named(response: BaseResponse) -> dict[str, Any]:
    found = {name: response._get_param(name) for name in NAMING}
    overrides = response._get_param("overrides") or {}
    found |= {name: overrides[name] for name in NAMING if name in overrides}
    found["path"] = unquote(urlsplit(response.uri).path)
    found["RequestItems"] = list(found["RequestItems"] or ())
    writes = found["TransactItems"] or ()
    found["TransactItems"] = [[op, it["TableName"]] for write in writes for op, it in write.items()]
    return {name: value for name, value in found.items() if value}


def _hand_invocations_to_hooks() -> None:
    """As it comes, Invoke wants Docker."""
    original: Any = LambdaFunction.invoke

    def invoke(self: LambdaFunction, body: str, request_headers: Any, answer_headers: Any) -> Any:
        if _lambda_hooks is None:
            return original(self, body, request_headers, answer_headers)
        event = json.loads(body) if body else {}
        if request_headers.get("X-Amz-Invocation-Type") == "Event":
            _lambda_hooks.invoke_async(self.function_name, event)
            return b""
        answer = _lambda_hooks.invoke(self.function_name, event)
        if answer.failed:
            answer_headers["x-amz-function-error"] = "Unhandled"
        return json.dumps(answer.payload).encode()

    LambdaFunction.invoke = invoke  # type: ignore[assignment,method-assign]  # meant


def _show_lambdas_account_settings() -> None:
    """As it comes, moto has no GetAccountSettings."""

    def get_account_settings(self: LambdaResponse) -> str:
        quota = int(os.environ.get(LAMBDA_QUOTA, "1000"))
        reserved = (int(each.reserved_concurrency or 0) for each in self.backend.list_functions())
        limit = {
            "ConcurrentExecutions": quota,
            "UnreservedConcurrentExecutions": quota - sum(reserved),
        }
        return json.dumps({"AccountLimit": limit})

    LambdaResponse.get_account_settings = get_account_settings  # type: ignore[attr-defined]  # new
    route = r"{0}/(?P<api_version>[^/]+)/account-settings/?$"
    lambda_urls.url_paths[route] = LambdaResponse.dispatch


def _lock_dynamodb_requests() -> None:
    """As it comes, there is no lock between check and write: two conditional puts can both win."""
    original = DynamoHandler._dispatch
    one_at_a_time = threading.RLock()

    def dispatch(self: DynamoHandler, *args: Any, **kwargs: Any) -> Any:
        with one_at_a_time:
            return original(self, *args, **kwargs)

    DynamoHandler._dispatch = dispatch  # type: ignore[assignment]  # a looser signature


def _keep_little_for_a_transactions_rollback() -> None:
    """As it comes, a transaction copies its whole table, once more for each of its writes."""
    original = DynamoDBBackend.transact_write_items

    def transact_write_items(self: DynamoDBBackend, transact_items: list[dict[str, Any]]) -> None:
        operations = [operation for item in transact_items for operation in item.values()]

        def copy_what_is_written(table: Table, _memo: object) -> Table:
            little = copy.copy(table)
            little.items = table.items.copy()
            for operation in operations:
                named = operation.get("Key") or operation.get("Item") or {}
                key = DynamoType(named.get(table.hash_key_attr, {"NULL": True}))
                if key in table.items:
                    little.items[key] = copy.deepcopy(table.items[key])
            return little

        # One request at a time comes here: see _lock_dynamodb_requests.
        Table.__deepcopy__ = copy_what_is_written  # type: ignore[attr-defined]  # moto has none
        try:
            original(self, transact_items)
        finally:
            del Table.__deepcopy__  # type: ignore[attr-defined]  # set above

    DynamoDBBackend.transact_write_items = transact_write_items  # type: ignore[method-assign]  # meant
