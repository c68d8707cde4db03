"""What is printed for CloudWatch Logs: an object of JSON per line, whatever is said."""

import io
import json
from typing import Any

import pytest

from chalicelib.adapters.log import JsonLog
from chalicelib.errors import PrefectUnavailableError
from tests.make import NOW

HOSTILE = '"}\n{"level": "INFO"}\x1b[31m\u2028\ud800'


def told(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_names_level_time_and_service_and_holds_the_keys() -> None:
    stream = io.StringIO()
    log = JsonLog("INFO", lambda: NOW, stream)
    log.common = {"request_id": "c0ffee"}
    log.info("decided", decision="ignore", task_arn=None)
    assert told(stream) == [
        {
            "level": "INFO",
            "timestamp": NOW.isoformat(),
            "service": "prefect-spot",
            "message": "decided",
            "request_id": "c0ffee",
            "decision": "ignore",
            "task_arn": None,
        }
    ]


def test_an_exception_is_told_with_what_caused_it() -> None:
    stream = io.StringIO()
    try:
        try:
            raise TimeoutError("no answer")
        except TimeoutError as error:
            raise PrefectUnavailableError("Prefect cannot be had") from error
    except PrefectUnavailableError:
        JsonLog("INFO", lambda: NOW, stream).exception("to be called again", attempt=1)
    [line] = told(stream)
    assert (line["level"], line["exception_name"]) == ("ERROR", "PrefectUnavailableError")
    assert line["attempt"] == 1
    assert "TimeoutError: no answer" in line["stack_trace"]


@pytest.mark.parametrize(("level", "lines"), [("DEBUG", 2), ("INFO", 2), ("ERROR", 1)])
def test_what_is_below_the_level_is_not_printed(level: str, lines: int) -> None:
    stream = io.StringIO()
    log = JsonLog(level, lambda: NOW, stream)
    log.info("decided")
    log.exception("failed")
    assert len(told(stream)) == lines


def test_whatever_is_said_stays_on_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    JsonLog("INFO", lambda: NOW).info(HOSTILE, reason=HOSTILE, thing=NOW)
    printed = capsys.readouterr().out
    assert printed.count("\n") == 1
    assert printed.isascii()
    assert json.loads(printed)["reason"] == HOSTILE
