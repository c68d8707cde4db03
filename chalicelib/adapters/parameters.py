"""Whether an SSM parameter is there and is a SecureString; its value is not decrypted."""

from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from chalicelib.core.provision.plan import Credential
from chalicelib.errors import ParameterError

if TYPE_CHECKING:
    from mypy_boto3_ssm import SSMClient


class SsmParameters:
    """`core.provision.context.Parameters` through boto3. Other errors of botocore's pass."""

    def __init__(self, client: "SSMClient") -> None:
        self._client = client

    def arn_of(self, credential: Credential) -> str:
        """Return the parameter's ARN. Raises ParameterError: it is missing, or no SecureString."""
        name, setting = credential.parameter, credential.setting
        store = f"aws ssm put-parameter --type SecureString --name {name} --value …"
        try:
            # Asked without decryption: what comes back of a SecureString is the cipher's text.
            answer = self._client.get_parameter(Name=name, WithDecryption=False)
        except ClientError as error:
            if error.response["Error"]["Code"] != "ParameterNotFound":
                raise
            raise ParameterError(
                f"SSM parameter {name!r}, named by {setting}, does not exist in this region",
                next_step=f"create it ({store}), or correct the setting",
            ) from error
        kind = answer["Parameter"].get("Type")
        if kind != "SecureString":
            raise ParameterError(
                f"SSM parameter {name!r}, named by {setting}, is a {kind}: everybody who may read"
                " parameters can read it",
                next_step="delete it, create a new credential, and store that as a SecureString"
                f" ({store})",
            )
        return answer["Parameter"].get("ARN", "")
