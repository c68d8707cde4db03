"""The demo as the README starts it, and a person who signs in where it says."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Route, expect, sync_playwright

from localcloud.demo import CHART, ENDED, RESULT, TIMELINE
from localcloud.deployment import PROJECT
from tests.ui import browser

INVITATION: Final = re.compile(
    r"The Prefect UI: (http://\S+) +\(password: (\S+); Ctrl-C ends all\)"
)

WIDTH: Final = 1280

LONGEST_MS: Final = 60_000
"""Until a page shows what it is asked for; the machine may be busy."""


@dataclass(frozen=True)
class Played:
    """The demo's end: what it printed and wrote, where its Prefect UI is, and its password."""

    process: subprocess.Popen[str]
    output: str
    result: dict[str, Any]
    ui_url: str
    auth_string: str

    @property
    def run(self) -> dict[str, Any]:
        """The rescued run."""
        return dict(self.result["flow_run"])

    @property
    def to_try(self) -> list[str]:
        """The commands that it printed for people to try; the first leads their shell to it."""
        return re.findall(r"^    (\S.*)$", self.output.partition("What to try")[2], re.MULTILINE)

    def end(self) -> None:
        """Press Ctrl-C, and see it end well."""
        self.process.send_signal(signal.SIGINT)
        rest, _ = self.process.communicate(timeout=120)
        print(rest)
        assert "ending everything (a few seconds)" in rest.partition(ENDED)[0]
        assert rest.endswith(f"{ENDED}\n")
        assert self.process.returncode == 0, "it was kept up, and ended by hand"


Visit = Callable[..., Page]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Have last what a shell does to the demo: the pages are to show the demo alone."""
    items.sort(key=lambda item: "shell" in getattr(item, "fixturenames", ()))


@pytest.fixture(scope="session")
def played() -> Iterator[Played]:
    """`make demo KEEP=1` up to the address that it prints; Ctrl-C at the end."""
    RESULT.unlink(missing_ok=True)
    for drawn in (CHART, TIMELINE):
        for suffix in (".png", ".svg"):
            drawn.with_suffix(suffix).unlink(missing_ok=True)
    demo = subprocess.Popen(
        [sys.executable, "-m", "localcloud.demo"],
        cwd=PROJECT,
        env={**os.environ, "KEEP": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, ui_url, auth_string = invitation(demo)
        played = Played(demo, output, json.loads(RESULT.read_text()), ui_url, auth_string)
        yield played
        if demo.poll() is None:
            played.end()
    finally:
        demo.send_signal(signal.SIGINT)
        demo.wait(timeout=120)


def invitation(demo: subprocess.Popen[str]) -> tuple[str, str, str]:
    """Read what the demo prints until it says where to look, and with which password."""
    assert demo.stdout is not None
    lines = []
    for line in demo.stdout:
        print(line, end="")
        lines.append(line)
        if found := INVITATION.search(line):
            return "".join(lines), found[1], found[2]
    raise AssertionError("the demo ended without an address: its output is above")


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    program = browser.find()
    assert program, "no browser: `make ui` installs one"
    expect.set_options(timeout=LONGEST_MS)
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=program, args=browser.FLAGS) as started,
    ):
        yield started


@pytest.fixture
def visit(chromium: Browser, played: Played) -> Iterator[Visit]:
    """Sign in as a person would, and look at the first page.

    What was opened is closed with the test: a run's graph is drawn anew all the time, by this
    machine's processors, and some of them at once leave no time for anything else.
    """
    with ExitStack() as stack:

        def signed_in(*, scheme: str = "light", width: int = WIDTH, height: int = 720) -> Page:
            context = chromium.new_context(
                viewport={"width": width, "height": height},
                color_scheme="dark" if scheme == "dark" else "light",
                reduced_motion="reduce",
                timezone_id="UTC",
                locale="en-US",
            )
            stack.callback(context.close)
            return sign_in(context, played)

        yield signed_in


def sign_in(context: BrowserContext, played: Played) -> Page:
    def answer(route: Route) -> None:
        """Let through what is the server's; the UI's own statistics stay on this machine."""
        if route.request.url.startswith(f"{played.ui_url}/"):
            route.continue_()
        else:
            route.abort()

    context.set_default_timeout(LONGEST_MS)
    context.route("**/*", answer)
    page = context.new_page()
    page.goto(played.ui_url)
    password = page.get_by_placeholder("admin:pass")
    password.fill(played.auth_string)
    password.press("Enter")
    expect(page.get_by_role("link", name="Runs", exact=True)).to_be_visible()
    return page
