"""What the commands share: their common options, and their start."""

from pathlib import Path
from typing import Annotated

import typer

from spotctl.context import Context, open_context
from spotctl.output import Output
from spotctl.project import read_project

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
SendKeyOption = Annotated[
    str,
    typer.Option(
        metavar="URL",
        help="send a Prefect credential there, though it is not your PREFECT_API_URL; your own"
        " never goes over http, except to this machine",
    ),
]
YesOption = Annotated[bool, typer.Option("--yes", help="do not ask")]
HERE = Path()


def open_stage(
    stage: str, folder: Path, as_json: bool | None, send_key_to: str = ""
) -> tuple[Context, Output]:
    """Return the context of a command on this stage, and its output. Raises as `read_project`."""
    output = Output(as_json)
    return open_context(read_project(folder, stage), output.progress, send_key_to), output
