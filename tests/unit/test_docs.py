"""The documentation is true: settings, links and commands."""

import ast
import re
from pathlib import Path
from typing import Final

import pytest
from typer.main import get_group

from chalicelib import errors
from chalicelib.errors import PrefectSpotError, SettingError
from doctools import settings_page
from doctools.site import foreign_loads
from spotctl.cli import app as spotctl

ROOT: Final = Path(__file__).resolve().parent.parent.parent
PAGES: Final = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
DOCUMENTED: Final = [s for group in settings_page.SETTINGS.values() for s in group]

LINK: Final = re.compile(r"(?<!\\)\[[^\]]*\]\(([^()\s]+)\)")
FENCE: Final = re.compile(r"^( *)```(\w*)\n(.*?)^\1```", re.MULTILINE | re.DOTALL)

LAMBDAS_OWN: Final = {"AWS_LAMBDA_FUNCTION_NAME", "_HANDLER"}
"""Variables that AWS sets, and nobody has to."""


def page_id(page: Path) -> str:
    return str(page.relative_to(ROOT))


def prose_of(page: Path) -> str:
    return FENCE.sub("", page.read_text())


def shell_commands(page: Path) -> list[str]:
    """The commands of a page's sh blocks, one a line; comments and continuations resolved."""
    blocks = [block for _, language, block in FENCE.findall(page.read_text()) if language == "sh"]
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    commands = [re.sub(r"\s+", " ", line.partition(" #")[0]).strip() for line in lines]
    return [command for command in commands if command and not command.startswith("#")]


def anchors_of(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", prose_of(page), re.MULTILINE)
    plain = [re.sub(r"[^\w\s-]", "", heading).strip().lower() for heading in headings]
    return {re.sub(r"[\s-]+", "-", heading) for heading in plain}


def test_every_setting_that_is_read_is_on_the_page_and_the_reverse() -> None:
    assert {setting.name for setting in DOCUMENTED} == settings_page.names_read()


def test_no_setting_is_read_behind_the_pages_back() -> None:
    """Whoever is given the environment is asked by the page; what is read by name is known."""
    readers, named = set(), set()
    for file in [ROOT / "app.py", *(ROOT / "chalicelib").rglob("*.py")]:
        for node in ast.walk(ast.parse(file.read_text())):
            match node:
                case ast.Call(func=ast.Name(id=reader), args=[*arguments]) if any(
                    ast.unparse(argument) == "os.environ" for argument in arguments
                ):
                    readers.add(reader)
                case ast.Call(
                    func=ast.Attribute(value=mapping), args=[ast.Constant(value=name), *_]
                ) if ast.unparse(mapping) == "os.environ":
                    named.add(name)
                case ast.Compare(left=ast.Constant(value=name), comparators=[mapping]) if (
                    ast.unparse(mapping) == "os.environ"
                ):
                    named.add(name)
                case ast.Subscript(value=mapping, slice=ast.Constant(value=name)) if (
                    ast.unparse(mapping) == "os.environ"
                ):
                    named.add(name)
    asked = set(re.findall(r"read\w*_settings(?=\()", Path(settings_page.__file__).read_text()))
    assert readers == asked, "settings_page.read is to call every reader of settings"
    assert named - LAMBDAS_OWN == set(settings_page.ELSEWHERE)


@pytest.mark.parametrize("setting", DOCUMENTED, ids=lambda setting: setting.name)
def test_a_documented_default_is_what_the_code_does_without_the_setting(
    setting: settings_page.Setting,
) -> None:
    if setting.default is None:
        with pytest.raises(SettingError, match=setting.name):
            settings_page.read({})
        return
    default = setting.default.replace("<stage>", "dev")
    without = settings_page.read(settings_page.REQUIRED)
    assert settings_page.read({**settings_page.REQUIRED, setting.name: default}) == without
    if not default:
        fields = [getattr(read, setting.name.lower(), "") for read in without]
        assert not any(fields), f"without {setting.name} there is {fields}: no empty default"


@pytest.mark.parametrize(
    "name", [s.name for s in DOCUMENTED if s.name not in {"STAGE", "WORK_QUEUES"}]
)
def test_a_wrong_setting_is_named_with_what_is_accepted(name: str) -> None:
    with pytest.raises(SettingError, match=rf"^{name} .*accepted (is|are) ") as refused:
        settings_page.read({**settings_page.REQUIRED, name: "?,?"})
    assert ("'?,?'" in refused.value.what) is not name.endswith("_PARAMETER")
    assert f"correct {name} in .chalice/config.json" in refused.value.next_step


def test_what_is_accepted_is_asked_of_the_code() -> None:
    assert settings_page.accepted("MODE") == "rescue, opt-in, observe"
    assert settings_page.accepted("SPOT_RETRIES") == "whole numbers from 0 to 1000"
    assert settings_page.accepted("STAGE") == ""


def test_the_settings_page_is_the_one_that_the_code_makes() -> None:
    assert settings_page.PAGE.read_text() == settings_page.page(), "run `make docs`"


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
    told = re.findall(r"`make ([^`]+)`", prose_of(page))
    told += [command[5:] for command in shell_commands(page) if command.startswith("make ")]
    named = {word for words in told for word in words.split() if "=" not in word}
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
    assert foreign_loads(html) == loads
