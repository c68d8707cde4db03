"""The command line's frame: its groups, the options that all commands share, help and errors."""

import inspect
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import wraps
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Final

import typer
from botocore.exceptions import BotoCoreError, ClientError
from typer.core import TyperCommand, TyperGroup

from chalicelib.errors import PrefectSpotError
from spotctl import options
from spotctl.context import Context, open_context
from spotctl.errors import explain
from spotctl.output import Exit, Output, show_crash, show_error, show_line
from spotctl.project import CHECKOUT, Project, folder_of, read_project

HELP: Final = f"""\
Deploy, test, measure and repair prefect-spot, one stage at a time.

Start with `spotctl plan`, `spotctl deploy`, `spotctl drill --sample-flow` and `spotctl report`.
`spotctl help COMMAND` shows a command's options, examples and exit codes.

**Settings** are those of the Lambdas, in `.chalice/config.json`. **AWS** uses the credentials and
region of your environment or profile; `--profile` and `--region` override them. **Prefect** gets
your PREFECT_API_KEY or PREFECT_API_AUTH_STRING where the stage's server is your own
PREFECT_API_URL; otherwise the stage's credential, read from SSM with your AWS credentials, unless
`--own-key`.

**Output** is a table on a terminal and JSON in a pipe or file; `--format` fixes it. Progress,
questions and errors go to stderr. NO_COLOR=1 or `--no-color` turns colors off.

**Exit codes**: 0 success, warnings included; 1 a part or a step failed, as the output shows, or you
answered no; 2 it could not run, or not to its end (wrong option or setting, no credentials, refused
by AWS or Prefect), and shows the next step; 130 ended by Ctrl-C.

**Documentation**: {CHECKOUT / "docs" / "index.md"}. **Problems**: the issues of the repository that
this was cloned from; vulnerabilities as in {CHECKOUT / "SECURITY.md"}.
"""


class Panel(StrEnum):
    """The groups of commands, as the help shows them."""

    SET_UP = "Set up"
    TEST = "Test"
    MONEY = "Money"
    REPAIR = "Repair"


class Command(TyperCommand):
    """Shows no type for a flag, which typer 0.29 does: `--yes <bool>` reads as if it took one."""

    def get_params(self, ctx: Any) -> Any:
        """Return the parameters, that of --help included."""
        return _without_flag_types(super().get_params(ctx))


class Group(TyperGroup):
    """Shows an error that has a known cause as two lines, and exits with code 2."""

    def get_params(self, ctx: Any) -> Any:
        """Return the parameters, that of --help included."""
        return _without_flag_types(super().get_params(ctx))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read `help COMMAND` as `COMMAND --help`, and --no-color for the help as well."""
        if "--no-color" in args:
            from typer import rich_utils  # of help and usage errors

            rich_utils.COLOR_SYSTEM = None
        if args[:1] == ["help"]:
            args = [*args[1:2], "--help"]
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise  # its reader has enough: typer ends without a word, with code 1
        except (PrefectSpotError, BotoCoreError, ClientError, OSError) as error:
            show_error(*explain(error))
            raise typer.Exit(Exit.NOT_DONE) from None
        except Exception as error:
            if isinstance(error, typer.Abort) or hasattr(error, "exit_code"):
                raise  # typer's own
            show_crash(error)
            raise typer.Exit(Exit.FAILED) from None


def _without_flag_types(params: Any) -> Any:
    for param in params:
        if getattr(param, "is_flag", False):
            param.metavar = ""
    return params


app: Final = typer.Typer(
    cls=Group,
    help=HELP,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)


def _show_version(wanted: bool) -> None:
    if wanted:
        project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
        show_line(f"spotctl {project['version']}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[  # its callback is all
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="show the version"),
    ] = False,
) -> None:
    """Take the options of no command."""


@dataclass(frozen=True, slots=True)
class At:
    """On which stage a command works, in which account, and how it answers."""

    stage: str
    folder: Path
    profile: str
    region: str
    send_key_to: str
    own_key: bool
    output: Output

    def project(self, changes: Mapping[str, str] = MappingProxyType({})) -> Project:
        """Return the stage's settings, some of them changed. Raises as `read_project`."""
        return read_project(self.folder, self.stage, changes)

    def open(self) -> tuple[Context, Output]:
        """Return the command's context and output. Raises as `read_project` and `open_context`."""
        context = open_context(
            self.project(),
            self.output.progress,
            self.send_key_to,
            self.profile,
            self.region,
            self.own_key,
            self.output.detail,
        )
        return context, self.output


def _shared(
    stage: options.Stage = "dev",
    project_dir: options.Folder = None,
    profile: options.Profile = "",
    region: options.Region = "",
    send_key_to: options.SendKey = "",
    own_key: options.OwnKey = False,
    format_: options.Format = None,
    as_json: options.AsJson = None,
    in_csv: options.InCsv = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
    no_color: options.NoColor = False,
) -> At:
    chosen = options.chosen_format(format_, as_json=as_json, in_csv=in_csv)
    output = Output(chosen, quiet=quiet, verbose=verbose, no_color=no_color)
    return At(stage, folder_of(project_dir), profile, region, send_key_to, own_key, output)


_SHARED: Final = inspect.signature(_shared).parameters


def command(
    panel: Panel,
    *examples: str,
    fails: str = "",
    csv: bool = False,
    prefect: bool = False,
    asks_stage: bool = False,
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a function, whose first parameter is an `At`, as the command of its name.

    `fails`: what exit code 1 means. `csv`: it has CSV as well. `prefect`: it reads Prefect's API,
    so has --send-key-to and --own-key. `asks_stage`: the stage must be named.
    """
    shared = dict(_SHARED)
    if not csv:
        shared["format_"] = shared["format_"].replace(annotation=options.FormatWithoutCsv)
        del shared["in_csv"]
    if not prefect:
        del shared["send_key_to"], shared["own_key"]
    if asks_stage:
        shared["stage"] = shared["stage"].replace(default=inspect.Parameter.empty)

    def register(function: Callable[..., None]) -> Callable[..., None]:
        own = list(inspect.signature(function).parameters.values())[1:]
        named = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in own]

        @wraps(function)
        def run(**given: Any) -> None:
            at = _shared(**{name: given.pop(name) for name in shared})
            function(at, **given)

        parameters = [*named, *(p.replace(kind=p.KEYWORD_ONLY) for p in shared.values())]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {each.name: each.annotation for each in parameters}
        code = f"; 1 {fails}" if fails else ""
        shown = "\n".join(f"    spotctl {each}" for each in examples)
        help_text = (
            f"{inspect.getdoc(function)}\n\n**Examples**:\n\n{shown}\n\n"
            f"**Exit codes**: 0 success, warnings included{code}; 2 it could not run."
        )
        app.command(cls=Command, rich_help_panel=panel, help=help_text)(run)
        return function

    return register
