"""The papers are complete: alarms, decisions, what was never tried, tiers, changes, licence."""

import hashlib
import json
import re
import tomllib
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import pytest

from chalicelib.core.situation import Mode
from doctools import costs
from spotctl.cli import app as spotctl
from tests.tiers import GROUPS

ROOT: Final = Path(__file__).resolve().parent.parent.parent
DOCS: Final = ROOT / "docs"
CONTRIBUTING: Final = (ROOT / "CONTRIBUTING.md").read_text()
DECISIONS: Final = sorted(p for p in (DOCS / "decisions").glob("*.md") if p.stem != "index")
PAGES: Final = sorted([*ROOT.glob("*.md"), *DOCS.glob("**/*.md")])

APACHE_2_0: Final = "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"
"""SHA-256 of https://www.apache.org/licenses/LICENSE-2.0.txt."""

ONE_PAGE_WORDS: Final = 400

MADE_OR_OTHERS: Final = re.compile(
    r"build/|observers/|prefect_aws/|prefect/|prefect\.io/|parameter/"
)
"""Paths that are no files of the repository: what is built, and what is somebody else's."""


def rows_of(markdown: str, *head: str) -> list[list[str]]:
    """Return the cells of the table that has this head."""
    wanted = f"| {' | '.join(head)} |".replace("|  |", "| |")
    assert wanted in markdown, f"there is no table {wanted}"
    table = markdown.partition(wanted)[2].split("\n\n", 1)[0].splitlines()[2:]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in table]


def alarms() -> dict[str, dict[str, Any]]:
    """The stack's alarms, by their name without the stack's."""
    resources = json.loads((ROOT / "infra" / "stack.json").read_text())["Resources"]
    found = [r["Properties"] for r in resources.values() if r["Type"] == "AWS::CloudWatch::Alarm"]
    return {alarm["AlarmName"]["Fn::Sub"].partition("}")[2]: alarm for alarm in found}


def test_each_alarm_is_explained_with_what_to_do_and_no_other() -> None:
    operations = (DOCS / "operations.md").read_text()
    rows = rows_of(operations, "alarm", "it means", "what to do")
    told = [name for cell, *_ in rows for name in re.findall(r"`…(-[a-z-]+)`", cell)]
    assert sorted(told) == sorted(alarms())
    assert all(len(cell.split()) > 3 for _, *cells in rows for cell in cells)


def test_an_alarms_own_description_says_what_to_do() -> None:
    assert alarms()
    for alarm in alarms().values():
        assert re.search(r": (see|consider) ", alarm["AlarmDescription"])


@pytest.mark.parametrize("page", DECISIONS, ids=lambda page: page.stem)
def test_a_decision_is_one_page_with_context_decision_and_price(page: Path) -> None:
    text = page.read_text()
    assert re.findall(r"^#+ (.+)$", text, re.MULTILINE)[1:] == ["Context", "Decision", "Price"]
    assert all(
        len(part.split()) > 10 for part in re.split(r"^## .+$", text, flags=re.MULTILINE)[1:]
    )
    assert len(text.split()) < ONE_PAGE_WORDS
    assert f"]({page.name})" in (DOCS / "decisions" / "index.md").read_text()


def test_what_was_never_tried_is_told_line_by_line_with_what_tries_it() -> None:
    never_tried = (DOCS / "never-tried.md").read_text()
    head = ("#", "what nobody has seen", "what stands in for it", "what tries it")
    rows = rows_of(never_tried, *head)
    assert [number for number, *_ in rows] == [str(n + 1) for n in range(len(rows))]
    assert all(len(tries.split()) > 2 for *_, tries in rows)


def test_contributing_says_what_each_tier_proves_and_may_touch() -> None:
    rows = rows_of(CONTRIBUTING, "tier", "proves", "may touch", "takes ¹")
    documented = {name for cell, *_ in rows for name in re.findall(r"`([^`]+)`", cell)}
    assert documented == {tier.name for stage in GROUPS["test-all"] for tier in stage}
    assert all(all(cells) for cells in rows)


def test_contributing_tells_how_to_add_a_cause_of_death_by_names_that_are_there() -> None:
    steps = CONTRIBUTING.partition("## Add a cause of death")[2].partition("\n## ")[0]
    assert len(re.findall(r"^\d\. ", steps, re.MULTILINE)) >= 5
    source = "\n".join(p.read_text() for p in [ROOT / "app.py", *ROOT.glob("chalicelib/**/*.py")])
    names = set(re.findall(r"`([A-Za-z_]{5,})`", steps)) - {"match"}
    assert {"classify", "decide", "TASK_NEWS"} <= names
    assert {name for name in names if not re.search(rf"\b{name}\b", source)} == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_file_that_is_named_is_there(page: Path) -> None:
    named = re.findall(r"`(\.?[a-z_]+/[\w./-]*|[A-Z]+\.md)`", page.read_text())
    ours = [path for path in named if not MADE_OR_OTHERS.match(path)]
    there = [ROOT, ROOT / "chalicelib"]
    assert [path for path in ours if not any((at / path).exists() for at in there)] == []


def test_the_changelog_tells_of_every_function_command_and_mode() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text()
    assert re.search(r"^## (Unreleased|\d+\.\d+\.\d+)", changelog, re.MULTILINE)
    commands = {c.name or c.callback.__name__ for c in spotctl.registered_commands if c.callback}
    stages = json.loads((ROOT / ".chalice" / "config.json").read_text())["stages"]
    functions = set(stages["dev"]["lambda_functions"])
    wanted = commands | functions | {mode.value for mode in Mode}
    assert {name for name in wanted if f"`{name}`" not in changelog} == set()


def test_the_licence_is_apache_2_0() -> None:
    text = (ROOT / "LICENSE").read_bytes()
    assert hashlib.sha256(text).hexdigest() == APACHE_2_0
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["license"] == "Apache-2.0"
    assert "Apache-2.0" in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("page", ["README.md", "docs/money.md"])
def test_what_it_costs_is_what_the_command_prints(page: str) -> None:
    assert costs.table() in (ROOT / page).read_text(), "put in what doctools.costs prints"


def test_the_worker_is_the_dearest_of_it_and_reckoned_from_the_shipped_rates() -> None:
    worker, *others = costs.costs()
    assert round(worker.usd, 2) == round(
        (Decimal("0.5") * Decimal("0.04048") + Decimal("0.004445")) * 730, 2
    )
    assert all(cost.usd < worker.usd for cost in others)


@pytest.mark.parametrize(
    ("page", "head", "source"),
    [
        (
            "README.md",
            ("", "what happens on an interruption", "same flow run", "leaves Spot"),
            r" ([¹²³⁴⁵⁶⁷⁸⁹])$",
        ),
        (
            "docs/alternatives.md",
            ("", "who notices", "what happens then", "same flow run", "leaves Spot"),
            r"\[([a-z])\]$",
        ),
    ],
    ids=["README", "alternatives"],
)
def test_each_cell_of_the_comparison_has_its_source(
    page: str, head: tuple[str, ...], source: str
) -> None:
    text = (ROOT / page).read_text()
    rows = rows_of(text, *head)
    assert len(rows) >= 7
    cells = [cell for _, *cells in rows for cell in cells]
    assert [cell for cell in cells if not re.search(source, cell)] == []
    named = {found[1] for cell in cells if (found := re.search(source, cell))}
    below = text.partition(head[-1])[2].partition("\n\n")[2]
    assert {name for name in named if not re.search(rf"(^|· |- ){name}[: ]", below, re.M)} == set()


def test_every_picture_is_shown_and_comes_from_a_command() -> None:
    """From the browser test or the benchmark: none is older than what it shows."""
    shown = {
        name
        for page in PAGES
        for name in re.findall(r"\]\([\w./]*images/([\w-]+)\.png\)", page.read_text())
    }
    assert shown == {picture.stem for picture in (DOCS / "images").glob("*.png")}
    sources = [ROOT / "tests" / "ui" / "test_prefect_ui.py", *ROOT.glob("bench/*.py")]
    taken = "".join(source.read_text() for source in sources)
    assert {name for name in shown if not re.search(rf'"{name}(\.png)?"', taken)} == set()
