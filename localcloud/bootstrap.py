"""Sets a stage up as a user does: the credential into SSM, and `provision` until it is ready.

The account is empty before, but for AWS's default VPC. What is named here is what the settings say
by default.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path

from localcloud.access_proxy import AccessProxy
from localcloud.aws import Aws
from localcloud.lambdas import Invocation

STAGE = "dev"
STACK = f"prefect-spot-{STAGE}"
CLUSTER = f"prefect-spot-{STAGE}"
WORK_POOL = f"fargate-spot-{STAGE}"
AUTH_PARAMETER = f"/prefect-spot/{STAGE}/auth-string"
READY_SECONDS = 180.0


def store_credential(aws: Aws, auth_string: str) -> None:
    """Put the server's basic auth where its setting says: the one thing that is done by hand."""
    aws.client("ssm").put_parameter(Name=AUTH_PARAMETER, Value=auth_string, Type="SecureString")


def store_access(aws: Aws, proxy: AccessProxy) -> dict[str, str]:
    """Put what the proxy asks for, and whom to trust, where the settings that are returned say."""
    ssm, folder = aws.client("ssm"), f"/prefect-spot/{STAGE}"
    ssm.put_parameter(Name=f"{folder}/headers", Value=proxy.headers, Type="SecureString")
    ssm.put_parameter(Name=f"{folder}/ca", Value=proxy.certificates, Type="String")
    return {
        "PREFECT_CUSTOM_HEADERS_PARAMETER": f"{folder}/headers",
        "PREFECT_CA_CERTIFICATE_PARAMETER": f"{folder}/ca",
    }


def access_of_client(proxy: AccessProxy, folder: Path) -> dict[str, str]:
    """Return the same for Prefect's own client on this machine; `folder` gets the certificates."""
    file = folder / "authority.pem"
    file.write_text(proxy.certificates)
    headers = {"PREFECT_CLIENT_CUSTOM_HEADERS": proxy.headers}
    return {**headers, "PREFECT_API_SSL_CERT_FILE": str(file)}


def provision(call: Callable[[], Invocation], report: Callable[[str], None]) -> None:
    """Call the function until all is ready; `report` gets how much it changed.

    Raises RuntimeError when it fails, is not ready in three minutes, or needs a person.
    """
    deadline, changes = time.monotonic() + READY_SECONDS, 0
    while True:
        invocation = call()
        if invocation.status != "ok":
            raise RuntimeError(f"{invocation.function} failed: {invocation.error}")
        answer = invocation.answer
        changes += len(answer["steps"])
        if answer["state"] == "ready":
            report(f"provision: {changes} changes, and all is ready")
            return
        if answer["state"] in ("blocked", "failed") or time.monotonic() > deadline:
            raise RuntimeError(f"the stage cannot be provisioned: {answer}")
        time.sleep(0.2)


def stack_outputs(aws: Aws) -> dict[str, str]:
    """Return the outputs of the stage's stack: where things are."""
    [stack] = aws.client("cloudformation").describe_stacks(StackName=STACK)["Stacks"]
    return {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}


def set_up_observer(aws: Aws) -> dict[str, str]:
    """Send all events of the cluster's tasks to a queue, for prefect-aws's observer.

    As `prefect-aws ecs-worker deploy-events` does; returns the worker's variable that names it.
    Without a queue the observer ends at once, which is what keeps it off elsewhere: nothing in
    prefect-aws 0.7 reads its setting ENABLED.
    """
    queue = f"{WORK_POOL}-ecs-events"
    sqs, events = aws.client("sqs"), aws.client("events")
    url = sqs.create_queue(QueueName=queue, Attributes={"VisibilityTimeout": "300"})["QueueUrl"]
    attributes = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]
    pattern = {"source": ["aws.ecs"], "detail-type": ["ECS Task State Change"]}
    events.put_rule(Name=queue, EventPattern=json.dumps(pattern))
    events.put_targets(Rule=queue, Targets=[{"Id": "1", "Arn": attributes["QueueArn"]}])
    return {"PREFECT_INTEGRATIONS_AWS_ECS_OBSERVER_SQS_QUEUE_NAME": queue}
