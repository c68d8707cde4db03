"""The browser for `make ui`: the machine's own Chromium, or one that is installed here.

`python -m tests.ui.browser` sets it up, and fails with a sentence where it cannot.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from playwright.sync_api import sync_playwright

NAMES: Final = ("chromium", "google-chrome-stable", "google-chrome")
FLAGS: Final = (
    "--no-sandbox",  # root, as in a container, gets none; all that is opened is ours
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
)
INSTALLERS: Final = (
    ("apt-get", "update", "--quiet=2"),
    ("apt-get", "install", "--quiet=2", "--yes", "--no-install-recommends", "chromium"),
)
INSTALL_SECONDS: Final = 600


def find() -> str | None:
    """Return the path of a browser that starts, the system's own first; None: there is none."""
    return next(filter(_starts, _candidates()), None)


def _candidates() -> Iterator[str]:
    yield from filter(None, map(shutil.which, NAMES))
    with sync_playwright() as playwright:
        yield playwright.chromium.executable_path  # where Playwright puts its own


def _starts(program: str) -> bool:
    """Whether it says its version; what only stands in for a browser, or lacks a library, fails."""
    return Path(program).exists() and _runs(program, "--version", seconds=60)


def _runs(*command: str, seconds: float) -> bool:
    try:
        finished = subprocess.run(
            command, timeout=seconds, check=False, stdin=subprocess.DEVNULL, capture_output=True
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return finished.returncode == 0


def install() -> None:
    """Try Debian's package, where we are root; then Playwright's own download."""
    if os.geteuid() == 0 and shutil.which("apt-get"):
        print("no Chromium here: asking apt-get for it", flush=True)
        if all(_runs(*command, seconds=INSTALL_SECONDS) for command in INSTALLERS) and find():
            return
    print("no Chromium here: asking Playwright for its own", flush=True)
    _runs(sys.executable, "-m", "playwright", "install", "chromium", seconds=INSTALL_SECONDS)


def main() -> int:
    """Find a browser, or install one; 1 when there is none in the end."""
    if not find():
        install()
    browser = find()
    if browser:
        print(f"the browser is {browser}")
        return 0
    print(
        "error: make ui needs Chromium, which neither apt-get (only as root) nor Playwright could"
        " install\nnext step: install the package chromium by hand, and run make ui again",
        file=sys.stderr,
    )
    return 1


if __name__ == "__main__":
    sys.exit(main())
