"""The commands: options in, one call each, exit code out."""

from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import typer
from botocore.exceptions import BotoCoreError, ClientError
from typer.core import TyperGroup

from chalicelib.core.model.policy import Pause
from chalicelib.core.model.text import one_line
from chalicelib.errors import PrefectSpotError
from spotctl.deploy import deploy as deploy_stage
from spotctl.drill import target, watch
from spotctl.errors import RefusedError, explain
from spotctl.explain import explain_flow_run
from spotctl.options import (
    HERE,
    FolderOption,
    JsonOption,
    SendKeyOption,
    SinceOption,
    StageOption,
    YesOption,
    open_stage,
)
from spotctl.output import (
    Exit,
    exit_of,
    show_crash,
    show_error,
    table_of_rows,
)
from spotctl.pause import records, refuse_while_paused
from spotctl.project import read_project
from spotctl.recommend import recommend
from spotctl.redrive import as_table as table_of_messages
from spotctl.redrive import open_queue, show_redriven
from spotctl.replay.run import read_change, run_replay
from spotctl.replay.show import as_table as table_of_replay
from spotctl.report import as_csv, as_mapping, as_table, read_report
from spotctl.status import show_status
from spotctl.status import status as status_of
from spotctl.teardown import find_stack, running_flows, what_stays
from spotctl.teardown import teardown as delete_stage

HELP = """\
Deploy, check, test, report on and tear down prefect-spot.

Settings come from .chalice/config.json, as for the Lambdas; AWS credentials and region from your
environment or profile. Prefect's credential is your PREFECT_API_KEY or PREFECT_API_AUTH_STRING,
where the stage's server is your own PREFECT_API_URL too; otherwise the Lambdas'.

Exit codes: 0 success; 1 a part or a step failed, as the output shows; 2 the command could not run
(wrong setting or option, no credentials); 130 ended by Ctrl-C.
"""


class Group(TyperGroup):
    """Shows an error that has a known cause as two lines, and exits with code 2."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except (PrefectSpotError, BotoCoreError, ClientError, OSError) as error:
            show_error(*explain(error))
            raise typer.Exit(Exit.NOT_DONE) from None
        except Exception as error:
            if isinstance(error, typer.Abort) or hasattr(error, "exit_code"):
                raise  # typer's own
            show_crash(error)
            raise typer.Exit(Exit.FAILED) from None


app = typer.Typer(
    cls=Group,
    help=HELP,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)


@app.command()
def status(
    stage: StageOption = "dev",
    send_key_to: SendKeyOption = "",
    project_dir: FolderOption = HERE,
    as_json: JsonOption = None,
) -> None:
    """Show every part, its state, and the next step. Exit code 1 when a part failed."""
    context, output = open_stage(stage, project_dir, as_json, send_key_to)
    raise typer.Exit(show_status(context, output, status_of(context)))


@app.command()
def deploy(
    stage: StageOption = "dev",
    send_key_to: SendKeyOption = "",
    project_dir: FolderOption = HERE,
    as_json: JsonOption = None,
) -> None:
    """Deploy the Lambdas, provision the rest, and show the status.

    It is safe to run again. Exit code 1 when a part failed; the output names it, and why.
    """
    context, output = open_stage(stage, project_dir, as_json, send_key_to)
    rows = deploy_stage(context)
    if exit_of(rows) is Exit.OK:
        rows += status_of(context)
    raise typer.Exit(show_status(context, output, rows))


@app.command()
def teardown(
    stage: StageOption = "dev",
    yes: YesOption = False,
    work_pool: Annotated[
        bool, typer.Option("--work-pool", help="delete the work pool as well")
    ] = False,
    send_key_to: SendKeyOption = "",
    project_dir: FolderOption = HERE,
    as_json: JsonOption = None,
) -> None:
    """Delete the stage: flow runs, bucket, stack and Lambdas; and show what stays.

    It asks first. After a failure, run it again: it continues. Exit code 1 when a step failed.
    """
    context, output = open_stage(stage, project_dir, as_json, send_key_to)
    if work_pool and context.project.is_rescue_only:
        raise RefusedError(
            "PROVISION is rescue-only: the work pool is yours",
            next_step="leave out --work-pool, and delete the pool in Prefect",
        )
    stack = find_stack(context)
    flows = len(running_flows(context, stack))
    about = f"stage {stage} in account {context.aws.account}, {context.aws.region}"
    lost = f" It cancels {flows} running flow runs." if flows else ""
    if not yes:
        output.confirm(f"Delete {about}, with its table and all results in its bucket?{lost}")
    rows = list(delete_stage(context, stack, work_pool=work_pool))
    verdict = exit_of(rows)
    stays = what_stays(context, work_pool=work_pool) if verdict is Exit.OK else []
    output.result(
        {"stage": stage, "ok": verdict is Exit.OK, "rows": rows, "stays": stays},
        lambda: table_of_rows(f"Teardown of {about}", rows),
    )
    for each in stays:
        output.progress(f"stays: {each}")
    raise typer.Exit(verdict)


@app.command()
def report(
    stage: StageOption = "dev",
    since: SinceOption = "7d",
    in_csv: Annotated[
        bool, typer.Option("--csv", help="CSV, a row per deployment and day")
    ] = False,
    chart: Annotated[
        Path | None, typer.Option(metavar="FILE", help="draw it too, as FILE.png and FILE.svg")
    ] = None,
    project_dir: FolderOption = HERE,
    as_json: JsonOption = None,
) -> None:
    """Show what Spot saved, what reruns cost, the net saving, and what to set, by deployment."""
    if in_csv and as_json is not None:
        raise RefusedError("--csv excludes --json and --table", next_step="pass one of them")
    context, output = open_stage(stage, project_dir, as_json)
    dynamodb, today = context.aws.client("dynamodb"), context.now().date()
    savings = read_report(dynamodb, context.project.stack, since, today)
    if in_csv:
        output.text(as_csv(savings))
    else:
        advice = recommend(savings, context.project.settings.spot_retries)
        output.result(as_mapping(savings, advice), lambda: as_table(savings, advice))
    if chart is not None:
        from spotctl.chart import draw  # matplotlib takes a second to import

        png, svg = chart.with_suffix(".png"), chart.with_suffix(".svg")
        draw(savings, png, svg)
        output.progress(f"drawn: {png} and {svg}")


@app.command(name="explain")
def explain_run(
    run: Annotated[str, typer.Argument(help="id, name, or address in the Prefect UI of the run")],
    stage: StageOption = "dev",
    chart: Annotated[
        Path | None, typer.Option(metavar="FILE", help="draw it too, as FILE.png and FILE.svg")
    ] = None,
    send_key_to: SendKeyOption = "",
    project_dir: FolderOption = HERE,
    as_json: JsonOption = None,
) -> None:
    """Tell the story of one flow run: attempts, interruptions, decisions and why, money.

    From the run record, bills, ECS and Prefect; what is missing is named. It changes nothing.
    """
    context, output = open_stage(stage, project_dir, as_json, send_key_to)
    explain_flow_run(context, output, run, chart)


@app.command()
def replay(
    stage: StageOption = "dev",
    since: SinceOption = "30d",
    change: Annotated[
        str | None, typer.Option("--set", metavar="SPOT_RETRIES=n|auto", help="the budget to try")
    ] = None,
    project_dir: FolderOption = HERE,
    as_json: JsonOption = None,
) -> None:
    """Replay the recorded history under another budget.

    It shows interruptions, cost, saving and time to finish three times: as recorded, replayed under
    the stage's SPOT_RETRIES, and under that of --set; and what it cannot know. It reads the stage's
    table, and changes nothing.
    """
    changed = read_change(change)
    context, output = open_stage(stage, project_dir, as_json)
    changed_settings = read_project(project_dir, stage, changed).settings
    replayed = run_replay(context, since, changed, changed_settings)
    output.result(replayed, lambda: table_of_replay(replayed))


@app.command()
def pause(
    stage: StageOption = "dev",
    reason: Annotated[str, typer.Option(help="why: shown by status and in the log")] = "",
    project_dir: FolderOption = HERE,
    as_json: JsonOption = None,
) -> None:
    """Stop every reaction of the stage, within a minute, until resume.

    No run is rescued, ended or annotated meanwhile, whatever is deployed; bills go on.
    """
    context, output = open_stage(stage, project_dir, as_json)
    wanted = Pause(context.now(), context.aws.caller, one_line(reason))
    held = records(context).pause(wanted)
    output.result({"stage": stage, "paused": held}, lambda: f"stage {stage}: {held}")


@app.command()
def resume(
    stage: StageOption = "dev", project_dir: FolderOption = HERE, as_json: JsonOption = None
) -> None:
    """End the pause: the next sweep catches up with what happened meanwhile."""
    context, output = open_stage(stage, project_dir, as_json)
    held = records(context).resume()
    was = f"resumed; it was {held}" if held else "it was not paused"
    output.result({"stage": stage, "was_paused": held}, lambda: f"stage {stage}: {was}")


@app.command()
def redrive(
    stage: StageOption = "dev",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only show the messages")] = False,
    yes: YesOption = False,
    project_dir: FolderOption = HERE,
    as_json: JsonOption = None,
) -> None:
    """Invoke the functions again with the events in the failure queue.

    It shows them first, and asks. What does not fit this stage, or contradicts ECS, may be forged:
    it is kept. A message is deleted only after its function has handled it. Exit code 1 when one
    was kept.
    """
    context, output = open_stage(stage, project_dir, as_json)
    if not dry_run:
        refuse_while_paused(context)
    with open_queue(context, dry_run=dry_run) as queue:
        messages = queue.read()
        replayed = sum(not message.doubt for message in messages)
        if replayed and not dry_run:
            output.preview(table_of_messages(f"{replayed} of {len(messages)} messages", messages))
            if not yes:
                output.confirm(f"Invoke the functions with {replayed} events?")
            found, messages = messages, []
            for message in queue.redrive(found):
                output.progress(f"{message.function or 'unknown'}: {message.outcome}")
                messages.append(message)
    raise typer.Exit(show_redriven(messages, output, dry_run=dry_run))


@app.command()
def drill(
    stage: StageOption = "dev",
    task: Annotated[str, typer.Option(help="id or ARN of the task to interrupt")] = "",
    start: Annotated[
        str, typer.Option(metavar="FLOW/DEPLOYMENT", help="start a run, and interrupt that")
    ] = "",
    smoke_test: Annotated[
        bool,
        typer.Option("--throw-away", help="start a smoke test that only waits, and interrupt that"),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="only show what would be interrupted")
    ] = False,
    yes: YesOption = False,
    timeout: Annotated[
        int, typer.Option(min=10, help="seconds to wait for the run to start, and to be rerun")
    ] = 600,
    send_key_to: SendKeyOption = "",
    project_dir: FolderOption = HERE,
    as_json: JsonOption = None,
) -> None:
    """Interrupt one running Spot task for real, and watch whether its run is rerun.

    Without --task, --start or --throw-away, it chooses the cluster's youngest Spot task, and asks
    first. It counts against the run's budget, as an interruption does. Exit code 1 when the drill
    did not pass.
    """
    context, output = open_stage(stage, project_dir, as_json, send_key_to)
    if sum(map(bool, (task, start, smoke_test))) > 1:
        raise RefusedError(
            "--task, --start and --throw-away exclude each other", next_step="pass one of them"
        )
    if not dry_run:
        refuse_while_paused(context)
    waiting = timedelta(seconds=timeout)
    wanted = f"{target.SMOKE_TEST_FLOW}/{target.SMOKE_TEST_DEPLOYMENT}" if smoke_test else start
    if wanted and dry_run:
        output.result(
            {"dry_run": True, "would_start": wanted},
            lambda: f"would start a run of {wanted}, and interrupt it",
        )
        return
    if smoke_test:
        chosen = target.start(context, target.save_smoke_test(context), waiting)
    elif start:
        chosen = target.start(context, target.read_deployment(context, start), waiting)
    else:
        chosen = target.named(context, task) if task else target.pick(context)
    about = f"task {chosen.task.arn} of flow run {chosen.run.name} ({chosen.run.id})"
    if dry_run:
        output.result(
            {"dry_run": True, "task": chosen.task.arn, "flow_run": chosen.run.id},
            lambda: f"would interrupt {about}",
        )
        return
    if not (yes or task or wanted):
        output.confirm(f"Interrupt {about}?")
    output.progress(f"interrupting {about}")
    drilled = watch.drill(context, chosen, waiting)
    watch.show_drill(drilled, output)
    raise typer.Exit(Exit.OK if drilled.passed else Exit.FAILED)
