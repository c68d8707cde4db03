"""The one door to the terminal: text of others is shown, and neither obeyed nor read as markup."""

import ast
import io
import json
import sys
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

import pytest
import typer
from typer.testing import CliRunner

import spotctl
from spotctl.cli import app
from spotctl.errors import RefusedError
from spotctl.output import (
    Output,
    clean,
    csv_of_rows,
    failed,
    show_crash,
    show_error,
    table_of,
    table_of_rows,
    warning,
)
from tests.unit.spotctl_bench import KEY, POOL, Bench
from tests.unit.spotctl_bench import stage as stage
from tests.unit.test_spotctl_cli import prefect

ESCAPES = (
    "\x1b[2J\x1b[31m\x1b]0;title\x07\x1b]8;;http://x\x1b\\\x1bP1$r\x1b\\\x9b31m\x9d0;t\x9c\x90q\x9c"
    "\r\b\x7f\x00\x0b\x0c\x85\x8d\u2028\u2029\u202e\u2066\u061c\u200b\u200d\ufeff\ue000\ud800"
)
MARKUP = "[bold]x[/bold] [/no] [link=http://x]l[/] :skull: [red"
HOSTILE = f"{MARKUP}{ESCAPES}"


class Terminal(io.StringIO):
    """A terminal on which yes is typed."""

    def isatty(self) -> bool:
        return True


DOORS: dict[str, Callable[[Output], object]] = {
    "progress": lambda output: output.progress(HOSTILE),
    "a title": lambda output: output.result({}, lambda: table_of(HOSTILE, ["a" * 120], [])),
    "a column": lambda output: output.result({}, lambda: table_of("", [HOSTILE], [])),
    "a cell": lambda output: output.result({}, lambda: table_of("", "a", [[HOSTILE]])),
    "a note": lambda output: output.result({}, lambda: table_of("", "a", [], notes=[HOSTILE])),
    "a part": lambda output: output.preview(table_of_rows("", [failed(HOSTILE, "", "")])),
    "what was found": lambda output: output.preview(table_of_rows("", [failed("", HOSTILE, "")])),
    "a next step": lambda output: output.preview(table_of_rows("", [warning("", "", HOSTILE)])),
    "a plain table": lambda output: output.result({}, lambda: HOSTILE),
    "text": lambda _: Output("csv").result({}, lambda: "", lambda: HOSTILE),
    "a question": lambda output: output.confirm(HOSTILE, yes=False),
    "an error": lambda _: show_error(HOSTILE, ""),
    "an error's next step": lambda _: show_error("", HOSTILE),
    "a traceback": lambda _: show_crash(ValueError(HOSTILE)),
}


@pytest.mark.parametrize("door", DOORS.values(), ids=DOORS)
def test_text_of_others_is_printed_without_its_escapes_and_with_its_markup(
    door: Callable[[Output], object],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.stdin", Terminal("y\n"))
    door(Output("table"))
    printed = "".join(capsys.readouterr())
    assert MARKUP in printed
    assert [c for c in printed if not (c.isprintable() or c == "\n")] == []


WHOLE = {"a plain table", "text", "a traceback"}
"""Lines of these are as long as what is in them: programs read them, or developers."""


@pytest.mark.parametrize("door", sorted(DOORS.keys() - WHOLE))
def test_a_text_of_a_million_characters_does_not_bury_the_rest(
    door: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{__name__}.HOSTILE", f"begin {'x' * 1_000_000}")
    monkeypatch.setattr("sys.stdin", Terminal("y\n"))
    DOORS[door](Output("table"))
    printed = "".join(capsys.readouterr())
    assert "begin" in printed
    assert len(printed) < 10_000


@pytest.mark.parametrize("form", ["table", "json"])
def test_a_question_is_asked_on_stderr_whatever_stdout_is(
    form: Literal["table", "json"],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for typed in ("y\n", "n\n", "\n"):
        monkeypatch.setattr("sys.stdin", Terminal(typed))
        with nullcontext() if typed == "y\n" else pytest.raises(typer.Abort):
            Output(form).confirm("Delete it?", yes=False)
        assert capsys.readouterr() == ("", "Delete it? [y/N]: ")
    Output(form).confirm("Delete it?", yes=True)
    assert capsys.readouterr() == ("", "Delete it? yes, by --yes\n")


@pytest.mark.parametrize("stdin", [None, io.StringIO("y\n")], ids=["closed", "no terminal"])
def test_without_a_terminal_a_question_is_refused(
    stdin: io.StringIO | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", stdin)
    with pytest.raises(RefusedError, match="stdin is not a terminal"):
        Output().confirm("Delete it?", yes=False)


def test_who_pipes_a_command_learns_why_it_is_json(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    for output in (Output("json"), Output("table"), Output(quiet=True)):
        output.result({}, lambda: "")
    assert terminal.getvalue() == ""
    Output().result({}, lambda: "")
    assert "--format table" in terminal.getvalue()


def test_colors_can_be_turned_off(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.delenv("NO_COLOR", raising=False)
    table = table_of_rows("", [warning("", "", "look")])

    def yellow(**options: bool) -> bool:
        Output("table", **options).result({}, lambda: table)
        return "\x1b[33m" in capsys.readouterr().out

    assert (yellow(), yellow(no_color=True)) == (True, False)
    monkeypatch.setenv("NO_COLOR", "1")
    assert not yellow()


def test_the_help_has_colors_unless_they_are_turned_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from typer import rich_utils

    monkeypatch.setattr(rich_utils, "FORCE_TERMINAL", True)
    monkeypatch.setattr(rich_utils, "COLOR_SYSTEM", "256")
    for options, has in (([], True), (["--no-color"], False)):
        shown = CliRunner().invoke(app, ["status", *options, "-h"], color=True).stdout
        assert ("\x1b[" in shown) is has


def test_csv_begins_no_formula() -> None:
    assert csv_of_rows([failed("=1+1", "a,b", "")]) == (
        '"part","state","found","next_step"\n"\'=1+1","failed","a,b",""\n'
    )


def test_json_is_ascii_and_loses_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    Output("json").result({"name": HOSTILE}, lambda: "")
    printed = capsys.readouterr().out
    assert json.loads(printed) == {"name": HOSTILE}
    assert [c for c in printed if not (" " <= c <= "~" or c == "\n")] == []


def test_no_character_that_a_terminal_obeys_is_left_and_every_other_is() -> None:
    others = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Zs"}
    every = [chr(n) for n in range(sys.maxunicode + 1)]
    obeyed = "".join(c for c in every if unicodedata.category(c) in others)
    assert set(clean(obeyed)) == {" "}
    assert clean("Zoë's ETL № 7 — 日本語 🚀\tdone") == "Zoë's ETL № 7 — 日本語 🚀 done"


def test_names_from_prefect_reach_the_terminal_cleaned(stage: Bench) -> None:
    worker = {"name": HOSTILE[:-1], "status": "OFFLINE", "last_heartbeat_time": None}
    found = {"id": "1", "name": HOSTILE[:-1], "flow_id": "1", "work_pool_name": POOL}
    stage.answers = {
        **prefect(),
        f"POST /work_pools/{POOL}/workers/filter": [worker],
        "POST /deployments/filter": [found],
    }
    result = stage.run("status", "--table")
    assert [c for c in result.out + result.err if not (c.isprintable() or c == "\n")] == []


# What else could print.

PRINTS = {
    "builtins": {"print", "input", "breakpoint", "help", "open_code"},
    "sys": {"stdout", "stderr", "__stdout__", "__stderr__", "displayhook", "excepthook"},
    "os": {"write", "system", "popen"},
    "traceback": {"print_exc", "print_exception", "print_stack", "print_last", "print_tb"},
    "typer": {"echo", "secho", "confirm", "prompt", "progressbar", "echo_via_pager", "launch"},
}
MODULES = {"rich", "click", "logging", "warnings", "pprint", "getpass", "termios", "tty", "curses"}


def printing(source: str) -> Iterator[str]:
    """What in the source prints, or could."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Call(func=ast.Name(id=name)) if name in PRINTS["builtins"]:
                yield name
            case ast.Attribute(value=ast.Name(id=module), attr=name):
                if name in PRINTS.get(module, ()):
                    yield f"{module}.{name}"
            case ast.Import(names=names):
                yield from (each.name for each in names if each.name.partition(".")[0] in MODULES)
            case ast.ImportFrom(module=module, names=names) if module:
                if module.partition(".")[0] in MODULES:
                    yield module
                yield from (each.name for each in names if each.name in PRINTS.get(module, ()))


@pytest.mark.parametrize(
    "path", sorted(Path(spotctl.__file__).parent.rglob("*.py")), ids=lambda path: path.stem
)
def test_nothing_else_in_spotctl_prints(path: Path) -> None:
    found = list(printing(path.read_text()))
    assert bool(found) == (path.name == "output.py"), found


@pytest.mark.parametrize(
    "source",
    [
        "print(1)",
        "sys.stdout.write('')",
        "print('', file=sys.stderr)",
        "from sys import stderr",
        "from rich import print as show",
        "from rich.console import Console",
        "import rich.table",
        "typer.echo('')",
        "from typer import secho",
        "import click",
        "import logging",
        "os.write(1, b'')",
    ],
)
def test_what_prints_is_found(source: str) -> None:
    assert list(printing(source))


# Its own errors.


@pytest.mark.parametrize("name", ["PREFECT_API_KEY", "PREFECT_API_AUTH_STRING"])
@pytest.mark.parametrize(
    "form", ["{}\r", "{}\n", "{} ", " {}", "{}\r\nX: y", "a\x01{}", "{}\u2028"]
)
def test_a_credential_that_cannot_be_sent_is_not_shown(
    stage: Bench, monkeypatch: pytest.MonkeyPatch, name: str, form: str
) -> None:
    stage.answers = prefect()
    monkeypatch.setenv(name, form.format(KEY))
    monkeypatch.setenv("PREFECT_API_URL", f"{stage.server.url}/api")
    for command in ("status", "status --table", "drill --start a/b"):
        result = stage.run(*command.split())
        assert f"the value of {name} has" in result.out + result.err
        assert (result.code > 0, KEY in result.out + result.err) == (True, False)
    assert stage.requests == []


@pytest.mark.parametrize(
    "url",
    [
        "http://{}@127.0.0.1:1/api",
        "https://u:{}@127.0.0.1:1/api",
        "http://127.0.0.1:1/api?key={}",
        "http://127.0.0.1:1/api#{}",
        "http://127.0.0.1:1/api/{}",
        "http://u:{}%40127.0.0.1:1/api",
        "u:{}@127.0.0.1",
        "{}",
        "http://{}",
    ],
)
def test_a_key_in_prefects_address_is_not_shown(stage: Bench, url: str) -> None:
    stage.configure(PREFECT_API_URL=url.format(KEY))
    for command in (
        "status",
        "status --table",
        "report",
        "redrive",
        "deploy",
        "teardown --stage dev",
    ):
        result = stage.run(*command.split())
        assert result.is_refused("PREFECT_API_URL holds credentials, or may")
        assert KEY not in result.out + result.err


def test_a_crash_shows_no_key(stage: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*_: Any) -> None:
        raise ValueError("as http.client says: b'Bearer " + KEY + r"\r'")

    monkeypatch.setenv("PREFECT_API_KEY", KEY)
    monkeypatch.setattr("spotctl.cli.status_of", crash)
    result = stage.run("status")
    assert (result.code, KEY in result.err) == (1, False)
    assert "ValueError: as http.client says" in result.err
