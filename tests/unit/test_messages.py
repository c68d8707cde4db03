"""Every message that tells of something wrong is on a list, with its cause and its next step."""

import sys
from collections import Counter
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from chalicelib.errors import SettingError
from doctools import settings_page
from localcloud import demo
from spotctl.drill.timeline import NEXT_STEPS
from tests.ui import browser
from tests.unit.messages_in_code import ROOT, Listed, all_messages, listed, messages_in, texts_of

LISTED = listed()
TOLD = all_messages()
OPERATIONS = " ".join((ROOT / "docs" / "operations.md").read_text().split())


def test_every_message_is_on_the_list_and_the_reverse() -> None:
    in_code = {(message.file, message.text): str(message) for message in TOLD}
    on_list = {(message.file, message.says) for message in LISTED}
    missing = [told for place, told in in_code.items() if place not in on_list]
    assert missing == [], "list them in messages.toml, each with its cause and next step"
    assert on_list - set(in_code) == set(), "messages.toml lists what nobody says any more"


@pytest.mark.parametrize("message", LISTED, ids=lambda message: f"{message.file}: {message.says}")
def test_the_reader_is_given_the_next_step(message: Listed) -> None:
    assert len(message.cause) > 5
    assert len(message.next_step) > 5
    given = [message.says, texts_of(message.file), OPERATIONS]
    if message.step_in:
        given.append(texts_of(message.step_in))
    if message.file.startswith("localcloud/"):
        given.append(demo.NEXT_STEP)
    assert any(message.next_step in text for text in given)


@pytest.mark.parametrize(
    ("source", "texts"),
    [
        ('raise SettingError(f"{name} is bad")', ["… is bad"]),
        ('raise SettingError("bad")', ["bad"]),
        ('told = "it is" + f" {x}"\nraise PrefectSpotError(told)', ["it is …"]),
        ('raise errors(f"{a} broke")', ["… broke"]),
        ('def f():\n    return SettingError("raised elsewhere")', ["raised elsewhere"]),
        ('failed("part", f"it lacks {x}", "mend it")', ["it lacks …"]),
        ('warning("part", "slow", "wait")', ["slow"]),
        ('Problem("Stack", "it is stuck")', ["it is stuck"]),
        ('print("no such thing", file=sys.stderr)', ["no such thing"]),
        ('sys.exit("give a file")', ["give a file"]),
        ('def refusal_of():\n    return f"{name} is not ours"', ["… is not ours"]),
        ("raise SettingError(str(error)) from None", []),
        ('print("all is well")', []),
    ],
)  # fmt: skip
def test_a_new_message_would_be_noticed(source: str, texts: list[str]) -> None:
    assert [message.text for message in messages_in(source, "new.py")] == texts


def test_messages_are_found_all_over_the_product() -> None:
    """So a pattern that finds nothing any more is noticed."""
    folders = Counter(message.file.partition("/")[0] for message in TOLD)
    assert set(folders) == {
        "chalicelib", "spotctl", "examples", "doctools", "tests", "localcloud", "Makefile",
    }  # fmt: skip


TAKE_ANY_TEXT = {"STAGE", "WORK_QUEUES"}


@pytest.mark.parametrize(
    "name",
    [
        setting.name
        for group in settings_page.SETTINGS.values()
        for setting in group
        if setting.name not in TAKE_ANY_TEXT
    ],
)
def test_a_wrong_setting_is_named_and_what_is_accepted_is_said(name: str) -> None:
    wrong = {**settings_page.REQUIRED, name: "?,?"}
    with pytest.raises(SettingError, match=rf"^{name} .*accepted (is|are) ") as refused:
        settings_page.read(wrong)
    assert ("'?,?'" in str(refused.value)) is not name.endswith("_PARAMETER")


def test_a_drill_that_stops_at_a_step_says_what_to_do() -> None:
    assert all(len(step.split()) > 5 for step in NEXT_STEPS.values())


def test_a_demo_that_fails_ends_with_a_line_and_what_to_do(tmp_path: Path) -> None:
    file = tmp_path / "build" / "demo-failure.txt"
    said = StringIO()
    try:
        raise RuntimeError("the Prefect server ended; its log:\n[ERROR] no space left")
    except RuntimeError as error:
        demo.tell_failure(Console(file=said, width=200), error, file)
    assert "The demo did not come to its end: the Prefect server ended" in said.getvalue()
    assert "[ERROR] no space left" in said.getvalue()
    assert "What to do: run make demo again" in said.getvalue()
    assert "Traceback" not in said.getvalue()
    assert "Traceback" in file.read_text()


def test_where_no_browser_can_be_had_set_up_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for name in ("apt-get", "chromium"):  # neither does what it should
        stand_in = tmp_path / name
        stand_in.write_text("#!/bin/sh\nexit 1\n")
        stand_in.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PLAYWRIGHT_BROWSERS_PATH", str(tmp_path / "browsers"))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "apt-get"))  # no download either
    assert browser.main() == 1
    said = capsys.readouterr()
    assert "asking Playwright for its own" in said.out
    assert "install the package chromium by hand" in said.err


def test_a_browser_that_starts_is_taken(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    chromium = tmp_path / "chromium"
    chromium.write_text("#!/bin/sh\necho Chromium 1\n")
    chromium.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert browser.main() == 0
    assert f"the browser is {chromium}" in capsys.readouterr().out


def test_a_demo_that_fails_keeps_the_end_of_each_log(tmp_path: Path) -> None:
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "flow.log").write_text("beginning\n" * 100 + "no space left\n")
    error = RuntimeError("it broke")
    error.add_note(demo.logs_of(tmp_path))
    demo.tell_failure(Console(file=StringIO()), error, tmp_path / "failure.txt")
    kept = (tmp_path / "failure.txt").read_text()
    assert "tasks/flow.log" in kept
    assert "no space left" in kept
    assert kept.count("beginning") < 100
