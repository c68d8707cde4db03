"""A second stage in the same account, from nothing to all well and back to nothing, by commands."""

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from localcloud.aws import Aws
from localcloud.bootstrap import AUTH_PARAMETER
from localcloud.cloud import Cloud, wait_for
from localcloud.deployment import copy_project
from tests.e2e.command import OPERATOR, CommandResult, spotctl, states
from tests.e2e.scenario import Stage
from tests.e2e.test_policies import NO_RIGHT_NEEDED, allowed, needed

STAGE = "prod"
STACK = f"prefect-spot-{STAGE}"
POOL = f"fargate-spot-{STAGE}"


@dataclass(frozen=True)
class Second:
    """The second stage: its project's folder, and commands about it."""

    cloud: Cloud
    folder: Path

    def run(self, command: str, *arguments: str) -> CommandResult:
        return spotctl(self.cloud, command, "--stage", STAGE, *arguments, project=self.folder)

    def lose_local_state(self) -> None:
        """What git ignores: another checkout and a CI job do not have it."""
        for name in ("deployed", "deployments"):
            shutil.rmtree(self.folder / ".chalice" / name)

    def names(self) -> set[str]:
        return names_of(self.cloud.aws, STAGE)


def names_of(aws: Aws, stage: str) -> set[str]:
    """Whatever of the stage there is in the account, by kind and name."""
    events, functions = aws.client("events"), aws.client("lambda")
    ecs, iam = aws.client("ecs"), aws.client("iam")
    found = {f"rule {rule['Name']}" for rule in events.list_rules()["Rules"]}
    found |= {f"function {f['FunctionName']}" for f in functions.list_functions()["Functions"]}
    clusters = ecs.describe_clusters(clusters=ecs.list_clusters()["clusterArns"])["clusters"]
    found |= {f"cluster {c['clusterName']}" for c in clusters if c["status"] == "ACTIVE"}
    found |= {f"role {role['RoleName']}" for role in iam.list_roles()["Roles"]}
    found |= {f"table {name}" for name in aws.client("dynamodb").list_tables()["TableNames"]}
    queues = aws.client("sqs").list_queues().get("QueueUrls", [])
    found |= {f"queue {url.rpartition('/')[2]}" for url in queues}
    found |= {f"bucket {b['Name']}" for b in aws.client("s3").list_buckets()["Buckets"]}
    groups = aws.client("logs").describe_log_groups()["logGroups"]
    found |= {f"log group {group['logGroupName']}" for group in groups}
    return {name for name in found if stage in name}


@pytest.fixture
def second(stage: Stage, tmp_path: Path) -> Second:
    folder = tmp_path / "project"
    copy_project(folder)
    path = folder / ".chalice" / "config.json"
    config: dict[str, Any] = json.loads(path.read_text())
    of_dev = config["stages"]["dev"]
    config["stages"][STAGE] = {
        **of_dev,
        "lambda_functions": {
            name: {**of_function, "iam_policy_file": f"policy-{name}-{STAGE}.json"}
            for name, of_function in of_dev["lambda_functions"].items()
        },
        "environment_variables": {
            "STAGE": STAGE,
            "PREFECT_API_URL": stage.cloud.server.api_url,
            "PREFECT_API_AUTH_STRING_PARAMETER": AUTH_PARAMETER,
            "WORKER_QUERY_SECONDS": "2",
        },
    }
    path.write_text(json.dumps(config))
    return Second(stage.cloud, folder)


def parts_of_the_stage(cloud: Cloud) -> dict[str, str]:
    """The states of what a deploy makes of `dev`: runs and sweeps of other tests go on there."""
    deployed = ("stack", "provision", "function ", "rule ", "worker service", "credential")
    result = states(spotctl(cloud, "status"))
    found = {part: state for part, state in result.items() if part.startswith(deployed)}
    assert len(found) > len(deployed), result
    return found


def test_a_stage_is_deployed_by_one_command_and_taken_down_by_another(
    second: Second, stage: Stage
) -> None:
    cloud = second.cloud
    dev_before = parts_of_the_stage(cloud)
    deployed = second.run("deploy", "--yes")
    assert deployed.code == 0, deployed
    result = states(deployed)
    assert set(result.values()) <= {"ok", "warning"}, deployed
    assert {result[part] for part in ("stack", "provision", "worker service", "failure queue")} == {
        "ok"
    }
    steps = f"create the work pool {POOL}; create the stack {STACK}"
    assert f"provision: creating; {steps}" in deployed.err
    assert f"wrote policy-react-{STAGE}.json anew" in deployed.err
    role = cloud.aws.client("iam").get_role_policy(
        RoleName=f"{STACK}-react", PolicyName=f"{STACK}-react"
    )
    assert "-dev" not in json.dumps(role["PolicyDocument"])
    assert "resources so far" in deployed.err
    cloud.lambdas.invoke(f"{STACK}-sweep", {})
    wait_for("all to be ok", 300, lambda: set(states(second.run("status")).values()) == {"ok"})
    planned = {row["part"]: row["found"] for row in second.run("plan").answer["rows"]}
    assert (planned["policies"], planned["provision"]) == ("no change", "ready: no change")
    assert planned[f"function {STACK}-react"] == "would get its code"
    second.lose_local_state()
    again = second.run("deploy", "--yes")
    assert again.code == 0, again
    assert not re.search("Creating (IAM|lambda)", again.err), "it is all there"
    bucket = next(name.split()[1] for name in second.names() if name.startswith("bucket"))
    s3 = cloud.aws.client("s3")
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    for body in (b"first", b"second"):
        s3.put_object(Bucket=bucket, Key="result", Body=body)
    s3.delete_object(Bucket=bucket, Key="result")
    second.lose_local_state()
    assert set(states(second.run("status")).values()) <= {"ok", "warning"}
    refused = second.run("teardown")
    assert (refused.code, refused.out) == (2, ""), refused
    assert "pass --yes" in refused.err
    names = second.names()
    would_go = second.run("teardown", "--dry-run", "--delete-work-pool")
    assert second.names() == names
    gone = second.run("teardown", "--yes", "--delete-work-pool")
    assert gone.code == 0, gone
    assert states(would_go).keys() == states(gone).keys()
    assert second.names() == set()
    assert any("emptied of 3 objects" in row["found"] for row in gone.answer["rows"])
    stays = "\n".join(gone.answer["stays"])
    assert AUTH_PARAMETER in stays
    assert "AWSServiceRoleForECS" in stays
    assert POOL not in stays
    again = second.run("teardown", "--yes")
    assert again.code == 0, again
    assert parts_of_the_stage(cloud) == dev_before, "the other stage was touched"
    # CloudFormation deletes with the operator's rights: `provision`'s are needed for that too.
    done = needed(stage, OPERATOR)
    assert done.issuperset(("cloudformation:DeleteStack", "iam:DeleteRole"))
    assert done - allowed("deployer") - NO_RIGHT_NEEDED == set(), "the policy lacks this"
