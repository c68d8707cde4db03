"""The commands before a deploy: a stage's settings, its policies, its plan."""

from typing import Annotated

import typer

from spotctl.app import At, Panel, command
from spotctl.init import init as init_stage
from spotctl.output import as_json
from spotctl.plan import plan as plan_of
from spotctl.policies import documents
from spotctl.project import CONFIG


@command(
    Panel.SET_UP,
    "init --stage eu --set PREFECT_API_URL=URL",
    "init --stage eu --set PREFECT_API_URL=URL --set ECS_CLUSTER=etl",
    asks_stage=True,
)
def init(
    at: At,
    given: Annotated[
        list[str],
        typer.Option("--set", metavar="NAME=VALUE", help="a setting (repeatable)"),
    ],
) -> None:
    """Write a new stage into .chalice/config.json, in MODE observe, which changes no run.

    Settings that are not given have their defaults. With ECS_CLUSTER set,
    PROVISION is rescue-only: cluster, worker and work pool are yours, and stay untouched.
    """
    init_stage(at.folder, at.stage, given)
    path, next_step = at.folder / CONFIG, f"run spotctl plan --stage {at.stage}"
    at.output.result(
        {"stage": at.stage, "file": path, "next_step": next_step},
        lambda: f"stage {at.stage} is in {path} now; {next_step}",
    )


@command(Panel.SET_UP, "policies --stage prod")
def policies(at: At) -> None:
    """Print the IAM policies of the functions and of who deploys, as JSON, for a review."""
    found = documents(at.project())
    at.output.result(found, lambda: as_json(found))


@command(
    Panel.SET_UP,
    *("plan --stage prod", "plan --stage prod --offline"),
    fails="something stands in the way",
    csv=True,
)
def plan(
    at: At,
    offline: Annotated[
        bool, typer.Option("--offline", help="check the files only, without AWS and Prefect")
    ] = False,
) -> None:
    """Show what deploy and provision would change, and check the settings. It changes nothing.

    A wrong setting is reported before AWS is asked for anything.
    """
    if offline:
        raise typer.Exit(plan_of(at.output, at.project()))
    context, output = at.open()
    raise typer.Exit(plan_of(output, context.project, context))
