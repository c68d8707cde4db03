"""Everything that can go wrong for a reason that we know, each with its next step.

An error that is raised out of a handler makes Lambda call it again. What cannot get better by
trying again is not raised: it is decided (`core/decide.py`), recorded and annotated.
"""


class PrefectSpotError(Exception):
    """Base of all errors of ours."""


class SettingError(PrefectSpotError):
    """A setting is missing or wrong; the message names it, shows it and says what is accepted."""


class PrefectUnavailableError(PrefectSpotError):
    """Prefect did not answer usefully in time: connection error, 429, 5xx, or cut answer."""


class PrefectSilentError(PrefectUnavailableError):
    """Prefect did not answer in time: what it was asked for may still take effect, later."""


class PrefectRefusedError(PrefectSpotError):
    """Prefect does not accept our credentials (401, 403)."""


class PrefectRejectedError(PrefectSpotError):
    """Prefect says that the request is wrong (another 4xx)."""


class PrefectConflictError(PrefectRejectedError):
    """Prefect has a thing of that name already (409)."""


class LeaseHeldError(PrefectSpotError):
    """Another handler is at work on the same flow run: to be called again."""


class LeaseLostError(PrefectSpotError):
    """Our lease ran out while we worked: whoever has it now goes on, we stop."""


class ThrottledError(PrefectSpotError):
    """AWS did not do all it was asked for, for now: to be called again."""


class UnsettledError(PrefectSpotError):
    """The run kept moving while we tried to rerun it: to be called again."""


class SecretUnreadableError(PrefectSpotError):
    """Prefect's credential cannot be read from SSM; the message names parameter and setting."""


class ParameterError(PrefectSpotError):
    """The SSM parameter is missing, or no SecureString; the message names it and the setting."""


class NetworkError(PrefectSpotError):
    """There is no VPC or subnet to run in; the message names the setting that says which."""


class WorkPoolError(PrefectSpotError):
    """The work pool is of another type than ecs, or missing where it is not ours to create."""


class OvertakenError(PrefectSpotError):
    """Somebody else is doing this very thing, or has done it: not to be done, but looked at."""


class NotProvisionedError(PrefectSpotError):
    """Something keeps a scheduled call from bringing all up: raised so that an alarm tells."""
