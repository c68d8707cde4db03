"""A real rescue with secrets in the run's environment and before the server: none of them gets out.

Before the server is an access proxy, too, through which Lambdas, worker and flows reach it.

Where they belong they are: in the flow's containers, hence in ECS's overrides and events, and, the
auth string, in SSM. Everything that the product writes, and all that was deployed, is searched.
"""

import base64
import io
import json
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest

from localcloud.access_proxy import HEADER
from localcloud.bootstrap import AUTH_PARAMETER, CLUSTER, STAGE
from localcloud.cloud import wait_for
from localcloud.lambdas import Invocation
from tests.e2e.scenario import ATTEMPT_SECONDS, Run, Stage, event_of_no_run
from tests.e2e.stories import story
from tests.system.clouds import AUTH_STRING
from tests.unit.canaries import Canaries
from tests.unit.scripted_server import ScriptedServer, answer

PASSWORD = AUTH_STRING.partition(":")[2]


@dataclass(frozen=True)
class Rescued:
    """A run that was interrupted twice, and the secrets: the flow's own, and the server's."""

    run: Run
    flow_secrets: Canaries
    credential: Canaries


def server_secrets(stage: Stage) -> Canaries:
    secrets = Canaries()
    assert stage.cloud.proxy is not None
    secrets.plant("the proxy's header", stage.cloud.proxy.secret)
    secrets.plant("the password", PASSWORD)
    secrets.plant("the basic header", base64.b64encode(AUTH_STRING.encode()).decode())
    return secrets


@story
def rescued(stage: Stage) -> Rescued:
    secrets = Canaries()
    variables = {"env": {"DB_PASSWORD": secrets.plant("the flow's environment")}}
    tags = ("spot-retries:1", f"token:{secrets.plant('a tag')}")
    run = stage.start("waits", tags=tags, job_variables=variables, interruptions=2)
    run.interrupt_each_start(2)
    run.completes(starts=3)
    assert run.capacities() == ["FARGATE_SPOT", "FARGATE_SPOT", "FARGATE"]
    assert stage.cloud.proxy is not None
    assert stage.cloud.proxy.refused == 0 < stage.cloud.proxy.passed
    for life in run.containers():
        assert secrets.found_in(json.dumps(dict(life.environment))) == ["the flow's environment"]
    return Rescued(run, secrets, server_secrets(stage))


def every(rescued: Rescued) -> Canaries:
    return Canaries({**rescued.flow_secrets.planted, **rescued.credential.planted})


def output_of(invocations: Sequence[Invocation]) -> str:
    """What functions printed and answered; not the event, which came from outside."""
    return json.dumps([[i.logs, i.answer, i.error] for i in invocations], ensure_ascii=False)


def test_they_are_not_in_the_zip_and_no_function_has_the_credential(rescued: Rescued) -> None:
    functions = rescued.run.cloud.aws.client("lambda")
    for function in functions.list_functions()["Functions"]:
        assert every(rescued).found_in(json.dumps(function, default=str)) == []
        code = rescued.run.cloud.aws.lambdas.get_function(function["FunctionName"]).code_bytes
        if not zipfile.is_zipfile(io.BytesIO(code)):
            continue
        with zipfile.ZipFile(io.BytesIO(code)) as deployed:
            for name in deployed.namelist():
                assert every(rescued).found_in_bytes(deployed.read(name)) == [], name


def test_no_function_printed_or_answered_them(rescued: Rescued) -> None:
    invocations = rescued.run.cloud.lambdas.invocations
    ours = [i for i in invocations if rescued.run.id in json.dumps(i.event)]
    assert rescued.flow_secrets.found_in(json.dumps([i.event for i in ours])) == [
        "the flow's environment"
    ]
    assert rescued.run.id in output_of(ours)
    assert every(rescued).found_in(output_of(invocations)) == []


def test_no_line_is_printed_twice(rescued: Rescued) -> None:
    lines = [line for i in rescued.run.cloud.lambdas.invocations for line in i.logs]
    assert any(rescued.run.id in line and '"decided"' in line for line in lines)
    assert not [line for line in lines if line.startswith("prefect-spot - ")]


def test_nothing_that_aws_keeps_for_us_holds_them(rescued: Rescued) -> None:
    client = rescued.run.cloud.aws.client
    kept = {
        "the tables": dynamodb_of(client("dynamodb")),
        "the logs": logs_of(client("logs")),
        "the metrics": client("cloudwatch").list_metrics()["Metrics"],
        "the alarms": client("cloudwatch").describe_alarms(),
        "the queues": queues_of(client("sqs")),
        "the rules": rules_of(client("events")),
        "the stacks": stacks_of(client("cloudformation")),
        "the roles": client("iam").get_account_authorization_details(),
    }
    for name, content in kept.items():
        text = json.dumps(content, default=str, ensure_ascii=False)
        assert every(rescued).found_in(text) == [], name
    assert rescued.run.id in json.dumps(kept["the tables"], default=str)


def dynamodb_of(tables: Any) -> list[Any]:
    return [tables.scan(TableName=name)["Items"] for name in tables.list_tables()["TableNames"]]


def logs_of(logs: Any) -> list[Any]:
    return [
        logs.filter_log_events(logGroupName=group["logGroupName"])["events"]
        for group in logs.describe_log_groups()["logGroups"]
        if not group["logGroupName"].startswith("/ecs/")  # the flows' own
    ]


def queues_of(sqs: Any) -> list[Any]:
    return [
        [
            sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"]),
            sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, VisibilityTimeout=0),
        ]
        for url in sqs.list_queues().get("QueueUrls", [])
    ]


def rules_of(events: Any) -> list[Any]:
    rules = events.list_rules()["Rules"]
    return [rules, [events.list_targets_by_rule(Rule=rule["Name"])["Targets"] for rule in rules]]


def stacks_of(formation: Any) -> list[Any]:
    stacks = formation.describe_stacks()["Stacks"]
    return [stacks, [formation.get_template(StackName=s["StackName"]) for s in stacks]]


def test_what_we_wrote_in_prefect_does_not_hold_them(rescued: Rescued) -> None:
    cloud, run_id = rescued.run.cloud, rescued.run.id
    of_the_run = {"flow_runs": {"id": {"any_": [run_id]}}}
    artifacts = cloud.prefect.send("POST", "/artifacts/filter", of_the_run)
    lines = [line for line in cloud.prefect.logs(run_id) if line["name"] == "prefect-spot"]
    events = [e for e in cloud.prefect.events(run_id) if e["event"].startswith("prefect-spot.")]
    messages = [state["message"] for state in cloud.prefect.history(run_id)]
    labels = cloud.prefect.run(run_id)["labels"]
    written = [artifacts, lines, events, messages, labels]
    assert all(written), "something was not written at all"
    # Prefect itself adds a run's tags to the related resources of every event about it.
    for event in events:
        event["related"] = [r for r in event["related"] if r.get("prefect.resource.role") != "tag"]
    assert every(rescued).found_in(json.dumps(written, ensure_ascii=False)) == []


def test_the_credential_is_in_no_task_and_no_event(rescued: Rescued) -> None:
    """Where ECS needs it, it has the name of the SSM parameter."""
    ecs = rescued.run.cloud.aws.client("ecs")
    definitions = [
        ecs.describe_task_definition(taskDefinition=arn)["taskDefinition"]
        for arn in ecs.list_task_definitions()["taskDefinitionArns"]
    ]
    arns = ecs.list_tasks(cluster=CLUSTER)["taskArns"]
    arns += ecs.list_tasks(cluster=CLUSTER, desiredStatus="STOPPED")["taskArns"]
    tasks = ecs.describe_tasks(cluster=CLUSTER, tasks=arns[-100:])["tasks"]
    events = [i.event for i in rescued.run.cloud.lambdas.invocations]
    for name in (AUTH_PARAMETER, f"/prefect-spot/{STAGE}/headers", f"/prefect-spot/{STAGE}/ca"):
        assert name in json.dumps(definitions, default=str)
    for place in (definitions, tasks, events):
        assert place
        assert rescued.credential.found_in(json.dumps(place, default=str)) == []
    stored = rescued.run.cloud.aws.client("ssm").get_parameter(Name=AUTH_PARAMETER)["Parameter"]
    assert stored["Type"] == "SecureString"


def refuse_and_echo(handler: BaseHTTPRequestHandler) -> None:
    said = [handler.headers.get(name) for name in ("Authorization", HEADER)]
    answer(401, {"detail": f"Not authorized: {' '.join(map(str, said))}"})(handler)


@pytest.fixture
def failing(stage: Stage) -> Iterator[str]:
    """`react` before a server that sends back the header: one try, then this failure queue."""
    sqs = stage.cloud.aws.client("sqs")
    queue = sqs.create_queue(QueueName="canary-failures")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])
    with (
        ScriptedServer([refuse_and_echo]) as server,
        stage.copy_of_react(
            "canary", PREFECT_API_URL=server.url, PREFECT_CA_CERTIFICATE_PARAMETER=""
        ),
    ):
        stage.cloud.aws.client("lambda").put_function_event_invoke_config(
            FunctionName="canary",
            MaximumRetryAttempts=0,
            DestinationConfig={"OnFailure": {"Destination": arn["Attributes"]["QueueArn"]}},
        )
        yield queue


def test_a_failure_names_its_cause_and_not_the_credential(stage: Stage, failing: str) -> None:
    """Lambda's own runtime prints it as well, and the event itself is in the queue whole.

    SECURITY.md says so.
    """
    flow, credential, event = Canaries(), server_secrets(stage), event_of_no_run()
    container = event["detail"]["overrides"]["containerOverrides"][0]
    container["environment"].append({"name": "DB", "value": flow.plant("the flow's environment")})
    stage.cloud.lambdas.invoke_async("canary", event)
    sqs = stage.cloud.aws.client("sqs")
    receive = partial(sqs.receive_message, QueueUrl=failing)
    [message] = wait_for("the failure", ATTEMPT_SECONDS, lambda: receive().get("Messages"))
    failed = [i for i in stage.cloud.lambdas.invocations if i.function == "canary"]
    assert [i.status for i in failed] == ["error"]
    assert "PrefectRefusedError" in output_of(failed)
    assert "Not authorized: *** ***" in output_of(failed)
    body = json.loads(message["Body"])
    assert body["requestPayload"] == event
    assert credential.found_in(output_of(failed) + json.dumps(body)) == []
    assert flow.found_in(output_of(failed) + json.dumps(body["responsePayload"])) == []
