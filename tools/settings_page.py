"""Writes `docs/settings.md`: what the code reads, what it accepts, and what it does without.

    python -m tools.settings_page

Names and accepted values are asked of the code itself, by reading settings and by setting them
wrong. Defaults and meanings stand here; `tests/unit/test_docs.py` holds the defaults to the code.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Final

from chalicelib.errors import SettingError
from chalicelib.provision_settings import read_provision_settings
from chalicelib.settings import read_settings

ROOT: Final = Path(__file__).resolve().parent.parent
PAGE: Final = ROOT / "docs" / "settings.md"
FRAME: Final = Path(__file__).parent / "settings.md.in"

REQUIRED: Final = {"PREFECT_API_URL": "https://prefect.example.com/api"}

ELSEWHERE: Final = ("LOG_LEVEL",)
"""Read where the logger is made, and by `read` as well."""

_WRONG: Final = "?,?"


@dataclass(frozen=True)
class Setting:
    """One setting. `default`: None where it is required, `<stage>` stands for the stage's name."""

    name: str
    default: str | None
    meaning: str


SETTINGS: Final = {
    "Where Prefect is": (
        Setting("PREFECT_API_URL", None, "the API of a Prefect Cloud workspace or of a server"),
        Setting(
            "PREFECT_API_KEY_PARAMETER",
            "",
            "name of the SSM SecureString that holds the API key; empty: none",
        ),
        Setting(
            "PREFECT_API_AUTH_STRING_PARAMETER",
            "",
            "the same for a server's basic auth, `user:password`; one of the two at most",
        ),
    ),
    "What is rescued, and how": (
        Setting(
            "MODE",
            "rescue",
            "`rescue`: every run with a deployment; `opt-in`: runs tagged `spot:rerun`; `observe`:"
            " none, what would have been done is written down ([modes](concepts.md#mode))",
        ),
        Setting(
            "SPOT_RETRIES",
            "3",
            "interruptions a run may suffer on Spot, unless its tag `spot-retries:N` or its flow's"
            " own `retries` say otherwise ([budget](concepts.md#budget))",
        ),
        Setting(
            "RERUN_DELAY_SECONDS",
            "0",
            "wait before a rerun on Spot; each run's is between once and twice this, so that many"
            " do not start at once",
        ),
        Setting(
            "GUARD_ECONOMICS",
            "false",
            "`true`: a rerun goes to FARGATE as soon as finishing on Spot is expected to cost more,"
            " by your own interruption rate and the deployment's completed runs",
        ),
        Setting(
            "SWEEP_GRACE_SECONDS",
            "180",
            "what `react` is given to answer an event, before `sweep` repairs what it finds",
        ),
    ),
    "Where it looks": (
        Setting("STAGE", "dev", "the stage's name; the defaults below are made of it"),
        Setting(
            "ECS_CLUSTER",
            "prefect-spot-<stage>",
            "the cluster, or several, comma-separated; names or ARNs. Tasks of others are ignored",
        ),
        Setting(
            "WORK_POOL", "fargate-spot-<stage>", "the work pool whose runs `sweep` looks after"
        ),
    ),
    "What is provided": (
        Setting(
            "PROVISION",
            "full",
            "`full`: cluster, worker and work pool too; `rescue-only`: an existing cluster, pool"
            " and worker stay as they are, the stack holds what the handler itself needs",
        ),
        Setting(
            "STACK_NAME",
            "prefect-spot-<stage>",
            "the CloudFormation stack; also the name of the DynamoDB table",
        ),
        Setting("VPC_ID", "", "network of worker and flows; empty: the default VPC"),
        Setting("SUBNET_IDS", "", "comma-separated; empty: all of the VPC that fit"),
        Setting("SECURITY_GROUP_IDS", "", "comma-separated; empty: the stack makes one"),
        Setting(
            "ASSIGN_PUBLIC_IP", "true", "`false` needs subnets with a NAT gateway or endpoints"
        ),
        Setting("USE_SPOT", "true", "`false`: a plain Fargate cluster, and flows on FARGATE"),
        Setting(
            "SPOT_WEIGHT",
            "3",
            "of FARGATE_SPOT in the cluster's default strategy: for tasks that bring none."
            " Prefect's runs bring theirs",
        ),
        Setting("FARGATE_WEIGHT", "2", "of FARGATE in that strategy"),
        Setting("FARGATE_BASE", "1", "tasks that go to FARGATE first in that strategy"),
        Setting("ALARM_EMAIL", "", "subscribed to the alarm topic; AWS asks it to confirm"),
    ),
    "The worker": (
        Setting("WORKER_IMAGE", "prefecthq/prefect-aws:latest", "the image; name a version of it"),
        Setting("WORKER_CPU", "512", "CPU units of its task"),
        Setting("WORKER_MEMORY", "1024", "MiB of its task; what Fargate takes with that CPU"),
        Setting("WORK_QUEUES", "", "comma-separated; empty: all of the pool"),
        Setting("WORKER_QUERY_SECONDS", "10", "how often it asks for runs that are due"),
        Setting("LOG_RETENTION_DAYS", "30", "how long CloudWatch keeps worker and flow logs"),
    ),
    "Money": (
        Setting(
            "RATES",
            "",
            "your own rates, as of a savings plan, over the shipped table ([money](money.md))",
        ),
    ),
    "Log": (Setting("LOG_LEVEL", "INFO", "level of the Lambdas' own log, and of the worker's"),),
}


class Recorder(Mapping[str, str]):
    """An environment that notes which variables it is asked for."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = values
        self.asked: set[str] = set()

    def __getitem__(self, name: str) -> str:
        self.asked.add(name)
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


def read(environment: Mapping[str, str]) -> tuple[object, ...]:
    """Read all settings, as a Lambda does at its cold start.

    Raises:
        SettingError: one is wrong.
    """
    settings = read_settings(environment)
    return settings, read_provision_settings(environment, settings)


def names_read() -> set[str]:
    """Return the names of all variables that the code asks for."""
    recorder = Recorder(REQUIRED)
    read(recorder)
    return recorder.asked | set(ELSEWHERE)


def accepted(name: str) -> str:
    """Return what the code says it accepts, when the setting is wrong; empty: it takes any text."""
    try:
        read({**REQUIRED, name: _WRONG})
    except SettingError as error:
        if error.what.startswith(name):
            return error.what.partition(": accepted ")[2].removeprefix("are ").removeprefix("is ")
    return ""


def page() -> str:
    """Return the page, in Markdown."""
    parts = []
    for title, settings in SETTINGS.items():
        parts.append(f"## {title}\n\n| setting | default | accepted | meaning |\n|---|---|---|---|")
        parts += [_row(setting) for setting in settings]
        parts.append("")
    return FRAME.read_text().replace("{tables}\n", "\n".join(parts))


def _row(setting: Setting) -> str:
    default = {None: "required", "": "empty"}.get(setting.default, f"`{setting.default}`")
    allowed = escape(accepted(setting.name), quote=False).replace("\\", "\\\\") or "text"
    cells = (f"`{setting.name}`", default, allowed, setting.meaning)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


if __name__ == "__main__":
    PAGE.write_text(page())
