"""Failed starts: why a run got no container, and whether another start can help.

`start_failure_of` reads what Prefect's worker says when it could not submit a run, and what ECS
says of a task that never started. tests/contract/test_start_failures.py holds the table against
what the installed workers really say.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple

from chalicelib.core.model.ecs_task import SPOT_STOP_REASON

SUBMISSION_FAILURES: Final = (
    "failed to submit flow run to infrastructure",  # Prefect 3.6.22 and newer, workers/base.py
    "flow run could not be submitted to infrastructure",  # older ones
)
"""How the message of a Crashed state begins when a worker could not submit the run, lower case."""
MOST_READ: Final = 4096
"""Characters of a reason that are searched."""


class StartFailureKind(StrEnum):
    """What to expect of another start: refused on Spot only, soon fine, never, or unknown."""

    REFUSAL = "refusal"
    PASSING = "passing"
    LASTING = "lasting"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class StartFailure:
    """Why a start failed, in a phrase, and the next step for a person."""

    kind: StartFailureKind
    what: str
    remedy: str


class Row(NamedTuple):
    """A row of the table: the pattern `signs` is searched for in a reason, whatever its case."""

    signs: str
    what: str
    remedy: str
    source: str


WORKER_DIED: Final = StartFailure(
    StartFailureKind.PASSING,
    "a worker picked the run up, but ECS never showed a task for it",
    "look at the worker's log, then retry the run",
)
"""Found by the absence of a task: no message says it."""
UNRECOGNISED: Final = StartFailure(
    StartFailureKind.UNKNOWN,
    "it never started",
    "look at the worker's log and at the stopped task in the ECS console",
)
"""What no row of the table knows."""


def is_submission_failure(message: str) -> bool:
    """Return whether a Crashed state's message is a worker's that could not submit the run.

    Only its beginning counts: the message of a flow that crashed may quote that of another run.
    """
    return message.lstrip().lower().startswith(SUBMISSION_FAILURES)


def start_failure_of(reason: str) -> StartFailure:
    """Return what the first row that matches says; `UNRECOGNISED` when none does.

    `reason`: a submission failure's message, or ECS's stoppedReason and the container's reason.
    """
    for kind, rows in TABLE:
        for row in rows:
            if re.search(row.signs, reason[:MOST_READ], re.IGNORECASE | re.DOTALL):
                return StartFailure(kind, row.what, row.remedy)
    return UNRECOGNISED


_WORKER: Final = "prefect-aws 0.7.12, ecs_worker.py"
_GUIDE: Final = "https://docs.aws.amazon.com/AmazonECS/latest/developerguide/"
_API: Final = "https://docs.aws.amazon.com/AmazonECS/latest/APIReference/"
_GITHUB: Final = "https://github.com/"
_STATUS: Final = r"(?:\({0}\)|\b(?:status|status ?code|code|http)\W{{0,2}}{0}\b)"
"""A status code that is called one: neither an image's tag, a name, a size nor part of an id."""
_NO_SUCH: Final = r"not ?found|does ?n(?:o|')t exist|invalid|not valid"
_NETWORK_THING: Final = r"(?:subnets?|security ?groups?|vpc|network interface)\b"
_AFTER_AWS: Final = "if it stays, look at the AWS Health Dashboard, then retry the run"

_BY_HAND: Final = (
    Row(
        r"\bUserInitiated\b",
        "a user stopped it",
        "retry the run if that was not intended",
        f"{_API}API_Task.html",
    ),
)
"""Stands first: what a user writes as the reason counts for nothing."""
_REFUSALS: Final = (
    Row(
        r"capacity is unavailable at this time|\bRESOURCE:(?!arn:)\w+"
        r"|\b(?:no|insufficient) ?(?:spot )?capacity\b",
        "Fargate Spot has no capacity",
        "give the work pool subnets in more Availability Zones",
        "https://repost.aws/knowledge-center/ecs-fargate-runtask-capacity; "
        f"{_GUIDE}api_failures_messages.html",
    ),
    Row(
        r"limit on the number of (?:vCPU|task)s|above your (?:current )?(?:vCPU )?limit"
        r"|vCPU ?(?:limit|quota)",
        "the account's vCPU quota is used up",
        "raise the quota of Fargate (Spot) vCPUs in Service Quotas",
        f"{_GUIDE}service-quotas.html; {_GITHUB}dask/dask-cloudprovider/pull/300",
    ),
)
_PASSING: Final = (
    Row(
        SPOT_STOP_REASON,
        "Fargate Spot took the task before it started",
        "retry the run",
        f"{_GUIDE}fargate-capacity-providers.html",
    ),
    Row(
        r"\bInfrastructureHealth\b",
        "AWS found its host unhealthy",
        "retry the run",
        f"{_API}API_Task.html",
    ),
    Row(
        "timeout waiting for network interface provisioning",
        "its network interface was not ready in time",
        _AFTER_AWS,
        f"{_GITHUB}dagster-io/dagster/issues/17212; {_GITHUB}apache/airflow/issues/48001",
    ),
    Row(
        r"insufficient ?free ?addresses|not enough free addresses|has no free (?:ip )?addresses",
        "its subnet has no free IP address",
        "use larger or more subnets",
        f"{_GUIDE}stopped-task-error-codes.html",
    ),
    Row(
        r"toomanyrequests|pull rate limit|cannotpull.* 429(?:\W|$)|cannotpull.*too many requests",
        "the registry limits image pulls",
        "authenticate to the registry, or copy the image to ECR",
        f"{_GUIDE}task_cannot_pull_image.html",
    ),
    Row(
        r"thrott(?:ling|led)|rate exceeded|request ?limit ?exceeded|too ?many ?requests"
        rf"|too many concurrent attempts to create a new revision|{_STATUS.format('429')}",
        "AWS throttled the start",
        "if it stays, set `match_latest_revision_in_family` so that the worker registers fewer task"
        " definitions, or start fewer runs at once",
        f"{_API}request-throttling.html; {_GITHUB}PrefectHQ/prefect/issues/16485; "
        f"{_GITHUB}dask/dask-cloudprovider/issues/56",
    ),
    Row(
        r"i/o timeout|handshake timeout|context (?:deadli|cancel)|request ?canceled|client\.timeout"
        r"|connection ?(?:timed out|reset|refused)|unexpected eof|broken pipe|send request failed"
        r"|connection issue between|temporary failure in name resolution",
        "ECS could not reach the registry, or another service that the task needs, in time",
        "if it stays, check the network access from the task's subnets (NAT gateway, VPC endpoints"
        " or a public IP)",
        f"{_GUIDE}task_cannot_pull_image.html; {_GUIDE}resource-initialization-error.html; "
        f"{_GITHUB}apache/airflow/issues/22002; {_GITHUB}aws/aws-cli/issues/6470",
    ),
    Row(
        "could not transition to|DockerTimeout|ContainerRuntimeTimeout|while watching task for",
        "its container did not start in time",
        "if it stays, use a smaller image",
        f"{_GUIDE}stopped-task-error-codes.html; prefect-aws 0.5.16, ecs_worker.py",
    ),
    Row(
        r"server ?exception|internal ?failure|internal ?(?:server ?)?error(?!: failed to normalize)"
        r"|service ?unavailable|bad ?gateway|gateway ?time-?out|" + _STATUS.format("50[0234]"),
        "AWS, or another server, failed",
        _AFTER_AWS,
        f"{_API}CommonErrors.html; {_GUIDE}internal-error.html",
    ),
    Row(
        r"could not connect to the endpoint|timeout on endpoint|closed before we received a valid"
        r"|failed to connect to proxy|error (?:when )?retrieving (?:credentials|metadata)",
        "the worker could not reach AWS",
        "check the worker's network access to the ECS API",
        "botocore 1.43, exceptions.py",
    ),
    Row(
        r"\b(?:Connect|Read|Write|RemoteProtocol)Error\b|\b(?:Connect|Read|Write|Pool)Timeout\b",
        "the worker could not reach Prefect's API",
        "check the worker's network access to the Prefect server",
        "httpx 0.28, _exceptions.py; Prefect 3.9.1, workers/base.py",
    ),
)
_LASTING: Final = (
    Row(
        r"cannotpull.*(?:denied|forbidden|unauthori|no basic auth|authorization|to authoriz)",
        "the registry denies the image",
        "check the execution role's permissions in ECR, or the registry's credentials",
        f"{_GUIDE}task_cannot_pull_image.html",
    ),
    Row(
        "exec format error|matching platform|match for platform|no matching manifest",
        "its image is for another CPU architecture",
        "build the image for the architecture that the task definition names",
        f"{_GUIDE}task_cannot_pull_image.html",
    ),
    Row(
        r"executable file not found|no such file or directory"
        r"|(?:cannotstart|cannotcreate|oci runtime).*(?:not found|permission denied)",
        "its command cannot be run",
        "check the command and the entry point",
        f"{_GUIDE}cannot-start-container.html",
    ),
    Row(
        r"(?:cannotpull|resolve ref).*(?:not ?found|not exist|no such image)"
        r"|(?:manifest|name)[ _]unknown|invalid reference format|failed to normalize image"
        r"|RepositoryNotFound",
        "its image was not found",
        "check the image's name and tag",
        f"{_GUIDE}task_cannot_pull_image.html",
    ),
    Row(
        "no space left on device",
        "the task's storage is full",
        "use a smaller image, or more ephemeral storage",
        f"{_GUIDE}task_cannot_pull_image.html",
    ),
    Row(
        r"access ?denied|not authorized|unauthorized ?operation|not have permission"
        r"|sufficient permissions|unable to assume|cannot be assumed|role is not valid",
        "AWS denied access, or a role cannot be assumed",
        "check the permissions, and the trust policy, of the role that the message names",
        f"{_API}CommonErrors.html; {_WORKER}; "
        f"{_GITHUB}aws-samples/aws-modern-application-workshop/issues/149",
    ),
    Row(
        r"task ?definition (?:is |was )?(?:inactive|not ?found)|unable to describe task definition",
        "the task definition is inactive or missing",
        "register it again, or take `task_definition_arn` out of the job variables",
        f"{_WORKER}; {_API}API_RunTask.html",
    ),
    Row(
        r"cluster ?not ?found|cluster \S+ not found|cluster (?:is |was )?inactive",
        "the ECS cluster was not found",
        "check the job variable `cluster` and the worker's region",
        f"{_WORKER}; {_API}API_RunTask.html",
    ),
    Row(
        rf"{_NETWORK_THING}.*(?:{_NO_SUCH})|invalid ?{_NETWORK_THING}"
        r"|network configuration (?:error|cannot)|failed to find (?:the default )?(?:vpc|subnets)",
        "its subnets or security groups are wrong",
        "check `vpc_id` and `network_configuration` in the job variables",
        f"{_WORKER}; {_GUIDE}stopped-task-error-codes.html",
    ),
    Row(
        r"capacity provider (?:error|that is not associated|.*(?:not found|not exist|inactive))",
        "the cluster does not have the capacity provider",
        "associate FARGATE and FARGATE_SPOT with the cluster",
        f"{_WORKER}; {_GITHUB}dask/dask-cloudprovider/issues/328",
    ),
    Row(
        r"find the specified secret|ssm.*invalid parameters|ParameterNotFound"
        r"|ResourceNotFoundException|did not contain json key|secret\b.*not found"
        r"|log (?:group|stream).*not exist",
        "a secret, a parameter or the log group of the task was not found",
        "check the secrets and the log group that the task definition names",
        f"{_GUIDE}resource-initialization-error.html",
    ),
    Row(
        r"ObjectNotFound|deployment .*(?:could not be found|no longer exists)"
        r"|unable to find block document",
        "its deployment, or a block that it names, is gone",
        "deploy the flow again, then start a new run",
        "Prefect 3.9.1, workers/base.py and server/api/flow_runs.py",
    ),
    Row(
        r"unable to locate credentials|expired ?token|unrecognized ?client|security token"
        r"|invalid ?(?:client ?token|signature|access ?key)|must specify a region",
        "the worker has no valid AWS credentials",
        "check the worker's role, or the `aws_credentials` block",
        f"botocore 1.43, exceptions.py; {_API}CommonErrors.html",
    ),
    Row(
        r"invalid ?parameter|client ?exception|validation ?e(?:rror|xception)|\bValueError\b"
        r"|parameter validation failed|unsupported ?feature|(?:platform|blocked)\w*exception",
        "a parameter of its task is invalid",
        "correct the job variable or the task definition that the message names",
        f"{_API}API_RunTask.html; {_WORKER}",
    ),
)
_STEPS: Final = (
    Row(
        "cannotpull",
        "its image could not be pulled",
        "check the image's name, the execution role's permissions in ECR, and the network access to"
        " the registry",
        f"{_GUIDE}task_cannot_pull_image.html",
    ),
    Row(
        "resourceinitialization",
        "ECS could not prepare it",
        "check the secrets its task definition names, the execution role and the network",
        f"{_GUIDE}resource-initialization-error.html",
    ),
    Row(
        "cannotstartcontainer",
        "its container could not be started",
        "check the command and the entry point",
        f"{_GUIDE}cannot-start-container.html",
    ),
)
"""The step that failed, where nothing says why."""
TABLE: Final = (
    (StartFailureKind.LASTING, _BY_HAND),
    (StartFailureKind.REFUSAL, _REFUSALS),
    (StartFailureKind.PASSING, _PASSING),
    (StartFailureKind.LASTING, _LASTING),
    (StartFailureKind.UNKNOWN, _STEPS),
)
"""The first row that matches wins.

Passing reasons stand before lasting ones: AWS names what was throttled by a class that would last.
"""
