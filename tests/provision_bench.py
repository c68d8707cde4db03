"""`provision` before moto's AWS and Prefect's twin, every call to AWS on record."""

from contextlib import suppress
from functools import cache
from typing import Any, Literal, cast

import boto3
from botocore.exceptions import ClientError
from moto.backends import get_backend
from moto.dynamodb.models import dynamodb_backends

from chalicelib.adapters.provisioning import AwsAccount
from chalicelib.core.provision.model import ProvisionState
from chalicelib.core.provision.plan import Desired
from chalicelib.functions.provision import ProvisionContext, ProvisionReport, provision
from tests.laws.universe import Lines
from tests.provisioning import (
    ACCOUNT,
    FUNCTION_PREFIX,
    PARAMETER,
    REGION,
    STACK_NAME,
    bare_target,
    make_desired,
)
from tests.twin.work_pools import InMemoryWorkPools

READING = ("Describe", "Get", "List", "WorkPool.read", "WorkPool.server")
SERVICES = ("cloudformation", "ec2", "events", "iam", "lambda", "logs", "sqs", "ssm")


def empty_account() -> None:
    """Empty moto's account of what a bench leaves; `mock_aws` does not where it is nested."""
    for name in SERVICES:
        get_backend(cast("Literal['sqs']", name))[ACCOUNT].reset()
    dynamodb_backends[ACCOUNT][REGION].tables.pop(STACK_NAME, None)


class Pools(InMemoryWorkPools):
    """The twin's, each call on record beside those to AWS."""

    def __init__(self, record: list[str]) -> None:
        super().__init__()
        self._record = record

    def _called(self, method: str) -> None:
        self._record.append(f"WorkPool.{method}")
        super()._called(method)


class Bench:
    """An account with default VPC, Prefect's API key and deployed functions; nothing else.

    `calls` are the operations that `provision` has called, in order: at AWS, which is `mock_aws`,
    and at Prefect.
    """

    def __init__(self, desired: Desired | None = None) -> None:
        self.desired = desired or make_desired()
        self.calls: list[str] = []
        self.pools = Pools(self.calls)
        self.aws = {name: _client(name, 1) for name in SERVICES}
        self._seen = {name: _client(name, 2) for name in SERVICES}
        for seen in self._seen.values():
            seen.meta.events.unregister("before-call", unique_id="bench")
            seen.meta.events.register("before-call", self._record, unique_id="bench")

    def _record(self, model: Any, **_: Any) -> None:
        self.calls.append(model.name)

    @property
    def changes(self) -> list[str]:
        """What was called that changes anything, at AWS and at Prefect, in order."""
        return [call for call in self.calls if not call.startswith(READING)]

    def forget(self) -> None:
        self.calls.clear()
        self.pools.calls.clear()

    def context(self) -> ProvisionContext:
        seen = {name: client for name, client in self._seen.items() if name != "sqs"}
        lambdas = seen.pop("lambda")
        aws = AwsAccount(**seen, lambdas=lambdas, function_arn_prefix=FUNCTION_PREFIX)
        return ProvisionContext(self.desired, aws, self.pools, Lines())

    def provision(self, **event: Any) -> ProvisionReport:
        return provision(self.context(), event)

    def until_ready(self, most_calls: int = 8) -> list[ProvisionReport]:
        reports = [self.provision()]
        while reports[-1].state is not ProvisionState.READY:
            assert len(reports) < most_calls, reports[-1].summary
            reports.append(self.provision())
        return reports

    # What is there before, and what others do.

    def store_key(self, kind: str = "SecureString") -> None:
        self.aws["ssm"].put_parameter(
            Name=PARAMETER, Value="pnu_canary", Type=kind, Overwrite=kind != "String"
        )

    def deploy(self) -> None:
        """Do to functions, rules and targets what `chalice deploy` does."""
        with suppress(ClientError):  # it exists
            self.aws["iam"].create_role(RoleName="functions", AssumeRolePolicyDocument="{}")
        for function in self.desired.functions:
            with suppress(ClientError):  # it exists
                self.aws["lambda"].create_function(
                    FunctionName=function,
                    Runtime="python3.12",
                    Role=f"arn:aws:iam::{ACCOUNT}:role/functions",
                    Handler="app.handler",
                    Code={"ImageUri": "any"},
                    PackageType="Image",
                )
            self.aws["lambda"].delete_function_concurrency(FunctionName=function)
            rule = f"{function}-event"
            self.aws["events"].put_rule(Name=rule, ScheduleExpression="rate(5 minutes)")
            self.aws["events"].put_targets(Rule=rule, Targets=[bare_target(function)])

    def targets(self) -> list[dict[str, Any]]:
        events = self.aws["events"]
        rules = [rule["Name"] for rule in events.list_rules()["Rules"]]
        return [
            target for rule in rules for target in events.list_targets_by_rule(Rule=rule)["Targets"]
        ]

    def invoke_configs(self) -> dict[str, Any]:
        """Event-invoke configs by function, without what differs each time."""
        found = {}
        for function in self.desired.functions:
            answer = self.aws["lambda"].list_function_event_invoke_configs(FunctionName=function)
            for config in answer["FunctionEventInvokeConfigs"]:
                found[function] = {k: v for k, v in config.items() if k != "LastModified"}
        return found

    def reserved(self) -> dict[str, int | None]:
        read = self.aws["lambda"].get_function_concurrency
        return {
            function: read(FunctionName=function).get("ReservedConcurrentExecutions")
            for function in self.desired.functions
        }

    def log_groups(self) -> list[Any]:
        return list(self.aws["logs"].describe_log_groups()["logGroups"])

    def stack(self) -> dict[str, Any]:
        """The stack as CloudFormation describes it; empty for none."""
        stacks = self.aws["cloudformation"].describe_stacks()["Stacks"]
        return next((s for s in stacks if s["StackName"] == self.desired.stack_name), {})

    def end(self) -> Any:
        """What has to be the same however it came about."""
        stack = self.stack()
        return {
            "status": stack["StackStatus"].removeprefix("UPDATE_").removeprefix("CREATE_"),
            "tags": stack["Tags"],
            "parameters": sorted(
                (p["ParameterKey"], p["ParameterValue"]) for p in stack["Parameters"]
            ),
            "targets": self.targets(),
            "invoke configs": self.invoke_configs(),
            "reserved": self.reserved(),
            "pools": self.pools.pools,
            "roles": sorted(role["RoleName"] for role in self.aws["iam"].list_roles()["Roles"]),
        }


_SESSION = boto3.session.Session()


@cache
def _client(name: str, number: int) -> Any:
    """Kept for all benches: to make one costs more than what is done with it."""
    return _SESSION.client(  # type: ignore[call-overload]  # any service name
        name, REGION, aws_access_key_id="testing", aws_secret_access_key="testing"
    )
