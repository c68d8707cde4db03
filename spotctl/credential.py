"""Where a Prefect credential may go from the operator's machine; custom headers count as one.

The server's address comes from the checkout, the credential from its owner, and a checkout may be
anyone's. The operator's own credential goes to the operator's own address, and never over http,
except on this machine; the stage's goes where the deployed `react` sends it. Any other address has
to be confirmed, with `--send-key-to`.
"""

import ssl
import tomllib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from shlex import quote
from typing import Any, Final, NoReturn, TypeVar
from urllib.parse import urlsplit

from chalicelib.adapters.credentials import (
    PrefectAuthorization,
    certificates,
    custom_headers,
    header_of,
    headers_of,
    trust_of,
)
from chalicelib.adapters.prefect_client import Authorization
from chalicelib.settings import SECRETS, Settings
from spotctl.errors import RefusedError, find

T = TypeVar("T")

_HEADERS: Final = "PREFECT_CLIENT_CUSTOM_HEADERS"
_CERTIFICATES: Final = "PREFECT_API_SSL_CERT_FILE"
_UNCHECKED: Final = "PREFECT_API_TLS_INSECURE_SKIP_VERIFY"
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Address:
    """An API's address, as two are compared: they are one if all of it is equal."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def is_loopback(self) -> bool:
        """Whether it is on this machine."""
        with suppress(ValueError):
            return ip_address(self.host).is_loopback
        return self.host == "localhost"

    @property
    def is_private(self) -> bool:
        """Whether what is sent is encrypted, or stays on this machine."""
        return self.scheme == "https" or self.is_loopback


def address_of(url: str) -> Address | None:
    """Return the address; None for another URL than http and https, or one with more than a path.

    Also for a host outside ASCII: there are several ways to read one (IDNA 2003 and 2008).
    """
    try:
        parts = urlsplit(url.strip())
        port = parts.port or _DEFAULT_PORTS[parts.scheme]
    except (ValueError, KeyError):
        return None
    host = parts.hostname or ""
    odd = parts.query or parts.fragment or "@" in parts.netloc or not parts.netloc.isascii()
    if odd or not host or "\\" in url:
        return None
    return Address(parts.scheme, host.removesuffix("."), port, parts.path.rstrip("/"))


def own(name: str, environment: Mapping[str, str]) -> str:
    """Return a setting of the operator's own, as Prefect's CLI reads it; empty for none.

    From the environment, otherwise from the active profile. Prefect's `.env` and `prefect.toml` are
    not read: they belong to the folder. Source: Prefect's documentation, "Settings and profiles".
    """
    if text := environment.get(name):
        return text
    home = Path(environment.get("PREFECT_HOME") or "~/.prefect").expanduser()
    path = Path(environment.get("PREFECT_PROFILES_PATH") or home / "profiles.toml")
    try:
        profiles = tomllib.loads(path.expanduser().read_text())
        active = environment.get("PREFECT_PROFILE") or profiles["active"]
        return str(profiles["profiles"][active][name])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def own_header(environment: Mapping[str, str]) -> tuple[str, str]:
    """Return the operator's variable and the header made of it, both empty for none.

    Raises RefusedError: the value cannot be sent; it is not shown.
    """
    for name, is_key in (("PREFECT_API_KEY", True), ("PREFECT_API_AUTH_STRING", False)):
        if value := environment.get(name):
            try:
                return name, header_of(value, is_key=is_key)
            except ValueError as error:
                step = f"set {name} again, to the credential and nothing else"
                raise RefusedError(f"the value of {name} {error}", next_step=step) from None
    return "", ""


@dataclass(frozen=True, slots=True)
class Access:
    """What a request of the operator's carries, and whom it trusts: see `JsonHttp`, `Connections`.

    All raise RefusedError where what is the stage's may not be sent.
    """

    authorization: Authorization
    headers: Callable[[bool], Mapping[str, str]]
    trust: Callable[[bool], ssl.SSLContext | None]


def access(
    settings: Settings,
    clients: Callable[[str], Any],
    react: str,
    environment: Mapping[str, str],
    confirmed: str,
    progress: Callable[[str], None],
) -> Access:
    """Return what is the operator's own for the stage's API, or else the stage's, from SSM.

    `clients`: boto3's, by service. `react`: the deployed function's name. `confirmed`: the value of
    --send-key-to. `progress` gets what is not sent, and why. Raises RefusedError: a value of the
    operator's own cannot be used.
    """
    url, target = settings.prefect_api_url, address_of(settings.prefect_api_url)
    is_confirmed = target is not None and address_of(confirmed) == target
    is_own = target is not None and address_of(own("PREFECT_API_URL", environment)) == target
    name, key = own_header(environment)
    headers = _checked(headers_of, _HEADERS, own(_HEADERS, environment))
    if why := _obstacle(url, target, is_known=is_own or is_confirmed):
        for each in [name] * bool(key) + [_HEADERS] * bool(headers):
            progress(f"your {each} is not sent, because {why}")
        key, headers = "", {}
    is_known = is_confirmed or is_own or (target is not None and target.is_loopback)
    may_send = not settings.secrets or is_known or _is_deployed(settings, clients("lambda"), react)
    ssm: Any = clients("ssm") if settings.secrets else None
    of_the_stage = PrefectAuthorization(
        ssm,
        api_key_parameter=settings.prefect_api_key_parameter,
        auth_string_parameter=settings.prefect_api_auth_string_parameter,
    )
    custom = custom_headers(ssm, settings.prefect_custom_headers_parameter)
    has_key = any("_API_" in setting for setting in settings.secrets)

    def authorize(fresh: bool) -> str | None:
        if not has_key or (key and not fresh):
            return key or None
        return of_the_stage(fresh) if may_send else _refuse(url)

    def head(fresh: bool) -> Mapping[str, str]:
        if headers or not settings.prefect_custom_headers_parameter:
            return headers
        return custom(fresh) if may_send else _refuse(url)

    trust = _own_trust(environment, progress) if is_own else None
    certified = certificates(ssm, settings.prefect_ca_certificate_parameter)
    return Access(authorize, head, lambda fresh: trust or certified(fresh))


def _obstacle(url: str, target: Address | None, *, is_known: bool) -> str:
    """Why nothing of the operator's own goes to that address; empty where it does."""
    if target and not target.is_private:
        return f"http is not encrypted: {url}"
    where = f"{url} is not your PREFECT_API_URL; --send-key-to {quote(url)} would send it"
    return "" if is_known else where


def _own_trust(
    environment: Mapping[str, str], progress: Callable[[str], None]
) -> ssl.SSLContext | None:
    """Whom the operator's own Prefect client trusts; None for the system's authorities."""
    if own(_UNCHECKED, environment).lower() in ("1", "true", "t", "yes", "y", "on"):
        progress(f"the server's certificate is not checked: your {_UNCHECKED} says so")
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return context
    try:
        path = own(_CERTIFICATES, environment)
        text = Path(path).expanduser().read_text() if path else ""
    except (OSError, ValueError) as error:
        step = f"set {_CERTIFICATES} to a file of certificates in PEM"
        raise RefusedError(f"your {_CERTIFICATES} cannot be read: {error}", step) from None
    return _checked(trust_of, _CERTIFICATES, text)


def _checked(read: Callable[[str], T], name: str, text: str) -> T:
    try:
        return read(text)
    except ValueError as error:
        step = f"set {name} again, as Prefect reads it"
        raise RefusedError(f"the value of {name} {error}", step) from None


def _refuse(url: str) -> NoReturn:
    raise RefusedError(
        f"the stage's credential is not sent to {url}: it is not what the deployed react uses",
        next_step=f"run spotctl deploy, or pass --send-key-to {quote(url)} if that server is yours",
    )


def _is_deployed(settings: Settings, client: Any, react: str) -> bool:
    """Whether the deployed `react` sends the same parameters' values to the same address."""
    missing = client.exceptions.ResourceNotFoundException
    found = find(lambda: client.get_function_configuration(FunctionName=react), missing) or {}
    deployed = (found.get("Environment") or {}).get("Variables") or {}
    same_address = address_of(deployed.get("PREFECT_API_URL", "")) == address_of(
        settings.prefect_api_url
    )
    sent = {name: deployed[name] for name in SECRETS if deployed.get(name)}
    return same_address and sent == settings.secrets
