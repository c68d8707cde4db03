"""The commands: options in, one call each, exit code out."""

import sys
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import typer
from botocore.exceptions import BotoCoreError, ClientError
from typer.core import TyperGroup

from chalicelib.errors import PrefectSpotError
from spotctl.context import Context, open_context
from spotctl.deploy import deploy as deploy_all
from spotctl.drill.show import line_of, show_drill
from spotctl.drill.smoke_test import FLOW, NAME, throw_away
from spotctl.drill.target import named, pick
from spotctl.drill.watch import drill as run_drill
from spotctl.drill.watch import known
from spotctl.drill.watch import start as start_run
from spotctl.errors import RefusedError, explain
from spotctl.output import Output, table_of, table_of_rows
from spotctl.project import read_project
from spotctl.redrive import redrive as redrive_all
from spotctl.replay.run import read_change, run_replay
from spotctl.replay.show import as_table as table_of_replay
from spotctl.report import as_csv, as_mapping, as_table, read_report
from spotctl.rows import Exit, Row, State, exit_of
from spotctl.status.gather import status as look_at_all
from spotctl.teardown import find_stack, running_flows, what_stays
from spotctl.teardown import teardown as tear_down

HELP = """\
Deploy prefect-spot, look at it, try it, and take it down again.

Settings are read from .chalice/config.json, as the Lambdas have them; AWS credentials and region
from your environment or profile. Prefect is asked with your PREFECT_API_KEY or
PREFECT_API_AUTH_STRING, or else with what the Lambdas use.

Exit codes: 0 all is well; 1 something is not, and the output says what; 2 the command could not be
carried out (wrong setting or option, no credentials); 130 ended by Ctrl-C.
"""


class Group(TyperGroup):
    """Turns an error that has a known cause into two lines, and exit code 2."""

    def invoke(self, ctx: Any) -> Any:
        """Call the command."""
        try:
            return super().invoke(ctx)
        except (PrefectSpotError, BotoCoreError, ClientError, OSError) as error:
            what, next_step = explain(error)
            typer.echo(f"error: {what}\nnext step: {next_step}", err=True)
            raise typer.Exit(Exit.NOT_DONE) from None


app = typer.Typer(
    cls=Group,
    help=HELP,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)

StageOption = Annotated[
    str, typer.Option("--stage", help="the stage in .chalice/config.json", show_default=True)
]
FolderOption = Annotated[
    Path, typer.Option("--project-dir", help="the folder that holds .chalice/config.json")
]
JsonOption = Annotated[
    bool | None,
    typer.Option("--json/--table", help="JSON, or tables; by default JSON unless on a terminal"),
]
SinceOption = Annotated[
    str, typer.Option(metavar="PERIOD", help="days or weeks (7d, 4w), or a date (UTC)")
]
YesOption = Annotated[bool, typer.Option("--yes", help="do not ask")]
HERE = Path()


@app.command()
def status(
    stage: StageOption = "dev", project_dir: FolderOption = HERE, as_json: JsonOption = None
) -> None:
    """Show every part, its state, and what to do about it. Exit code 1 when one has failed."""
    context, output = _open(stage, project_dir, as_json)
    raise typer.Exit(show_status(context, output, look_at_all(context)))


@app.command()
def deploy(
    stage: StageOption = "dev", project_dir: FolderOption = HERE, as_json: JsonOption = None
) -> None:
    """Deploy the Lambdas, provision all the rest, and show the status.

    It can be run again and again. Exit code 1 when something failed: which resource, and why.
    """
    context, output = _open(stage, project_dir, as_json)
    rows = deploy_all(context, output.tell)
    if exit_of(rows) is Exit.OK:
        rows += look_at_all(context)
    raise typer.Exit(show_status(context, output, rows))


@app.command()
def teardown(
    stage: StageOption = "dev",
    yes: YesOption = False,
    work_pool: Annotated[
        bool, typer.Option("--work-pool", help="delete the work pool as well")
    ] = False,
    project_dir: FolderOption = HERE,
    as_json: JsonOption = None,
) -> None:
    """Take the stage down: flow runs, bucket, stack and Lambdas; and say what stays.

    It asks before. It can be run again where it stopped. Exit code 1 when a step failed.
    """
    context, output = _open(stage, project_dir, as_json)
    if work_pool and context.project.is_rescue_only:
        raise RefusedError(
            "the work pool is yours where PROVISION is rescue-only",
            next_step="leave out --work-pool, and delete the pool in Prefect",
        )
    stack = find_stack(context)
    flows = len(running_flows(context, stack))
    about = f"stage {stage} in account {context.aws.account}, {context.aws.region}"
    lost = f" {flows} flow runs are running, and will be cancelled." if flows else ""
    if not yes:
        _confirm(f"Delete {about}, with its table and all results in its bucket?{lost}", output)
    rows = list(tear_down(context, stack, work_pool=work_pool, tell=output.tell))
    verdict = exit_of(rows)
    stays = what_stays(context, work_pool=work_pool) if verdict is Exit.OK else []
    output.result(
        {"stage": stage, "ok": verdict is Exit.OK, "rows": rows, "stays": stays},
        lambda: table_of_rows(f"Teardown of {about}", rows),
    )
    for each in stays:
        output.tell(f"stays: {each}")
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
    """Show what Spot saved, what reruns cost, and what is left of it, by deployment and day."""
    if in_csv and as_json is not None:
        raise RefusedError(
            "--csv goes with neither --json nor --table", next_step="give one of them"
        )
    context, output = _open(stage, project_dir, as_json)
    made = read_report(context.aws.client("dynamodb"), context.project.stack, since)
    if in_csv:
        output.text(as_csv(made))
    else:
        output.result(as_mapping(made), lambda: as_table(made))
    if chart is not None:
        from spotctl.chart import draw  # matplotlib takes a second to import

        png, svg = chart.with_suffix(".png"), chart.with_suffix(".svg")
        draw(made, png, svg)
        output.tell(f"drawn: {png} and {svg}")


@app.command()
def replay(
    stage: StageOption = "dev",
    since: SinceOption = "30d",
    change: Annotated[
        str | None, typer.Option("--set", metavar="SPOT_RETRIES=n", help="the budget to try")
    ] = None,
    project_dir: FolderOption = HERE,
    as_json: JsonOption = None,
) -> None:
    """Decide the recorded history again under another budget, beside what it was.

    It shows interruptions, cost, saving and time to finish three times: as recorded, replayed under
    the stage's SPOT_RETRIES, and under that of --set; and says what it cannot know. It reads the
    stage's table, and changes nothing.
    """
    changed = read_change(change)
    context, output = _open(stage, project_dir, as_json)
    made = run_replay(context, since, changed, read_project(project_dir, stage, changed).settings)
    output.result(made, lambda: table_of_replay(made))


@app.command()
def redrive(
    stage: StageOption = "dev",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only show what is there")] = False,
    project_dir: FolderOption = HERE,
    as_json: JsonOption = None,
) -> None:
    """Give what could not be handled back to the function it was for.

    A message is deleted only after its function has handled it. Exit code 1 when one was kept.
    """
    context, output = _open(stage, project_dir, as_json)
    done = []
    for redriven in redrive_all(context, dry_run=dry_run):
        output.tell(f"{redriven.function or 'unknown'}: {redriven.outcome}")
        done.append(redriven)
    kept = sum(not redriven.done for redriven in done)
    output.result(
        {
            "dry_run": dry_run,
            "found": len(done),
            "handled": len(done) - kept,
            "messages": [letter.as_mapping() for letter in done],
        },
        lambda: (
            table_of(
                f"{len(done)} messages, {len(done) - kept} handled",
                ("function", "about", "given up because", "outcome"),
                [(r.function, r.subject, r.reason, r.outcome) for r in done],
            )
            if done
            else "the failure queue is empty"
        ),
    )
    raise typer.Exit(Exit.FAILED if kept and not dry_run else Exit.OK)


@app.command()
def drill(
    stage: StageOption = "dev",
    task: Annotated[str, typer.Option(help="id or ARN of the task to interrupt")] = "",
    start: Annotated[
        str, typer.Option(metavar="FLOW/DEPLOYMENT", help="start a run, and interrupt that")
    ] = "",
    start_throw_away: Annotated[
        bool, typer.Option("--throw-away", help="start a flow that only waits, and interrupt that")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="only show what would be interrupted")
    ] = False,
    yes: YesOption = False,
    timeout: Annotated[
        int, typer.Option(min=10, help="seconds to wait for the run to start, and to return")
    ] = 600,
    project_dir: FolderOption = HERE,
    as_json: JsonOption = None,
) -> None:
    """Interrupt one running Spot task for real, and watch whether its run comes back.

    Without --task, --start or --throw-away, the youngest Spot task of the cluster is chosen, and
    you are asked. It counts against the run's budget, as an interruption does. Exit code 1 when it
    did not pass.
    """
    context, output = _open(stage, project_dir, as_json)
    if sum(map(bool, (task, start, start_throw_away))) > 1:
        raise RefusedError(
            "--task, --start and --throw-away exclude each other", next_step="give one of them"
        )
    waiting = timedelta(seconds=timeout)
    wanted = f"{FLOW}/{NAME}" if start_throw_away else start
    if wanted and dry_run:
        output.result(
            {"dry_run": True, "would_start": wanted},
            lambda: f"would start a run of {wanted}, and interrupt it",
        )
        return
    if wanted:
        deployment = throw_away(context) if start_throw_away else known(context, start)
        target = start_run(context, deployment, waiting, output.tell)
    else:
        target = named(context, task) if task else pick(context)
    about = f"task {target.task.arn} of flow run {target.run.name} ({target.run.id})"
    if dry_run:
        output.result(
            {"dry_run": True, "task": target.task.arn, "flow_run": target.run.id},
            lambda: f"would interrupt {about}",
        )
        return
    if not (yes or task or wanted):
        _confirm(f"Interrupt {about}?", output)
    output.tell(f"interrupting {about}")
    drilled = run_drill(
        context, target, waiting, lambda step: output.tell(line_of(step, context.now()))
    )
    show_drill(drilled, output)
    raise typer.Exit(Exit.OK if drilled.passed else Exit.FAILED)


def show_status(context: Context, output: Output, rows: list[Row]) -> Exit:
    """Print the rows, and return what they come to."""
    verdict = exit_of(rows)
    title = f"prefect-spot, stage {context.project.stage}, {context.aws.region}"
    output.result(
        {
            "stage": context.project.stage,
            "region": context.aws.region,
            "ok": verdict is Exit.OK,
            "warnings": sum(row.state is State.WARNING for row in rows),
            "rows": rows,
        },
        lambda: table_of_rows(title, rows),
    )
    return verdict


def _confirm(question: str, output: Output) -> None:
    """Ask on a terminal. Raises RefusedError in a pipe."""
    if output.is_json or not sys.stdin.isatty():
        raise RefusedError(
            f"{question} Not asked: stdin is not a terminal, or the output is JSON",
            next_step="pass --yes",
        )
    typer.confirm(question, abort=True)


def _open(stage: str, folder: Path, as_json: bool | None) -> tuple[Context, Output]:
    return open_context(read_project(folder, stage)), Output(as_json)
