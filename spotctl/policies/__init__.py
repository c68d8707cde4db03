"""The IAM policies of a stage: one per function, and the deployer's two, with its own names.

The templates beside this file are their only source; `.chalice/config.json` names the files that
Chalice reads. Filled in are the stack's name, the functions' prefix, the clusters and the SSM
parameters. Stage `prod` must not change `prod-eu`: each name is written in full, and a pattern
follows only what ends a name, `/` or `:`.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any, Final

from chalicelib.errors import SettingError
from chalicelib.settings import FUNCTIONS
from spotctl.project import CONFIG, Project, read_config

TEMPLATES: Final = Path(__file__).parent
DEPLOYER: Final = "deployer"
TEARDOWN: Final = "teardown"
MOST_OF_A_ROLE: Final = 10_240
MOST_OF_A_MANAGED_POLICY: Final = 6_144
"""Characters, white space not counted: IAM user guide, "IAM and AWS STS quotas"."""

_DELETES: Final = re.compile(
    r"\w+:(Delete|Deregister|Describe|Detach|Unsubscribe|SetQueueAttributes"
    r"|List(Attached)?Role|ListBucket|Get(Role|Bucket\*|Queue|Topic|Subscription|Dashboard))"
)
"""Of what `provision` may do, what CloudFormation needs to delete the stack."""


def policy_of(project: Project, name: str) -> str:
    """Return the policy of a function, the deployer's, or what it needs beside that to delete the
    stack (`teardown`, a part of the policy of `provision`), as JSON text.

    A text that names one of several (clusters, policies) is listed once for each. A statement that
    says `Where` is left out elsewhere: `full`, in a stage with a cluster of ours; `credential`,
    `key`, `boundary`, `flow-policies`, where a setting names such; `unbounded`, without a boundary;
    `vpc`, where a function is in one. Such a function gets `network.json` as well: what AWS asks of
    its role, and AWS's own way to keep that from its code (Lambda developer guide, "Giving Lambda
    functions access to resources in an Amazon VPC").

    Raises SettingError: IAM would read a name as a pattern, and reach what is not the stage's; or
    the policy is longer than IAM takes.
    """
    template = "provision" if name == TEARDOWN else name
    policy = json.loads((TEMPLATES / f"{template}.json").read_text())
    settings = project.settings
    cases = {
        "full": settings.is_full,
        "credential": bool(settings.secrets),
        "key": bool(settings.kms_key_arn),
        "boundary": bool(settings.permissions_boundary_arn),
        "unbounded": not settings.permissions_boundary_arn,
        "flow-policies": bool(settings.flow_policy_arns),
        "vpc": bool(project.in_vpc),
    }
    if name == TEARDOWN:
        for statement in policy["Statement"]:
            actions = statement["Action"]
            actions = [actions] if isinstance(actions, str) else actions
            statement["Action"] = [action for action in actions if _DELETES.match(action)]
        policy["Statement"] = [s for s in policy["Statement"] if s["Action"]]
    if name in project.in_vpc:
        policy["Statement"] += json.loads((TEMPLATES / "network.json").read_text())["Statement"]
    for statement in policy["Statement"]:
        statement.pop("Sid")  # for the templates' reader: IAM counts its characters
    policy["Statement"] = [
        s for s in policy["Statement"] if all(cases[case] for case in s.pop("Where", "").split())
    ]
    clusters = [name.rpartition("cluster/")[2] for name in settings.ecs_clusters]
    names = {**_names(project), "FUNCTION": name}
    for text in (*names.values(), *clusters, *settings.work_pools):
        if re.search(r"[*?$]", text):
            raise SettingError(
                f"a name holds * ? or $, which IAM reads as a pattern: {text!r}",
                next_step="correct it in .chalice/config.json",
            )
    several = {
        "CLUSTER": clusters,
        "FLOW_POLICY": settings.flow_policy_arns,
        # An ARN has one slash before the name, whether that begins with one or not.
        "PARAMETER": [name.removeprefix("/") for name in settings.secrets.values()],
    }
    filled = _filled(policy, names, several)
    filled["Statement"] = _joined(filled["Statement"])
    size = len(json.dumps(filled, separators=(",", ":")))
    if size > (most := MOST_OF_A_ROLE if name in FUNCTIONS else MOST_OF_A_MANAGED_POLICY):
        raise SettingError(
            f"the policy of {name} has {size} characters, and IAM takes {most}",
            next_step="shorten STACK_NAME, ECS_CLUSTER, the stage's name, the SSM parameters' names"
            " or FLOW_POLICY_ARNS",
        )
    return json.dumps(filled, indent=2) + "\n"


def _joined(statements: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Join those that differ in their actions only: IAM counts characters."""
    joined: dict[str, dict[str, Any]] = {}
    for statement in statements:
        alike = joined.setdefault(str({**statement, "Action": ""}), {**statement, "Action": []})
        actions = statement["Action"]
        actions = [actions] if isinstance(actions, str) else actions
        alike["Action"] += [each for each in actions if each not in alike["Action"]]
    for statement in joined.values():
        if len(statement["Action"]) == 1:
            [statement["Action"]] = statement["Action"]
    return list(joined.values())


def documents(project: Project) -> dict[str, Any]:
    """Return every policy of the stage, by whom it is for. Raises as `policy_of`."""
    return {name: json.loads(policy_of(project, name)) for name in (*FUNCTIONS, DEPLOYER, TEARDOWN)}


def changed_policies(project: Project) -> dict[Path, str]:
    """Return the texts of the files that the stage's config names, where the files differ.

    Raises SettingError: a function has no policy file, or shares it with another stage.
    """
    config = read_config(project.folder)
    wanted = {
        project.folder / CONFIG.parent / file: policy_of(project, function)
        for function, file in _files(config, project.stage).items()
    }
    for name in (DEPLOYER, TEARDOWN):
        path = project.folder / CONFIG.parent / f"policy-{name}-{project.stage}.json"
        wanted[path] = policy_of(project, name)
    return {path: text for path, text in wanted.items() if _text_of(path) != text}


def write_policies(project: Project) -> list[Path]:
    """Write the files that differ; return those. Raises as `changed_policies`."""
    changed = changed_policies(project)
    for path, text in changed.items():
        path.write_text(text)
    return list(changed)


def _files(config: Mapping[str, Any], stage: str) -> dict[str, str]:
    """The policy file of each function of the stage."""
    files = {
        (each, function): settings.get("iam_policy_file", "")
        for each, of_stage in config["stages"].items()
        for function, settings in of_stage.get("lambda_functions", {}).items()
    }
    taken = {file: each for (each, _), file in files.items() if each != stage}
    for function in FUNCTIONS:
        file = files.get((stage, function), "")
        if not file:
            raise SettingError(
                f"stage {stage!r} names no iam_policy_file for {function}",
                next_step=f"set it in lambda_functions to policy-{function}-{stage}.json",
            )
        if file in taken:
            raise SettingError(
                f"stages {stage!r} and {taken[file]!r} share {file}, but need different policies",
                next_step=f"set iam_policy_file to policy-{function}-{stage}.json",
            )
    return {function: files[stage, function] for function in FUNCTIONS}


def _names(project: Project) -> dict[str, str]:
    return {
        "APP": f"{project.app_name}-{project.stage}",
        "STACK": project.stack,
        "KEY": project.settings.kms_key_arn,
        "BOUNDARY": project.settings.permissions_boundary_arn,
    }


def _filled(value: Any, names: Mapping[str, str], several: Mapping[str, Sequence[str]]) -> Any:
    match value:
        case str():
            listed = [name for name in several if f"${{{name}}}" in value]
            ways = [{name: each} for name in listed for each in several[name]] or [{}]
            texts = [Template(value).substitute(names, **way) for way in ways]
            return texts[0] if len(texts) == 1 else texts
        case list():
            filled = (_filled(item, names, several) for item in value)
            return [text for one in filled for text in (one if isinstance(one, list) else [one])]
        case dict():
            return {key: _filled(item, names, several) for key, item in value.items()}
        case _:
            return value


def _text_of(path: Path) -> str:
    return path.read_text() if path.exists() else ""
