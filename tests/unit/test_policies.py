"""The IAM policies as they are rendered for a stage: its own names, and no other stage's."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from chalicelib.errors import SettingError
from localcloud.deployment import PROJECT
from spotctl.policies import DEPLOYER, FUNCTIONS, policy_of, write_policies
from spotctl.project import read_project

PROD = {
    "STAGE": "prod",
    "PREFECT_API_URL": "https://prefect.example.com/api",
    "PREFECT_API_AUTH_STRING_PARAMETER": "team/prefect",
    "STACK_NAME": "spot-of-the-team",
}


def with_prod(folder: Path, file: str = "policy-{}-prod.json", **settings: str) -> Path:
    """Copy the config, with a second stage in it; `file`: its functions' policies."""
    shutil.copytree(PROJECT / ".chalice", folder / ".chalice")
    path = folder / ".chalice" / "config.json"
    config: dict[str, Any] = json.loads(path.read_text())
    of_dev = config["stages"]["dev"]
    config["stages"]["prod"] = {
        **of_dev,
        "lambda_functions": {
            name: {**function, "iam_policy_file": file.format(name)}
            for name, function in of_dev["lambda_functions"].items()
        },
        "environment_variables": {**PROD, **settings},
    }
    path.write_text(json.dumps(config))
    return folder


def resources_of(policy: str) -> list[str]:
    named = [statement["Resource"] for statement in json.loads(policy)["Statement"]]
    return [r for each in named for r in ([each] if isinstance(each, str) else each)]


def test_the_committed_files_are_those_that_the_committed_config_asks_for(tmp_path: Path) -> None:
    shutil.copytree(PROJECT / ".chalice", tmp_path / ".chalice")
    assert write_policies(read_project(tmp_path, "dev")) == []


@pytest.mark.parametrize("name", [*FUNCTIONS, DEPLOYER])
def test_another_stage_has_its_own_names_everywhere(tmp_path: Path, name: str) -> None:
    policy = policy_of(read_project(with_prod(tmp_path), "prod"), name)
    assert "dev" not in policy
    assert "$" not in policy
    own = ("spot-of-the-team", "prefect-spot-prod", "parameter/team/prefect")
    for resource in resources_of(policy):
        is_any = resource == "*" or resource.startswith(("arn:aws:ec2:", "arn:aws:iam::*:role/aws"))
        assert is_any or any(part in resource for part in own), resource


def test_writing_a_stages_policies_leaves_the_others_alone(tmp_path: Path) -> None:
    project = read_project(with_prod(tmp_path), "prod")
    written = {path.name for path in write_policies(project)}
    assert written == {f"policy-{name}-prod.json" for name in (*FUNCTIONS, DEPLOYER)}
    assert write_policies(project) == []
    assert write_policies(read_project(tmp_path, "dev")) == []


def test_every_cluster_is_named_where_one_is(tmp_path: Path) -> None:
    clusters = "etl,arn:aws:ecs:us-east-1:111122223333:cluster/ml"
    folder = with_prod(tmp_path, ECS_CLUSTER=clusters, PROVISION="rescue-only")
    resources = resources_of(policy_of(read_project(folder, "prod"), "react"))
    assert "arn:aws:ecs:*:*:task/etl/*" in resources
    assert "arn:aws:ecs:*:*:task/ml/*" in resources


@pytest.mark.parametrize(
    ("file", "why"),
    [
        ("policy-{}-dev.json", r"share policy-react-dev\.json.*policy-react-prod"),
        ("", r"no iam_policy_file for react.*policy-react-prod"),
    ],
    ids=["shared with another stage", "none"],
)
def test_each_function_of_a_stage_needs_a_file_of_its_own(
    tmp_path: Path, file: str, why: str
) -> None:
    with pytest.raises(SettingError, match=why):
        write_policies(read_project(with_prod(tmp_path, file), "prod"))
