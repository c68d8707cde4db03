"""The demo, played once, and a person who has signed in to its Prefect UI."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final

import pytest
from playwright.sync_api import BrowserContext, Page, Route, expect, sync_playwright
from rich.console import Console

from localcloud.cloud import Options, embedded_cloud
from localcloud.demo import Story, run_demo, savings
from tests.ui import browser

LONGEST_MS: Final = 60_000
"""Until a page shows what it is asked for; the machine may be busy."""

WIDTH: Final = 1280
HEIGHT: Final = 720


@dataclass(frozen=True)
class Played:
    """The demo's end: where its Prefect UI is, what lets people in, and what is to be seen."""

    ui_url: str
    auth_string: str
    run: dict[str, Any]
    result: dict[str, Any]

    @property
    def artifact_key(self) -> str:
        return f"spot-interruption-{self.run['id'][:8]}"


Visit = Callable[..., Page]


@pytest.fixture(scope="session")
def played() -> Iterator[Played]:
    options = Options()
    story = Story(Console(soft_wrap=True))
    with embedded_cloud(options, story.tell) as cloud:
        result = run_demo(cloud, story)
        savings(cloud, story, result)
        yield Played(cloud.server.ui_url, options.auth_string, result["flow_run"], result)


@pytest.fixture(scope="session")
def visit(played: Played) -> Iterator[Visit]:
    """Sign in as a person would, and look at the first page; each visit is a new browser."""
    program = browser.find()
    assert program, "no browser: `make ui` installs one"
    expect.set_options(timeout=LONGEST_MS)
    with sync_playwright() as playwright, ExitStack() as stack:
        chromium = playwright.chromium.launch(executable_path=program, args=browser.FLAGS)
        stack.callback(chromium.close)

        def signed_in(*, scheme: str = "light", height: int = HEIGHT) -> Page:
            context = chromium.new_context(
                viewport={"width": WIDTH, "height": height},
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
