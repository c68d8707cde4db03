"""What lets us in, from SSM parameters into requests to Prefect, and nowhere else.

Prefect's credential, the headers that a proxy before it asks for, and whose certificates to trust.
`adapters/prefect_client.py` uses them, and asks for fresh ones where they are refused.
"""

import base64
import html
import json
import re
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar
from urllib.parse import quote, quote_plus

from botocore.exceptions import BotoCoreError, ClientError

from chalicelib.errors import RETRY_LATER, SecretUnreadableError

if TYPE_CHECKING:
    from mypy_boto3_ssm import SSMClient

T = TypeVar("T")

CACHE_SECONDS: Final = 300.0
_OURS: Final = frozenset(
    (
        *("accept", "accept-encoding", "connection", "content-encoding", "content-length"),
        *("content-type", "expect", "host", "keep-alive", "prefect-csrf-client"),
        *("prefect-csrf-token", "te", "trailer", "transfer-encoding", "upgrade", "user-agent"),
        "x-prefect-api-version",
    )
)
"""Headers without whose own value a request is another, or none; Prefect's client ignores some."""
_NEXT_STEPS: Final = {
    "NotFound": "create it as a SecureString in this region, or correct the setting",
    "AccessDenied": "allow the function's role ssm:GetParameter on it,"
    " and set KMS_KEY_ARN when a key of your own encrypts it, then run spotctl deploy",
}
"""By a part of the code of AWS's error."""


@dataclass(frozen=True, slots=True)
class _Held(Generic[T]):
    text: str = field(repr=False)
    value: T = field(repr=False)
    until: float


class Parameter(Generic[T]):
    """What an SSM parameter holds, kept in memory for five minutes. Thread-safe.

    Calling it with True reads SSM whatever the age of what is held. Otherwise a value that is out
    of date is used on when SSM fails, which it does when very many functions start at once. The
    value stays the same object as long as the parameter holds the same.
    """

    def __init__(
        self,
        ssm: "SSMClient",
        name: str,
        setting: str,
        read: Callable[[str], T],
        wanted: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`read` raises ValueError, which says what is wrong and does not show it.

        `name`: empty: there is none, and `read` gets an empty text. `setting`: what names it.
        `wanted`: what it is to hold, in words. `clock` in seconds.
        """
        self._ssm, self._name, self._setting = ssm, name, setting
        self._parse, self._wanted, self._clock = read, wanted, clock
        self._lock = threading.Lock()
        self._held: _Held[T] | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._name!r})"

    def __call__(self, fresh: bool = False) -> T:
        """Return the value. Raises SecretUnreadableError."""
        if not self._name:
            return self._parse("")
        with self._lock:
            held = self._held
            if held is not None and not fresh and self._clock() < held.until:
                return held.value
            try:
                text, value = self._read(held)
            except SecretUnreadableError:
                if held is None or fresh:
                    raise
                text, value = held.text, held.value
            self._held = _Held(text, value, self._clock() + CACHE_SECONDS)
            return value

    def _read(self, held: _Held[T] | None) -> tuple[str, T]:
        subject = f"SSM parameter {self._name!r}, named by {self._setting},"
        try:
            answer = self._ssm.get_parameter(Name=self._name, WithDecryption=True)
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", ""))
            step = next((text for part, text in _NEXT_STEPS.items() if part in code), RETRY_LATER)
            raise SecretUnreadableError(f"{subject} cannot be read ({code})", step) from error
        except BotoCoreError as error:
            what = f"{subject} cannot be read ({type(error).__name__})"
            step = "check the function's network path to SSM"
            raise SecretUnreadableError(what, step) from error
        text = answer["Parameter"].get("Value", "").strip()
        try:
            return text, held.value if held and held.text == text else self._parse(text)
        except ValueError as error:
            step = f"store {self._wanted} again, and nothing else"
            raise SecretUnreadableError(f"{subject} {error}", step) from None


class PrefectAuthorization(Parameter[str | None]):
    """The value of the Authorization header: "Bearer <key>", "Basic <base64>", or None."""

    def __init__(
        self,
        ssm: "SSMClient",
        *,
        api_key_parameter: str = "",
        auth_string_parameter: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Names of SSM parameters; both empty: requests carry no credential. `clock` in seconds."""
        is_key, name = bool(api_key_parameter), api_key_parameter or auth_string_parameter
        super().__init__(
            ssm,
            name,
            f"PREFECT_API_{'KEY' if is_key else 'AUTH_STRING'}_PARAMETER",
            lambda text: header_of(text, is_key=is_key) if name else None,
            f"the {'API key' if is_key else 'auth string'}",
            clock,
        )


def custom_headers(ssm: "SSMClient", name: str) -> Parameter[Mapping[str, str]]:
    """Return what reads the custom headers from an SSM parameter; empty: there are none."""
    wanted = 'a JSON object of headers and their values ({"…": "…"})'
    return Parameter(ssm, name, "PREFECT_CUSTOM_HEADERS_PARAMETER", headers_of, wanted)


def certificates(ssm: "SSMClient", name: str) -> Parameter[ssl.SSLContext | None]:
    """Return what reads the trusted certificates from an SSM parameter; empty: the system's."""
    wanted = "the authority's certificates in PEM"
    return Parameter(ssm, name, "PREFECT_CA_CERTIFICATE_PARAMETER", trust_of, wanted)


def headers_of(text: str) -> Mapping[str, str]:
    """Return the headers that a JSON object names; none for an empty text.

    Raises ValueError: says what is wrong with them, without showing any but a name of ours.
    """
    headers: Any = {}
    with suppress(ValueError, RecursionError):  # they have all of the text in them
        headers = json.loads(text) if text.strip() else {}
        text = ""
    if text.strip() or not isinstance(headers, dict):
        raise ValueError("is no JSON object")
    for name, value in headers.items():
        if (ours := name.lower()) in _OURS:
            raise ValueError(f"has the header {ours}, which every client of Prefect sets itself")
        if not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", name):
            raise ValueError("has a name in it that no header can have")
        if not isinstance(value, str) or not re.fullmatch(r"[!-~]([ !-~]*[!-~])?", value):
            raise ValueError("has a value in it that no header can have, or none at all")
    if len({name.lower() for name in headers}) < len(headers):
        raise ValueError("has a header twice")
    return dict(headers)


def trust_of(text: str) -> ssl.SSLContext | None:
    """Return the context that trusts the certificates in PEM, and no others; None for no text.

    As Prefect's own client does with PREFECT_API_SSL_CERT_FILE. Raises ValueError: says what is
    wrong with them.
    """
    if not text:
        return None
    if "PRIVATE KEY" in text:
        raise ValueError("holds a private key, which nobody but its server may have")
    with suppress(ssl.SSLError, ValueError, TypeError):
        # What stands beside the certificates may be any text, as in a file.
        return ssl.create_default_context(cadata=text.encode("ascii", "ignore").decode())
    raise ValueError("is not PEM with certificates")


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


def joined(authorization: str | None, custom: Mapping[str, str]) -> Mapping[str, str]:
    """Return the headers by which we are let in; a custom one wins, as in Prefect's own client."""
    if authorization is None or "authorization" in map(str.lower, custom):
        return custom
    return {"Authorization": authorization, **custom}


def without(headers: Mapping[str, str], text: str) -> str:
    """Return the text with *** for the headers' values, in case a server or proxy sends them back.

    For their parts too: an API key, an auth string and the password in it, a cookie; each plain,
    as `repr`, JSON and HTML show it, percent-encoded, and in base64.
    """
    if not text:
        return text
    secrets = set()
    for header in headers.values():
        scheme, _, value = header.partition(" ")
        secrets |= {header, value, *(part.partition("=")[2] for part in header.split(";"))}
        if scheme.lower() == "basic":
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
