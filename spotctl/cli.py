"""The commands: options in, one call each, exit code out. Those before a deploy: `set_up.py`."""

from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from chalicelib.core.model.policy import Pause
from chalicelib.core.model.text import one_line
from spotctl import set_up
from spotctl.app import At, Panel, app, command
from spotctl.deploy import deploy as deploy_stage
from spotctl.drill import run as drill_run
from spotctl.errors import RefusedError
from spotctl.explain import explain_flow_run
from spotctl.options import Since, Yes, chart_files, dry_run
from spotctl.output import Exit, exit_of
from spotctl.pause import records, refuse_while_paused
from spotctl.plan import plan
from spotctl.recommend import recommend
from spotctl.redrive import as_table as table_of_messages
from spotctl.redrive import open_queue, show_redriven
from spotctl.replay.run import read_change, run_replay
from spotctl.replay.show import as_table as table_of_replay
from spotctl.report import as_csv, as_mapping, as_table, read_report
from spotctl.status import show_status
from spotctl.status import status as status_of
from spotctl.teardown import find_stack, plan_teardown, running_flows, show_teardown
from spotctl.teardown import teardown as delete_stage

__all__ = ["app", "set_up"]


@command(
    Panel.SET_UP,
    *("deploy --dry-run", "deploy --stage prod --yes"),
    fails="a part failed, or you answered no",
    csv=True,
    prefect=True,
)
def deploy(
    at: At,
    dry: Annotated[bool, dry_run("show what would change, as plan does")] = False,
    yes: Yes = False,
) -> None:
    """Deploy the Lambdas, provision the rest, and show the status.

    It shows account, region and stage, and asks first. It is safe to run again.
    """
    context, output = at.open()
    if dry:
        raise typer.Exit(plan(output, context.project, context))
    output.confirm(f"Deploy {context.about}?", yes=yes)
    rows = deploy_stage(context)
    if exit_of(rows) is Exit.OK:
        rows += status_of(context)
    raise typer.Exit(show_status(context, output, rows))


@command(
    Panel.SET_UP,
    *("status", "status --stage prod --format json"),
    fails="a part failed",
    csv=True,
    prefect=True,
)
def status(at: At) -> None:
    """Show every part of the stage, its state, and the next step."""
    context, output = at.open()
    raise typer.Exit(show_status(context, output, status_of(context)))


@command(
    Panel.SET_UP,
    *("teardown --stage dev --dry-run", "teardown --stage dev --delete-work-pool"),
    fails="a step failed, or you answered no",
    csv=True,
    prefect=True,
    asks_stage=True,
)
def teardown(
    at: At,
    dry: Annotated[bool, dry_run("show what would be deleted")] = False,
    yes: Yes = False,
    work_pool: Annotated[
        bool,
        typer.Option("--delete-work-pool", help="delete the work pool and its deployments as well"),
    ] = False,
    old_work_pool: Annotated[bool, typer.Option("--work-pool", hidden=True)] = False,
) -> None:
    """Delete the stage: cancel running flow runs, empty the bucket, delete stack and Lambdas.

    It shows account, region and stage, and asks first; at the end, what stays. After a failure, run
    it again: it continues.
    """
    context, output = at.open()
    work_pool |= old_work_pool
    if work_pool and context.project.is_rescue_only:
        raise RefusedError(
            "PROVISION is rescue-only: the work pool is yours",
            next_step="leave out --delete-work-pool, and delete the pool in Prefect",
        )
    stack = find_stack(context)
    flows = len(running_flows(context, stack))
    if not dry:
        lost = f" It cancels {flows} running flow runs." if flows else ""
        what = f"Delete {context.about}, with its table and all results in its bucket?{lost}"
        output.confirm(what, yes=yes)
    steps = plan_teardown if dry else delete_stage
    rows = list(steps(context, stack, work_pool=work_pool))
    raise typer.Exit(show_teardown(context, output, rows, work_pool=work_pool, dry_run=dry))


@command(
    Panel.TEST,
    *("drill --sample-flow", "drill --start etl/nightly --yes", "drill --dry-run"),
    fails="the run was not rerun as it should be, or you answered no",
    prefect=True,
)
def drill(
    at: At,
    sample_flow: Annotated[
        bool,
        typer.Option("--sample-flow", help="start a flow that only waits, and interrupt that"),
    ] = False,
    throw_away: Annotated[bool, typer.Option("--throw-away", hidden=True)] = False,
    start: Annotated[
        str,
        typer.Option(
            metavar="FLOW/DEPLOYMENT", help="start a run, and interrupt that", show_default=False
        ),
    ] = "",
    task: Annotated[
        str,
        typer.Option(metavar="TASK", help="id or ARN of the task to interrupt", show_default=False),
    ] = "",
    dry: Annotated[bool, dry_run("show what would be interrupted")] = False,
    yes: Yes = False,
    timeout: Annotated[
        int,
        typer.Option(
            min=10,
            metavar="SECONDS",
            help="how long to wait for the run to start, and for its rerun",
        ),
    ] = 600,
) -> None:
    """Interrupt one running Spot task for real, and watch whether its run is rerun.

    It asks first, except for the sample flow. Without --sample-flow, --start and --task, it chooses
    the most recently started Spot task of the cluster. The drill counts as one of the run's
    interruptions.
    """
    sample_flow |= throw_away
    given = {"--task": task, "--start": start, "--sample-flow": sample_flow}
    if sum(map(bool, given.values())) > 1:
        raise RefusedError(f"{', '.join(given)} exclude each other", next_step="pass one of them")
    context, output = at.open()
    if not dry:
        refuse_while_paused(context)
    wanted = drill_run.Wanted(
        task, start, is_sample=sample_flow, waiting=timedelta(seconds=timeout)
    )
    raise typer.Exit(drill_run.run(context, output, wanted, dry_run=dry, yes=yes))


@command(
    Panel.MONEY,
    *("report --since 4w --chart savings", "report --since 2026-11-01 --format csv"),
    csv=True,
)
def report(
    at: At,
    since: Since = "7d",
    chart: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="also write a chart, to FILE.png and FILE.svg"),
    ] = None,
    pool: Annotated[
        str, typer.Option(metavar="NAME", help="of this work pool only", show_default=False)
    ] = "",
) -> None:
    """Show per deployment what Spot saved, what reruns cost, the net saving, and what to set.

    The sums are daily; CSV has a row per deployment and day.
    """
    files = chart_files(chart) if chart else None
    context, output = at.open()
    dynamodb, today = context.aws.client("dynamodb"), context.now().date()
    pools = context.project.settings.work_pools
    savings = read_report(dynamodb, context.project.stack, since, today, pools, pool)
    advice = recommend(savings, context.project.settings.spot_retries)
    output.result(
        as_mapping(savings, advice),
        lambda: as_table(savings, advice, output.width),
        lambda: as_csv(savings),
    )
    if files is not None:
        from spotctl.chart import draw  # matplotlib takes a second to import

        png, svg = files
        draw(savings, png, svg)
        output.progress(f"drawn: {png} and {svg}")


@command(Panel.MONEY, *("replay --set SPOT_RETRIES=1", "replay --since 4w --set SPOT_RETRIES=auto"))
def replay(
    at: At,
    since: Since = "30d",
    change: Annotated[
        str | None,
        typer.Option("--set", metavar="SPOT_RETRIES=n|auto", help="the setting to try"),
    ] = None,
) -> None:
    """Estimate what past interruptions would have cost under another SPOT_RETRIES.

    It shows interruptions, cost, saving and time to finish three times: as recorded, replayed under
    the stage's SPOT_RETRIES, and under that of --set; and what it cannot know. It reads the stage's
    table, and changes nothing.
    """
    changed = read_change(change)
    context, output = at.open()
    replayed = run_replay(context, since, changed, at.project(changed).settings)
    output.result(replayed, lambda: table_of_replay(replayed))


@command(
    Panel.REPAIR,
    *("explain maroon-penguin", "explain 0a1b2c3d-0000-4000-8000-000000000000 --chart run"),
    prefect=True,
)
def explain(
    at: At,
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="ID, name, or address in the Prefect UI of the run")
    ],
    chart: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="also draw it, to FILE.png and FILE.svg"),
    ] = None,
) -> None:
    """Show what happened to one flow run: attempts, interruptions, decisions and why, money.

    It reads the run record, the bills, ECS and Prefect, names what is missing, and changes nothing.
    """
    context, output = at.open()
    explain_flow_run(context, output, run, chart)


@command(
    Panel.REPAIR,
    *("redrive --dry-run", "redrive --stage prod"),
    fails="an event was kept, or you answered no",
)
def redrive(
    at: At,
    dry: Annotated[bool, dry_run("only show the events")] = False,
    yes: Yes = False,
) -> None:
    """Retry the events in the failure queue.

    It shows them, with account, region and stage, and asks first. An event that does not fit the
    stage, or contradicts ECS, may be forged: it is kept. The others are deleted once their function
    has handled them.
    """
    context, output = at.open()
    if not dry:
        refuse_while_paused(context)
    with open_queue(context, dry_run=dry) as queue:
        messages = queue.read()
        replayed = sum(not message.doubt for message in messages)
        if replayed and not dry:
            output.preview(table_of_messages(f"{replayed} of {len(messages)} messages", messages))
            what = f"Invoke the functions of {context.about}, with {replayed} events?"
            output.confirm(what, yes=yes)
            found, messages = messages, []
            for message in queue.redrive(found):
                output.progress(f"{message.function or 'unknown'}: {message.outcome}")
                messages.append(message)
    raise typer.Exit(show_redriven(messages, output, dry_run=dry))


@command(Panel.REPAIR, 'pause --stage prod --reason "Prefect is being restored"')
def pause(
    at: At,
    reason: Annotated[
        str,
        typer.Option(
            metavar="TEXT", help="why: shown by status and in the log", show_default=False
        ),
    ] = "",
) -> None:
    """Stop every reaction of the stage, within a minute, until resume.

    Meanwhile no run is rescued, ended or annotated, whatever is deployed; bills go on. It does not
    ask: it interrupts nothing, and an incident does not wait.
    """
    context, output = at.open()
    wanted = Pause(context.now(), context.aws.caller, one_line(reason))
    held = records(context).pause(wanted)
    output.result({"stage": at.stage, "paused": held}, lambda: f"{context.about}: {held}")


@command(Panel.REPAIR, "resume --stage prod")
def resume(at: At) -> None:
    """End the pause: the next sweep catches up with what happened meanwhile."""
    context, output = at.open()
    held = records(context).resume()
    was = f"resumed; it was {held}" if held else "it was not paused"
    output.result({"stage": at.stage, "was_paused": held}, lambda: f"{context.about}: {was}")
