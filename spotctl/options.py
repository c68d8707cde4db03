"""The options that commands share, by what they accept."""

import json
from pathlib import Path
from typing import Annotated, Final, Literal

import typer

from spotctl.errors import RefusedError
from spotctl.project import CONFIG, folder_of

_COMMON: Final = "Options of every command"


def _stages(incomplete: str) -> list[str]:
    """The stages that a shell completes; none where there is no readable config."""
    try:
        stages = json.loads((folder_of(None) / CONFIG).read_text())["stages"]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return [stage for stage in stages if stage.startswith(incomplete)]


_FORMAT_HELP: Final = "how to print the result  [default: table on a terminal, otherwise json]"

Stage = Annotated[
    str,
    typer.Option(
        "--stage",
        metavar="STAGE",
        help="stage name from .chalice/config.json",
        autocompletion=_stages,
        rich_help_panel=_COMMON,
    ),
]
Folder = Annotated[
    Path | None,
    typer.Option(
        "--project-dir",
        metavar="FOLDER",
        envvar="SPOTCTL_PROJECT_DIR",
        show_envvar=True,
        help="folder with .chalice/config.json  [default: this one, otherwise spotctl's checkout]",
        rich_help_panel=_COMMON,
    ),
]
Profile = Annotated[
    str,
    typer.Option(
        "--profile",
        metavar="NAME",
        help="AWS profile, in place of your environment's",
        show_default=False,
        rich_help_panel=_COMMON,
    ),
]
Region = Annotated[
    str,
    typer.Option(
        "--region",
        metavar="REGION",
        help="AWS region, in place of your environment's or profile's",
        show_default=False,
        rich_help_panel=_COMMON,
    ),
]
SendKey = Annotated[
    str,
    typer.Option(
        "--send-key-to",
        metavar="URL",
        help="send a Prefect credential there although it is not your PREFECT_API_URL; your own"
        " never goes over http, except to this machine",
        show_default=False,
        rich_help_panel=_COMMON,
    ),
]
OwnKey = Annotated[
    bool,
    typer.Option(
        "--own-key",
        help="use only your own Prefect credential, never the stage's from SSM",
        rich_help_panel=_COMMON,
    ),
]
Format = Annotated[
    Literal["table", "json", "csv"] | None,
    typer.Option("--format", metavar="table|json|csv", help=_FORMAT_HELP, rich_help_panel=_COMMON),
]
FormatWithoutCsv = Annotated[
    Literal["table", "json"] | None,
    typer.Option("--format", metavar="table|json", help=_FORMAT_HELP, rich_help_panel=_COMMON),
]
AsJson = Annotated[bool | None, typer.Option("--json/--table", hidden=True)]
InCsv = Annotated[bool, typer.Option("--csv", hidden=True)]
Quiet = Annotated[
    bool,
    typer.Option("--quiet", "-q", help="print no progress", rich_help_panel=_COMMON),
]
Verbose = Annotated[
    bool,
    typer.Option(
        "--verbose", "-v", help="print each request to AWS and Prefect", rich_help_panel=_COMMON
    ),
]
NoColor = Annotated[
    bool,
    typer.Option("--no-color", help="no colors; so does NO_COLOR=1", rich_help_panel=_COMMON),
]

Yes = Annotated[bool, typer.Option("--yes", "-y", help="do not ask")]
Since = Annotated[
    str,
    typer.Option(
        metavar="PERIOD",
        help="days or weeks until today (7d, 4w), or a first day, YYYY-MM-DD (UTC)",
    ),
]


def dry_run(what: str) -> typer.models.OptionInfo:
    """Return --dry-run, with what it shows."""
    found: typer.models.OptionInfo = typer.Option("--dry-run", "-n", help=what)
    return found


def chart_files(chart: Path) -> tuple[Path, Path]:
    """Return FILE.png and FILE.svg; FILE may end so already. Raises RefusedError: it is no name."""
    name = chart.name.removesuffix(".png").removesuffix(".svg")
    if name in ("", ".."):
        raise RefusedError(f"--chart {str(chart)!r} names no file", next_step="pass a file's name")
    return chart.with_name(f"{name}.png"), chart.with_name(f"{name}.svg")


def chosen_format(
    given: Literal["table", "json", "csv"] | None, *, as_json: bool | None, in_csv: bool
) -> Literal["table", "json", "csv"] | None:
    """Return the one format that these options give, None where none does.

    --json, --table and --csv are what --format was before it. Raises RefusedError: several differ.
    """
    by_option: dict[str, Literal["table", "json", "csv"]] = {}
    if in_csv:
        by_option["--csv"] = "csv"
    if as_json is not None:
        by_option["--json" if as_json else "--table"] = "json" if as_json else "table"
    if given:
        by_option[f"--format {given}"] = given
    if len(set(by_option.values())) > 1:
        first, *others = by_option
        raise RefusedError(f"{first} excludes {' and '.join(others)}", next_step="pass one of them")
    return next(iter(by_option.values()), None)
