"""The documentation is true: links, commands, alarms and costs."""

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest
from markdown_it import MarkdownIt
from typer.main import get_group

from chalicelib import errors
from chalicelib.core.metrics import Metric
from chalicelib.errors import PrefectSpotError
from spotctl.cli import app as spotctl
from tests.tiers import GROUPS
from tools import costs, requests
from tools.site import Loads

ROOT: Final = Path(__file__).resolve().parent.parent.parent
PAGES: Final = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])

LINK: Final = re.compile(r"(?<!\\)\[[^\]]*\]\(([^()\s]+)\)")
FENCE: Final = re.compile(r"^( *)```(\w*)\n(.*?)^\1```", re.MULTILINE | re.DOTALL)

SPOTCTL: Final = ".venv/bin/spotctl"

PROGRAMS: Final = (
    "make", "aws", "git", "docker", "pip", "python", "python3", "prefect", "spotctl", "chalice",
    "uv", "curl", "sudo", "apt-get", "sh", "bash", "cd", "export", "source", "pytest", "cp", "rm",
)  # fmt: skip
"""First words that make a line, or words in backquotes, a command."""

MADE_OR_OTHERS: Final = re.compile(
    r"build/|deployments/|observers/|prefect_aws/|prefect/|prefect\.io/|parameter/"
)
"""Paths that are no files of the repository: what is built, and what is of others."""

RUN_BY: Final = {
    "make demo": ("ui/conftest.py", "localcloud.demo"),
    "make demo KEEP=1": ("ui/conftest.py", "localcloud.demo KEEP 1"),
    f"{SPOTCTL} deploy --stage dev": ("system/test_spotctl_deploy.py", "deploy"),
    f"{SPOTCTL} drill --stage dev --sample-flow": ("system/test_drill.py", "drill --sample-flow"),
}
"""Commands of the README: the file below tests/ that runs each, and the words it holds quoted."""

EXEMPT: Final = {
    "make install": "every other target installs the same first",
    "make test": "it is what runs this test",
    "aws ssm put-parameter --type SecureString --name /prefect-spot/dev/api-key"
    ' --value "$PREFECT_API_KEY"': "AWS's own command, on a real account",
    "chalice deploy": "system/test_first_deploy.py has localcloud/ run it",
    "prefect flow-run retry": "not ours: what the comparison compares with",
}
"""Commands of the README that no test runs, each with a reason a stranger would accept."""


def page_id(page: Path) -> str:
    return str(page.relative_to(ROOT))


def prose_of(page: Path) -> str:
    return FENCE.sub("", page.read_text())


def anchors_of(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", prose_of(page), re.MULTILINE)
    plain = [re.sub(r"[^\w\s-]", "", heading).strip().lower() for heading in headings]
    return {re.sub(r"[\s-]+", "-", heading) for heading in plain}


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    dead = []
    for target in LINK.findall(prose_of(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and anchor not in anchors_of(file)):
            dead.append(target)
    assert dead == []


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_every_make_target_that_is_named_exists(page: Path) -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    given = [c[5:] for c in commands_in(page.read_text()) if c.startswith("make ")]
    named = {word for words in given for word in words.split() if "=" not in word}
    assert named <= targets


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_every_spotctl_command_that_is_named_exists_with_its_options(page: Path) -> None:
    commands = get_group(spotctl).commands
    text = page.read_text().replace("\\\n", " ")
    for name, rest in re.findall(r"(?:^|[` ])spotctl ([a-z]+)\b([^`\n]*)", text, re.MULTILINE):
        assert name in commands
        options = {o for p in commands[name].params for o in (*p.opts, *p.secondary_opts)}
        assert set(re.findall(r"--[a-z-]+", rest)) <= options


def test_every_error_has_its_cause_and_next_step_on_the_operations_page() -> None:
    operations = (ROOT / "docs" / "operations.md").read_text()
    ours = {
        name
        for name, error in vars(errors).items()
        if isinstance(error, type) and issubclass(error, PrefectSpotError)
    }
    assert {name for name in ours - {"PrefectSpotError"} if f"`{name}`" not in operations} == set()


def rows_of(markdown: str, *head: str) -> list[list[str]]:
    """Return the cells of the table that has this head."""
    wanted = f"| {' | '.join(head)} |".replace("|  |", "| |")
    assert wanted in markdown, f"there is no table {wanted}"
    table = markdown.partition(wanted)[2].split("\n\n", 1)[0].splitlines()[2:]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in table]


def test_each_metric_is_on_the_pages_that_list_them() -> None:
    for page in ("costs.md", "dev/money.md"):
        section = (ROOT / "docs" / page).read_text()
        assert [metric for metric in Metric if f"`{metric}`" not in section] == [], page


def test_each_alarm_is_explained_with_what_to_do_and_no_other() -> None:
    resources = json.loads((ROOT / "infra" / "stack.json").read_text())["Resources"]
    found = [r["Properties"] for r in resources.values() if r["Type"] == "AWS::CloudWatch::Alarm"]
    alarms = {alarm["AlarmName"]["Fn::Sub"].partition("}")[2] for alarm in found}
    operations = (ROOT / "docs" / "operations.md").read_text()
    rows = rows_of(operations, "alarm", "it means", "what to do")
    explained = [name for cell, *_ in rows for name in re.findall(r"`…(-[a-z-]+)`", cell)]
    assert sorted(explained) == sorted(alarms)
    assert all(len(cell.split()) > 3 for _, *cells in rows for cell in cells)
    for alarm in found:
        assert re.search(r": (see|consider) ", alarm["AlarmDescription"])


def test_contributing_says_what_each_tier_proves_and_may_touch() -> None:
    contributing = (ROOT / "CONTRIBUTING.md").read_text()
    rows = rows_of(contributing, "tier", "in", "proves", "may touch", "takes ¹")
    documented = {name for cell, *_ in rows for name in re.findall(r"`([^`]+)`", cell)}
    assert documented == {tier.name for stage in GROUPS["test-all"] for tier in stage}
    assert all(all(cells) for cells in rows)


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_a_file_that_is_named_is_there(page: Path) -> None:
    named = re.findall(r"`(\.?[a-z_]+/[\w./-]*|[A-Z]+\.md)`", page.read_text())
    ours = [path for path in named if not MADE_OR_OTHERS.match(path)]
    there = [ROOT, ROOT / "chalicelib"]
    assert [path for path in ours if not any((at / path).exists() for at in there)] == []


@pytest.mark.parametrize(
    ("page", "table"),
    [
        ("docs/costs.md", costs.table),
        ("docs/costs.md", costs.table_of_break_even),
        ("README.md", costs.table_of_break_even),
    ],
)
def test_what_it_costs_is_what_the_command_prints(page: str, table: Callable[[], str]) -> None:
    assert table() in (ROOT / page).read_text(), "put in what tools.costs prints"


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_no_page_is_longer_than_a_reader_stands(page: Path) -> None:
    assert len(page.read_text().splitlines()) <= 200


def test_the_requests_to_prefect_are_those_that_the_command_counts() -> None:
    page = (ROOT / "docs" / "connect.md").read_text()
    assert requests.table() in page, "put in what tools.requests prints"


def commands_in(markdown: str) -> list[str]:
    """Return the commands of a page: lines of blocks, and words in backquotes.

    What a program prints (a block of text) and words in backquotes may be no commands.
    """
    blocks = MarkdownIt("commonmark").parse(markdown)
    found = []
    for token in (*blocks, *(child for block in blocks for child in block.children or ())):
        assert not token.type.startswith("html"), f"HTML is not read: {token.content}"
        if token.type not in ("fence", "code_block", "code_inline"):
            continue
        may_be_other = token.type == "code_inline" or token.info == "text"
        for line in token.content.replace("\\\n", " ").splitlines():
            command = " ".join(line.partition(" #")[0].removeprefix("$ ").split())
            first, _, rest = command.partition(" ")
            known = rest and (first in PROGRAMS or first.startswith(("./", ".venv/", "examples/")))
            if known or not (may_be_other or command.startswith("#") or not command):
                found.append(command)
    return list(dict.fromkeys(found))


def test_every_command_of_the_readme_is_run_by_a_test_or_exempt() -> None:
    assert set(commands_in((ROOT / "README.md").read_text())) == {*RUN_BY, *EXEMPT}
    assert not {*RUN_BY} & {*EXEMPT}
    assert all(len(reason.split()) > 3 for reason in EXEMPT.values())


def test_a_command_is_found_however_it_is_written() -> None:
    page = (
        "```console\n$ make prompt  # with a comment\n```\n"
        "```text\nmake output\nno command\n```\n"
        "1. a list\n\n    ~~~\n    make list\n    ~~~\n\n"
        "> Quoted: `make quotation`, with `MODE`, `spot-retries:2` and `make`.\n\n"
        "a paragraph\n\n    make indented\n"
    )
    places = ("prompt", "output", "list", "indented", "quotation")
    assert commands_in(page) == [f"make {place}" for place in places]
    with pytest.raises(AssertionError, match="HTML"):
        commands_in("<pre>make nothing</pre>\n")


@pytest.mark.parametrize(("command", "run_by"), RUN_BY.items(), ids=RUN_BY)
def test_the_file_that_is_named_runs_the_command(command: str, run_by: tuple[str, str]) -> None:
    source, words = (ROOT / "tests" / run_by[0]).read_text(), run_by[1].split()
    assert [word for word in words if f'"{word}"' not in source] == []
    if command.startswith(SPOTCTL):
        assert words[0] == command.removeprefix(SPOTCTL).split()[0]
    if command.startswith("make demo"):
        assert words[0] in make(*command.split()[1:], "--dry-run")


def make(*arguments: str) -> str:
    """Return what make prints."""
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin"}
    return subprocess.run(
        ["make", *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    ).stdout


def test_make_help_lists_every_target() -> None:
    listed = set(re.findall(r"^  make ([a-z0-9-]+) +\w", make("help"), re.MULTILINE))
    phony = set(re.findall(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert listed == phony - {"site"}, "site is a part of docs and test"


@pytest.mark.parametrize(
    ("html", "loads"),
    [
        ('<script src="https://cdn.example.com/a.js"></script>', ["https://cdn.example.com/a.js"]),
        ('<link rel="stylesheet" href="//fonts.example.com/f">', ["//fonts.example.com/f"]),
        ('<script src="assets/a.js"></script><a href="https://example.com">read</a>', []),
        ('<link rel="canonical" href="https://example.com/page">', []),
    ],
)
def test_a_page_that_loads_from_the_network_is_noticed(html: str, loads: list[str]) -> None:
    assert Loads(html).foreign == loads
