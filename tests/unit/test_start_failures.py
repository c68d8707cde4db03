"""Why starts fail, by what ECS says, and what workers say beyond the contract suite's starts.

ECS's texts are from the developer guide ("Amazon ECS stopped tasks error messages") and from the
reports that the table names as sources.
"""

import re

import pytest

from chalicelib.core.rescue.start_failures import (
    TABLE,
    UNRECOGNISED,
    StartFailureKind,
    is_submission_failure,
    start_failure_of,
)

REFUSAL, PASSING, LASTING, UNKNOWN = StartFailureKind
PULL = "CannotPullContainerError: pull image manifest has been retried 5 time(s): "
INIT = "ResourceInitializationError: unable to pull secrets or registry auth: "
SUBMITTED = "Failed to submit flow run to infrastructure: "

SAID = {
    REFUSAL: [
        "Capacity is unavailable at this time. Please try again later or in a different"
        " availability zone",
        "TaskFailedToStart: RESOURCE:ENI",
        f"{SUBMITTED}InvalidParameterException: FARGATE_SPOT capacity provider is not supported"
        " when using ARM architecture.",
        "You've reached the limit on the number of vCPUs you can run concurrently",
        "You\u2019ve reached the limit on the number of tasks you can run concurrently",
        "The requested CPU configuration is above your limit",
        "VcpuLimitExceeded: You have requested more than your current vCPU limit of 6 allows",
        "ThrottlingException: You've reached the limit on the number of vCPUs you can run",
    ],
    PASSING: [
        "Timeout waiting for network interface provisioning to complete.",
        "Unexpected EC2 error while attempting to Create Network Interface in subnet 'subnet-1':"
        " InsufficientFreeAddressesInSubnet",
        "Unexpected EC2 error while attempting to tag the network interface: RequestLimitExceeded",
        f"{INIT}execution resource retrieval failed: unable to retrieve ecr registry auth: service"
        " call has been retried 3 time(s): RequestCanceled: request context canceled caused by:"
        " context deadline exceeded",
        f"{INIT}unable to retrieve secret from asm: service call has been retried 1 time(s): failed"
        " to fetch secret arn:aws:secretsmanager:a from secrets manager: RequestError: send request"
        " failed caused by: Post https://secretsman...",
        f"{INIT}unable to retrieve secrets from ssm: ThrottlingException: Rate exceeded",
        f"{INIT}The task cannot pull registry auth from Amazon ECR: There is a connection issue"
        " between the task and Amazon ECR. Check your task network configuration.",
        f"{PULL}failed to copy: httpReadSeeker: failed open: unexpected status code"
        " https://registry-1.docker.io/v2/etl/manifests/1: 429 Too Many Requests - Server message:"
        " toomanyrequests: You have reached your pull rate limit.",
        f"{PULL}429",
        f"{PULL}failed to do request: Head https://registry-1.docker.io/v2/a/manifests/1: dial tcp"
        " 34.205.13.154:443: i/o timeout",
        f"{PULL}net/http: TLS handshake timeout",
        f"{PULL}read tcp 10.0.0.9:4711->3.5.1.2:443: read: connection reset by peer",
        f"{PULL}received unexpected HTTP status: 503",
        f"{PULL}failed to authorize: failed to fetch anonymous token: unexpected status: 500",
        "DockerTimeoutError: Could not transition to started; timed out after waiting 3m0s",
        "InternalError: an unexpected error occurred",
        "InfrastructureHealth",
        "Your Spot Task was interrupted.",
        "InvalidParameterException: Error retrieving security group information for [sg-1]: Request"
        " limit exceeded. (ErrorCode: RequestLimitExceeded)",
        f"{SUBMITTED}ConnectError: All connection attempts failed",
        f"{SUBMITTED}ReadTimeout: ",
        f"{SUBMITTED}PrefectHTTPStatusError: Server error '503 Service Unavailable' for url 'a'",
        f"{SUBMITTED}MetadataRetrievalError: Error retrieving metadata: Read timed out",
        f"{SUBMITTED}EndpointConnectionError: Could not connect to the endpoint URL",
        "Flow run could not be submitted to infrastructure:\nPoolTimeout('')",
    ],
    LASTING: [
        f"{PULL}failed to resolve ref docker.io/etl:nightly: docker.io/etl:nightly: not found",
        f"{PULL}manifest unknown: manifest unknown",
        f"{PULL}name unknown: The repository with name 'etl' does not exist in the registry",
        f"{PULL}failed to resolve reference etl: unexpected status code: 403 Forbidden",
        "CannotPullContainerError: Error response from daemon: pull access denied for etl,"
        " repository does not exist or may require 'docker login'",
        f"{PULL}image Manifest does not contain descriptor matching platform 'linux/arm64'",
        f"{PULL}no matching manifest for linux/arm64/v8 in the manifest list entries",
        "CannotPullContainerError: ref pull has been retried 1 time(s): no match for platform in"
        " manifest sha256:a2de333e: not found",
        "standard_init_linux.go:228: exec user process caused: exec format error",
        f"{PULL}write /var/lib/containerd/a: no space left on device",
        "exec /usr/bin/tini: exec format error",
        "CannotStartContainerError: ResourceInitializationError: failed to create new container"
        ' runtime task: OCI runtime create failed: exec: "prefekt": executable file not found in'
        " $PATH: unknown",
        f"{INIT}AccessDeniedException: User: arn:aws:sts::111122223333:assumed-role/a is not"
        " authorized to perform: ssm:GetParameters on resource: b",
        f"{INIT}ResourceNotFoundException: Secrets Manager can't find the specified secret.",
        f"{INIT}unable to retrieve secrets from ssm: invalid parameters: /etl/key",
        "ResourceInitializationError: failed to validate logger args: create stream has been"
        " retried 1 times: failed to create Cloudwatch log stream: ResourceNotFoundException: The"
        " specified log group does not exist.",
        "ECS was unable to assume the role 'arn:aws:iam::111122223333:role/a' that was provided for"
        " this task.",
        "Unexpected EC2 error while attempting to Create Network Interface with public IP in subnet"
        " 'subnet-1': InvalidSubnetID.NotFound",
        "InternalError: failed to normalize image reference 'etl::1'",
        "The security group 'sg-1' does not exist",
        "UserInitiated Task stopped by user, after a timeout on endpoint and Rate exceeded",
        f"{SUBMITTED}ObjectNotFound: Http exc",
        f"{SUBMITTED}NoCredentialsError: Unable to locate credentials",
        f"{SUBMITTED}ParamValidationError: Parameter validation failed: Unknown parameter",
        f"{SUBMITTED}RuntimeError: Failed to run ECS task, the task definition is inactive. "
        "Re-register the task definition",
        f"{SUBMITTED}RuntimeError: Failed to run ECS task due to a capacity provider error. Verify",
        # digits in a name or an id are no status code
        f"{PULL}failed to resolve ref etl:429: etl:429: not found",
        f"{PULL}failed to resolve ref host:5000/etl-503:a.429: not found",
        f"{SUBMITTED}RuntimeError: Failed to run ECS task, cluster '503' not found.",
        f"{SUBMITTED}ClientException: TaskDefinition is inactive (RequestId 5c1e9502-0503-4290)",
        f"{SUBMITTED}ClientException: No Fargate configuration exists: 500 CPU, 503 MiB",
    ],
    UNKNOWN: [
        "",
        "Task failed to start",
        "CannotPullContainerError",
        f"{PULL}dial tcp: lookup registry.example: no such host",
        "ResourceInitializationError: unable to pull secrets or registry auth: signal: killed",
        "CannotStartContainerError: failed to get container status",
        f"{SUBMITTED}RuntimeError: the moon is in the wrong phase",
    ],
}
ROWS = [(reason, kind) for kind, reasons in SAID.items() for reason in reasons]
SOURCE = r"(?:developerguide|APIReference|repost\.aws)/.+|[\w-]+/[\w-]+#\d+|[\w-]+ [\d.]+, .+\.py"


@pytest.mark.parametrize(("reason", "kind"), ROWS)
def test_what_is_said_of_a_failed_start_has_a_kind_whatever_its_case(
    reason: str, kind: StartFailureKind
) -> None:
    failure = start_failure_of(reason)
    assert failure.kind is kind, failure.what
    assert start_failure_of(reason.upper()) == start_failure_of(reason.lower()) == failure


@pytest.mark.parametrize("reason", [reason for reason, _ in ROWS if "submit" in reason])
def test_what_a_worker_says_that_could_not_submit_a_run_is_known_as_such(reason: str) -> None:
    assert is_submission_failure(reason)


def test_every_row_of_the_table_is_the_first_for_something_that_was_said_and_has_a_source() -> None:
    found = {start_failure_of(reason).what for reason, _ in ROWS}
    rows = [row for _, rows in TABLE for row in rows]
    assert {row.what for row in rows} | {UNRECOGNISED.what} == found
    assert all(row.remedy for row in rows)
    for source in [source for row in rows for source in row.source.split("; ")]:
        assert re.fullmatch(SOURCE, source), source


@pytest.mark.parametrize(
    "message",
    [
        # prefect/states.py and prefect/_internal/states.py of 3.4.25 and 3.9.1
        "Execution was aborted by an interrupt signal.",
        "Request failed while attempting to contact the server: ReadTimeout",
        "Execution was interrupted by an unexpected exception: ValueError: Failed to submit flow"
        " run to infrastructure: RuntimeError: RESOURCE:CPU",
        # prefect/workers/base.py: 3.4.25, then 3.9.1
        "Flow run infrastructure exited with non-zero status code 137. Process was killed, likely"
        " due to an out-of-memory (OOM) condition.",
        # prefect/workers/base.py and process.py: flows without a deployment
        "Flow run bundle could not be created: TypeError: cannot pickle",
        "Flow run execution failed",
        # prefect/runner: 3.4.25, then 3.9.1; within a container that runs
        "Failed to start process for flow execution. No PID returned.",
        "Flow run process could not be started:\nOSError('no')",
        "Flow run could not start: [Errno 12] Cannot allocate memory",
        # prefect_aws/observers/ecs.py of 0.7.12
        "ECS task failed to start: RESOURCE:ENI. The capacity provider could not place the task.",
        # Prefect's guide to automations: zombie flows
        "Flow run marked as crashed due to missing heartbeats.",
        # ours, and none
        "the ECS task ended, not by Spot: it never started",
        "",
    ],
)
def test_what_is_said_of_a_run_that_was_submitted_is_no_submission_failure(message: str) -> None:
    assert not is_submission_failure(message)
