"""The deployed zip provisions past what is in the way, and restores what another deploy resets.

Real are `chalice deploy`, the zip under Lambda's runtime client, and Prefect's server.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from chalicelib.core.provision.model import is_scheduled
from localcloud.aws import EmulatedAws
from localcloud.bootstrap import AUTH_PARAMETER, STACK, stack_outputs, store_credential
from localcloud.cloud import LAMBDA_PYTHON, PROVISION
from localcloud.deployment import deploy
from localcloud.lambdas import LambdaService
from localcloud.prefect_server import PrefectServer
from localcloud.processes import Supervisor
from tests.localcloud.cloud import wait_until

AUTH_STRING = "admin:canary-password"
FUNCTIONS = {f"{STACK}-{name}" for name in ("react", "meter", "sweep", "provision")}


@dataclass
class Deployed:
    """What has been deployed where; nothing else is there."""

    aws: EmulatedAws
    lambdas: LambdaService
    server: PrefectServer
    folder: Path

    def deploy(self, **changes: str) -> None:
        settings = {
            "PREFECT_API_URL": self.server.api_url,
            "PREFECT_API_AUTH_STRING_PARAMETER": AUTH_PARAMETER,
            **changes,
        }
        deploy(self.aws, self.folder / "project", "dev", settings, 20)

    def call(self, **event: Any) -> Any:
        invocation = self.lambdas.invoke(PROVISION, event)
        assert invocation.status == "ok", invocation.error
        assert "canary" not in "".join(invocation.logs)
        return invocation.answer

    def until(self, state: str) -> list[Any]:
        """Call until it answers with that state; return all answers."""
        answers: list[Any] = []

        def is_answered() -> bool:
            answers.append(self.call())
            return bool(answers[-1]["state"] == state)

        wait_until(is_answered, 120)
        return answers

    def seen(self) -> dict[str, Any]:
        """The work pool, the rules' targets and the stack's events, as their services show them."""
        url = f"{self.server.api_url}/work_pools/fargate-spot-dev"
        user, _, password = AUTH_STRING.partition(":")
        events, formation = self.aws.client("events"), self.aws.client("cloudformation")
        rules = [rule["Name"] for rule in events.list_rules()["Rules"]]
        return {
            "pool": httpx.get(url, auth=(user, password), trust_env=False).json(),
            "targets": [
                t for rule in rules for t in events.list_targets_by_rule(Rule=rule)["Targets"]
            ],
            "events": formation.describe_stack_events(StackName=STACK)["StackEvents"],
            "template": formation.get_template(StackName=STACK)["TemplateBody"],
        }


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory, aws: EmulatedAws) -> Iterator[Deployed]:
    folder = tmp_path_factory.mktemp("provision")
    with (
        Supervisor.open(folder) as supervisor,
        PrefectServer(folder / "prefect", supervisor.spawn, auth_string=AUTH_STRING) as server,
        LambdaService(supervisor, aws, LAMBDA_PYTHON, retry_scale=0.001) as lambdas,
    ):
        deployed = Deployed(aws, lambdas, server, folder)
        deployed.deploy()
        yield deployed


def test_calls_alone_lead_from_nothing_to_ready_past_what_is_in_the_way(deployed: Deployed) -> None:
    aws = deployed.aws
    assert deployed.call()["state"] == "blocked", "there is no credential"
    assert aws.client("cloudformation").describe_stacks()["Stacks"] == []
    store_credential(aws, AUTH_STRING)
    aws.client("logs").create_log_group(logGroupName=f"/ecs/{STACK}")
    [problem] = deployed.until("recovering")[-1]["problems"]
    assert "LogGroup (AWS::Logs::LogGroup)" in problem["message"]
    assert "already exists" in problem["message"].lower()
    aws.client("logs").delete_log_group(logGroupName=f"/ecs/{STACK}")
    deployed.until("ready")
    seen = deployed.seen()
    assert "canary" not in str(seen)
    assert {target["Arn"].rpartition(":")[2] for target in seen["targets"]} == FUNCTIONS
    for target in seen["targets"]:
        config = aws.client("lambda").get_function_event_invoke_config(FunctionName=target["Arn"])
        on_failure = config["DestinationConfig"].get("OnFailure", {})
        kept = [target.get("DeadLetterConfig", {}).get("Arn"), on_failure.get("Destination")]
        if is_scheduled(target["Arn"]):
            assert kept == [None, None]
        else:
            assert [str(arn).rpartition(":")[2] for arn in kept] == [f"{STACK}-failures"] * 2


def test_after_another_deploy_everything_is_restored_and_only_what_is_new_is_changed(
    deployed: Deployed,
) -> None:
    targets, outputs = deployed.seen()["targets"], stack_outputs(deployed.aws)
    deployed.deploy(WORKER_CPU="1024", WORKER_MEMORY="2048")
    assert not any("DeadLetterConfig" in target for target in deployed.seen()["targets"])
    steps = [step for answer in deployed.until("ready") for step in answer["steps"]]
    reserved = {f"{STACK}-react": 10, f"{STACK}-sweep": 1}
    assert len(steps) == len(FUNCTIONS) + len(reserved) + 1
    read = deployed.aws.client("lambda").get_function_concurrency
    for function in FUNCTIONS:
        found = read(FunctionName=function).get("ReservedConcurrentExecutions")
        assert found == reserved.get(function)
    assert deployed.seen()["targets"] == targets
    changed = stack_outputs(deployed.aws).items() - outputs.items()
    assert {name for name, _ in changed} == {"WorkerTaskDefinitionArn"}
