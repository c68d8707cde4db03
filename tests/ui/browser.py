"""The browser for `make ui`: the machine's own Chromium, or one that is installed here.

`python -m tests.ui.browser` sets it up, and fails with the next step where it cannot.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
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
APT: Final = ("apt-get", "--quiet=2", "--yes")
INSTALL_SECONDS: Final = 600
FAILED: Final = (
    "error: make ui needs Chromium: neither apt-get (only as root) nor Playwright installed it\n"
    "next step: install the package chromium by hand, and run make ui again"
)


def find() -> str | None:
    """Return the path of a browser that starts, the system's own first; None: there is none."""
    return next((path for path in _candidates() if _runs(path, "--version", seconds=60)), None)


def _candidates() -> Iterator[str]:
    yield from filter(None, map(shutil.which, NAMES))
    with sync_playwright() as playwright:
        yield playwright.chromium.executable_path  # where Playwright puts its own


def _runs(*command: str, seconds: float = INSTALL_SECONDS) -> bool:
    try:
        finished = subprocess.run(
            command, timeout=seconds, check=False, stdin=subprocess.DEVNULL, capture_output=True
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return finished.returncode == 0


def install() -> str | None:
    """Try Debian's package, where we are root, then Playwright's download; return what starts."""
    if os.geteuid() == 0 and shutil.which("apt-get"):
        print("no Chromium here: asking apt-get for it", flush=True)
        packages = ("--no-install-recommends", "chromium")
        if _runs(*APT, "update") and _runs(*APT, "install", *packages) and (found := find()):
            return found
    print("no Chromium here: asking Playwright for its own", flush=True)
    _runs(sys.executable, "-m", "playwright", "install", "chromium")
    return find()


if __name__ == "__main__":
    browser = find() or install()
    if not browser:
        sys.exit(FAILED)
    print(f"the browser is {browser}")
