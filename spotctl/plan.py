"""`spotctl plan`: what `deploy` and `provision` would change, and whether the settings are valid.

Of the code nothing is known before Chalice packs it: `deploy` uploads it each time.
"""

import json
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from spotctl.context import Context
from spotctl.errors import find
from spotctl.output import (
    Exit,
    Output,
    Row,
    csv_of_rows,
    exit_of,
    failed,
    ok,
    table_of_rows,
    warning,
)
from spotctl.policies import changed_policies
from spotctl.project import CONFIG, Project
from spotctl.status import provisioning


def plan(project: Project, context: Context | None = None) -> list[Row]:
    """Return a row per part; `context` None: of the settings and files only.

    Raises SettingError, and botocore's errors with a context.
    """
    settings = project.settings
    what = "rescue-only" if project.is_rescue_only else "full"
    rows = [
        ok("settings", f"valid: MODE {settings.mode}, PROVISION {what}, stack {project.stack}"),
        ok("policies", _listed("would write", [path.name for path in changed_policies(project)])),
    ]
    if context is not None:
        rows += [*_functions(context), *_provision(context)]
    return rows


def show_plan(rows: list[Row], output: Output, about: str) -> Exit:
    """Print the plan of `about`; return its exit code."""
    verdict = exit_of(rows)
    output.result(
        {"dry_run": True, "about": about, "ok": verdict is Exit.OK, "rows": rows},
        lambda: table_of_rows(f"Plan of {about}: nothing was changed", rows),
        lambda: csv_of_rows(rows),
    )
    return verdict


def _functions(context: Context) -> Iterator[Row]:
    client, project = context.aws.client("lambda"), context.project
    missing = client.exceptions.ResourceNotFoundException
    config: dict[str, Any] = json.loads((project.folder / CONFIG).read_text())
    stage = config["stages"][project.stage]
    for name in project.functions:
        full = project.function_name(name)
        part = f"function {full}"
        found = find(partial(client.get_function_configuration, FunctionName=full), missing)
        if found is None:
            yield ok(part, "would be created, with its role and rule")
            continue
        levels = (config, stage, stage["lambda_functions"][name])
        wanted = {
            k: v for level in levels for k, v in level.get("environment_variables", {}).items()
        }
        has = (found.get("Environment") or {}).get("Variables") or {}
        changed = sorted(each for each in wanted | has if wanted.get(each) != has.get(each))
        yield ok(
            part, _listed("would get its code, and other settings:", changed, "would get its code")
        )


def _provision(context: Context) -> list[Row]:
    """What the deployed function would do next: it has the settings of the last deploy."""
    found = provisioning.read(context)
    part = "provision"
    if found is None:
        project = context.project
        pool = "" if project.is_rescue_only else f"the work pool {project.settings.work_pool}, "
        return [ok(part, f"would then create {pool}the stack {project.stack} and what is in it")]
    step = "do what it says, then run spotctl plan again"
    steps = _listed(f"{found.state}, and with the settings of the last deploy would", found.steps)
    return [
        ok(part, steps),
        *(failed(part, each, step) for each in found.problems),
        *(warning(part, each, "do what it says") for each in found.warnings),
    ]


def _listed(before: str, each: Sequence[str], otherwise: str = "no change") -> str:
    return f"{before} {', '.join(each)}" if each else otherwise
