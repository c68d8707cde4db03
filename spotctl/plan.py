"""`spotctl plan`: what `deploy` and `provision` would change, and whether the settings are valid.

Of the code nothing is known before Chalice packs it: `deploy` uploads it each time.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from chalicelib.settings import ROWS
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
from spotctl.project import Project, read_config
from spotctl.status import provisioning


def plan(output: Output, project: Project, context: Context | None = None) -> Exit:
    """Print a row per part; return the exit code. `context` None: of settings and files only.

    Raises SettingError, and botocore's errors with a context.
    """
    settings, config = project.settings, read_config(project.folder)
    what = "rescue-only" if project.is_rescue_only else "full"
    rows = [ok("settings", f"valid: MODE {settings.mode}, PROVISION {what}, stack {project.stack}")]
    wanted = _environment(config, config["stages"][project.stage])
    if unknown := sorted(wanted.keys() - {row.name for row in ROWS.values()}):
        step = "correct the name, or remove it"
        rows.append(warning("settings", f"there is no setting {', '.join(unknown)}", step))
    changed = [path.name for path in changed_policies(project)]
    rows.append(ok("policies", f"would write {', '.join(changed)}" if changed else "no change"))
    if context is not None:
        rows += [*_functions(context, config), *_provision(context)]
    verdict = exit_of(rows)
    about = context.about if context else f"stage {project.stage}"
    output.result(
        {"stage": project.stage, "dry_run": True, "ok": verdict is Exit.OK, "rows": rows},
        lambda: table_of_rows(f"Plan of {about}: nothing was changed", rows),
        lambda: csv_of_rows(rows),
    )
    return verdict


def _environment(*levels: Mapping[str, Any]) -> dict[str, str]:
    """A function's environment variables, as Chalice joins them: the last level wins."""
    return {k: v for level in levels for k, v in level.get("environment_variables", {}).items()}


def _functions(context: Context, config: Mapping[str, Any]) -> Iterator[Row]:
    client, project = context.aws.client("lambda"), context.project
    missing = client.exceptions.ResourceNotFoundException
    stage = config["stages"][project.stage]
    for name in project.functions:
        full = project.function_name(name)
        part = f"function {full}"
        found = find(partial(client.get_function_configuration, FunctionName=full), missing)
        if found is None:
            yield ok(part, "would be created, with its role and rule")
            continue
        wanted = _environment(config, stage, stage["lambda_functions"][name])
        has = (found.get("Environment") or {}).get("Variables") or {}
        changed = sorted(each for each in wanted | has if wanted.get(each) != has.get(each))
        others = f", and other settings: {', '.join(changed)}" if changed else ""
        yield ok(part, f"would get its code{others}")


def _provision(context: Context) -> list[Row]:
    """What the deployed function would do next: it has the settings of the last deploy."""
    found = provisioning.read(context)
    part = "provision"
    if found is None:
        project = context.project
        pool = "" if project.is_rescue_only else f"the work pool {project.settings.work_pools[0]}, "
        return [ok(part, f"would then create {pool}the stack {project.stack} and what is in it")]
    step = "do what it says, then run spotctl plan again"
    steps = f"would, with the settings of the last deploy, {', '.join(found.steps)}"
    return [
        ok(part, f"{found.state or 'failed'}: {steps if found.steps else 'no change'}"),
        *(failed(part, each, step) for each in found.problems),
        *(warning(part, each, "do what it says") for each in found.warnings),
    ]
