"""The settings of cluster, worker and work pool: what `provision` brings up, and with what.

Read and checked at cold start like the others in `settings.py`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NoReturn

from chalicelib.core.provision.mode import Provision
from chalicelib.settings import Settings, number, wrong_setting

DEFAULT_WORKER_IMAGE: Final = "prefecthq/prefect-aws:latest"
"""Prefect's own image for its ECS worker."""

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

LOG_RETENTION_DAYS: Final = (
    *(1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096),
    *(1827, 2192, 2557, 2922, 3288, 3653),
)
"""What CloudWatch Logs accepts: its API reference, PutRetentionPolicy."""

_LOG_LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
_BOOLEANS: Final = ("true", "false")
_MOST_WEIGHT: Final = 1_000
_MOST_BASE: Final = 100_000
_MOST_QUERY_SECONDS: Final = 3_600

# The results bucket's name holds the stack's, an account and a region, in 63 characters.
_STACK_NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,26}")
_CLUSTER_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,255}")
_PARAMETER_NAME: Final = re.compile(r"/?[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*")
_VPC_ID: Final = re.compile(r"vpc-[0-9a-f]{8,17}")
_SUBNET_ID: Final = re.compile(r"subnet-[0-9a-f]{8,17}")
_GROUP_ID: Final = re.compile(r"sg-[0-9a-f]{8,17}")
_EMAIL: Final = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")
_IMAGE: Final = re.compile(r"[a-z0-9][\w.:/@-]*")
_PREFECT_NAME: Final = re.compile(r"[^,'\"\\/%&<>]*[^,'\"\\/%&<>\s][^,'\"\\/%&<>]*")


@dataclass(frozen=True, slots=True)
class ProvisionSettings:
    """What the user has set; names in upper case are the environment variables.

    CPU in CPU units, memory in MiB. Empty `vpc_id`, `subnet_ids`: looked up; empty
    `security_group_ids`: the stack makes one; empty `work_queues`: all.
    """

    provision: Provision
    stack_name: str
    vpc_id: str
    subnet_ids: tuple[str, ...]
    security_group_ids: tuple[str, ...]
    assign_public_ip: bool
    use_spot: bool
    spot_weight: int
    fargate_weight: int
    fargate_base: int
    worker_image: str
    worker_cpu: int
    worker_memory: int
    work_queues: tuple[str, ...]
    worker_query_seconds: int
    log_level: str
    log_retention_days: int
    alarm_email: str


def read_provision_settings(
    environment: Mapping[str, str], settings: Settings
) -> ProvisionSettings:
    """Return the settings that `environment` holds, with the defaults filled in.

    Raises:
        SettingError: names the setting, shows its value and says what is accepted.
    """
    provision = Provision(
        _one_of(environment, "PROVISION", "full", tuple(mode.value for mode in Provision))
    )
    _check_names(settings, provision)
    cpu, memory = _task_size(environment)
    spot_weight, fargate_weight = (
        number(environment, name, default, _MOST_WEIGHT)
        for name, default in (("SPOT_WEIGHT", 3), ("FARGATE_WEIGHT", 2))
    )
    if spot_weight == fargate_weight == 0:
        _refuse("SPOT_WEIGHT", "0", "a number above 0, unless FARGATE_WEIGHT is above 0")
    subnets = "subnet ids, comma-separated"
    groups = "security group ids, comma-separated"
    query_seconds = number(environment, "WORKER_QUERY_SECONDS", 10, _MOST_QUERY_SECONDS)
    if query_seconds == 0:
        _refuse("WORKER_QUERY_SECONDS", "0", f"whole numbers from 1 to {_MOST_QUERY_SECONDS}")
    return ProvisionSettings(
        provision=provision,
        stack_name=settings.table_name,
        vpc_id=_matching(environment, "VPC_ID", "", _VPC_ID, "the id of a VPC, vpc-…"),
        subnet_ids=_all_matching(environment, "SUBNET_IDS", _SUBNET_ID, subnets),
        security_group_ids=_all_matching(environment, "SECURITY_GROUP_IDS", _GROUP_ID, groups),
        assign_public_ip=_one_of(environment, "ASSIGN_PUBLIC_IP", "true", _BOOLEANS) == "true",
        use_spot=_one_of(environment, "USE_SPOT", "true", _BOOLEANS) == "true",
        spot_weight=spot_weight,
        fargate_weight=fargate_weight,
        fargate_base=number(environment, "FARGATE_BASE", 1, _MOST_BASE),
        worker_image=_matching(
            environment,
            "WORKER_IMAGE",
            DEFAULT_WORKER_IMAGE,
            _IMAGE,
            f"an image, such as {DEFAULT_WORKER_IMAGE}",
        ),
        worker_cpu=cpu,
        worker_memory=memory,
        work_queues=_all_matching(
            environment, "WORK_QUEUES", _PREFECT_NAME, "work queues' names, comma-separated"
        ),
        worker_query_seconds=query_seconds,
        log_level=_one_of(environment, "LOG_LEVEL", "INFO", _LOG_LEVELS),
        log_retention_days=_retention_days(environment),
        alarm_email=_matching(environment, "ALARM_EMAIL", "", _EMAIL, "an e-mail address"),
    )


def _check_names(settings: Settings, provision: Provision) -> None:
    """Check what `settings.py` takes as it comes, and the stack cannot."""
    if not _STACK_NAME.fullmatch(settings.table_name):
        _refuse(
            "STACK_NAME",
            settings.table_name,
            "up to 27 small letters, digits and hyphens, beginning with a letter",
        )
    for setting, name in (
        ("PREFECT_API_KEY_PARAMETER", settings.prefect_api_key_parameter),
        ("PREFECT_API_AUTH_STRING_PARAMETER", settings.prefect_api_auth_string_parameter),
    ):
        if name and not _PARAMETER_NAME.fullmatch(name):
            raise wrong_setting(
                setting,
                "not shown, since it may be the credential itself: accepted is the name of an SSM"
                " parameter in this region, no ARN",
            )
    if not _PREFECT_NAME.fullmatch(settings.work_pool):
        _refuse("WORK_POOL", settings.work_pool, "a name without , ' \" \\ / % & < >")
    if provision is Provision.RESCUE_ONLY:
        return
    if settings.work_pool.lower().startswith("prefect"):
        _refuse("WORK_POOL", settings.work_pool, "a name that does not begin with prefect")
    if len(settings.ecs_clusters) > 1 or not _CLUSTER_NAME.fullmatch(settings.ecs_clusters[0]):
        _refuse(
            "ECS_CLUSTER",
            ",".join(settings.ecs_clusters),
            "the name of one cluster; ARNs, and several, where PROVISION is rescue-only",
        )


def _task_size(environment: Mapping[str, str]) -> tuple[int, int]:
    sizes = tuple(map(str, FARGATE_MEMORY))
    cpu = int(_one_of(environment, "WORKER_CPU", "512", sizes))
    memory = environment.get("WORKER_MEMORY") or str(max(1024, FARGATE_MEMORY[cpu][0]))
    if memory not in map(str, FARGATE_MEMORY[cpu]):
        accepted = ", ".join(map(str, FARGATE_MEMORY[cpu]))
        _refuse("WORKER_MEMORY", memory, f"with WORKER_CPU {cpu}, in MiB, {accepted}")
    return cpu, int(memory)


def _retention_days(environment: Mapping[str, str]) -> int:
    days = tuple(map(str, LOG_RETENTION_DAYS))
    return int(_one_of(environment, "LOG_RETENTION_DAYS", "30", days))


def _one_of(
    environment: Mapping[str, str], name: str, default: str, accepted: tuple[str, ...]
) -> str:
    value = environment.get(name) or default
    if value not in accepted:
        _refuse(name, value, ", ".join(accepted))
    return value


def _matching(
    environment: Mapping[str, str], name: str, default: str, form: re.Pattern[str], accepted: str
) -> str:
    value = environment.get(name) or default
    if value and not form.fullmatch(value):
        _refuse(name, value, accepted)
    return value


def _all_matching(
    environment: Mapping[str, str], name: str, form: re.Pattern[str], accepted: str
) -> tuple[str, ...]:
    value = environment.get(name, "")
    parts = tuple(part.strip() for part in value.split(",") if part.strip())
    if (value and not parts) or not all(form.fullmatch(part) for part in parts):
        _refuse(name, value, accepted)
    return parts


def _refuse(name: str, value: str, accepted: str) -> NoReturn:
    raise wrong_setting(name, f"{value!r}: accepted are {accepted}")
