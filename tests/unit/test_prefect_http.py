"""How requests to Prefect end when the network, the server or the credential fails."""

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from uuid import uuid4

import pytest

from chalicelib.adapters.prefect_api import PrefectRest
from chalicelib.adapters.prefect_client import MOST_TRIES
from chalicelib.core.model.flow_run import ProposedState, RunChange, StateType
from chalicelib.core.rescue.actions import Artifact, LogLine, PrefectEvent
from chalicelib.errors import (
    PrefectRefusedError,
    PrefectRejectedError,
    PrefectTimeoutError,
    PrefectUnavailableError,
)
from tests.unit.prefect_bench import AT, KEY, RUN_ID, Bench, make_answer, make_state
from tests.unit.scripted_server import ScriptedServer, Step, answer, answer_raw, cut, reset, silence

RUN = answer(200, make_answer())
ACCEPTED = answer(200, {"status": "ACCEPT", "state": make_state(), "details": {}})
CRASHED = ProposedState(StateType.CRASHED, "Crashed")


@pytest.mark.parametrize(
    "failure",
    [
        *(pytest.param(answer(status), id=f"{status}") for status in (408, 429, 502, 503, 504)),
        pytest.param(reset, id="reset"),
        pytest.param(cut(b'{"id": '), id="cut"),
        pytest.param(cut(b"{}", missing=1), id="cut-but-looks-whole"),
        pytest.param(answer_raw(b"<html>welcome</html>"), id="not-json"),
        pytest.param(answer_raw(b'{"id": "1'), id="half-json"),
        pytest.param(answer_raw(b"\xff\xfe"), id="not-utf-8"),
    ],
)
def test_a_transient_failure_and_a_useless_answer_are_tried_again(failure: Step) -> None:
    with Bench([failure, failure, RUN]) as bench:
        assert bench.prefect.read_run(RUN_ID) is not None
    assert len(bench.requests) == 3
    assert 0.1 <= bench.slept[0] <= 0.2 <= bench.slept[1] <= 0.4


UNAUTHORIZED = answer(401, {"exception_message": "Unauthorized"})
INTERNAL_ERROR = answer(500, {"exception_message": "Internal Server Error"})
NOT_FOUND = answer(404, {"detail": "Not Found"})
REDIRECT = answer(307, Location="https://elsewhere.example/api")


@pytest.mark.parametrize(
    ("step", "error", "said", "requests"),
    [
        pytest.param(answer(503), PrefectUnavailableError, "503", MOST_TRIES, id="503 always"),
        pytest.param(
            INTERNAL_ERROR, PrefectUnavailableError, "500 to GET .+: Internal Server", 1, id="500"
        ),
        pytest.param(answer(200), PrefectUnavailableError, "empty", 1, id="empty"),
        pytest.param(NOT_FOUND, PrefectRejectedError, "check PREFECT_API_URL", 1, id="wrong URL"),
        pytest.param(REDIRECT, PrefectRejectedError, "elsewhere", 1, id="a redirect"),
        pytest.param(UNAUTHORIZED, PrefectRefusedError, "PREFECT_API_KEY_PARAMETER", 2, id="401"),
        pytest.param(answer(403), PrefectRefusedError, "403", 1, id="403"),
    ],
)
def test_other_failures_raise_what_they_are(
    step: Step, error: type[Exception], said: str, requests: int
) -> None:
    """A redirect would get the credential; 500 is left to the next call."""
    bench = Bench([step])
    with bench, pytest.raises(error, match=said):
        bench.prefect.read_run(RUN_ID)
    assert len(bench.requests) == requests
    for number, pause in enumerate(bench.slept):
        assert 0.1 * 2**number <= pause <= 0.2 * 2**number


def test_a_proposed_state_is_sent_again_only_when_it_was_surely_not_taken() -> None:
    """Meanwhile a worker may have the run; a second proposal would take it away again."""
    with Bench([answer(503), answer(429), ACCEPTED]) as bench:
        bench.prefect.propose_state(RUN_ID, CRASHED)
    assert len(bench.requests) == 3
    timeout = answer(504)
    for lost in (reset, cut(b'{"id": '), answer(502), timeout):
        bench = Bench([lost, ACCEPTED])
        with bench, pytest.raises(PrefectUnavailableError) as raised:
            bench.prefect.propose_state(RUN_ID, CRASHED)
        assert len(bench.requests) == 1
        assert isinstance(raised.value, PrefectTimeoutError) is (lost is timeout)


EVENT = PrefectEvent(uuid4(), RUN_ID, "run", "e", AT, {})


@pytest.mark.parametrize(
    "call",
    [
        lambda prefect: prefect.change_run(RUN_ID, RunChange(tags=("a",))),
        lambda prefect: prefect.add_labels(RUN_ID, {"a": 1}),
        lambda prefect: prefect.write_log(LogLine(RUN_ID, AT, "hello")),
        lambda prefect: prefect.write_artifact(Artifact(RUN_ID, "k", "# hi", "d")),
        lambda prefect: prefect.emit_events([EVENT]),
    ],
    ids=["change", "labels", "log", "artifact", "event"],
)
def test_every_other_kind_of_request_is_tried_again(call: Callable[[PrefectRest], None]) -> None:
    with Bench([answer(503), reset, answer(200, {})]) as bench:
        call(bench.prefect)
    assert len(bench.requests) == 3
    assert len(set(bench.requests)) == 1


@pytest.mark.parametrize(
    ("seconds", "least", "most"), [("7", 7.0, 7.3), ("a date", 6.0, 9.3), ("soon", 0.1, 0.2)]
)
def test_retry_after_is_respected_in_seconds_and_as_a_date_and_ignored_when_unreadable(
    seconds: str, least: float, most: float
) -> None:
    if seconds == "a date":
        seconds = format_datetime(datetime.now(UTC) + timedelta(seconds=9), usegmt=True)
    with Bench([answer(429, Retry_After=seconds), RUN]) as bench:
        bench.prefect.read_run(RUN_ID)
    assert least <= bench.slept[0] <= most


@pytest.mark.parametrize(
    ("step", "seconds_left", "said", "requests"),
    [
        pytest.param(answer(429, Retry_After="30"), 20.0, r"20\.0 s are left", (1, 1), id="pause"),
        pytest.param(answer(503), 1.0, "503", (2, MOST_TRIES - 1), id="tries"),
        pytest.param(RUN, 0.0, "not sent", (0, 0), id="nothing left"),
    ],
)
def test_nothing_is_begun_that_would_end_after_the_deadline(
    step: Step, seconds_left: float, said: str, requests: tuple[int, int]
) -> None:
    bench = Bench([step], seconds_left=seconds_left)
    with bench, pytest.raises(PrefectUnavailableError, match=said):
        bench.prefect.read_run(RUN_ID)
    assert requests[0] <= len(bench.requests) <= requests[1]
    assert sum(bench.slept) < 1.0


def test_a_server_that_does_not_answer_times_out_at_the_deadline() -> None:
    started, never = time.monotonic(), threading.Event()
    with ScriptedServer([silence(never)]) as server:
        prefect = PrefectRest(
            server.url, lambda _fresh: None, lambda: 0.4 - (time.monotonic() - started)
        )
        with pytest.raises(PrefectTimeoutError):
            prefect.read_run(RUN_ID)
        assert time.monotonic() - started < 1
        never.set()


def test_a_server_that_is_not_there_is_unavailable() -> None:
    with Bench([RUN]) as bench:
        prefect = bench.prefect
    with pytest.raises(PrefectUnavailableError, match="NewConnectionError"):
        prefect.read_run(RUN_ID)


def test_connections_are_kept_alive_and_claim_no_client_of_prefects() -> None:
    with Bench([RUN], credentials=(None, None)) as bench:
        for _ in range(3):
            bench.prefect.read_run(RUN_ID)
    assert len({seen.client for seen in bench.server.seen}) == 1
    headers = {name.lower(): value for name, value in bench.server.seen[0].headers.items()}
    assert headers["user-agent"] == "prefect-spot"
    assert not {"x-prefect-api-version", "authorization"} & set(headers)


def test_a_401_is_tried_once_more_with_a_fresh_credential() -> None:
    with Bench([answer(401), RUN]) as bench:
        assert bench.prefect.read_run(RUN_ID) is not None
    assert bench.asked_fresh == [False, True]
    sent = [seen.headers["Authorization"] for seen in bench.server.seen]
    assert sent == [f"Bearer {KEY}", "Bearer pnu_fresh"]


REJECTION = {
    "exception_message": "Invalid request received.",
    "exception_detail": [
        {"loc": ["body", "tags"], "msg": "Input should be a list", "input": "s3cret"}
    ],
    "request_body": {"job_variables": {"env": {"PASSWORD": "s3cret"}}},
}


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (REJECTION, "Invalid request received.; body.tags: Input should be a list"),
        ({"detail": "x" * 5000}, "x" * 300),
        ({"detail": "x" * 295 + KEY}, "x" * 295 + "***"),
    ],
    ids=["its own message, not what was sent", "cut", "a credential where it is cut"],
)
def test_a_rejection_says_why_in_few_words_and_nothing_secret(body: object, said: str) -> None:
    with Bench([answer(422, body)]) as bench, pytest.raises(PrefectRejectedError) as caught:
        bench.prefect.change_run(RUN_ID, RunChange(tags=("a",)))
    assert caught.value.what == f"Prefect answered 422 to PATCH /flow_runs/{RUN_ID}: {said}"
