"""Errors on the operator's side, and the next step of every error a command may meet."""

from collections.abc import Callable
from typing import TypeVar

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,  # noqa: A004  # botocore's
    HTTPClientError,
    NoCredentialsError,
    NoRegionError,
    ProfileNotFound,
)

from chalicelib.errors import PrefectSpotError, lacks_table

_DENIED = ("AccessDenied", "AccessDeniedException", "UnauthorizedOperation")
_EXPIRED = ("ExpiredToken", "ExpiredTokenException", "InvalidClientTokenId", "RequestExpired")

T = TypeVar("T")


class RefusedError(PrefectSpotError):
    """The command refuses its options, or what they name."""


def find(call: Callable[[], T], missing: type[Exception] | tuple[type[Exception], ...]) -> T | None:
    """Return what a call to AWS returns; None where it raises that the thing is `missing`."""
    try:
        return call()
    except missing:
        return None


def explain(error: Exception) -> tuple[str, str]:
    """Return what happened and the next step, each in one line.

    For our own errors, botocore's and OSError.
    """
    match error:
        case PrefectSpotError():
            return _line(error.what), error.next_step
        case NoRegionError():
            return "no AWS region is set", "pass --region, or set AWS_DEFAULT_REGION"
        case NoCredentialsError():
            return "no AWS credentials were found", "run aws configure, or aws sso login"
        case ProfileNotFound():
            return _line(error), "correct --profile or AWS_PROFILE"
        case ConnectionError() | HTTPClientError():
            return _line(error), "check the network, and AWS_ENDPOINT_URL if it is set"
        case ClientError():
            return _of_client_error(error)
        case BotoCoreError():
            return _line(error), "check your AWS configuration"
        case _:
            return _line(error), "correct the file or the address that the error names"


def _of_client_error(error: ClientError) -> tuple[str, str]:
    code = str(error.response.get("Error", {}).get("Code", ""))
    if code in _DENIED:
        return _line(error), f"allow your AWS identity {error.operation_name}"
    if code in _EXPIRED:
        return _line(error), "log in to AWS again"
    if lacks_table(error):
        return "the stage has no table yet", "run spotctl deploy"
    return _line(error), "read AWS's message; spotctl status shows the parts"


def _line(error: Exception | str) -> str:
    return " ".join(str(error).split())
