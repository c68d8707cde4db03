"""What `provision` reads and changes in AWS, by boto3. It decides nothing.

Two calls may work at once, or a deploy beside one. Where AWS answers that the other was first (the
stack exists, it is being updated, there is nothing to update), that is no failure of ours, but a
ConcurrentUpdateError. Other errors of botocore's pass: Lambda logs them, and the next call retries.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar, assert_never, cast

from botocore.exceptions import ClientError

from chalicelib.core.provision import model
from chalicelib.core.provision.concurrency import Concurrency
from chalicelib.core.provision.plan import Desired, Network, hash_of
from chalicelib.core.provision.problems import unnamed
from chalicelib.errors import (
    LOOKS_AGAIN,
    ConcurrencyError,
    ConcurrentUpdateError,
    NetworkError,
    ParameterError,
)

if TYPE_CHECKING:
    from mypy_boto3_cloudformation import CloudFormationClient
    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_ec2.type_defs import SubnetTypeDef
    from mypy_boto3_events import EventBridgeClient
    from mypy_boto3_iam import IAMClient
    from mypy_boto3_lambda import LambdaClient
    from mypy_boto3_logs import CloudWatchLogsClient
    from mypy_boto3_ssm import SSMClient

T = TypeVar("T")

_PUBLIC: Final = "PREFECT_CA_CERTIFICATE_PARAMETER"
_NO_STACK: Final = "does not exist"
_NOT_FOUND: Final = "ResourceNotFoundException"
_CONCURRENT: Final[Mapping[type, tuple[str, ...]]] = {
    model.CreateStack: ("AlreadyExistsException",),
    model.UpdateStack: ("No updates are to be", "IN_PROGRESS", "can not be updated", _NO_STACK),
    model.PutTargets: (_NOT_FOUND, "ConcurrentModificationException"),
    model.PutInvokeConfig: (_NOT_FOUND, "ResourceConflictException"),
    model.PutConcurrency: (_NOT_FOUND, "ResourceConflictException"),
    model.PutRetention: (_NOT_FOUND, "OperationAbortedException"),
}
"""By what AWS's refusal of a step says, in code or message, that another caller was first."""
_RENEW: Final = "run spotctl deploy, which writes the policies anew"
_QUOTA: Final = "ask for a higher quota (Service Quotas, AWS Lambda, Concurrent executions)"


@dataclass(frozen=True, slots=True)
class AwsAccount:
    """The account, by a client per service; `function_arn_prefix`: up to "…:function:"."""

    cloudformation: "CloudFormationClient"
    ec2: "EC2Client"
    events: "EventBridgeClient"
    iam: "IAMClient"
    lambdas: "LambdaClient"
    logs: "CloudWatchLogsClient"
    ssm: "SSMClient"
    function_arn_prefix: str

    def read_stack(self, name: str) -> model.Stack | None:
        """Return the stack as it is, with what failed in its last operation; None for none.

        One call for a stack that is complete, more for the history of one that failed.
        """
        read = partial(self.cloudformation.describe_stacks, StackName=name)
        if (answer := _none_where(read, _NO_STACK)) is None:
            return None
        stack = stack_of(answer["Stacks"][0])
        if stack.status in model.ROLLED_BACK:
            stack = replace(stack, template_hash=self._hash_of_template(stack.id))
        if "FAILED" in stack.status or "ROLLBACK" in stack.status:
            stack = replace(stack, failures=self._failures_of(stack.id) or unnamed(stack.name))
        return stack

    def _hash_of_template(self, stack_id: str) -> str:
        """Of the template that the stack was rolled back to."""
        template: Any = self.cloudformation.get_template(StackName=stack_id)["TemplateBody"]
        try:
            return hash_of(json.loads(template) if isinstance(template, str) else template)
        except ValueError:  # YAML, so not one of ours
            return ""

    def _failures_of(self, stack_id: str) -> tuple[str, ...]:
        """A further page of events is read only when those before it do not suffice."""
        paginator = self.cloudformation.get_paginator("describe_stack_events")
        return model.failures_in(paginator.paginate(StackName=stack_id).search("StackEvents[]"))

    def has_service_linked_role(self) -> bool:
        """Whether the account has ECS's role: one per account, which outlives the stack."""
        role = partial(self.iam.get_role, RoleName="AWSServiceRoleForECS")
        return _none_where(role, "NoSuchEntity") is not None

    def arn_of(self, setting: str, name: str) -> str:
        """Return the ARN of the SSM parameter that a setting names.

        Raises ParameterError: missing, or no SecureString, unless it may be public.
        """
        what = f"SSM parameter {name!r}, named by {setting},"
        store = f"aws ssm put-parameter --type SecureString --name {name} --value …"
        # Without decryption: what is returned of a SecureString is the cipher's text.
        read = partial(self.ssm.get_parameter, Name=name, WithDecryption=False)
        if (answer := _none_where(read, "ParameterNotFound")) is None:
            step = f"create it ({store}), or correct the setting"
            raise ParameterError(f"{what} does not exist in this region", step)
        found = answer["Parameter"]
        if found.get("Type") != "SecureString" and setting != _PUBLIC:
            raise ParameterError(
                f"{what} is a {found.get('Type')}: everybody who may read parameters can read it",
                next_step=f"delete it, and store a new one as a SecureString ({store})",
            )
        return found.get("ARN", "")

    def find_network(self, desired: Desired) -> Network:
        """Return VPC and subnets; empty ones are looked up: the default VPC, and its subnets.

        Where tasks get a public address, those of a VPC's subnets are taken that assign one
        (`MapPublicIpOnLaunch`), otherwise those that do not; all, where that leaves none.

        Raises NetworkError: no default VPC, no subnets, or subnets that do not fit.
        """
        if desired.subnet_ids:
            return self._named_network(desired.vpc_id, desired.subnet_ids)
        vpc_id = desired.vpc_id or self._default_vpc()
        pages = self.ec2.get_paginator("describe_subnets").paginate(
            Filters=[{"Name": "vpc-id", "Values": [vpc_id]}]
        )
        subnets = list(pages.search("Subnets[]"))
        if not subnets:
            raise NetworkError(
                f"VPC {vpc_id} has no subnets, or does not exist",
                next_step="correct VPC_ID, or name subnets in SUBNET_IDS",
            )
        is_public = desired.assign_public_ip
        fitting = [s for s in subnets if s.get("MapPublicIpOnLaunch") is is_public]
        return Network(vpc_id, _ids(fitting or subnets))

    def _named_network(self, vpc_id: str, subnet_ids: Sequence[str]) -> Network:
        setting = f"SUBNET_IDS is {','.join(subnet_ids)!r}"
        try:
            subnets = self.ec2.describe_subnets(SubnetIds=list(subnet_ids))["Subnets"]
        except ClientError as error:
            if not _says(error, "InvalidSubnetID", "InvalidSubnetId"):
                raise
            raise NetworkError(
                f"{setting}: {_message(error)}",
                next_step="name subnets of this account and region in SUBNET_IDS",
            ) from error
        vpcs = sorted({subnet.get("VpcId", "") for subnet in subnets})
        if len(vpcs) != 1 or vpc_id not in ("", vpcs[0]):
            raise NetworkError(
                f"{setting}, in {', '.join(vpcs)}; accepted: subnets of one VPC, {vpc_id or 'any'}",
                next_step="correct SUBNET_IDS, or VPC_ID",
            )
        return Network(vpcs[0], _ids(subnets))

    def _default_vpc(self) -> str:
        vpcs = self.ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"]
        if not vpcs:
            raise NetworkError(
                "this account has no default VPC in this region",
                next_step="set VPC_ID and SUBNET_IDS, or create a default VPC"
                " (aws ec2 create-default-vpc)",
            )
        return vpcs[0].get("VpcId", "")

    def read_delivery(self, function: str) -> model.Delivery:
        """Return the targets of a function's rule, as Chalice calls it, and its invoke config."""
        rule = f"{function}-event"
        answer = _none_where(partial(self.events.list_targets_by_rule, Rule=rule), _NOT_FOUND)
        targets: dict[str, Any] = {rule: tuple(answer["Targets"])} if answer else {}
        config = self._invoke_config(function) if targets else None
        return model.Delivery(function, f"{self.function_arn_prefix}{function}", targets, config)

    def _invoke_config(self, function: str) -> model.InvokeConfig | None:
        read = partial(self.lambdas.get_function_event_invoke_config, FunctionName=function)
        if (answer := _none_where(read, _NOT_FOUND)) is None:
            return None
        on_failure = answer.get("DestinationConfig", {}).get("OnFailure", {})
        return model.InvokeConfig(
            on_failure=on_failure.get("Destination", ""),
            retries=answer.get("MaximumRetryAttempts", -1),
            age_seconds=answer.get("MaximumEventAgeInSeconds", -1),
        )

    def read_concurrency(self, functions: Iterable[str]) -> Concurrency:
        """Return the account's concurrency, and what those functions have reserved.

        Raises ConcurrencyError, whatever AWS refuses: functions work without.
        """
        reserved = {}
        try:
            limit = self.lambdas.get_account_settings().get("AccountLimit", {})
            for name in functions:
                read = partial(self.lambdas.get_function_concurrency, FunctionName=name)
                if (answer := _none_where(read, _NOT_FOUND)) is not None:
                    reserved[name] = answer.get("ReservedConcurrentExecutions")
        except ClientError as error:
            what = f"no concurrency is reserved, since Lambda does not show it: {_message(error)}"
            raise ConcurrencyError(what, _RENEW) from error
        unreserved = limit.get("UnreservedConcurrentExecutions", 0)
        return Concurrency(limit.get("ConcurrentExecutions", 0), unreserved, reserved)

    def read_retentions(self, functions: Sequence[str]) -> Mapping[str, int | None]:
        """Return for how many days the functions' log groups are kept; None for ever.

        Lambda makes a group with a function's first call: until then there is none to keep.
        """
        groups = [f"/aws/lambda/{function}" for function in functions]
        paginate = self.logs.get_paginator("describe_log_groups").paginate
        found = {
            described["logGroupName"]: described.get("retentionInDays")
            for group in groups
            for described in paginate(logGroupNamePrefix=group).search("logGroups[]")
        }
        return {name: days for name, days in found.items() if name in groups}

    def perform(self, step: model.AwsStep) -> None:
        """Take a step; with the stack, begin it. Raises ConcurrentUpdateError, ConcurrencyError."""
        try:
            self._perform(step)
        except ClientError as error:
            if _says(error, *_CONCURRENT.get(type(step), ())):
                raise ConcurrentUpdateError(_message(error), next_step=LOOKS_AGAIN) from error
            if isinstance(step, model.PutConcurrency):
                what = f"{step.function} has no reserved concurrency: {_message(error)}"
                next_step = _RENEW if _says(error, "AccessDenied") else _QUOTA
                raise ConcurrencyError(what, next_step) from error
            raise

    def _perform(self, step: model.AwsStep) -> None:
        match step:
            case model.CreateServiceLinkedRole():
                create = self.iam.create_service_linked_role
                # Where it exists, IAM says InvalidInput, "has been taken in this account".
                signs = ("EntityAlreadyExists", "has been taken")
                _none_where(partial(create, AWSServiceName="ecs.amazonaws.com"), *signs)
            case model.CreateStack(definition):
                request = {"TimeoutInMinutes": model.CREATION_MINUTES, **_request(definition)}
                self.cloudformation.create_stack(StackName=definition.name, **request)
            case model.UpdateStack(stack_id, definition, _):
                self.cloudformation.update_stack(StackName=stack_id, **_request(definition))
            case model.DeleteStack(stack_id, _, _):
                self.cloudformation.delete_stack(StackName=stack_id)
            case model.PutTargets(rule, targets):
                self._put_targets(rule, targets)
            case model.PutInvokeConfig(function, config):
                on_failure = {"OnFailure": {"Destination": config.on_failure}}
                self.lambdas.put_function_event_invoke_config(
                    FunctionName=function,
                    MaximumRetryAttempts=config.retries,
                    MaximumEventAgeInSeconds=config.age_seconds,
                    DestinationConfig=cast("Any", on_failure if config.on_failure else {}),
                )
            case model.PutConcurrency(function, reserved):
                self.lambdas.put_function_concurrency(
                    FunctionName=function, ReservedConcurrentExecutions=reserved
                )
            case model.PutRetention(group, days):
                self.logs.put_retention_policy(logGroupName=group, retentionInDays=days)
            case _:
                assert_never(step)

    def _put_targets(self, rule: str, targets: Sequence[model.Target]) -> None:
        answer = self.events.put_targets(Rule=rule, Targets=cast("Any", targets))
        if answer.get("FailedEntryCount"):
            failed = "; ".join(
                f"{f.get('ErrorCode')}: {f.get('ErrorMessage')}" for f in answer["FailedEntries"]
            )
            raise ConcurrentUpdateError(
                f"the targets of rule {rule} were not written: {failed}", LOOKS_AGAIN
            )


def stack_of(described: Mapping[str, Any]) -> model.Stack:
    """Return the stack that CloudFormation describes so: without its failures."""
    tags = {tag["Key"]: tag["Value"] for tag in described.get("Tags", ())}
    parameters, outputs = described.get("Parameters", ()), described.get("Outputs", ())
    return model.Stack(
        id=described.get("StackId", described["StackName"]),
        name=described["StackName"],
        status=described["StackStatus"],
        template_hash=tags.get(model.TEMPLATE_TAG, ""),
        is_ours=model.TEMPLATE_TAG in tags,
        description=described.get("Description", ""),
        parameters={p.get("ParameterKey", ""): p.get("ParameterValue", "") for p in parameters},
        outputs={o.get("OutputKey", ""): o.get("OutputValue", "") for o in outputs},
    )


def _request(definition: model.StackDefinition) -> Any:
    parameters = definition.parameters.items()
    return {
        "TemplateBody": definition.template_body,
        "Parameters": [{"ParameterKey": n, "ParameterValue": value} for n, value in parameters],
        "Tags": [{"Key": model.TEMPLATE_TAG, "Value": definition.template_hash}],
        "Capabilities": ["CAPABILITY_NAMED_IAM"],
    }


def _ids(subnets: "Sequence[SubnetTypeDef]") -> tuple[str, ...]:
    """Sorted, so that EC2's order makes no difference to the stack."""
    return tuple(sorted(subnet["SubnetId"] for subnet in subnets if "SubnetId" in subnet))


def _message(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Message", ""))


def _says(error: ClientError, *signs: str) -> bool:
    """Whether its code or message has one of the signs in it; botocore's text has both."""
    return any(sign in str(error) for sign in signs)


def _none_where(call: Callable[[], T], *signs: str) -> T | None:
    """Return what AWS answers; None where it refuses with one of the signs."""
    try:
        return call()
    except ClientError as error:
        if _says(error, *signs):
            return None
        raise
