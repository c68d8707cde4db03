"""Chalice's record of what it deployed, made of what the account has."""

import json
from functools import partial
from pathlib import Path
from typing import Final

from spotctl.context import Context
from spotctl.errors import find

_SUFFIXES: Final = ("_role", "", "-event")
"""Of a function's role, itself and its rule, in the names of Chalice's record."""


def restore_record(context: Context, record: Path) -> None:
    """Write what the account has of the stage into Chalice's record, beside what else it names.

    `chalice delete` deletes what the record names, and it is not there in another checkout, in CI
    or after a deploy that failed: Chalice 1.34 writes it last, and git ignores it.
    """
    known = json.loads(record.read_text())["resources"] if record.exists() else []
    names = {f"{name}{suffix}" for name in context.project.functions for suffix in _SUFFIXES}
    others = [each for each in known if each["name"] not in names]
    record.parent.mkdir(parents=True, exist_ok=True)
    resources = [*others, *deployed(context)]
    content = {"resources": resources, "schema_version": "2.0", "backend": "api"}
    record.write_text(json.dumps(content, indent=2))


def deployed(context: Context) -> list[dict[str, str]]:
    """What the account has of the stage's roles, functions and rules, as Chalice 1.34 records it.

    A function comes after its role and before its rule: Chalice deletes from the end.
    """
    client, found = context.aws.client, []
    functions, roles, rules = client("lambda"), client("iam"), client("events")
    for name in context.project.functions:
        full = context.project.function_name(name)
        role = find(partial(roles.get_role, RoleName=full), roles.exceptions.NoSuchEntityException)
        function = find(
            partial(functions.get_function_configuration, FunctionName=full),
            functions.exceptions.ResourceNotFoundException,
        )
        rule = find(
            partial(rules.describe_rule, Name=f"{full}-event"),
            rules.exceptions.ResourceNotFoundException,
        )
        if role:
            fields = {"role_name": full, "role_arn": role["Role"]["Arn"]}
            found.append({"name": f"{name}_role", "resource_type": "iam_role", **fields})
        if function:
            fields = {"lambda_arn": function["FunctionArn"]}
            found.append({"name": name, "resource_type": "lambda_function", **fields})
        if rule:
            fields = {"rule_name": rule["Name"]}
            found.append({"name": f"{name}-event", "resource_type": "cloudwatch_event", **fields})
    return found
