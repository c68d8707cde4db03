"""What settings accept: each form says it in words, and reads it. The table is in `settings.py`."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Final, TypeVar
from urllib.parse import unquote

from chalicelib.core.model.policy import AUTO
from chalicelib.core.model.pricing import OWN_RATES_FORM, read_own_rates
from chalicelib.errors import SettingError

T = TypeVar("T")

_GIB: Final = 1024
FARGATE_MEMORY: Final[Mapping[int, tuple[int, ...]]] = {
    256: (512, _GIB, 2 * _GIB),
    512: tuple(range(_GIB, 4 * _GIB + 1, _GIB)),
    1024: tuple(range(2 * _GIB, 8 * _GIB + 1, _GIB)),
    2048: tuple(range(4 * _GIB, 16 * _GIB + 1, _GIB)),
    4096: tuple(range(8 * _GIB, 30 * _GIB + 1, _GIB)),
    8192: tuple(range(16 * _GIB, 60 * _GIB + 1, 4 * _GIB)),
    16384: tuple(range(32 * _GIB, 120 * _GIB + 1, 8 * _GIB)),
}
"""MiB that Fargate accepts, by CPU units: ECS developer guide, "Task size"."""


@dataclass(frozen=True, slots=True)
class Form:
    """What a setting accepts, in words, and what reads it; `read` raises ValueError for the rest.

    `is_secret`: a wrong value may be a credential, so no error shows it.
    """

    accepted: str
    read: Callable[[str], Any]
    is_secret: bool = False


def text_of(value: object) -> str:
    """Return a setting's value as text, which is all that CloudFormation takes."""
    if isinstance(value, tuple):
        return ",".join(value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def _checked(is_accepted: object, value: T) -> T:
    if not is_accepted:
        raise ValueError
    return value


def one_of(values: Iterable[object]) -> Form:
    """Accept one of the values, by its text."""
    by_text = {text_of(value): value for value in values}
    return Form(", ".join(by_text), lambda text: _checked(text in by_text, by_text.get(text)))


def whole_number(least: int, most: int) -> Form:
    """Accept whole numbers from `least` to `most`."""

    def read(text: str) -> int:
        number = int(_checked(re.fullmatch("[0-9]{1,9}", text), text))
        return _checked(least <= number <= most, number)

    return Form(f"whole numbers from {least} to {most}", read)


def or_auto(form: Form) -> Form:
    """Accept what the form does, and `auto`."""
    accepted = f"{form.accepted}, or {AUTO}"
    return Form(accepted, lambda text: AUTO if text == AUTO else form.read(text))


def matching(pattern: str, accepted: str, *, is_secret: bool = False) -> Form:
    """Accept a text that matches all of the pattern, or an empty one."""
    whole = re.compile(f"(?:{pattern})?")
    return Form(accepted, lambda text: _checked(whole.fullmatch(text), text), is_secret)


def all_matching(pattern: str, accepted: str, most: int = 999) -> Form:
    """Accept texts that each match all of the pattern, comma-separated, or an empty one.

    Spaces around a text, empty ones and repeated ones are ignored.
    """

    def read(text: str) -> tuple[str, ...]:
        parts = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
        match = len(parts) <= most and all(re.fullmatch(pattern, part) for part in parts)
        return _checked(match and (parts or not text), parts)

    return Form(f"{accepted}, comma-separated", read)


def may_hold_credential(text: str) -> bool:
    """Whether a Prefect API key stands in the text, percent-encoded too."""
    return re.search("pn[ub]_", unquote(unquote(text)), re.IGNORECASE) is not None


def _read_url(text: str) -> str:
    url = text.strip().rstrip("/")
    is_url = _URL.fullmatch(unquote(unquote(url)))
    if may_hold_credential(url) or not (is_url or _NO_SECRET.fullmatch(url)):
        raise SettingError(
            "PREFECT_API_URL holds credentials, or may: it is not shown",
            next_step="set it to the address alone, without user, password, key, ? and #; store a"
            " credential in an SSM SecureString, and name that in PREFECT_API_KEY_PARAMETER or"
            " PREFECT_API_AUTH_STRING_PARAMETER",
        )
    return _checked(is_url, url)


_URL: Final = re.compile(
    r"https?://([\w.-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?(/[^\s?#@\\]*)?", re.IGNORECASE
)
_NO_SECRET: Final = re.compile(r"([a-z]+://)?([\w-]+\.)+[a-z]+(:[0-9]{1,5})?|", re.IGNORECASE)
"""A wrong address that can be shown: a host alone."""
_PREFECT_NAME: Final = r"""[^,'"\\/%&<>]*[^,'"\\/%&<>\s][^,'"\\/%&<>]*"""
_IAM: Final = r"arn:aws[a-z-]*:iam::"
_PATH: Final = r"[A-Za-z0-9_+=.@/-]+"
FLAG: Final = one_of((True, False))
API_URL: Final = Form(
    "the address of Prefect's API, such as"
    " https://api.prefect.cloud/api/accounts/…/workspaces/… or http://host:4200/api",
    _read_url,
)
SECRET_PARAMETER: Final = matching(
    r"(?!/?pn[ub]_)/?[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*",
    "the name of an SSM SecureString in this region that holds the credential, no ARN",
    is_secret=True,
)
CERTIFICATE_PARAMETER: Final = replace(
    SECRET_PARAMETER,
    accepted="the name of an SSM parameter in this region that holds certificates in PEM, no ARN",
)
CLUSTERS: Final = all_matching(
    r"\S.*", "the name of one cluster; where PROVISION is rescue-only, names or ARNs"
)
POOL_NAMES: Final = all_matching(
    _PREFECT_NAME,
    "one name, of up to 210 letters, digits, - and _ that do not begin with prefect; in rescue-only"
    " one or several, without ' \" \\ / % & < >",
)
# The worker's task definitions are called prefect_POOL_ID, in 255 such characters (ECS).
OWN_POOL: Final = re.compile(r"(?!(?i:prefect))[A-Za-z0-9_-]{1,210}")
QUEUE_NAMES: Final = all_matching(_PREFECT_NAME, "work queues' names")
# The longest rule's name, prefect-spot-STAGE-provision-event, has 64 characters.
STAGE: Final = matching(r"[A-Za-z0-9_-]{1,35}", "up to 35 letters, digits, - and _")
# A table's name has 3 characters. The results bucket's holds the stack's, an account and a region,
# in 63 characters, and S3 keeps some beginnings for itself.
STACK_NAME: Final = matching(
    r"(?!xn--|sthree|amzn-s3-demo)[a-z][a-z0-9-]{2,26}",
    "3 to 27 small letters, digits and hyphens, beginning with a letter, but not with xn--, sthree"
    " or amzn-s3-demo",
)
VPC_ID: Final = matching(r"vpc-[0-9a-f]{8,17}", "the id of a VPC, vpc-…")
# How many a task takes: ECS API reference, AwsVpcConfiguration.
SUBNET_IDS: Final = all_matching(r"subnet-[0-9a-f]{8,17}", "up to 16 subnet ids", 16)
POLICY_ARN: Final = matching(
    rf"{_IAM}([0-9]{{12}}|aws):policy/{_PATH}", "the ARN of a managed policy"
)
POLICY_ARNS: Final = all_matching(
    rf"{_IAM}([0-9]{{12}}|aws):policy/{_PATH}", "ARNs of managed policies"
)
ROLE_ARNS: Final = all_matching(rf"{_IAM}[0-9]{{12}}:role/{_PATH}", "ARNs of roles")
# A policy that names an alias allows nothing: IAM user guide, "Use aliases to control access".
KEY_ARN: Final = matching(
    r"arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:key/[A-Za-z0-9-]+",
    "the ARN of a KMS key, arn:…:key/…, no alias",
)
GROUP_IDS: Final = all_matching(r"sg-[0-9a-f]{8,17}", "up to 5 security group ids", 5)
EMAIL: Final = matching(r"[^@\s]+@[^@\s]+\.[^@\s]+", "an e-mail address")
IMAGE: Final = matching(
    r"[a-z0-9][\w.:/@-]*",
    "an image, such as prefecthq/prefect-aws:VERSION-pythonX.Y-prefectVERSION",
)
SPOT_RETRIES: Final = or_auto(whole_number(0, 1000))
CPU_UNITS: Final = one_of(FARGATE_MEMORY)
# `settings.py` reads it, with the CPU units.
MEMORY: Final = Form("with WORKER_CPU 512, in MiB, 1024, 2048, 3072, 4096", str)
RETENTION_DAYS: Final = one_of(
    (
        *(1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096),
        *(1827, 2192, 2557, 2922, 3288, 3653),
    )
)
"""What CloudWatch Logs accepts: its API reference, PutRetentionPolicy."""
LOG_LEVEL: Final = one_of(("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"))
SHARE: Final = Form(
    "a number from 0 to below 1, such as 0.68",
    lambda text: Decimal(_checked(re.fullmatch(r"0|0?\.[0-9]{1,6}", text), text)),
)
RATES: Final = Form(OWN_RATES_FORM, read_own_rates)
