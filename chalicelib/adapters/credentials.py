"""Prefect's credential, from an SSM SecureString to the Authorization header, and nowhere else.

`adapters/prefect_client.py` sends it, and asks for a fresh one when Prefect answers 401.
"""

import base64
import html
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, quote_plus

from botocore.exceptions import BotoCoreError, ClientError

from chalicelib.errors import RETRY_LATER, SecretUnreadableError

if TYPE_CHECKING:
    from mypy_boto3_ssm import SSMClient

CACHE_SECONDS: Final = 300.0
_NEXT_STEPS: Final = {
    "NotFound": "create it as a SecureString in this region, or correct the setting",
    "AccessDenied": "allow the function's role ssm:GetParameter on it,"
    " and set KMS_KEY_ARN when a key of your own encrypts it, then run spotctl deploy",
}
"""By a part of the code of AWS's error."""


@dataclass(frozen=True, slots=True)
class _Held:
    header: str = field(repr=False)
    until: float


class PrefectAuthorization:
    """The value of the Authorization header, kept in memory for five minutes. Thread-safe.

    Calling it with True reads SSM whatever the age of what is held. Otherwise a value that is out
    of date is used on when SSM fails, which it does when very many functions start at once.
    """

    def __init__(
        self,
        ssm: "SSMClient",
        *,
        api_key_parameter: str = "",
        auth_string_parameter: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Names of SSM parameters; both empty: requests carry no credential. `clock` in seconds."""
        self._ssm = ssm
        self._is_key = bool(api_key_parameter)
        self._parameter = api_key_parameter or auth_string_parameter
        self._clock = clock
        self._lock = threading.Lock()
        self._held: _Held | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._parameter!r})"

    def __call__(self, fresh: bool = False) -> str | None:
        """Return "Bearer <key>", "Basic <base64>", or None. Raises SecretUnreadableError."""
        if not self._parameter:
            return None
        with self._lock:
            held = None if fresh else self._held
            if held is not None and self._clock() < held.until:
                return held.header
            try:
                header = self._read()
            except SecretUnreadableError:
                if held is None:
                    raise
                header = held.header
            self._held = _Held(header, self._clock() + CACHE_SECONDS)
            return header

    def _read(self) -> str:
        kind = "KEY" if self._is_key else "AUTH_STRING"
        subject = f"SSM parameter {self._parameter!r}, named by PREFECT_API_{kind}_PARAMETER,"
        try:
            answer = self._ssm.get_parameter(Name=self._parameter, WithDecryption=True)
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", ""))
            step = next((text for part, text in _NEXT_STEPS.items() if part in code), RETRY_LATER)
            raise SecretUnreadableError(f"{subject} cannot be read ({code})", step) from error
        except BotoCoreError as error:
            what = f"{subject} cannot be read ({type(error).__name__})"
            step = "check the function's network path to SSM"
            raise SecretUnreadableError(what, step) from error
        try:
            return header_of(answer["Parameter"].get("Value", "").strip(), is_key=self._is_key)
        except ValueError as error:
            step = (
                f"store the {'API key' if self._is_key else 'auth string'} again, and nothing else"
            )
            raise SecretUnreadableError(f"{subject} {error}", step) from None


def header_of(credential: str, *, is_key: bool) -> str:
    """Return "Bearer <API key>", or "Basic <base64>" of the auth string.

    Raises ValueError: says what is wrong with the credential, without showing it. Sent all the
    same, http.client would refuse it by an error that shows the header.
    """
    if not credential.strip():
        raise ValueError("is empty")
    body = credential.strip()
    for part, where in ((credential.partition(body)[2], "at its end"), (credential, "in it")):
        if "\n" in part or "\r" in part:
            raise ValueError(f"has a line break {where}")
    if body != credential:
        raise ValueError("has a space at an end")
    if not credential.isprintable() or (is_key and not re.fullmatch("[!-~]+", credential)):
        raise ValueError("has characters that no credential has, such as a space or a quote")
    encoded = base64.b64encode(credential.encode()).decode()
    return f"Bearer {credential}" if is_key else f"Basic {encoded}"


def without(credential: str | None, text: str) -> str:
    """Return the text with *** for the header's value, in case a server or proxy sends it back.

    For its parts too: the API key, the auth string and the password in it; each plain, as `repr`,
    JSON and HTML show it, percent-encoded, and in base64.
    """
    if not credential or not text:
        return text
    scheme, _, value = credential.partition(" ")
    secrets = {credential, value}
    if scheme == "Basic":
        with suppress(ValueError):
            pair = base64.b64decode(value).decode()
            secrets |= {pair, pair.partition(":")[2]}
    long_enough = [form for secret in secrets for form in _forms(secret) if len(form) > 3]
    longest_first = sorted(set(long_enough), key=len, reverse=True)
    pattern = "|".join(map(re.escape, longest_first))
    return re.sub(pattern, "***", text, flags=re.IGNORECASE) if pattern else text


def _forms(secret: str) -> Iterator[str]:
    yield from (secret, repr(secret)[1:-1], json.dumps(secret)[1:-1], html.escape(secret))
    yield from (quote(secret), quote(secret, safe=""), quote_plus(secret))
    for user in ("", ":", "user:"):
        raw = f"{user}{secret}".encode()
        yield base64.b64encode(raw).decode().rstrip("=")
        yield base64.urlsafe_b64encode(raw).decode().rstrip("=")
