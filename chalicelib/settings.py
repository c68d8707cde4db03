"""The settings: environment variables of the Lambdas, per stage in `.chalice/config.json`.

What is read, `docs/settings.md` and the stack's parameters follow from the rows of `Settings`. All
are checked at cold start and by each `spotctl` command: a wrong one stops it, named by the error.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from decimal import Decimal
from enum import StrEnum
from typing import Any, Final

from chalicelib import setting_forms as forms
from chalicelib.core.model.policy import Mode, Notify, Policy, SpotRetries, pool_of_stage
from chalicelib.core.model.pricing import ARCHITECTURES, Rates
from chalicelib.errors import SettingError

FUNCTIONS: Final = ("react", "meter", "sweep", "provision")


class Provision(StrEnum):
    """How much `provision` makes: all, or only what the handler needs beside your own cluster."""

    FULL = "full"
    RESCUE_ONLY = "rescue-only"


@dataclass(frozen=True, slots=True)
class Setting:
    """A row of the table: an environment variable, where an empty one counts as not set.

    `default`: None where the setting is required; `<stage>` in it stands for the stage's name.
    `meaning`: for the settings page, in Markdown. `parameter`: the stack's parameter that gets the
    value; None: the name in camel case; empty: none.
    """

    default: str | None
    form: forms.Form
    meaning: str
    parameter: str | None = None
    name: str = ""


def _row(*values: Any, **named: Any) -> Any:
    return field(metadata={"row": Setting(*values, **named)})


@dataclass(frozen=True, slots=True)
class Settings:
    """The table, and the values of one stage; in upper case a name is its environment variable.

    CPU in CPU units, memory in MiB. Empty `vpc_id`, `subnet_ids`: looked up; empty
    `security_group_ids`: the stack makes one; empty `work_queues`: all.
    """

    prefect_api_url: str = _row(
        None, forms.API_URL, "the API of a Prefect Cloud workspace or of a server"
    )
    prefect_api_key_parameter: str = _row(
        "",
        forms.SECRET_PARAMETER,
        "name of the SSM SecureString that holds the API key; empty: none",
        "ApiKeyParameter",
    )
    prefect_api_auth_string_parameter: str = _row(
        "",
        forms.SECRET_PARAMETER,
        "the same for a server's basic auth, `user:password`; one of the two at most",
        "AuthStringParameter",
    )
    prefect_custom_headers_parameter: str = _row(
        "",
        forms.SECRET_PARAMETER,
        "the same for headers that an access proxy before the server asks for, as a JSON object;"
        " functions, worker and flows send them ([behind a proxy](connect.md#behind-a-proxy))",
        "CustomHeadersParameter",
    )
    prefect_ca_certificate_parameter: str = _row(
        "",
        forms.CERTIFICATE_PARAMETER,
        "name of the SSM parameter with the certificates, in PEM, of the authority of your own that"
        " signed the server's; functions, worker and flows trust it, and no other",
        "CaCertificateParameter",
    )
    kms_key_arn: str = _row(
        "", forms.KEY_ARN, "your own key that encrypts these parameters; empty: AWS's own"
    )
    mode: Mode = _row(
        "rescue",
        forms.one_of(Mode),
        "`rescue`: every run with a deployment; `opt-in`: runs tagged `spot:rerun`; `observe`:"
        " none, what would have been done is written down ([modes](roll-out.md#step-by-step))",
        parameter="",
    )
    spot_retries: SpotRetries = _row(
        "3",
        forms.SPOT_RETRIES,
        "interruptions a run may suffer on Spot, unless its tag `spot-retries:` or its flow's own"
        " `retries` say otherwise ([budget](how-it-works.md#glossary)); `auto`: as many as are"
        " expected to [pay](costs.md#which-setting-is-mine)",
        parameter="",
    )
    rerun_delay_seconds: int = _row(
        "0",
        forms.whole_number(0, 86_400),
        "delay before a rerun on Spot; the actual one is between once and twice this, different for"
        " each run, so that many do not start at once",
        parameter="",
    )
    start_retries: int = _row(
        "2",
        forms.whole_number(0, 20),
        "how often an attempt that failed to start for a passing reason is started again, after"
        " 30, 60, then 120 s, each up to half as long again, unless the run's tag `start-retries:N`"
        " says otherwise ([failed starts](how-it-works.md#glossary))",
        parameter="",
    )
    sweep_grace_seconds: int = _row(
        "180",
        forms.whole_number(0, 3_600),
        "how long `sweep` waits for `react` to handle an event before it repairs the run itself",
        parameter="",
    )
    pending_grace_seconds: int = _row(
        "900",
        forms.whole_number(60, 86_400),
        "how long a run that a worker picked up may have no task before that counts as a failed"
        " start; above the time that your worker keeps asking ECS for a task",
        parameter="",
    )
    react_concurrency: int = _row(
        "10",
        forms.whole_number(0, 1_000),
        "concurrent executions [reserved](operations.md#concurrency) for `react`; 0: reserve none",
        "",
    )
    stage: str = _row("dev", forms.STAGE, "the stage's name; defaults with `<stage>` use it")
    ecs_clusters: tuple[str, ...] = _row(
        "prefect-spot-<stage>",
        forms.CLUSTERS,
        "the cluster, or several. Tasks of others are ignored: the event rules do not pass them on",
        "ClusterName",
        name="ECS_CLUSTER",
    )
    work_pools: tuple[str, ...] = _row(
        "fargate-spot-<stage>",
        forms.POOL_NAMES,
        "the pool whose runs are handled; in rescue-only several too, each of type `ecs` or"
        " [`ecs:push`](install.md#several-pools-and-push-pools)",
        name="WORK_POOL",
        parameter="WorkPool",
    )
    provision: Provision = _row(
        "full",
        forms.one_of(Provision),
        "`full`: cluster, worker and work pool too; `rescue-only`: an existing cluster, pool"
        " and worker stay as they are, the stack holds what the handler itself needs",
    )
    stack_name: str = _row(
        "prefect-spot-<stage>", forms.STACK_NAME, "the stack, and its DynamoDB table", "TableName"
    )
    vpc_id: str = _row("", forms.VPC_ID, "network of worker and flows; empty: the default VPC")
    subnet_ids: tuple[str, ...] = _row(
        "", forms.SUBNET_IDS, "of worker and flows; empty: all of the VPC that fit"
    )
    security_group_ids: tuple[str, ...] = _row(
        "", forms.GROUP_IDS, "of worker and flows; empty: the stack makes one"
    )
    assign_public_ip: bool = _row(
        "true", forms.FLAG, "`false` needs subnets with a NAT gateway or endpoints"
    )
    flow_policy_arns: tuple[str, ...] = _row(
        "", forms.POLICY_ARNS, "managed policies for the role of flows that have none of their own"
    )
    passable_role_arns: tuple[str, ...] = _row(
        "",
        forms.ROLE_ARNS,
        "your own [roles that the worker may pass](security.md#corporate-rules)",
    )
    permissions_boundary_arn: str = _row("", forms.POLICY_ARN, "set on each role of the stack")
    use_spot: bool = _row(
        "true", forms.FLAG, "`false`: a plain Fargate cluster, and flows on FARGATE"
    )
    architecture: str = _row(
        "x86_64",
        forms.one_of(ARCHITECTURES),
        "of worker and flows ([more](install.md#put-your-own-flow-on-the-pool))",
    )
    spot_weight: int = _row(
        "3",
        forms.whole_number(0, 1_000),
        "of FARGATE_SPOT in the cluster's default strategy: for tasks that bring none."
        " Prefect's runs bring theirs",
    )
    fargate_weight: int = _row("2", forms.whole_number(0, 1_000), "of FARGATE in that strategy")
    fargate_base: int = _row(
        "1", forms.whole_number(0, 100_000), "tasks on FARGATE before any on Spot"
    )
    alarm_email: str = _row(
        "", forms.EMAIL, "subscribed to the alarm topic; AWS asks it to confirm"
    )
    notify: Notify = _row(
        "losses",
        forms.one_of(Notify),
        "[messages](operations.md#messages-about-runs) to that topic: of runs that are lost (their"
        " task died or never started, and nothing starts them again), of moves to on-demand,"
        " of both or none",
        "",
    )
    worker_image: str = _row(
        "prefecthq/prefect-aws:0.7.12-python3.12-prefect3.9.1",
        forms.IMAGE,
        "the image, of the tested versions; never of a newer Prefect than the server's",
    )
    worker_cpu: int = _row("512", forms.CPU_UNITS, "CPU units of its task")
    worker_memory: int = _row(
        "",
        forms.MEMORY,
        "memory of its task; empty: 1024, or the least that Fargate takes with that CPU",
    )
    work_queues: tuple[str, ...] = _row(
        "", forms.QUEUE_NAMES, "what the worker polls; empty: all of the pool"
    )
    worker_query_seconds: int = _row(
        "10", forms.whole_number(1, 3_600), "how often it asks for due runs"
    )
    log_retention_days: int = _row(
        "30", forms.RETENTION_DAYS, "how long logs are kept: worker's, flows' and Lambdas'"
    )
    rates: Rates = _row(
        "",
        forms.RATES,
        "your own rates, as of a savings plan, over the shipped table ([costs](costs.md))",
        parameter="",
    )
    assumed_spot_discount: Decimal = _row(
        "0.68",
        forms.SHARE,
        "how much less than on-demand Spot is assumed to cost where no Spot rate is known; figures"
        " made with it are [marked](dev/money.md#rates)",
        parameter="",
    )
    deployment_metrics: bool = _row(
        "false",
        forms.FLAG,
        "`true`: metrics by deployment, too ([what they cost](costs.md#what-it-costs))",
        parameter="",
    )
    log_level: str = _row(
        "INFO", forms.LOG_LEVEL, "level of the Lambdas' own log, and of the worker's"
    )

    @property
    def is_full(self) -> bool:
        """Whether cluster, worker and work pool are ours to provide."""
        return self.provision is Provision.FULL

    @property
    def secrets(self) -> dict[str, str]:
        """The SSM parameters that are set, by the settings that name them."""
        return {name: each for name in SECRETS if (each := getattr(self, name.lower()))}


ROWS: Final[Mapping[str, Setting]] = {
    each.name: replace(row, name=row.name or each.name.upper())
    for each in fields(Settings)
    for row in [each.metadata["row"]]
}
"""The table's rows, by the fields of `Settings`."""
SECRETS: Final = tuple(row.name for row in ROWS.values() if row.name.endswith("_PARAMETER"))
"""The settings that name an SSM parameter."""


def read_settings(environment: Mapping[str, str]) -> Settings:
    """Return the settings that `environment` holds, with the defaults filled in.

    Raises SettingError: names the setting, shows its value and says what is accepted.
    """
    stage = _stage_of(environment)
    values = {name: _read(row, environment, stage) for name, row in ROWS.items()}
    values["worker_memory"] = _worker_memory(values["worker_cpu"], values["worker_memory"])
    settings = Settings(**values)
    _check_together(settings)
    return settings


def read_clusters(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Return ECS_CLUSTER alone, with its default: names or ARNs. Raises SettingError."""
    return tuple(_read(ROWS["ecs_clusters"], environment, _stage_of(environment)))


def _stage_of(environment: Mapping[str, str]) -> str:
    return environment.get("STAGE") or str(ROWS["stage"].default)


def _read(row: Setting, environment: Mapping[str, str], stage: str) -> Any:
    text = environment.get(row.name) or (row.default or "").replace("<stage>", stage)
    try:
        return row.form.read(text)
    except ValueError as error:
        raise _wrong(row, text, row.form.accepted, str(error)) from None


def _worker_memory(cpu: int, text: str) -> int:
    sizes = forms.FARGATE_MEMORY[cpu]
    if text and text not in map(str, sizes):
        accepted = f"with WORKER_CPU {cpu}, in MiB, {', '.join(map(str, sizes))}"
        raise _wrong(ROWS["worker_memory"], text, accepted)
    return int(text or max(1024, sizes[0]))


_HTTPS: Final = "an https address, unless PREFECT_CA_CERTIFICATE_PARAMETER is empty"


def _check_together(settings: Settings) -> None:
    """Check what no row sees alone."""
    if settings.prefect_api_key_parameter and settings.prefect_api_auth_string_parameter:
        raise SettingError(
            "PREFECT_API_KEY_PARAMETER and PREFECT_API_AUTH_STRING_PARAMETER are both set",
            next_step="set one of them: the key for Prefect Cloud, the string for basic auth",
        )
    if (
        settings.prefect_ca_certificate_parameter
        and settings.prefect_api_url[:6].lower() != "https:"
    ):
        raise _wrong(ROWS["prefect_api_url"], settings.prefect_api_url, _HTTPS)
    if settings.spot_weight == settings.fargate_weight == 0:
        raise _wrong(ROWS["spot_weight"], "0", "a number above 0, unless FARGATE_WEIGHT is above 0")
    if not settings.is_full:
        return
    if not forms.OWN_POOL.fullmatch(pools := ",".join(settings.work_pools)):
        raise _wrong(ROWS["work_pools"], pools)
    clusters = ",".join(settings.ecs_clusters)
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,255}", clusters):
        raise _wrong(ROWS["ecs_clusters"], clusters)


def _wrong(row: Setting, text: str, accepted: str = "", why: str = "") -> SettingError:
    is_secret = row.form.is_secret or forms.may_hold_credential(text)
    shown = "not shown, since it may be a credential" if is_secret else repr(text)
    reason = f" ({why})" if why and not is_secret else ""
    return SettingError(
        f"{row.name} is {shown}{reason}; accepted: {accepted or row.form.accepted}",
        next_step=f"correct {row.name} in .chalice/config.json, then run spotctl deploy",
    )


def stack_parameters(settings: Settings) -> dict[str, str]:
    """Return the values of the stack's parameters, by their names."""
    values = {
        row.parameter or name.title().replace("_", ""): forms.text_of(getattr(settings, name))
        for name, row in ROWS.items()
        if row.parameter != ""
    }
    # Behind "parameter/" in its ARN, a name has no slash of its own in front.
    for name in SECRETS:
        values[ROWS[name.lower()].parameter or ""] = settings.secrets.get(name, "").removeprefix(
            "/"
        )
    values["WorkPool"] = pool_of_stage(settings.work_pools)
    values["AssignPublicIp"] = "ENABLED" if settings.assign_public_ip else "DISABLED"
    values["EndsRuns"] = forms.text_of(settings.mode.ends_runs or not settings.is_full)
    return values


def function_names(stage: str) -> tuple[str, ...]:
    """Return the functions' names in Lambda, as Chalice makes them."""
    return tuple(f"prefect-spot-{stage}-{name}" for name in FUNCTIONS)


def policy_of(settings: Settings, rates: Rates) -> Policy:
    """Return what the settings say about decisions. `rates`: the shipped ones, with the user's."""
    return Policy(
        mode=settings.mode,
        spot_retries=settings.spot_retries,
        rerun_delay_seconds=settings.rerun_delay_seconds,
        start_retries=settings.start_retries,
        rates=rates,
        work_pools=settings.work_pools,
    )
