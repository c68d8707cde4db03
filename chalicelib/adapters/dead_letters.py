"""How events come to our functions: EventBridge's rules and targets, Lambda's event-invoke config.

Rules are found by the function they lead to, whatever the deploying tool called them.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, cast

from botocore.exceptions import ClientError

from chalicelib.core.provision.dead_letters import (
    Delivery,
    InvokeConfig,
    PutInvokeConfig,
    PutTargets,
    Target,
)
from chalicelib.errors import LOOKS_AGAIN, OvertakenError

if TYPE_CHECKING:
    from mypy_boto3_events import EventBridgeClient
    from mypy_boto3_events.type_defs import TargetUnionTypeDef
    from mypy_boto3_lambda import LambdaClient

_UNKNOWN: Final = "ResourceNotFoundException"
_SOMEBODY_ELSES: Final = (_UNKNOWN, "ConcurrentModificationException", "ResourceConflictException")


class AwsDeliveries:
    """`core.provision.context.Deliveries` through boto3. Other errors of botocore's pass.

    `arn_prefix`: what a function's name is put behind, up to "…:function:".
    """

    def __init__(
        self, events: "EventBridgeClient", lambdas: "LambdaClient", arn_prefix: str
    ) -> None:
        self._events = events
        self._lambdas = lambdas
        self._arn_prefix = arn_prefix

    def read(self, function: str) -> Delivery:
        """Return how events come to the function; without rules when it is not deployed."""
        arn = f"{self._arn_prefix}{function}"
        rules = self._events.list_rule_names_by_target(TargetArn=arn)["RuleNames"]
        targets = {rule: self._targets(rule) for rule in rules}
        return Delivery(function, arn, targets, self._invoke_config(function) if rules else None)

    def put_targets(self, step: PutTargets) -> None:
        """Write the rule's targets. Raises OvertakenError when a deploy is at them."""
        targets = cast("list[TargetUnionTypeDef]", list(step.targets))
        try:
            answer = self._events.put_targets(Rule=step.rule, Targets=targets)
        except ClientError as error:
            raise _overtaken_or(error) from error
        if answer.get("FailedEntryCount"):
            failed = [
                f"{entry.get('ErrorCode')}: {entry.get('ErrorMessage')}"
                for entry in answer["FailedEntries"]
            ]
            raise OvertakenError(
                f"the targets of rule {step.rule} were not written: {'; '.join(failed)}",
                next_step=LOOKS_AGAIN,
            )

    def put_invoke_config(self, step: PutInvokeConfig) -> None:
        """Write the function's event-invoke config. Raises OvertakenError as above."""
        config = step.config
        try:
            self._lambdas.put_function_event_invoke_config(
                FunctionName=step.function,
                MaximumRetryAttempts=config.retries,
                MaximumEventAgeInSeconds=config.age_seconds,
                DestinationConfig={"OnFailure": {"Destination": config.on_failure}},
            )
        except ClientError as error:
            raise _overtaken_or(error) from error

    def _targets(self, rule: str) -> tuple[Target, ...]:
        targets: list[Any] = self._events.list_targets_by_rule(Rule=rule)["Targets"]
        return tuple(targets)

    def _invoke_config(self, function: str) -> InvokeConfig | None:
        try:
            answer: Mapping[str, Any] = self._lambdas.get_function_event_invoke_config(
                FunctionName=function
            )
        except ClientError as error:
            if error.response["Error"]["Code"] == _UNKNOWN:
                return None
            raise
        on_failure = answer.get("DestinationConfig", {}).get("OnFailure", {})
        return InvokeConfig(
            on_failure=on_failure.get("Destination", ""),
            retries=answer.get("MaximumRetryAttempts", -1),
            age_seconds=answer.get("MaximumEventAgeInSeconds", -1),
        )


def _overtaken_or(error: ClientError) -> Exception:
    if error.response["Error"]["Code"] in _SOMEBODY_ELSES:
        return OvertakenError(error.response["Error"]["Message"], next_step=LOOKS_AGAIN)
    return error
