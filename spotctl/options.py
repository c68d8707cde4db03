"""What the commands share: their common options, the question before a change, and the start."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from botocore.exceptions import BotoCoreError, ClientError
from typer.core import TyperGroup

from chalicelib.errors import PrefectSpotError
from spotctl.context import Context, open_context
from spotctl.errors import RefusedError, explain
from spotctl.output import Exit, Output
from spotctl.project import read_project


class Group(TyperGroup):
    """Shows an error that has a known cause as two lines, and exits with code 2."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except (PrefectSpotError, BotoCoreError, ClientError, OSError) as error:
            what, next_step = explain(error)
            typer.echo(f"error: {what}\nnext step: {next_step}", err=True)
            raise typer.Exit(Exit.NOT_DONE) from None


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


def confirm(question: str, output: Output) -> None:
    """Ask on a terminal; RefusedError elsewhere."""
    if output.is_json or not sys.stdin.isatty():
        raise RefusedError(
            f"stdin is not a terminal, or the output is JSON: cannot ask {question!r}",
            next_step="pass --yes",
        )
    typer.confirm(question, abort=True)


def open_stage(stage: str, folder: Path, as_json: bool | None) -> tuple[Context, Output]:
    """Return the context of a command on this stage, and its output. Raises as `read_project`."""
    output = Output(as_json)
    return open_context(read_project(folder, stage), output.progress), output
