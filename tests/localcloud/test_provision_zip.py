"""The deployed zip provisions: from an empty account and an empty Prefect, by calls alone.

Real are `chalice deploy`, the zip under Lambda's runtime client, and Prefect's server.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from localcloud.aws import EmulatedAws
from localcloud.cloud import LAMBDA_PYTHON
from localcloud.deployment import deploy, redeploy
from localcloud.lambdas import LambdaService
from localcloud.prefect_server import PrefectServer
from localcloud.processes import Household

AUTH_STRING = "admin:canary-password"
PARAMETER = "/prefect-spot/dev/auth-string"
STACK = "prefect-spot-dev"
PROVISION = "prefect-spot-dev-provision"
FUNCTIONS = {f"prefect-spot-dev-{name}" for name in ("react", "meter", "sweep", "provision")}
SECONDS = 120


@dataclass
class Deployed:
    """What has been deployed where; nothing else is there."""

    aws: EmulatedAws
    lambdas: LambdaService
    server: PrefectServer
    folder: Path

    def deploy(self, **changes: str) -> None:
        project = self.folder / "project"
        step = redeploy if project.exists() else deploy
        settings = {
            "PREFECT_API_URL": self.server.api_url,
            "PREFECT_API_AUTH_STRING_PARAMETER": PARAMETER,
            **changes,
        }
        step(self.aws, project, "dev", settings, 20)

    def call(self, **event: Any) -> Any:
        invocation = self.lambdas.invoke(PROVISION, event)
        assert invocation.status == "ok", invocation.error
        assert "canary" not in "".join(invocation.logs)
        return invocation.answer

    def until(self, state: str) -> list[Any]:
        deadline = time.monotonic() + SECONDS
        answers = [self.call()]
        while answers[-1]["state"] != state:
            assert time.monotonic() < deadline, answers[-1]
            time.sleep(0.3)
            answers.append(self.call())
        return answers

    def pool(self) -> Any:
        """As Prefect shows it to a user."""
        url = f"{self.server.api_url}/work_pools/fargate-spot-dev"
        user, _, password = AUTH_STRING.partition(":")
        return httpx.get(url, auth=(user, password), trust_env=False).json()

    def stack(self) -> Any:
        return self.aws.client("cloudformation").describe_stacks(StackName=STACK)["Stacks"][0]

    def outputs(self) -> dict[str, str]:
        return {o["OutputKey"]: o["OutputValue"] for o in self.stack()["Outputs"]}

    def events(self) -> list[Any]:
        formation = self.aws.client("cloudformation")
        return list(formation.describe_stack_events(StackName=STACK)["StackEvents"])

    def targets(self) -> list[Any]:
        events = self.aws.client("events")
        rules = [rule["Name"] for rule in events.list_rules()["Rules"]]
        return [t for rule in rules for t in events.list_targets_by_rule(Rule=rule)["Targets"]]


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory, aws: EmulatedAws) -> Iterator[Deployed]:
    folder = tmp_path_factory.mktemp("provision")
    with (
        Household.open(folder) as household,
        PrefectServer(folder / "prefect", household.spawn, auth_string=AUTH_STRING) as server,
        LambdaService(household, aws, LAMBDA_PYTHON, retry_scale=0.001) as lambdas,
    ):
        deployed = Deployed(aws, lambdas, server, folder)
        deployed.deploy()
        yield deployed


def test_calls_alone_lead_from_nothing_to_ready_past_what_is_in_the_way(deployed: Deployed) -> None:
    deployed.aws.client("ssm").put_parameter(Name=PARAMETER, Value=AUTH_STRING, Type="SecureString")
    shown = deployed.call(dry_run=True)
    assert (shown["dry_run"], shown["steps"]) == (True, ["create ECS's service-linked role"])
    in_the_way = {"logGroupName": f"/ecs/{STACK}"}
    deployed.aws.client("logs").create_log_group(**in_the_way)
    [problem] = deployed.until("recovering")[-1]["problems"]
    assert "LogGroup (AWS::Logs::LogGroup)" in problem["message"]
    assert "already exists" in problem["message"].lower()
    deployed.aws.client("logs").delete_log_group(**in_the_way)
    deployed.until("ready")
    pool, outputs = deployed.pool(), deployed.outputs()
    assert pool["type"] == "ecs"
    defaults = {n: p.get("default") for n, p in _properties(pool).items()}
    assert defaults["cluster"] == outputs["ClusterName"] == STACK
    assert defaults["execution_role_arn"] == outputs["ExecutionRoleArn"]
    assert defaults["network_configuration"]["subnets"] == outputs["SubnetIds"].split(",")
    assert defaults["prefect_api_auth_string_secret_arn"].endswith(f":parameter{PARAMETER}")
    template = deployed.aws.client("cloudformation").get_template(StackName=STACK)["TemplateBody"]
    assert "canary" not in str([pool, template, deployed.stack(), deployed.events()])
    lambdas = deployed.aws.client("lambda")
    targets = deployed.targets()
    assert {target["Arn"].rpartition(":")[2] for target in targets} == FUNCTIONS
    for target in targets:
        assert target["DeadLetterConfig"]["Arn"].endswith(":prefect-spot-dev-failures")
        config = lambdas.get_function_event_invoke_config(FunctionName=target["Arn"])
        assert config["DestinationConfig"]["OnFailure"]["Destination"].endswith("-failures")


def test_after_another_deploy_everything_is_restored_and_only_what_is_new_is_changed(
    deployed: Deployed,
) -> None:
    targets, outputs = deployed.targets(), deployed.outputs()
    deployed.deploy(WORKER_CPU="1024", WORKER_MEMORY="2048")
    assert not any("DeadLetterConfig" in target for target in deployed.targets())
    steps = [step for answer in deployed.until("ready") for step in answer["steps"]]
    assert len(steps) == len(FUNCTIONS) + 1
    assert deployed.targets() == targets
    changed = {name for name, value in deployed.outputs().items() if value != outputs[name]}
    assert changed == {"WorkerTaskDefinitionArn"}


def _properties(pool: Any) -> Any:
    return pool["base_job_template"]["variables"]["properties"]
