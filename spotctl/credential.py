"""Where a Prefect credential may go from the operator's machine.

The server's address comes from the checkout, the credential from its owner, and a checkout may be
anyone's. The operator's own credential goes to the operator's own address, and never over http,
except on this machine; the stage's goes where the deployed `react` sends it. Any other address has
to be confirmed, with `--send-key-to`.
"""

import tomllib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from shlex import quote
from typing import Any, Final
from urllib.parse import urlsplit

from chalicelib.adapters.credentials import PrefectAuthorization, header_of
from chalicelib.adapters.prefect_client import Authorization
from chalicelib.settings import Settings
from spotctl.errors import RefusedError, find

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


def own_url(environment: Mapping[str, str]) -> str:
    """Return the operator's own PREFECT_API_URL, as Prefect's CLI reads it; empty for none.

    From the environment, otherwise from the active profile. Prefect's `.env` and `prefect.toml` are
    not read: they belong to the folder. Source: Prefect's documentation, "Settings and profiles".
    """
    if url := environment.get("PREFECT_API_URL"):
        return url
    home = Path(environment.get("PREFECT_HOME") or "~/.prefect").expanduser()
    path = Path(environment.get("PREFECT_PROFILES_PATH") or home / "profiles.toml")
    try:
        profiles = tomllib.loads(path.expanduser().read_text())
        active = environment.get("PREFECT_PROFILE") or profiles["active"]
        return str(profiles["profiles"][active]["PREFECT_API_URL"])
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


def authorization(
    settings: Settings,
    clients: Callable[[str], Any],
    react: str,
    environment: Mapping[str, str],
    confirmed: str,
    progress: Callable[[str], None],
) -> Authorization:
    """Return the operator's credential for the stage's API, or else the stage's, from SSM.

    `clients`: boto3's, by service. `react`: the deployed function's name. `confirmed`: the value of
    --send-key-to. `progress` gets what is not sent, and why. The result raises RefusedError where
    the stage's credential may not be sent either.
    """
    url, target = settings.prefect_api_url, address_of(settings.prefect_api_url)
    is_confirmed = target is not None and address_of(confirmed) == target
    is_own = target is not None and address_of(own_url(environment)) == target
    name, own = own_header(environment)
    if own and target and not target.is_private:
        progress(f"your {name} is not sent, because http is not encrypted: {url}")
        own = ""
    elif own and not (is_own or is_confirmed):
        why = f"{url} is not your PREFECT_API_URL; --send-key-to {quote(url)} would send it"
        progress(f"your {name} is not sent, because {why}")
        own = ""
    if not (settings.prefect_api_key_parameter or settings.prefect_api_auth_string_parameter):
        return lambda _fresh: own or None
    is_known = is_confirmed or is_own or (target is not None and target.is_loopback)
    if not (is_known or _is_deployed(settings, clients("lambda"), react)):
        return lambda fresh: own if own and not fresh else _refuse(url)
    of_the_stage = PrefectAuthorization(
        clients("ssm"),
        api_key_parameter=settings.prefect_api_key_parameter,
        auth_string_parameter=settings.prefect_api_auth_string_parameter,
    )
    return lambda fresh: own if own and not fresh else of_the_stage(fresh)


def _refuse(url: str) -> str | None:
    raise RefusedError(
        f"the stage's credential is not sent to {url}: it is not what the deployed react uses",
        next_step=f"run spotctl deploy, or pass --send-key-to {quote(url)} if that server is yours",
    )


def _is_deployed(settings: Settings, client: Any, react: str) -> bool:
    """Whether the deployed `react` sends the same parameter's value to the same address."""
    missing = client.exceptions.ResourceNotFoundException
    found = find(lambda: client.get_function_configuration(FunctionName=react), missing) or {}
    deployed = (found.get("Environment") or {}).get("Variables") or {}
    return (
        address_of(deployed.get("PREFECT_API_URL", "")) == address_of(settings.prefect_api_url)
        and (deployed.get("PREFECT_API_KEY_PARAMETER") or "") == settings.prefect_api_key_parameter
        and (deployed.get("PREFECT_API_AUTH_STRING_PARAMETER") or "")
        == settings.prefect_api_auth_string_parameter
    )
