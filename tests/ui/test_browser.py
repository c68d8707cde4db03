"""The browser for `make ui`: the one that starts, or an error with the next step."""

import sys
from pathlib import Path

import pytest

from tests.ui import browser


def test_without_a_browser_the_error_says_what_to_install(
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
    assert "next step: install the package chromium by hand" in said.err


def test_a_browser_that_starts_is_taken(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    chromium = tmp_path / "chromium"
    chromium.write_text("#!/bin/sh\necho Chromium 1\n")
    chromium.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert browser.main() == 0
    assert f"the browser is {chromium}" in capsys.readouterr().out
