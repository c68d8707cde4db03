"""`chalice package --pkg-format terraform`, with the override file that lies beside its output.

Read as text: the real `terraform` validates it with providers from HashiCorp's registry only.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from localcloud.deployment import PROJECT, copy_project, run_program

FUNCTIONS = ("react", "meter", "sweep", "provision")
REFERENCE = re.compile(r"\$\{(aws_\w+)\.([\w-]+)\.\w+\}")


@pytest.fixture(scope="module")
def packaged(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("terraform")
    copy_project(folder / "project")
    options = ("--pkg-format", "terraform", "--stage", "dev")
    command = [str(Path(sys.executable).parent / "chalice"), "package", *options]
    region = {"AWS_DEFAULT_REGION": "us-east-1"}
    run_program([*command, str(folder / "out")], region, folder / "project")
    assert (folder / "out" / "deployment.zip").stat().st_size
    made = json.loads((folder / "out" / "chalice.tf.json").read_text())
    return overridden(made, json.loads((PROJECT / "examples/chalice_override.tf.json").read_text()))


def overridden(made: dict[str, Any], override: dict[str, Any]) -> dict[str, Any]:
    """Merge as Terraform does: argument by argument. Raises KeyError for an unknown resource.

    Source: developer.hashicorp.com/terraform/language/files/override.
    """
    for kind, resources in override["resource"].items():
        for name, arguments in resources.items():
            made["resource"][kind][name].update(arguments)
    providers = override["terraform"].pop("required_providers")
    made["terraform"]["required_providers"].update(providers)
    made["terraform"].update(override["terraform"])
    return made


def resolved(text: str, resources: dict[str, Any]) -> str:
    """The name of what a reference means. Raises KeyError where nothing is called so."""

    def name(found: re.Match[str]) -> str:
        resource = resources[found[1]][found[2]]
        return resolved(resource.get("function_name") or resource["name"], resources)

    return REFERENCE.sub(name, text)


def test_terraform_gives_rules_the_names_that_provision_and_its_policy_know(
    packaged: dict[str, Any],
) -> None:
    """Chalice 1.34 calls them `react-event` in every stage."""
    resources = packaged["resource"]
    rules, targets = (
        resources["aws_cloudwatch_event_rule"],
        resources["aws_cloudwatch_event_target"],
    )
    policy = (PROJECT / ".chalice" / "policy-provision-dev.json").read_text()
    for function in FUNCTIONS:
        name = resolved(rules[f"{function}-event"]["name"], resources)
        assert name == f"prefect-spot-dev-{function}-event"
        assert f"rule/{name}" in policy
        target = targets[f"{function}-event"]
        assert resolved(target["rule"], resources) == name
        assert resolved(target["arn"], resources) == f"prefect-spot-dev-{function}"
        ignored = target["lifecycle"]["ignore_changes"]
        assert ignored == ["dead_letter_config", "retry_policy"], "`provision` puts them"


def test_terraform_makes_the_same_functions_roles_and_patterns_as_a_deploy(
    packaged: dict[str, Any],
) -> None:
    resources = packaged["resource"]
    assert resources["aws_lambda_function"].keys() == {*FUNCTIONS}
    rules = resources["aws_cloudwatch_event_rule"]
    assert {name for name, rule in rules.items() if "event_pattern" in rule} == {
        "react-event",
        "meter-event",
    }
    for function in FUNCTIONS:
        role = f"{function}_role"
        assert resources["aws_iam_role"][role]["name"] == f"prefect-spot-dev-{function}"
        own = PROJECT / ".chalice" / f"policy-{function}-dev.json"
        given = json.loads(resources["aws_iam_role_policy"][role]["policy"])
        assert given == json.loads(own.read_text())


def test_a_terraform_of_today_takes_it(packaged: dict[str, Any]) -> None:
    """Chalice 1.34 wants one older than 1.4, which has been out of support since 2023."""
    assert packaged["terraform"]["required_version"] == ">= 1.5"
