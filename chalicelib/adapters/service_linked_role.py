"""ECS's service-linked role: without it, an account's first cluster cannot be created.

Not in the stack: there is one per account, whoever made it, and it outlives the stack.
"""

from typing import TYPE_CHECKING, Final

from botocore.exceptions import ClientError

if TYPE_CHECKING:
    from mypy_boto3_iam import IAMClient

ROLE_NAME: Final = "AWSServiceRoleForECS"
SERVICE: Final = "ecs.amazonaws.com"


class EcsServiceLinkedRole:
    """`core.provision.context.ServiceLinkedRole` through boto3. Other errors of botocore's pass."""

    def __init__(self, client: "IAMClient") -> None:
        self._client = client

    def exists(self) -> bool:
        """Whether the account has it."""
        try:
            self._client.get_role(RoleName=ROLE_NAME)
        except ClientError as error:
            if error.response["Error"]["Code"] != "NoSuchEntity":
                raise
            return False
        return True

    def create(self) -> None:
        """Create it; one that is there already is as good."""
        try:
            self._client.create_service_linked_role(AWSServiceName=SERVICE)
        except ClientError as error:
            code = error.response["Error"]["Code"]
            # IAM says InvalidInput, "has been taken in this account".
            if code != "EntityAlreadyExists" and "has been taken" not in str(error):
                raise
