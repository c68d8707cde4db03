"""Everything that can go wrong for a known reason; each error carries its next step.

An error that a handler raises makes Lambda retry the event. What a retry cannot fix is not raised:
it is decided (`core/rescue/decide.py`), recorded and annotated.
"""

from datetime import datetime
from typing import Final

LAMBDA_RETRIES: Final = "none: Lambda retries the event"
"""The next step of an error that only a handler meets, and that a retry fixes."""
RETRY_LATER: Final = "wait: Lambda retries the event; run a spotctl command again"
"""The next step of a passing error that handlers and `spotctl` meet."""
NOT_PROVISIONED: Final = "not provisioned"
"""The `state` in the answer of a function that found no table, and so did nothing."""
LOOKS_AGAIN: Final = "none: the next call of provision reads the result"
"""The next step after a change that another caller makes, or has made."""


class PrefectSpotError(Exception):
    """Base of our errors: `what` happened, and the `next_step` for the reader, each one phrase.

    `str` returns both in one line: Lambda's failure record and `spotctl redrive` show that.
    """

    def __init__(self, what: str, next_step: str) -> None:
        super().__init__(what, next_step)
        self.what = what
        self.next_step = next_step

    def __str__(self) -> str:
        return f"{self.what.rstrip('.')}. Next step: {self.next_step}"


class SettingError(PrefectSpotError):
    """A setting is missing or wrong; the message names it, shows it and says what is accepted."""


class PrefectUnavailableError(PrefectSpotError):
    """Prefect gave no useful answer in time: connection error, 429, 5xx, or unreadable answer.

    Unless it is one of those below, a request that must not be repeated had no effect.
    """


class PrefectUnreadableError(PrefectUnavailableError):
    """Prefect failed over this request: 500, a time-out, or an answer too long, or unreadable.

    Where it answers others, something that this one asks for is the cause.
    """


class PrefectOutcomeUnknownError(PrefectUnavailableError):
    """The answer to a request that must not be repeated was lost: it may have taken effect."""


class PrefectTimeoutError(PrefectOutcomeUnknownError):
    """Prefect did not answer such a request in time: it may still take effect, later."""


class PrefectNotNowError(PrefectUnavailableError):
    """Prefect asked for more time than there is left, and is not asked again before it is over.

    `until` (UTC): when the next request may be sent; `lasts`: the invocation has to fail by it,
    since Prefect has refused for so long, or the event must not be lost.
    """

    def __init__(self, what: str, next_step: str, until: datetime, *, lasts: bool) -> None:
        super().__init__(what, next_step)
        self.until, self.lasts = until, lasts


class PrefectRefusedError(PrefectSpotError):
    """Prefect does not accept our credentials (401), or our CSRF token (403)."""


class PrefectForbiddenError(PrefectRefusedError):
    """Prefect knows the credential, which may not do that (403): a weak role, another workspace."""


class PrefectPlanError(PrefectRefusedError):
    """Prefect Cloud's plan does not include what was asked for (402, or its message says so)."""


class PrefectRejectedError(PrefectSpotError):
    """Prefect says that the request is wrong (another 4xx)."""


class PrefectAddressError(PrefectRejectedError):
    """There is no Prefect API at the address (404, 405, a redirect; 400 or 422 to a read)."""


class PrefectConflictError(PrefectRejectedError):
    """Prefect already has a thing of that name (409)."""


class LeaseHeldError(PrefectSpotError):
    """Another handler is at work on the same flow run; retryable."""


class LeaseLostError(PrefectSpotError):
    """Our lease expired while we worked: its new owner goes on, we stop."""


class ThrottledError(PrefectSpotError):
    """AWS did not do all that it was asked for; retryable."""


class ClusterGoneError(PrefectSpotError):
    """ECS knows no cluster of that name in our account and region."""


class UnsettledError(PrefectSpotError):
    """The state of a run, or the sums of a deployment, changed concurrently; retryable."""


class SecretUnreadableError(PrefectSpotError):
    """Prefect's credential cannot be read from SSM; the message names parameter and setting."""


class ParameterError(PrefectSpotError):
    """The SSM parameter is missing, or no SecureString; the message names it and the setting."""


class NetworkError(PrefectSpotError):
    """There is no VPC or subnet to run in; the message names the setting that says which."""


class WorkPoolError(PrefectSpotError):
    """The work pool is of another type than ecs, or missing where it is not ours to create."""


class ConcurrencyError(PrefectSpotError):
    """Lambda does not let us read or reserve concurrent executions; functions work without."""


class ConcurrentUpdateError(PrefectSpotError):
    """Another caller is making this change, or has made it; the next call reads the result."""


class NotProvisionedError(PrefectSpotError):
    """A problem keeps a scheduled call from provisioning; raised so that an alarm reports it."""


PASSING: Final = (
    LeaseHeldError,
    LeaseLostError,
    PrefectUnavailableError,
    ThrottledError,
    UnsettledError,
)
"""After these the next sweep tries again; any other keeps a run from being judged, or billed."""
_ABOUT_ONE: Final = {
    "ClientException",
    "InvalidParameterException",
    "ItemCollectionSizeLimitExceeded",
    "ItemCollectionSizeLimitExceededException",
    "SerializationException",
    "ValidationError",
    "ValidationException",
}


def aws_codes(error: Exception) -> frozenset[str]:
    """Return why AWS refused a request: of a cancelled transaction, the reasons of its items."""
    answer = getattr(error, "response", None) or {}
    codes = {reason.get("Code") for reason in answer.get("CancellationReasons", ())}
    return frozenset(codes - {None, "None"}) or frozenset({answer.get("Error", {}).get("Code", "")})


_OF_A_TABLE: Final = (
    *("GetItem", "BatchGetItem", "Scan", "PutItem", "UpdateItem", "TransactWriteItems"),
)


def lacks_table(error: Exception) -> bool:
    """Return whether DynamoDB knows no table of that name, or none that is active yet.

    Its API has ResourceNotFoundException for both.
    """
    code = getattr(error, "response", {}).get("Error", {}).get("Code")
    is_missing = code == "ResourceNotFoundException"
    return is_missing and getattr(error, "operation_name", "") in _OF_A_TABLE


def concerns_all(error: Exception) -> bool:
    """Return whether AWS or Prefect takes no request now: the next run meets it as well.

    PrefectNotNowError, and botocore's errors; False for what only the request at hand met, what
    botocore does not even send among it.
    """
    if isinstance(error, PrefectNotNowError):
        return True
    is_of_aws = type(error).__module__.startswith("botocore.")
    is_sent = type(error).__name__ != "ParamValidationError"
    return is_of_aws and is_sent and not aws_codes(error) <= _ABOUT_ONE
