"""A pytest plugin that reports each test to `tests.tiers`, one JSON object a line.

It writes to the file that the environment variable `PROGRESS_FILE` names: `{"total": n}` after
collection, `{"now": node id}` when a test begins, and `{"test", "when", "outcome", "seconds"}` for
each phase of it. Under pytest-xdist only the controller writes.
"""

import json
import os
from pathlib import Path
from typing import TextIO

import pytest


class Progress:
    """Writes the lines; `file` is open for writing and line-buffered."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._collected: set[str] = set()

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self._expect([item.nodeid for item in session.items])

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, node: object, ids: list[str]) -> None:
        self._expect(ids)

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._write(now=nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._write(
            test=report.nodeid, when=report.when, outcome=report.outcome, seconds=report.duration
        )

    def _expect(self, ids: list[str]) -> None:
        self._collected.update(ids)
        self._write(total=len(self._collected))

    def _write(self, **line: object) -> None:
        self._file.write(json.dumps(line) + "\n")


def pytest_configure(config: pytest.Config) -> None:
    """Register the reporter if a file is named, in the process that sees all tests."""
    path = os.environ.get("PROGRESS_FILE")
    if path and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Progress(open(path, "a", buffering=1)))  # noqa: SIM115, PTH123  # a pipe, open until pytest ends


def note(line: str) -> None:
    """Report what runs now, in a line of text, from any process of a tier."""
    if path := os.environ.get("PROGRESS_FILE"):
        with Path(path).open("a") as file:
            file.write(line + "\n")
