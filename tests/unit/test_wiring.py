"""What an invocation is given: calls that are made at the same time, and one credential."""

import io
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import NoReturn

import boto3
import pytest

from chalicelib import wiring
from chalicelib.errors import LAMBDA_RETRIES, LeaseHeldError, PrefectUnavailableError
from tests.make import RUN_ID
from tests.unit.lambda_bench import Context, forget
from tests.unit.scripted_server import ScriptedServer, silence


def test_calls_are_made_at_the_same_time_and_answered_in_order() -> None:
    all_there = threading.Barrier(3, timeout=10)
    calls = [lambda: (all_there.wait(), "a")[1], lambda: (all_there.wait(), "b")[1]]
    assert wiring._gather([*calls, lambda: (all_there.wait(), "c")[1]]) == ["a", "b", "c"]


def test_a_logged_error_of_ours_has_its_next_step_under_a_key(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(_context: None, _event: object) -> NoReturn:
        raise LeaseHeldError("another handler holds the lease", next_step=LAMBDA_RETRIES)

    lines = io.StringIO()
    for handler in wiring.log_of_function().handlers:
        monkeypatch.setattr(handler, "stream", lines)
    with pytest.raises(LeaseHeldError) as raised:
        wiring.answer(fails, lambda _: None, {}, Context())
    record = json.loads(lines.getvalue())
    assert record["next_step"] == LAMBDA_RETRIES
    assert record["error_type"] == "LeaseHeldError"
    said = "another handler holds the lease. Next step: none: Lambda retries the event"
    assert record["exception"].endswith(said)
    assert str(raised.value) == said, "Lambda puts this into the failure queue"


def test_a_lease_outlives_the_invocation_and_requests_end_before_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    forget()
    context = wiring.context_of(Context(60_000))
    assert context.lease == timedelta(seconds=65)
    assert 50 < context.seconds_left() <= 57
    forget()


@pytest.mark.parametrize(
    ("milliseconds_left", "seconds"),
    [pytest.param(60_000, 0.3, id="the hurry"), pytest.param(3_300, 10.0, id="the invocation")],
)
def test_who_asks_in_a_hurry_does_not_wait_for_a_prefect_that_says_nothing(
    milliseconds_left: int, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    never = threading.Event()
    with ScriptedServer([silence(never)]) as server:
        monkeypatch.setenv("PREFECT_API_URL", f"{server.url}/api")
        forget()
        with_timeout = wiring.context_of(Context(milliseconds_left)).with_timeout(seconds)
        began = time.monotonic()
        with pytest.raises(PrefectUnavailableError):
            with_timeout.find_completed_runs(RUN_ID, 20)
        assert time.monotonic() - began < 5
        never.set()
    forget()


def test_all_are_made_before_the_first_failure_is_told() -> None:
    made: list[int] = []
    slow = threading.Event()

    def fails() -> None:
        slow.set()
        raise PrefectUnavailableError("503", next_step="none")

    def comes_late() -> None:
        slow.wait(10)
        time.sleep(0.05)
        made.append(1)

    with pytest.raises(PrefectUnavailableError):
        wiring._gather([fails, comes_late, comes_late])
    assert made == [1, 1]


def test_two_threads_that_ask_first_make_one_client_for_the_credential(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[str] = []

    class Ssm:
        def get_parameter(self, **_: object) -> dict[str, dict[str, str]]:
            return {"Parameter": {"Value": "pnu_secret"}}

    def client(service: str) -> Ssm:
        made.append(service)
        time.sleep(0.05)
        return Ssm()

    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    monkeypatch.setenv("PREFECT_API_KEY_PARAMETER", "/a/key")
    monkeypatch.setattr(boto3, "client", client)
    forget()
    try:
        with ThreadPoolExecutor(2) as pool:
            headers = list(pool.map(wiring.authorization(), [False, False]))
        headers.append(wiring.authorization()(True))
    finally:
        forget()
    assert headers == ["Bearer pnu_secret"] * 3
    assert made == ["ssm"]
