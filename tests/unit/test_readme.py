"""What the README tells people to type is run by a test, or stands on a list with the reason."""

import ast
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT: Final = Path(__file__).resolve().parent.parent.parent
README: Final = (ROOT / "README.md").read_text()
SPOTCTL: Final = ".venv/bin/python -m spotctl"

PROGRAMS: Final = (
    "make", "aws", "git", "docker", "pip", "python", "python3", "prefect", "spotctl", "chalice",
    "uv", "curl", "sudo", "apt-get", "sh", "bash", "cd", "export", "source", "pytest", "cp", "rm",
)  # fmt: skip
"""First words that make a line, or words in backquotes, a command."""


@dataclass(frozen=True)
class Proof:
    """The test that runs a command, and what is to be seen in it: what both of them start."""

    test: str
    runs: tuple[str, ...]


RUN_BY: Final = {
    "make demo": Proof(
        "tests/ui/test_demo.py::test_the_demo_ends_on_fargate_after_three_interruptions",
        runs=("localcloud.demo",),
    ),
    "make demo KEEP=1": Proof(
        "tests/ui/test_prefect_ui.py::test_the_run_is_completed_and_its_tags_say_how",
        runs=("localcloud.demo", '"KEEP": "1"'),
    ),
    "make help": Proof("tests/unit/test_readme.py::test_make_help_lists_every_target", ("help",)),
    ".venv/bin/python -m doctools.costs": Proof(
        "tests/unit/test_papers.py::test_what_it_costs_is_what_the_command_prints",
        runs=("costs.table()",),
    ),
    f"{SPOTCTL} deploy --stage dev": Proof(
        "tests/system/test_spotctl_deploy.py"
        "::test_a_stage_is_deployed_by_one_command_and_taken_down_by_another",
        runs=('"deploy"',),
    ),
    f"{SPOTCTL} drill --stage dev --start FLOW/DEPLOYMENT": Proof(
        "tests/e2e/test_spotctl.py"
        "::test_a_drill_interrupts_a_run_that_it_started_and_sees_it_come_back",
        runs=('"drill"', '"--start"'),
    ),
    f"{SPOTCTL} drill --stage dev --throw-away": Proof(
        "tests/system/test_drill.py::test_a_drill_with_a_throw_away_flow_passes",
        runs=('"drill"', '"--throw-away"'),
    ),
    f"{SPOTCTL} report --stage dev --since 7d": Proof(
        "tests/unit/test_spotctl_cli.py::test_a_report_is_a_table_json_or_csv",
        runs=('"report"', '"--since"', '"7d"'),
    ),
}
EXEMPT: Final = {
    "make test": "it is what runs this test",
    "make faults": "half an hour and more; its short form is a part of make test",
    "make lock": "it asks the package index, and writes other versions down",
    "make prices": "it asks AWS's price list, with a real account's credentials",
    "aws ssm put-parameter --type SecureString --name /prefect-spot/dev/api-key"
    ' --value "$PREFECT_API_KEY"': "AWS's own command, on a real account",
    "chalice deploy": "named as what the demo runs, not to be typed",
    "prefect flow-run retry": "not ours: what the comparison compares with",
}
"""Commands of the README that no test runs, each with a reason a stranger would accept."""


def commands_in(markdown: str) -> list[str]:
    """Return what a page tells people to type: in blocks of any kind, and in backquotes."""
    return list(dict.fromkeys(_commands(MarkdownIt("commonmark").parse(markdown))))


def _commands(tokens: list[Token]) -> Iterator[str]:
    for token in tokens:
        language = token.info.split()[0] if token.info.split() else ""
        match token.type:
            case "fence" if language == "text":  # what a program prints
                yield from filter(_is_command, _lines(token.content))
            case "fence" | "code_block":
                yield from _lines(token.content)
            case "code_inline" if _is_command(token.content):
                yield _plain(token.content)
            case "html_block" | "html_inline":
                yield f"HTML, which is not looked into: {token.content.strip()}"
        yield from _commands(token.children or [])


def _lines(block: str) -> Iterator[str]:
    for line in block.replace("\\\n", " ").splitlines():
        command = _plain(line)
        if command and not command.startswith("#"):
            yield command


def _plain(line: str) -> str:
    """Without a comment, a prompt, and more than one blank in a row."""
    return re.sub(r"\s+", " ", line.partition(" #")[0]).strip().removeprefix("$ ")


def _is_command(text: str) -> bool:
    first, _, rest = _plain(text).partition(" ")
    return bool(rest) and (first in PROGRAMS or first.startswith(("./", ".venv/", "examples/")))


def test_every_command_of_the_readme_is_run_by_a_test_or_exempt() -> None:
    assert set(commands_in(README)) == {*RUN_BY, *EXEMPT}
    assert not {*RUN_BY} & {*EXEMPT}
    assert all(len(reason.split()) > 3 for reason in EXEMPT.values())


@pytest.mark.parametrize(
    "told",
    [
        "```sh\nmake nothing\n```",
        "```bash\nmake nothing\n```",
        "```console\n$ make nothing\n```",
        "```\nmake nothing\n```",
        "```text\nmake nothing\n```",
        "~~~sh\nmake nothing\n~~~",
        "1. a list\n\n    ```sh\n    make nothing\n    ```",
        "a paragraph\n\n    make nothing\n",
        "then run `make nothing`, and wait",
        "> ```sh\n> make nothing  # says the quotation\n> ```",
    ],
    ids=[
        "sh", "bash", "console", "no language", "as output", "tildes", "in a list", "indented",
        "in backquotes", "quoted",
    ],
)  # fmt: skip
def test_a_command_is_seen_however_it_is_written(told: str) -> None:
    assert commands_in(f"# Title\n\n{told}\n") == ["make nothing"]


def test_html_is_no_way_around() -> None:
    assert commands_in("<pre>make nothing</pre>\n") != []


def test_names_and_settings_are_no_commands() -> None:
    assert commands_in("set `MODE` to `observe`, tag it `spot-retries:2`, read `make`") == []


@pytest.mark.parametrize("command", RUN_BY)
def test_the_test_that_is_named_runs_what_the_command_runs(command: str) -> None:
    proof = RUN_BY[command]
    source = source_of(proof.test)
    assert [part for part in proof.runs if part not in source] == []
    if command.startswith(SPOTCTL):
        assert f'"{command.removeprefix(SPOTCTL).split()[0]}"' in proof.runs
    if not command.startswith("make "):
        return
    planned = subprocess.run(
        [*command.split(), "--dry-run"],
        cwd=ROOT,
        env={"PATH": "/usr/local/bin:/usr/bin:/bin"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
    )
    if command.startswith("make demo"):
        assert proof.runs[0] in planned.stdout


def source_of(test: str) -> str:
    """Return a test's source and parameters, and its fixtures', from its file or folder."""
    file, _, name = test.partition("::")
    path = ROOT / file
    functions: dict[str, tuple[ast.FunctionDef, str]] = {}
    for source in (path.with_name("conftest.py"), path):
        text = source.read_text() if source.exists() else ""
        found = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.FunctionDef)]
        functions |= {f.name: (f, _segment(text, f)) for f in found}
    wanted, seen = [name], dict[str, str]()
    while wanted:
        now = wanted.pop()
        if now in functions and now not in seen:
            function, seen[now] = functions[now]
            wanted += [argument.arg for argument in function.args.args]
    assert name in seen, f"there is no test {test}"
    return "\n".join(seen.values())


def _segment(text: str, function: ast.FunctionDef) -> str:
    parts = [*function.decorator_list, function]
    return "\n".join(ast.get_source_segment(text, part) or "" for part in parts)


def test_make_help_lists_every_target() -> None:
    said = subprocess.run(
        ["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    told = set(re.findall(r"^  make ([a-z0-9-]+) +\w", said, re.MULTILINE))
    phony = set(re.findall(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert told == phony - {"site"}, "site is a part of docs and test"
