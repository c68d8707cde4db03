"""The settings: environment variables of the Lambdas, per stage in `.chalice/config.json`.

Read and checked once, at cold start: a wrong one stops it with an error that names it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from chalicelib.core.model.policy import Mode, Policy
from chalicelib.core.model.pricing import OWN_RATES_FORM, Rates, read_own_rates
from chalicelib.errors import SettingError

_MOST_RETRIES: Final = 1000
_LONGEST_DELAY_SECONDS: Final = 86_400
_LONGEST_GRACE_SECONDS: Final = 3_600


@dataclass(frozen=True, slots=True)
class Settings:
    """What the user has set; names in upper case are the environment variables."""

    stage: str
    prefect_api_url: str
    prefect_api_key_parameter: str
    prefect_api_auth_string_parameter: str
    mode: Mode
    ecs_clusters: tuple[str, ...]
    work_pool: str
    table_name: str
    spot_retries: int
    rerun_delay_seconds: int
    sweep_grace_seconds: int
    guard_economics: bool
    rates: Rates


def read_settings(environment: Mapping[str, str]) -> Settings:
    """Return the settings that `environment` holds, with the defaults filled in.

    Raises:
        SettingError: names the setting, shows its value and says what is accepted.
    """
    stage = environment.get("STAGE") or "dev"
    key = environment.get("PREFECT_API_KEY_PARAMETER", "")
    auth_string = environment.get("PREFECT_API_AUTH_STRING_PARAMETER", "")
    if key.startswith(("pnu_", "pnb_")):
        raise SettingError(
            "PREFECT_API_KEY_PARAMETER holds an API key",
            next_step="store the key in an SSM SecureString, and set this to the parameter's name",
        )
    if key and auth_string:
        raise SettingError(
            "PREFECT_API_KEY_PARAMETER and PREFECT_API_AUTH_STRING_PARAMETER are both set",
            next_step="set one of them: the key for Prefect Cloud, the string for basic auth",
        )
    return Settings(
        stage=stage,
        prefect_api_url=_url(environment, "PREFECT_API_URL"),
        prefect_api_key_parameter=key,
        prefect_api_auth_string_parameter=auth_string,
        mode=_choice(environment, "MODE", Mode.RESCUE),
        ecs_clusters=_names(environment, "ECS_CLUSTER", f"prefect-spot-{stage}"),
        work_pool=environment.get("WORK_POOL") or f"fargate-spot-{stage}",
        table_name=environment.get("STACK_NAME") or f"prefect-spot-{stage}",
        spot_retries=number(environment, "SPOT_RETRIES", 3, _MOST_RETRIES),
        rerun_delay_seconds=number(environment, "RERUN_DELAY_SECONDS", 0, _LONGEST_DELAY_SECONDS),
        sweep_grace_seconds=number(environment, "SWEEP_GRACE_SECONDS", 180, _LONGEST_GRACE_SECONDS),
        guard_economics=_yes(environment, "GUARD_ECONOMICS"),
        rates=_rates(environment, "RATES"),
    )


def policy_of(settings: Settings, rates: Rates) -> Policy:
    """Return what the settings say about decisions. `rates`: the shipped ones, with the user's."""
    return Policy(
        mode=settings.mode,
        spot_retries=settings.spot_retries,
        rerun_delay_seconds=settings.rerun_delay_seconds,
        rates=rates,
        economics=settings.guard_economics,
    )


def _url(environment: Mapping[str, str], name: str) -> str:
    value = environment.get(name, "").strip()
    parts = urlsplit(value)
    if "@" in value:
        raise SettingError(
            f"{name} holds credentials",
            next_step="store them in an SSM SecureString, and name it in"
            " PREFECT_API_AUTH_STRING_PARAMETER",
        )
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise wrong_setting(
            name,
            f"{value!r}: accepted is the address of Prefect's API, such as"
            " https://api.prefect.cloud/api/accounts/…/workspaces/… or http://host:4200/api",
        )
    return value.rstrip("/")


def _choice(environment: Mapping[str, str], name: str, default: Mode) -> Mode:
    value = environment.get(name) or default.value
    try:
        return Mode(value)
    except ValueError:
        accepted = ", ".join(mode.value for mode in Mode)
        raise wrong_setting(name, f"{value!r}: accepted are {accepted}") from None


def _yes(environment: Mapping[str, str], name: str) -> bool:
    value = environment.get(name) or "false"
    if value not in ("true", "false"):
        raise wrong_setting(name, f"{value!r}: accepted are true, false")
    return value == "true"


def wrong_setting(name: str, said: str) -> SettingError:
    """Return what to raise for a setting that is wrong. `said`: its value, and what is accepted."""
    step = f"correct {name} in .chalice/config.json, then run spotctl deploy"
    return SettingError(f"{name} is {said}", next_step=step)


def number(environment: Mapping[str, str], name: str, default: int, most: int) -> int:
    """Return a whole number from 0 to `most`. Raises SettingError for anything else."""
    value = environment.get(name) or str(default)
    if not (value.isascii() and value.isdigit() and len(value) < 10 and int(value) <= most):
        raise wrong_setting(name, f"{value!r}: accepted are whole numbers from 0 to {most}")
    return int(value)


def _names(environment: Mapping[str, str], name: str, default: str) -> tuple[str, ...]:
    value = environment.get(name) or default
    names = tuple(part.strip() for part in value.split(",") if part.strip())
    if not names:
        raise wrong_setting(name, f"{value!r}: accepted are names or ARNs, comma-separated")
    return names


def _rates(environment: Mapping[str, str], name: str) -> Rates:
    value = environment.get(name, "")
    try:
        return read_own_rates(value)
    except ValueError as error:
        raise wrong_setting(name, f"{value!r}: {error}; accepted is {OWN_RATES_FORM}") from None
