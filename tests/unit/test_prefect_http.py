"""How Prefect is asked when the network, the server or the credential does not play along."""

import threading
from collections.abc import Iterator
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
from tests.unit.scripted_server import Step, answer, answer_raw, cut, reset, silence


@pytest.fixture
def never() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


@pytest.mark.parametrize("status", [408, 429, 502, 503, 504])
def test_a_passing_failure_is_tried_again(status: int) -> None:
    with Bench([answer(status), answer(200, make_answer())]) as bench:
        assert bench.prefect.read_run(RUN_ID) is not None
    assert len(bench.requests) == 2
    assert 0.1 <= bench.slept[0] <= 0.2


@pytest.mark.parametrize(
    "failure",
    [
        pytest.param(reset, id="reset"),
        pytest.param(cut(b'{"id": '), id="cut"),
        pytest.param(cut(b"{}", missing=1), id="cut-but-looks-whole"),
        pytest.param(answer_raw(b"<html>welcome</html>"), id="not-json"),
        pytest.param(answer_raw(b'{"id": "1'), id="half-json"),
        pytest.param(answer_raw(b"\xff\xfe"), id="not-utf-8"),
    ],
)
def test_a_useless_answer_is_tried_again(failure: Step) -> None:
    with Bench([failure, failure, answer(200, make_answer())]) as bench:
        assert bench.prefect.read_run(RUN_ID) is not None
    assert len(bench.requests) == 3


def test_a_proposed_state_is_sent_again_only_when_it_was_surely_not_taken() -> None:
    """Meanwhile a worker may have the run; a second proposal would take it away again."""
    accepted = {"status": "ACCEPT", "state": make_state(), "details": {}}
    crashed = ProposedState(StateType.CRASHED, "Crashed")
    with Bench([answer(503), answer(429), answer(200, accepted)]) as bench:
        bench.prefect.propose_state(RUN_ID, crashed)
    assert len(bench.requests) == 3
    gone = answer(504)
    for lost in (reset, cut(b'{"id": '), answer(502), gone):
        bench = Bench([lost, answer(200, accepted)])
        with bench, pytest.raises(PrefectUnavailableError) as raised:
            bench.prefect.propose_state(RUN_ID, crashed)
        assert len(bench.requests) == 1
        assert isinstance(raised.value, PrefectTimeoutError) is (lost is gone)


@pytest.mark.parametrize("method", ["change", "labels", "log", "artifact", "event"])
def test_every_other_kind_of_request_is_tried_again(method: str) -> None:
    with Bench([answer(503), reset, answer(200, {})]) as bench:
        prefect = bench.prefect
        match method:
            case "change":
                prefect.change_run(RUN_ID, RunChange(tags=("a",)))
            case "labels":
                prefect.add_labels(RUN_ID, {"a": 1})
            case "log":
                prefect.write_log(LogLine(RUN_ID, AT, "hello"))
            case "artifact":
                prefect.write_artifact(Artifact(RUN_ID, "key", "# hi", "d"))
            case "event":
                prefect.emit_events([PrefectEvent(uuid4(), RUN_ID, "run", "e", AT, {})])
    assert len(bench.requests) == 3
    assert len(set(bench.requests)) == 1


def test_tries_are_bounded_and_pauses_grow() -> None:
    with Bench([answer(503)]) as bench, pytest.raises(PrefectUnavailableError, match="503"):
        bench.prefect.read_run(RUN_ID)
    assert len(bench.requests) == MOST_TRIES
    assert len(bench.slept) == MOST_TRIES - 1
    for number, pause in enumerate(bench.slept):
        assert 0.1 * 2**number <= pause <= 0.2 * 2**number


@pytest.mark.parametrize(
    ("seconds", "least", "most"), [("7", 7.0, 7.3), ("a date", 6.0, 9.3), ("soon", 0.1, 0.2)]
)
def test_retry_after_is_respected_in_seconds_and_as_a_date_and_passed_over_unreadable(
    seconds: str, least: float, most: float
) -> None:
    if seconds == "a date":
        seconds = format_datetime(datetime.now(UTC) + timedelta(seconds=9), usegmt=True)
    with Bench([answer(429, Retry_After=seconds), answer(200, make_answer())]) as bench:
        bench.prefect.read_run(RUN_ID)
    assert least <= bench.slept[0] <= most


def test_a_retry_after_beyond_the_time_left_is_given_up_at_once() -> None:
    bench = Bench([answer(429, Retry_After="30")], seconds_left=20.0)
    with bench, pytest.raises(PrefectUnavailableError, match=r"20\.0 s are left"):
        bench.prefect.read_run(RUN_ID)
    assert (len(bench.requests), bench.slept) == (1, [])


def test_no_pause_is_begun_that_would_end_after_the_deadline() -> None:
    bench = Bench([answer(503)], seconds_left=1.0)
    with bench, pytest.raises(PrefectUnavailableError):
        bench.prefect.read_run(RUN_ID)
    assert 2 <= len(bench.requests) < MOST_TRIES
    assert sum(bench.slept) < 1.0


def test_nothing_is_sent_when_the_time_is_over() -> None:
    bench = Bench([answer(200, make_answer())], seconds_left=0.0)
    with bench, pytest.raises(PrefectUnavailableError, match="not sent"):
        bench.prefect.read_run(RUN_ID)
    assert bench.requests == []


def test_a_silent_server_is_left_when_the_time_is_over(never: threading.Event) -> None:
    started = datetime.now(UTC)
    bench = Bench([silence(never)])
    with bench:
        prefect = PrefectRest(
            bench.server.url,
            lambda _fresh: None,
            lambda: 0.4 - (datetime.now(UTC) - started).total_seconds(),
        )
        with pytest.raises(PrefectTimeoutError):
            prefect.read_run(RUN_ID)
        assert datetime.now(UTC) - started < timedelta(seconds=1)
        never.set()


def test_a_server_that_is_not_there_is_unavailable() -> None:
    with Bench([answer()]) as bench:
        url = bench.server.url
    prefect = PrefectRest(url, lambda _fresh: None, lambda: 60.0, sleep=lambda _: None)
    with pytest.raises(PrefectUnavailableError, match="NewConnectionError"):
        prefect.read_run(RUN_ID)


def test_a_500_is_left_to_the_next_call() -> None:
    bench = Bench([answer(500, {"exception_message": "Internal Server Error"})])
    with (
        bench,
        pytest.raises(PrefectUnavailableError, match=r"500 to GET .+: Internal Server"),
    ):
        bench.prefect.read_run(RUN_ID)
    assert len(bench.requests) == 1


def test_connections_are_kept_alive() -> None:
    with Bench([answer(200, make_answer())]) as bench:
        for _ in range(3):
            bench.prefect.read_run(RUN_ID)
    assert len({seen.client for seen in bench.server.seen}) == 1


# Credentials.


def test_a_401_is_tried_once_more_with_a_fresh_credential() -> None:
    with Bench([answer(401), answer(200, make_answer())]) as bench:
        assert bench.prefect.read_run(RUN_ID) is not None
    assert bench.asked_fresh == [False, True]
    sent = [seen.headers["Authorization"] for seen in bench.server.seen]
    assert sent == [f"Bearer {KEY}", "Bearer pnu_fresh"]


def test_a_second_401_is_a_refusal() -> None:
    bench = Bench([answer(401, {"exception_message": "Unauthorized"})])
    with bench, pytest.raises(PrefectRefusedError, match="PREFECT_API_KEY_PARAMETER"):
        bench.prefect.read_run(RUN_ID)
    assert len(bench.requests) == 2


def test_a_403_is_a_refusal_at_once() -> None:
    with Bench([answer(403)]) as bench, pytest.raises(PrefectRefusedError):
        bench.prefect.read_run(RUN_ID)
    assert len(bench.requests) == 1


def test_a_credential_at_the_place_where_a_long_answer_is_cut_is_not_shown() -> None:
    bench = Bench([answer(400, {"detail": "x" * 295 + KEY})])
    with bench, pytest.raises(PrefectRejectedError) as raised:
        bench.prefect.read_run(RUN_ID)
    assert KEY[:5] not in str(raised.value)


def test_without_a_credential_no_header_is_sent() -> None:
    with Bench([answer(200, make_answer())], credentials=(None, None)) as bench:
        bench.prefect.read_run(RUN_ID)
    assert "Authorization" not in bench.server.seen[0].headers


def test_neither_prefects_version_nor_its_client_is_claimed() -> None:
    with Bench([answer(200, make_answer())]) as bench:
        bench.prefect.read_run(RUN_ID)
    headers = {name.lower(): value for name, value in bench.server.seen[0].headers.items()}
    assert "x-prefect-api-version" not in headers
    assert headers["user-agent"] == "prefect-spot"
