"""CloudFormation: the one stack, read whole and moved a step. It decides nothing.

Two calls may be at it together. What the later one is told then (it exists, it is being updated,
there is nothing to update) is no failure but somebody else's step.
"""

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import ClientError

from chalicelib.core.provision.plan import hash_of
from chalicelib.core.provision.stack import (
    ROLLED_BACK,
    TEMPLATE_TAG,
    Stack,
    StackEvent,
    StackFailure,
    failures_in,
)
from chalicelib.core.provision.steps import StackDefinition
from chalicelib.errors import LOOKS_AGAIN, OvertakenError

if TYPE_CHECKING:
    from mypy_boto3_cloudformation import CloudFormationClient
    from mypy_boto3_cloudformation.type_defs import ParameterTypeDef, StackTypeDef, TagTypeDef

_UNKNOWN: Final = "does not exist"
_SOMEBODY_ELSES: Final = ("No updates are to be performed", "IN_PROGRESS", "can not be updated")
_TELLS_OF_FAILURE: Final = ("FAILED", "ROLLBACK")


class CloudFormationStacks:
    """`core.provision.context.Stacks` through boto3. Other errors of botocore's pass."""

    def __init__(self, client: "CloudFormationClient") -> None:
        self._client = client

    def read(self, name: str) -> Stack | None:
        """Return the stack as it is, with what failed in its last operation; None for none.

        One call for a stack that stands, more for the history of one that failed.
        """
        try:
            described = self._client.describe_stacks(StackName=name)["Stacks"][0]
        except ClientError as error:
            if _UNKNOWN in _message(error):
                return None
            raise
        status = described["StackStatus"]
        tags = {tag["Key"]: tag["Value"] for tag in described.get("Tags", [])}
        stack_id = described.get("StackId", name)
        has_failed = any(word in status for word in _TELLS_OF_FAILURE)
        return Stack(
            id=stack_id,
            name=described["StackName"],
            status=status,
            template_hash=(
                self._hash_of_template(stack_id)
                if status in ROLLED_BACK
                else tags.get(TEMPLATE_TAG, "")
            ),
            is_ours=TEMPLATE_TAG in tags,
            parameters=_parameters(described),
            outputs={
                output["OutputKey"]: output["OutputValue"]
                for output in described.get("Outputs", [])
                if "OutputKey" in output and "OutputValue" in output
            },
            failures=self._failures(stack_id) if has_failed else (),
        )

    def create(self, definition: StackDefinition) -> None:
        """Begin to create it. Raises OvertakenError when it is there already."""
        try:
            self._client.create_stack(
                StackName=definition.name,
                TemplateBody=definition.template_body,
                Parameters=_told(definition),
                Tags=_tags(definition),
                Capabilities=["CAPABILITY_NAMED_IAM"],
            )
        except ClientError as error:
            if error.response["Error"]["Code"] == "AlreadyExistsException":
                raise OvertakenError(_message(error), next_step=LOOKS_AGAIN) from error
            raise

    def update(self, stack_id: str, definition: StackDefinition) -> None:
        """Begin to update it. Raises OvertakenError when that was done, or is being done."""
        try:
            self._client.update_stack(
                StackName=stack_id,
                TemplateBody=definition.template_body,
                Parameters=_told(definition),
                Tags=_tags(definition),
                Capabilities=["CAPABILITY_NAMED_IAM"],
            )
        except ClientError as error:
            if any(words in _message(error) for words in (*_SOMEBODY_ELSES, _UNKNOWN)):
                raise OvertakenError(_message(error), next_step=LOOKS_AGAIN) from error
            raise

    def delete(self, stack_id: str) -> None:
        """Begin to delete it; one that is being deleted, or is gone, is as good."""
        self._client.delete_stack(StackName=stack_id)

    def _hash_of_template(self, stack_id: str) -> str:
        """Of the template that the stack went back to."""
        template: Any = self._client.get_template(StackName=stack_id)["TemplateBody"]
        try:
            return hash_of(json.loads(template) if isinstance(template, str) else template)
        except ValueError:  # YAML, so not one of ours
            return ""

    def _failures(self, stack_id: str) -> tuple[StackFailure, ...]:
        return failures_in(self._events(stack_id))

    def _events(self, stack_id: str) -> Iterator[StackEvent]:
        """The newest first; further pages are asked for as far as they are wanted."""
        for page in self._client.get_paginator("describe_stack_events").paginate(
            StackName=stack_id
        ):
            for event in page["StackEvents"]:
                yield StackEvent(
                    resource=event.get("LogicalResourceId", ""),
                    resource_type=event.get("ResourceType", ""),
                    status=event.get("ResourceStatus", ""),
                    reason=event.get("ResourceStatusReason", ""),
                    is_whole=event.get("PhysicalResourceId") == event["StackId"],
                )


def _parameters(described: "StackTypeDef") -> dict[str, str]:
    return {
        parameter["ParameterKey"]: parameter.get("ParameterValue", "")
        for parameter in described.get("Parameters", [])
        if "ParameterKey" in parameter
    }


def _told(definition: StackDefinition) -> "list[ParameterTypeDef]":
    return [
        {"ParameterKey": name, "ParameterValue": value}
        for name, value in definition.parameters.items()
    ]


def _tags(definition: StackDefinition) -> "list[TagTypeDef]":
    return [{"Key": TEMPLATE_TAG, "Value": definition.template_hash}]


def _message(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Message", ""))
