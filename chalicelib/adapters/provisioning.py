"""What `provision` reads and changes in AWS, by boto3. It decides nothing.

Two calls may work at once, or a deploy beside one. Where AWS answers that the other was first (the
stack exists, it is being updated, there is nothing to update), that is no failure of ours, but a
ConcurrentUpdateError. Other errors of botocore's pass: Lambda logs them, and the next call retries.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from botocore.exceptions import ClientError

from chalicelib.core.provision.model import (
    ROLLED_BACK,
    TEMPLATE_TAG,
    Delivery,
    InvokeConfig,
    PutInvokeConfig,
    PutTargets,
    Stack,
    StackDefinition,
    Target,
    failures_in,
)
from chalicelib.core.provision.plan import Credential, Network, hash_of
from chalicelib.errors import LOOKS_AGAIN, ConcurrentUpdateError, NetworkError, ParameterError

if TYPE_CHECKING:
    from mypy_boto3_cloudformation import CloudFormationClient
    from mypy_boto3_cloudformation.type_defs import StackEventTypeDef
    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_ec2.type_defs import FilterTypeDef, SubnetTypeDef
    from mypy_boto3_events import EventBridgeClient
    from mypy_boto3_events.type_defs import TargetUnionTypeDef
    from mypy_boto3_iam import IAMClient
    from mypy_boto3_lambda import LambdaClient
    from mypy_boto3_ssm import SSMClient

_NO_STACK: Final = "does not exist"
_UPDATED_MEANWHILE: Final = (
    *("No updates are to be performed", "IN_PROGRESS", "can not be updated"),
    _NO_STACK,
)
_NOT_FOUND: Final = "ResourceNotFoundException"
_DEPLOYED_MEANWHILE: Final = frozenset(
    {_NOT_FOUND, "ConcurrentModificationException", "ResourceConflictException"}
)


@dataclass(frozen=True, slots=True)
class AwsAccount:
    """The account, by a client per service.

    `function_arn_prefix`: what a function's name is put behind, up to "…:function:".
    """

    cloudformation: "CloudFormationClient"
    ec2: "EC2Client"
    events: "EventBridgeClient"
    iam: "IAMClient"
    lambdas: "LambdaClient"
    ssm: "SSMClient"
    function_arn_prefix: str

    # The stack.

    def read_stack(self, name: str) -> Stack | None:
        """Return the stack as it is, with what failed in its last operation; None for none.

        One call for a stack that is complete, more for the history of one that failed.
        """
        try:
            described = self.cloudformation.describe_stacks(StackName=name)["Stacks"][0]
        except ClientError as error:
            if _NO_STACK in _message(error):
                return None
            raise
        status = described["StackStatus"]
        stack_id = described.get("StackId", name)
        tags = {tag["Key"]: tag["Value"] for tag in described.get("Tags", [])}
        template_hash = tags.get(TEMPLATE_TAG, "")
        if status in ROLLED_BACK:
            template_hash = self._hash_of_template(stack_id)
        has_failed = "FAILED" in status or "ROLLBACK" in status
        parameters, outputs = described.get("Parameters", []), described.get("Outputs", [])
        return Stack(
            id=stack_id,
            name=described["StackName"],
            status=status,
            template_hash=template_hash,
            is_ours=TEMPLATE_TAG in tags,
            parameters={p.get("ParameterKey", ""): p.get("ParameterValue", "") for p in parameters},
            outputs={o.get("OutputKey", ""): o.get("OutputValue", "") for o in outputs},
            failures=failures_in(self._events_of(stack_id)) if has_failed else (),
        )

    def create_stack(self, definition: StackDefinition) -> None:
        """Begin to create it. Raises ConcurrentUpdateError when it exists."""
        try:
            self.cloudformation.create_stack(StackName=definition.name, **_request(definition))
        except ClientError as error:
            if _code(error) == "AlreadyExistsException":
                raise _concurrent(error) from error
            raise

    def update_stack(self, stack_id: str, definition: StackDefinition) -> None:
        """Begin to update it. Raises ConcurrentUpdateError: it is up to date, or being changed."""
        try:
            self.cloudformation.update_stack(StackName=stack_id, **_request(definition))
        except ClientError as error:
            if any(words in _message(error) for words in _UPDATED_MEANWHILE):
                raise _concurrent(error) from error
            raise

    def delete_stack(self, stack_id: str) -> None:
        """Begin to delete it; no error where it is being deleted, or is gone."""
        self.cloudformation.delete_stack(StackName=stack_id)

    def _hash_of_template(self, stack_id: str) -> str:
        """Of the template that the stack was rolled back to."""
        template: Any = self.cloudformation.get_template(StackName=stack_id)["TemplateBody"]
        try:
            return hash_of(json.loads(template) if isinstance(template, str) else template)
        except ValueError:  # YAML, so not one of ours
            return ""

    def _events_of(self, stack_id: str) -> "Iterator[StackEventTypeDef]":
        """The newest first; a further page is read only when its events are."""
        paginator = self.cloudformation.get_paginator("describe_stack_events")
        for page in paginator.paginate(StackName=stack_id):
            yield from page["StackEvents"]

    # What the stack needs, and does not create.

    def has_service_linked_role(self) -> bool:
        """Whether the account has ECS's role: one per account, which outlives the stack."""
        try:
            self.iam.get_role(RoleName="AWSServiceRoleForECS")
        except ClientError as error:
            if _code(error) == "NoSuchEntity":
                return False
            raise
        return True

    def create_service_linked_role(self) -> None:
        """Create ECS's role; no error where it exists."""
        try:
            self.iam.create_service_linked_role(AWSServiceName="ecs.amazonaws.com")
        except ClientError as error:
            # IAM says InvalidInput, "has been taken in this account".
            if _code(error) != "EntityAlreadyExists" and "has been taken" not in _message(error):
                raise

    def arn_of(self, credential: Credential) -> str:
        """Return the SSM parameter's ARN. Raises ParameterError: missing, or no SecureString."""
        name = credential.parameter
        what = f"SSM parameter {name!r}, named by {credential.setting},"
        store = f"aws ssm put-parameter --type SecureString --name {name} --value …"
        try:
            # Without decryption: what is returned of a SecureString is the cipher's text.
            found = self.ssm.get_parameter(Name=name, WithDecryption=False)["Parameter"]
        except ClientError as error:
            if _code(error) != "ParameterNotFound":
                raise
            raise ParameterError(
                f"{what} does not exist in this region",
                next_step=f"create it ({store}), or correct the setting",
            ) from error
        if found.get("Type") != "SecureString":
            raise ParameterError(
                f"{what} is a {found.get('Type')}: everybody who may read parameters can read it",
                next_step="delete it, create a new credential, and store that as a SecureString"
                f" ({store})",
            )
        return found.get("ARN", "")

    def find_network(
        self, vpc_id: str, subnet_ids: Sequence[str], *, assign_public_ip: bool
    ) -> Network:
        """Return VPC and subnets; empty ones are looked up: the default VPC, and its subnets.

        Where tasks get a public address, those of a VPC's subnets are taken that assign one
        (`MapPublicIpOnLaunch`), otherwise those that do not; all, where that leaves none.

        Raises:
            NetworkError: no default VPC, no subnets, or subnets that do not fit.
        """
        if subnet_ids:
            return self._named_network(vpc_id, subnet_ids)
        vpc_id = vpc_id or self._default_vpc()
        of_vpc: list[FilterTypeDef] = [{"Name": "vpc-id", "Values": [vpc_id]}]
        pages = self.ec2.get_paginator("describe_subnets").paginate(Filters=of_vpc)
        subnets = [subnet for page in pages for subnet in page["Subnets"]]
        if not subnets:
            raise NetworkError(
                f"VPC {vpc_id} has no subnets, or does not exist",
                next_step="correct VPC_ID, or name subnets in SUBNET_IDS",
            )
        fitting = [s for s in subnets if s.get("MapPublicIpOnLaunch") is assign_public_ip]
        return Network(vpc_id, _ids(fitting or subnets))

    def _named_network(self, vpc_id: str, subnet_ids: Sequence[str]) -> Network:
        setting = f"SUBNET_IDS is {','.join(subnet_ids)!r}"
        try:
            subnets = self.ec2.describe_subnets(SubnetIds=list(subnet_ids))["Subnets"]
        except ClientError as error:
            if not _code(error).lower().startswith("invalidsubnetid"):
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

    # How events come to our functions.

    def read_delivery(self, function: str) -> Delivery:
        """Return a function's rules, by whatever name, and its event-invoke config."""
        arn = f"{self.function_arn_prefix}{function}"
        rules = self.events.list_rule_names_by_target(TargetArn=arn)["RuleNames"]
        targets = {rule: self._targets_of(rule) for rule in rules}
        return Delivery(function, arn, targets, self._invoke_config(function) if rules else None)

    def put_targets(self, step: PutTargets) -> None:
        """Write the rule's targets. Raises ConcurrentUpdateError when a deploy changes them."""
        targets = cast("list[TargetUnionTypeDef]", list(step.targets))
        try:
            answer = self.events.put_targets(Rule=step.rule, Targets=targets)
        except ClientError as error:
            raise _concurrent_deploy_or(error) from error
        if answer.get("FailedEntryCount"):
            failed = [
                f"{f.get('ErrorCode')}: {f.get('ErrorMessage')}" for f in answer["FailedEntries"]
            ]
            raise ConcurrentUpdateError(
                f"the targets of rule {step.rule} were not written: {'; '.join(failed)}",
                next_step=LOOKS_AGAIN,
            )

    def put_invoke_config(self, step: PutInvokeConfig) -> None:
        """Write the function's event-invoke config. Raises ConcurrentUpdateError as above."""
        config = step.config
        try:
            self.lambdas.put_function_event_invoke_config(
                FunctionName=step.function,
                MaximumRetryAttempts=config.retries,
                MaximumEventAgeInSeconds=config.age_seconds,
                DestinationConfig={"OnFailure": {"Destination": config.on_failure}},
            )
        except ClientError as error:
            raise _concurrent_deploy_or(error) from error

    def _targets_of(self, rule: str) -> tuple[Target, ...]:
        targets: list[Any] = self.events.list_targets_by_rule(Rule=rule)["Targets"]
        return tuple(targets)

    def _invoke_config(self, function: str) -> InvokeConfig | None:
        try:
            answer = self.lambdas.get_function_event_invoke_config(FunctionName=function)
        except ClientError as error:
            if _code(error) == _NOT_FOUND:
                return None
            raise
        on_failure = answer.get("DestinationConfig", {}).get("OnFailure", {})
        return InvokeConfig(
            on_failure=on_failure.get("Destination", ""),
            retries=answer.get("MaximumRetryAttempts", -1),
            age_seconds=answer.get("MaximumEventAgeInSeconds", -1),
        )


def _request(definition: StackDefinition) -> Any:
    parameters = definition.parameters.items()
    return {
        "TemplateBody": definition.template_body,
        "Parameters": [
            {"ParameterKey": name, "ParameterValue": value} for name, value in parameters
        ],
        "Tags": [{"Key": TEMPLATE_TAG, "Value": definition.template_hash}],
        "Capabilities": ["CAPABILITY_NAMED_IAM"],
    }


def _ids(subnets: "Sequence[SubnetTypeDef]") -> tuple[str, ...]:
    """Sorted, so that EC2's order makes no difference to the stack."""
    return tuple(sorted(subnet["SubnetId"] for subnet in subnets if "SubnetId" in subnet))


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _message(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Message", ""))


def _concurrent(error: ClientError) -> ConcurrentUpdateError:
    return ConcurrentUpdateError(_message(error), next_step=LOOKS_AGAIN)


def _concurrent_deploy_or(error: ClientError) -> Exception:
    return _concurrent(error) if _code(error) in _DEPLOYED_MEANWHILE else error
