"""Failed starts: why a run got no container or lost its host, and whether another start can help.

`start_failure_of` reads what Prefect's worker says when it could not submit a run, and what ECS
says of a task that never started, or whose host died. tests/contract/test_start_failures.py holds
the table against what the installed workers really say.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Final, NamedTuple

from chalicelib.core.model.ecs_task import SPOT_STOP_REASON

SUBMISSION_FAILURES: Final = (
    "failed to submit flow run to infrastructure",  # Prefect 3.6.22 and newer, workers/base.py
    "flow run could not be submitted to infrastructure",  # older ones
)
"""How the message of a Crashed state begins when a worker could not submit the run, lower case."""
MOST_READ: Final = 2048
"""Characters of a reason that are searched: the worst ones take their square."""


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
    """A row of the table: the pattern `signs` is searched for in a reason, whatever its case.

    `source`: pages of https://docs.aws.amazon.com/AmazonECS/latest/, issues and pull requests on
    GitHub, and files of a library.
    """

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
    return _found(reason[:MOST_READ])


@lru_cache(maxsize=256)  # a run is judged by some fifty looks at its reason
def _found(reason: str) -> StartFailure:
    for kind, rows in TABLE:
        for row in rows:
            if re.search(row.signs, reason, re.IGNORECASE | re.DOTALL):
                return StartFailure(kind, row.what, row.remedy)
    return UNRECOGNISED


_STATUS: Final = r"(?:\({0}\)|\b(?:status|status ?code|code|http)\W{{0,2}}{0}\b)"
"""A status code that is called one: neither an image's tag, a name, a size nor part of an id."""
_NETWORK: Final = r"(?:subnets?|security ?groups?|vpc|network interface)\b"
_BY_HAND: Final = (
    Row(
        r"\bUserInitiated\b",
        "a user stopped it",
        "retry the run if that was not intended",
        "APIReference/API_Task",
    ),
)
"""Stands first: what a user writes as the reason counts for nothing."""
ARCHITECTURE: Final = Row(
    r"exec format error|matching platform|match for platform|no matching manifest",
    "its image is for another CPU architecture than the task",
    "build the image for the task's architecture, or for both (`docker buildx build --platform"
    " linux/amd64,linux/arm64`); else set ARCHITECTURE, or the job variable `cpu_architecture`, to"
    " the image's",
    "developerguide/task_cannot_pull_image; repost.aws/knowledge-center/ecs-task-exec-format-error",
)
"""Of one image for several architectures, ECS finds none for the task. An image for one it starts,
and only the container's log has the words."""
_REFUSALS: Final = (
    Row(
        r"FARGATE_SPOT capacity provider is not supported when using ARM",
        "Fargate Spot has no ARM64 here",
        "set ARCHITECTURE to x86_64, or USE_SPOT to false",
        "aws/containers-roadmap#2407",
    ),
    Row(
        r"capacity is unavailable at this time|\bRESOURCE:(?!arn:)\w+"
        r"|\b(?:no|insufficient) ?(?:spot )?capacity\b",
        "Fargate Spot has no capacity",
        "give the work pool subnets in more Availability Zones",
        "repost.aws/knowledge-center/ecs-fargate-runtask-capacity;"
        " developerguide/api_failures_messages",
    ),
    Row(
        r"limit on the number of (?:vCPU|task)s|above your (?:current )?(?:vCPU )?limit"
        r"|vCPU ?(?:limit|quota)",
        "the account's vCPU quota is used up",
        "raise the quota of Fargate (Spot) vCPUs in Service Quotas",
        "developerguide/service-quotas; dask/dask-cloudprovider#300",
    ),
)
_PASSING: Final = (
    Row(
        rf"{SPOT_STOP_REASON}|\bInfrastructureHealth\b",
        "AWS took the task before it started, or its host failed",
        "retry the run",
        "developerguide/fargate-capacity-providers; APIReference/API_Task",
    ),
    Row(
        r"insufficient ?free ?addresses|not enough free addresses|has no free (?:ip )?addresses",
        "its subnet has no free IP address",
        "use larger or more subnets",
        "developerguide/stopped-task-error-codes",
    ),
    Row(
        r"toomanyrequests|pull rate limit|cannotpull.* 429(?:\W|$)|cannotpull.*too many requests",
        "the registry limits image pulls",
        "authenticate to the registry, or copy the image to ECR",
        "developerguide/task_cannot_pull_image",
    ),
    Row(
        r"thrott(?:ling|led)|rate exceeded|request ?limit ?exceeded|too ?many ?requests"
        rf"|too many concurrent attempts to create a new revision|{_STATUS.format('429')}",
        "AWS throttled the start",
        "if it stays, set `match_latest_revision_in_family` so that the worker registers fewer task"
        " definitions, or start fewer runs at once",
        "APIReference/request-throttling; PrefectHQ/prefect#16485; dask/dask-cloudprovider#56",
    ),
    Row(
        r"i/o timeout|handshake timeout|context (?:deadli|cancel)|request ?canceled|client\.timeout"
        r"|connection ?(?:timed out|reset|refused)|unexpected eof|broken pipe|send request failed"
        r"|connection issue between|temporary failure in name resolution",
        "ECS could not reach the registry, or another service that the task needs, in time",
        "if it stays, check the network access from the task's subnets (NAT gateway, VPC endpoints"
        " or a public IP)",
        "developerguide/task_cannot_pull_image; apache/airflow#22002; aws/aws-cli#6470",
    ),
    Row(
        "could not transition to|DockerTimeout|ContainerRuntimeTimeout|while watching task for",
        "its container did not start in time",
        "if it stays, use a smaller image",
        "developerguide/stopped-task-error-codes; prefect-aws 0.5.16, ecs_worker.py",
    ),
    Row(
        r"server ?exception|internal ?failure|internal ?(?:server ?)?error(?!: failed to normalize)"
        r"|service ?unavailable|bad ?gateway|gateway ?time-?out"
        r"|timeout waiting for network interface provisioning|" + _STATUS.format("50[0234]"),
        "AWS, or another server, failed or was late",
        "if it stays, look at the AWS Health Dashboard, then retry the run",
        "APIReference/CommonErrors; developerguide/internal-error; dagster-io/dagster#17212",
    ),
    Row(
        r"could not connect to the endpoint|timeout on endpoint|closed before we received a valid"
        r"|failed to connect to proxy|error (?:when )?retrieving (?:credentials|metadata)"
        r"|\b(?:Connect|Read|Write|RemoteProtocol)Error\b|\b(?:Connect|Read|Write|Pool)Timeout\b",
        "the worker could not reach AWS or Prefect",
        "check the worker's network access to the ECS API and to the Prefect server",
        "botocore 1.43, exceptions.py; httpx 0.28, _exceptions.py",
    ),
)
_LASTING: Final = (
    Row(
        r"cannotpull.*(?:denied|forbidden|unauthori|no basic auth|authorization|to authoriz)",
        "the registry denies the image",
        "check the execution role's permissions in ECR, or the registry's credentials",
        "developerguide/task_cannot_pull_image",
    ),
    Row(
        r"executable file not found|no such file or directory"
        r"|(?:cannotstart|cannotcreate|oci runtime).*(?:not found|permission denied)",
        "its command cannot be run",
        "check the command and the entry point",
        "developerguide/cannot-start-container",
    ),
    ARCHITECTURE,
    Row(
        r"(?:cannotpull|resolve ref).*(?:not ?found|not exist|no such image)|RepositoryNotFound"
        r"|(?:manifest|name)[ _]unknown|invalid reference format|failed to normalize image",
        "there is no such image",
        "check the image's name and tag",
        "developerguide/task_cannot_pull_image",
    ),
    Row(
        "no space left on device",
        "the task's storage is full",
        "use a smaller image, or more ephemeral storage",
        "developerguide/task_cannot_pull_image",
    ),
    Row(
        r"access ?denied|not authorized|unauthorized ?operation|not have permission"
        r"|sufficient permissions|unable to assume|cannot be assumed|role is not valid",
        "AWS denied access, or a role cannot be assumed",
        "check the permissions, and the trust policy, of the role that the message names",
        "APIReference/CommonErrors; aws-samples/aws-modern-application-workshop#149",
    ),
    Row(
        r"task ?definition (?:is |was )?(?:inactive|not ?found)|unable to describe task definition",
        "the task definition is inactive or missing",
        "register it again, or take `task_definition_arn` out of the job variables",
        "prefect-aws 0.7.12, ecs_worker.py; APIReference/API_RunTask",
    ),
    Row(
        r"cluster ?not ?found|cluster \S+ not found|cluster (?:is |was )?inactive"
        r"|capacity provider (?:error|that is not associated|.*(?:not found|not exist|inactive))",
        "the ECS cluster or its capacity provider was not found",
        "check the job variable `cluster` and the worker's region; associate FARGATE and"
        " FARGATE_SPOT with the cluster",
        "prefect-aws 0.7.12, ecs_worker.py; APIReference/API_RunTask; dask/dask-cloudprovider#328",
    ),
    Row(
        rf"{_NETWORK}.*(?:not ?found|does ?n(?:o|')t exist|invalid|not valid)|invalid ?{_NETWORK}"
        r"|network configuration (?:error|cannot)|failed to find (?:the default )?(?:vpc|subnets)",
        "its subnets or security groups are wrong",
        "check `vpc_id` and `network_configuration` in the job variables",
        "prefect-aws 0.7.12, ecs_worker.py; developerguide/stopped-task-error-codes",
    ),
    Row(
        r"find the specified secret|ssm.*invalid parameters|ParameterNotFound"
        r"|ResourceNotFoundException|did not contain json key|secret\b.*not found"
        r"|log (?:group|stream).*not exist",
        "a secret, a parameter or the log group of the task was not found",
        "check the secrets and the log group that the task definition names",
        "developerguide/resource-initialization-error",
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
        "botocore 1.43, exceptions.py; APIReference/CommonErrors",
    ),
    Row(
        r"invalid ?parameter|client ?exception|validation ?e(?:rror|xception)|\bValueError\b"
        r"|parameter validation failed|unsupported ?feature|(?:platform|blocked)\w*exception",
        "a parameter of its task is invalid",
        "correct the job variable or the task definition that the message names",
        "APIReference/API_RunTask; prefect-aws 0.7.12, ecs_worker.py",
    ),
)
_STEPS: Final = (
    Row(
        "cannotpull",
        "its image could not be pulled",
        "check the image's name, the execution role's permissions in ECR, and the network access to"
        " the registry",
        "developerguide/task_cannot_pull_image",
    ),
    Row(
        "resourceinitialization|cannotstartcontainer",
        "ECS could not prepare or start its container",
        "check what its task definition names: secrets, execution role, network, command",
        "developerguide/resource-initialization-error; developerguide/cannot-start-container",
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
