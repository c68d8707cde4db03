"""How requests to Prefect end when the network, the server or the credential fails."""

import gzip
import json
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import cached_property, partial
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prefect.client.orchestration import SyncPrefectClient
from prefect.settings import PREFECT_CLIENT_CUSTOM_HEADERS, temporary_settings

from chalicelib.adapters.credentials import certificates, custom_headers
from chalicelib.adapters.not_before import NotBefore
from chalicelib.adapters.prefect_api import MOST_DEPTHS, PrefectRest
from chalicelib.adapters.prefect_bounds import MOST_BYTES
from chalicelib.adapters.prefect_client import MOST_TRIES, Connections, JsonHttp
from chalicelib.adapters.prefect_work_pools import PrefectWorkPools
from chalicelib.core.model.flow_run import ProposedState, RunChange, StateType
from chalicelib.core.model.not_now import MOST_HANDED_ON, NotNow
from chalicelib.core.ports import RunQuery
from chalicelib.core.rescue.actions import Artifact, LogLine, PrefectEvent
from chalicelib.errors import (
    PrefectAddressError,
    PrefectConflictError,
    PrefectForbiddenError,
    PrefectNotNowError,
    PrefectOutcomeUnknownError,
    PrefectPlanError,
    PrefectRefusedError,
    PrefectRejectedError,
    PrefectSpotError,
    PrefectTimeoutError,
    PrefectUnavailableError,
    PrefectUnreadableError,
)
from localcloud.access_proxy import AccessProxy
from spotctl.prefect import OperatorPrefect
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
        pytest.param(answer(502), PrefectUnavailableError, "502", MOST_TRIES, id="502 always"),
        pytest.param(
            INTERNAL_ERROR, PrefectUnavailableError, "500 to GET .+: Internal Server", 1, id="500"
        ),
        pytest.param(answer(200), PrefectUnavailableError, "empty", 1, id="empty"),
        pytest.param(NOT_FOUND, PrefectAddressError, "check PREFECT_API_URL", 2, id="wrong URL"),
        pytest.param(REDIRECT, PrefectRejectedError, "elsewhere", 1, id="a redirect"),
        pytest.param(UNAUTHORIZED, PrefectRefusedError, "PREFECT_API_KEY_PARAMETER", 2, id="401"),
        pytest.param(answer(403), PrefectForbiddenError, "Developer or above", 1, id="403"),
        pytest.param(
            answer(422, {"exception_detail": [{"loc": ["path", "account_id"], "msg": "no UUID"}]}),
            PrefectAddressError,
            "account_id: no UUID.+check PREFECT_API_URL",
            1,
            id="no workspace",
        ),
        pytest.param(
            answer_raw(b"<!doctype html><title>Prefect</title>"),
            PrefectUnavailableError,
            "not JSON.+check PREFECT_API_URL: it has to be the address of Prefect's API",
            MOST_TRIES,
            id="the UI's address",
        ),
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


@dataclass
class Behind:
    """A client of a server behind an access proxy, and what its SSM parameters hold."""

    proxy: AccessProxy
    headers: str
    certificates: str
    reads: list[str] = field(default_factory=list)

    @cached_property
    def http(self) -> JsonHttp:
        def get_parameter(Name: str, **_: object) -> object:  # noqa: N803  # boto3's
            self.reads.append(Name)
            return {"Parameter": {"Value": getattr(self, Name)}}

        ssm: Any = SimpleNamespace(get_parameter=get_parameter)
        shared = Connections(
            self.proxy.url,
            headers=custom_headers(ssm, "headers"),
            trust=certificates(ssm, "certificates" if self.certificates else ""),
        )
        return JsonHttp(
            self.proxy.url,
            lambda _fresh: "Bearer the-key",
            lambda: 20.0,
            connections=shared,
            sleep=lambda _: None,
        )


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer([answer(200, {"id": 1})]) as server:
        yield server


@pytest.fixture
def behind(server: ScriptedServer, tmp_path: Path) -> Iterator[Behind]:
    with AccessProxy(server.url, tmp_path) as proxy:
        yield Behind(proxy, proxy.headers, proxy.certificates)


def test_a_proxy_lets_us_through_with_its_headers_and_is_trusted_by_its_authority(
    behind: Behind, server: ScriptedServer
) -> None:
    assert behind.http.send("POST", "/x", {}) == behind.http.get("/x") == {"id": 1}
    assert [seen.headers["cf-access-client-id"] for seen in server.seen] == ["spot", "spot"]
    assert {seen.headers["authorization"] for seen in server.seen} == {"Bearer the-key"}
    assert behind.reads == ["headers", "certificates"], "both are kept"


def test_a_custom_authorization_wins_as_in_prefects_own_client(
    behind: Behind, server: ScriptedServer
) -> None:
    own = {**json.loads(behind.headers), "authorization": "Bearer own"}
    behind.headers = json.dumps(own)
    behind.http.get("/x")
    assert server.seen[0].headers["authorization"] == "Bearer own"
    with temporary_settings({PREFECT_CLIENT_CUSTOM_HEADERS: own}):
        prefects = SyncPrefectClient(f"{server.url}/api", api_key="the-key")
        assert prefects._client.headers["Authorization"] == "Bearer own"


@pytest.mark.parametrize("location", ["", "https://access.example/login?kid=1"])
def test_headers_that_were_renewed_are_read_again_once_the_proxy_refuses_the_old(
    behind: Behind, server: ScriptedServer, location: str
) -> None:
    behind.http.get("/x")
    behind.proxy.secret, behind.proxy.location = "renewed", location
    behind.headers = behind.proxy.headers
    assert behind.http.send("POST", "/x", {}, repeatable=False) == {"id": 1}
    assert (behind.proxy.passed, behind.proxy.refused) == (2, 1)


def test_an_authority_that_was_renewed_is_read_again(behind: Behind, tmp_path: Path) -> None:
    behind.certificates = AccessProxy(behind.proxy.url, tmp_path / "old").certificates
    with pytest.raises(PrefectUnavailableError):
        behind.http.get("/x")
    behind.certificates = behind.proxy.certificates
    assert behind.http.send("POST", "/x", {}, repeatable=False) == {"id": 1}


@pytest.mark.parametrize(
    ("headers", "location", "error", "said"),
    [
        ("{}", "", PrefectForbiddenError, "a proxy before Prefect answered 403"),
        ('{"CF-Access-Client-Secret": "canary-x"}', "", PrefectForbiddenError, "answered 403"),
        ("{}", "https://login.example/?canary-x", PrefectAddressError, "redirects to https://l"),
    ],
)
def test_a_proxy_that_refuses_us_names_the_setting_of_its_headers(
    behind: Behind, headers: str, location: str, error: type[PrefectSpotError], said: str
) -> None:
    behind.headers, behind.proxy.location = headers, location
    with pytest.raises(error, match=f"{said}.*PREFECT_CUSTOM_HEADERS_PARAMETER names$") as raised:
        behind.http.get("/x")
    assert behind.proxy.refused == 1
    assert ("canary" in str(raised.value)) == bool(location)


@pytest.mark.parametrize(
    ("valid_days", "trusts", "said"),
    [
        (30, "nobody's", r"\(self.signed certificate|\(unable to get local issuer"),
        (30, "another's", r"\(unable to get local issuer|\(certificate verify failed"),
        (-1, "its", r"\(certificate has expired"),
    ],
)
def test_a_server_that_is_not_trusted_gets_nothing_and_its_setting_is_named(
    server: ScriptedServer, tmp_path: Path, valid_days: int, trusts: str, said: str
) -> None:
    another = AccessProxy(server.url, tmp_path / "another")
    with AccessProxy(server.url, tmp_path, valid_days=valid_days) as proxy:
        known = {"nobody's": "", "another's": another.certificates, "its": proxy.certificates}
        behind = Behind(proxy, proxy.headers, known[trusts])
        expected = f"{said}.*PREFECT_CA_CERTIFICATE_PARAMETER names$"
        with pytest.raises(PrefectUnavailableError, match=expected) as raised:
            behind.http.send("POST", "/x", {}, repeatable=False)
        assert type(raised.value) is PrefectUnavailableError, "it had no effect"
        assert (proxy.passed, proxy.refused, server.seen) == (0, 0, [])


@pytest.mark.parametrize(
    "gone",
    [
        NOT_FOUND,
        answer(404, {"exception_message": "Flow run not found"}),
        answer(404, {"message": "no such route"}),
        answer(404),
        answer_raw(b"<html>404</html>", 404),
    ],
    ids=["the framework's", "the server's", "other words", "none", "HTML"],
)
def test_a_run_is_gone_in_any_words_once_work_pools_are_served(gone: Step) -> None:
    """How Prefect Cloud words a 404 is not documented; one more request, once, does without."""
    with Bench([gone, answer(200, []), gone]) as bench:
        assert bench.prefect.read_run(RUN_ID) is None
        assert bench.prefect.read_run(RUN_ID) is None
    run = f"GET /api/flow_runs/{RUN_ID}"
    assert bench.requests == [run, "POST /api/work_pools/filter", run]
    for no_pools in (gone, answer(200, {"welcome": "home"})):
        bench = Bench([gone, no_pools])
        with bench, pytest.raises(PrefectAddressError) as raised:
            bench.prefect.read_run(RUN_ID)
        assert raised.value.next_step.startswith("check PREFECT_API_URL")


HYBRID = "Your plan does not include hybrid work pools"


@pytest.mark.parametrize(
    ("status", "detail", "error", "next_step"),
    [
        (401, "Unauthorized", PrefectRefusedError, "store a valid credential"),
        (402, "", PrefectPlanError, "hybrid work pools (Starter or above)"),
        (403, HYBRID, PrefectPlanError, "hybrid work pools (Starter or above)"),
        (400, "Upgrade to create more", PrefectPlanError, "hybrid work pools (Starter or above)"),
        (403, "Not in your workspace's plan", PrefectPlanError, "hybrid work pools (Starter or"),
        (403, "Not available to free accounts", PrefectPlanError, "hybrid work pools (Starter or"),
        (422, "Requires a paid plan", PrefectPlanError, "hybrid work pools (Starter or above)"),
        (403, "Forbidden", PrefectForbiddenError, "Developer or above; if it is, take a plan"),
        (403, "Your account may not", PrefectForbiddenError, "Developer or above; if it is, take"),
        (404, "workspace not found", PrefectAddressError, "check PREFECT_API_URL"),
        (405, "", PrefectAddressError, "check PREFECT_API_URL"),
        (409, "exists", PrefectConflictError, "the next call reads"),
        (422, "type: wrong", PrefectRejectedError, "correct what Prefect names"),
    ],
)
def test_each_refusal_of_a_work_pool_has_its_own_message(
    status: int, detail: str, error: type[PrefectSpotError], next_step: str
) -> None:
    bench = Bench([answer(status, {"detail": detail})])
    with bench, pytest.raises(error) as raised:
        PrefectWorkPools(bench.http).create("spot", {})
    assert type(raised.value) is error
    assert raised.value.what.startswith(f"Prefect answered {status} to POST /work_pools/")
    assert next_step in raised.value.next_step


def test_words_about_plans_are_the_plans_only_for_a_work_pool() -> None:
    """Elsewhere they may be a user's: a run's tag, a deployment's name."""
    bench = Bench([answer(403, {"detail": HYBRID})])
    with bench, pytest.raises(PrefectForbiddenError):
        bench.prefect.change_run(RUN_ID, RunChange(tags=("upgrade",)))


@dataclass
class Invocations:
    """Invocations of several environments, by a clock that stands still, and what they keep."""

    stored: NotNow | None = None
    now: datetime = AT

    def environment(self) -> NotBefore:
        return NotBefore(lambda: self.now, lambda: self.stored, partial(setattr, self, "stored"))

    def invoke(self, bench: Bench, kept: NotBefore) -> object:
        kept.begin()
        connections = Connections(bench.server.url, not_before=kept)
        http = JsonHttp(
            bench.server.url, bench.credential, lambda: 57.0,
            connections=connections, sleep=self.pause,
        )  # fmt: skip
        return PrefectRest(http).propose_state(RUN_ID, CRASHED)

    def pause(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@pytest.mark.parametrize("status", [429, 503])
def test_a_wait_that_outlasts_the_invocation_is_handed_to_those_that_follow(status: int) -> None:
    """Of this environment and of others; what then fits is waited for, with no request before."""
    world = Invocations()
    first, second = world.environment(), world.environment()
    with Bench([answer(status, Retry_After="100"), ACCEPTED]) as bench:
        with pytest.raises(PrefectNotNowError, match=r"asking for 100 s .+12:01:40 UTC") as raised:
            world.invoke(bench, first)
        assert (raised.value.until, raised.value.lasts) == (AT + timedelta(seconds=100), False)
        for environment in (first, second):
            with pytest.raises(PrefectNotNowError, match="set_state was not sent; no request is"):
                world.invoke(bench, environment)
        assert len(bench.requests) == 1
        world.now += timedelta(seconds=50)
        world.invoke(bench, second)
        assert world.now == AT + timedelta(seconds=100), "it waited for the other 50 s"
        world.invoke(bench, first)
    assert len(bench.requests) == 3


def test_what_is_handed_on_is_capped_and_fails_when_it_lasts() -> None:
    """One wrong answer must not stop every rescue for hours, nor be hidden for ever."""
    world = Invocations()
    with Bench([answer(429, Retry_After=AGES)]) as bench:
        with pytest.raises(PrefectNotNowError) as raised:
            world.invoke(bench, world.environment())
        assert raised.value.until == AT + MOST_HANDED_ON < AT + timedelta(hours=1), "as ECS forgets"
        assert not raised.value.lasts
        world.now = raised.value.until
        with pytest.raises(PrefectNotNowError) as raised:
            world.invoke(bench, world.environment())
        assert raised.value.lasts
        world.now = raised.value.until + MOST_HANDED_ON
        with pytest.raises(PrefectNotNowError) as raised:
            world.invoke(bench, world.environment())
        assert not raised.value.lasts, "it was over for a while"


def test_a_proposed_state_is_sent_again_only_when_it_was_surely_not_taken() -> None:
    """Meanwhile a worker may have the run; a second proposal would take it away again."""
    with Bench([*[answer(503), answer(429)] * MOST_TRIES, ACCEPTED]) as bench:
        bench.prefect.propose_state(RUN_ID, CRASHED)
    assert len(bench.requests) == 2 * MOST_TRIES + 1
    assert bench.slept[-1] <= 5.0


LOST_ANSWERS: dict[str, Step] = {
    **{f"{status}": answer(status) for status in (500, 502, 520)},
    "reset": reset,
    "cut": cut(b'{"id": '),
    "not JSON": answer_raw(b"<html>welcome</html>"),
    "empty": answer(200),
    "unknown verdict": answer(200, {"status": "MAYBE"}),
}
TIMED_OUT: dict[str, Step] = {f"{status}": answer(status) for status in (408, 504)}


@pytest.mark.parametrize(
    "lost", [*LOST_ANSWERS.values(), *TIMED_OUT.values()], ids=[*LOST_ANSWERS, *TIMED_OUT]
)
def test_a_lost_answer_to_a_proposed_state_leaves_its_outcome_unknown(lost: Step) -> None:
    bench = Bench([answer(429), lost, ACCEPTED])
    with bench, pytest.raises(PrefectOutcomeUnknownError) as raised:
        bench.prefect.propose_state(RUN_ID, CRASHED)
    assert len(bench.requests) == 2
    assert isinstance(raised.value, PrefectTimeoutError) is (lost in TIMED_OUT.values())


AGES = "9" * 5000


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("asked", "seconds_left", "waits", "said"),
    [
        ("30", 200.0, 6, r"for 30 s \(try 7\); next try in 30\.\d s, but 1\d\.\d s are left"),
        ("30", 26.0, 0, r"for 30 s \(try 1\); next try in 30\.\d s, but 26\.0 s are left"),
        ("3600", 60.0, 0, "asking for 3600 s"),
        (AGES, 60.0, 0, "asking for 21600 s"),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 60.0, 0, "asking for 21600 s"),
    ],
    ids=["fits six times", "does not fit", "an hour", "ages", "a date far away"],
)
def test_not_now_is_waited_for_as_long_as_it_asks_and_as_there_is_time_and_never_unknown(
    status: int, asked: str, seconds_left: float, waits: int, said: str
) -> None:
    bench = Bench([answer(status, Retry_After=asked)], seconds_left=seconds_left)
    with bench, pytest.raises(PrefectUnavailableError, match=said) as raised:
        bench.prefect.propose_state(RUN_ID, CRASHED)
    assert str(raised.value).startswith("Prefect is unavailable: POST")
    assert not isinstance(raised.value, PrefectOutcomeUnknownError)
    assert [30.0 <= pause <= 30.2 for pause in bench.slept] == [True] * waits
    assert len(bench.requests) == waits + 1


@given(
    asked=st.lists(st.tuples(st.sampled_from([429, 503]), st.integers(0, 40)), max_size=6),
    last=st.sampled_from([ACCEPTED, reset]),
)
@settings(max_examples=40, deadline=None)
def test_law_only_a_lost_answer_is_an_unknown_outcome(
    asked: list[tuple[int, int]], last: Step
) -> None:
    script = [*(answer(status, Retry_After=f"{seconds}") for status, seconds in asked), last]
    raised = None
    with Bench(script) as bench:
        try:
            bench.prefect.propose_state(RUN_ID, CRASHED)
        except PrefectUnavailableError as error:
            raised = type(error)
    for (_, seconds), pause in zip(asked, bench.slept, strict=False):
        assert seconds <= pause <= seconds + 5
    came_to_the_last = len(bench.requests) == len(script)
    outcome = None if last is ACCEPTED else PrefectOutcomeUnknownError
    assert raised is (outcome if came_to_the_last else PrefectUnavailableError)
    assert sum(bench.slept) < bench.seconds_left
    if not came_to_the_last:
        assert bench.left() < asked[len(bench.slept)][1] + 5.1, "there was time to wait"


def test_a_deadline_that_stands_still_ends_the_pauses_of_each_request() -> None:
    """An operator's requests have so many seconds each."""
    with Bench([answer(429)]) as bench:
        http = JsonHttp(bench.server.url, bench.credential, lambda: 20.0, sleep=bench.slept.append)
        with pytest.raises(PrefectUnavailableError, match="are left"):
            http.get("/flow_runs")
    assert 10.0 < sum(bench.slept) <= 20.0


EVENT = PrefectEvent(uuid4(), RUN_ID, "run", "e", AT, {})
DONE = answer(204)
REPEATABLE: dict[str, tuple[Callable[[Bench], object], Step]] = {
    "change": (lambda at: at.prefect.change_run(RUN_ID, RunChange(tags=("a",))), DONE),
    "labels": (lambda at: at.prefect.add_labels(RUN_ID, {"a": 1}), DONE),
    "log": (lambda at: at.prefect.write_log(LogLine(RUN_ID, AT, "hello")), DONE),
    "artifact": (lambda at: at.prefect.write_artifact(Artifact(RUN_ID, "k", "# hi", "d")), DONE),
    "event": (lambda at: at.prefect.emit_events([EVENT]), DONE),
    "filter": (lambda at: at.prefect.find_live_children([RUN_ID]), answer(200, [])),
    "work pool": (lambda at: PrefectWorkPools(at.http).change("p", {}), DONE),
    "spotctl": (lambda at: OperatorPrefect(at.http).delete_work_pool("p"), DONE),
}
SET_STATE = (lambda at: at.prefect.propose_state(RUN_ID, CRASHED), ACCEPTED)


@pytest.mark.parametrize(("write", "done"), REPEATABLE.values(), ids=REPEATABLE)
def test_every_other_kind_of_request_is_tried_again(
    write: Callable[[Bench], object], done: Step
) -> None:
    with Bench([answer(503), reset, done]) as bench:
        write(bench)
    assert len(bench.requests) == 3
    assert len(set(bench.requests)) == 1


@pytest.mark.parametrize(
    ("seconds", "least", "most"),
    [
        ("7", 7.0, 7.3),
        ("0007 ", 7.0, 7.3),
        ("a date", 30.0, 40.3),
        *((unreadable, 0.1, 0.2) for unreadable in ("soon", "", "-5", "-" + AGES, "nan", "0x1F")),
        ("Mon, 01 Jan 2001 00:00:00 GMT", 0.1, 0.2),
        ("Mon, 01 Jan 99999 00:00:00 GMT", 0.1, 0.2),
        (f"01 Jan {AGES[:99]} 00:00:00 GMT", 0.1, 0.2),
    ],
)
def test_retry_after_is_respected_in_seconds_and_as_a_date_and_ignored_when_unreadable(
    seconds: str, least: float, most: float
) -> None:
    if seconds == "a date":
        seconds = format_datetime(datetime.now(UTC) + timedelta(seconds=40), usegmt=True)
    with Bench([answer(429, Retry_After=seconds), RUN]) as bench:
        bench.prefect.read_run(RUN_ID)
    assert least <= bench.slept[0] <= most


@pytest.mark.parametrize(
    ("step", "seconds_left", "said", "requests"),
    [
        pytest.param(answer(503), 1.0, "503", (2, 6), id="tries"),
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
    never = threading.Event()
    with ScriptedServer([silence(never)]) as server:
        started = time.monotonic()
        ends = started + 0.4
        http = JsonHttp(server.url, lambda _fresh: None, lambda: ends - time.monotonic())
        with pytest.raises(PrefectUnavailableError, match="ReadTimeoutError"):
            http.get("/flow_runs")
        assert time.monotonic() - started < 10
        never.set()


BOMB = gzip.compress(b'"' + b"x" * 50_000_000 + b'"')
PATHS = {"gzip": BOMB, "deflate": b"x", "br": b"x"}


def listing(each: bytes) -> bytes:
    """As many of these as an answer may be long."""
    return b"[" + b",".join([each] * ((MOST_BYTES - 2) // (len(each) + 1))) + b"]"


def chunk_of_no_length(handler: BaseHTTPRequestHandler) -> None:
    """Python's own client reads a chunk of -1 bytes to the end of the connection."""
    handler.close_connection = True
    with suppress(OSError):
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n")
        for _ in range(1000):
            handler.wfile.write(b"x" * 100_000)


@pytest.mark.parametrize(
    "step",
    [
        *(
            pytest.param(answer_raw(body, Content_Encoding=coding), id=coding)
            for coding, body in PATHS.items()
        ),
        pytest.param(answer_raw(BOMB, Content_Encoding=" GZIP , identity"), id="GZIP"),
        pytest.param(answer_raw(b'"' + b"x" * MOST_BYTES + b'"'), id="too long"),
        pytest.param(answer_raw(b"[" + b"{}," * 2_000_000 + b"{}]"), id="two million objects"),
        pytest.param(answer_raw(b"[" + b"9e9," * 2_000_000 + b"0]"), id="two million numbers"),
        pytest.param(answer_raw(b"[" * 200_000), id="nested"),
        pytest.param(answer_raw(listing(b"[" * 400 + b"]" * 400)), id="many lists"),
        pytest.param(answer_raw(listing(b'{"":1}')), id="many objects"),
        pytest.param(answer_raw(listing(b'"ab"')), id="many texts"),
        pytest.param(chunk_of_no_length, id="a chunk of no length"),
        pytest.param(answer_raw(b'{"a":' * 100_000), id="nested objects"),
        pytest.param(answer_raw(b"[" + b"9" * 5000 + b"]"), id="5,000 digits"),
        pytest.param(answer_raw(b"[1e999]"), id="infinite"),
        pytest.param(answer_raw(b"[NaN]"), id="NaN"),
        pytest.param(answer_raw(b'["\\ud800"]'), id="half of a pair"),
    ],
)
def test_an_answer_out_of_bounds_is_asked_for_once_and_takes_no_memory(step: Step) -> None:
    with Bench([step]) as bench:
        tracemalloc.start()
        with pytest.raises(PrefectUnreadableError):
            bench.prefect.read_run(RUN_ID)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert len(bench.requests) == 1
    assert peak < 6 * MOST_BYTES


def test_a_proposed_state_answered_out_of_bounds_has_an_unknown_outcome() -> None:
    bench = Bench([answer_raw(b"[" * 200_000)])
    with bench, pytest.raises(PrefectOutcomeUnknownError):
        bench.prefect.propose_state(RUN_ID, CRASHED)


@pytest.mark.parametrize("part", [b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\n\r\n["], ids=repr)
def test_an_answer_that_drips_ends_with_the_deadline(part: bytes) -> None:
    def drips(handler: BaseHTTPRequestHandler) -> None:
        handler.close_connection = True
        with suppress(OSError):
            handler.wfile.write(part)
            for _ in range(100):
                handler.wfile.write(b"x" if part.endswith(b"\r\n") else b" ")
                time.sleep(0.05)

    started = time.monotonic()
    with ScriptedServer([drips]) as server:
        ends = started + 0.5
        http = JsonHttp(server.url, lambda _fresh: None, lambda: ends - time.monotonic())
        with pytest.raises(PrefectUnavailableError):
            http.get("/flow_runs")
    assert time.monotonic() - started < 4


def test_task_runs_that_call_their_own_flow_run_or_each_other_are_asked_for_once() -> None:
    """A cycle of three runs: each is asked about once."""
    ids = [str(RUN_ID), str(UUID(int=1)), str(UUID(int=2))]
    stand = [{"state": make_state(state_details={"child_flow_run_id": each})} for each in ids]
    calls = [[stand[(at + 1) % 3], stand[at]] for at in range(3)]
    with Bench([*(answer(200, called) for called in calls), answer(500)]) as bench:
        assert bench.prefect.read_task_runs(RUN_ID, AT, AT) == ()
    asked = [seen.body["flow_runs"]["id"]["any_"] for seen in bench.server.seen]
    assert asked == [[each] for each in ids]


def test_flows_that_call_flows_without_end_are_followed_fifty_deep() -> None:
    called = [make_state(state_details={"child_flow_run_id": str(UUID(int=n))}) for n in range(60)]
    with Bench([answer(200, [{"state": state}]) for state in called]) as bench:
        assert bench.prefect.read_task_runs(RUN_ID, AT, AT) == ()
    assert len(bench.requests) == MOST_DEPTHS


@pytest.mark.parametrize("lost", [reset, cut(b"{}")], ids=["reset", "cut"])
def test_a_page_is_asked_for_once_more_where_its_connection_was_dropped(lost: Step) -> None:
    query = RunQuery(("etl",), (StateType.RUNNING,), known_pool=True)
    with Bench([lost, answer(200, [make_answer()])]) as bench:
        assert len(bench.prefect.find_runs(query)) == 1
    for step, requests in ((lost, 2), (answer(500), 1), (answer(502), 1)):
        bench = Bench([step])
        with bench, pytest.raises(PrefectUnreadableError):
            bench.prefect.find_runs(query)
        assert len(bench.requests) == requests


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


MISSING = answer(403, {"detail": "Missing CSRF token."})
INVALID = answer(403, {"detail": "Invalid CSRF token or client identifier."})
OFF = answer(422, {"detail": "CSRF protection is disabled."})


def token(value: str) -> Step:
    return answer(200, {"client": "c", "token": value, "expiration": "2026-11-23T13:00:00Z"})


def csrf_of(bench: Bench) -> list[str | None]:
    """The token of each request, None for one without."""
    return [seen.headers.get("Prefect-Csrf-Token") for seen in bench.server.seen]


@pytest.mark.parametrize(
    ("write", "done"), [*REPEATABLE.values(), SET_STATE], ids=[*REPEATABLE, "set_state"]
)
def test_a_csrf_token_is_fetched_when_it_is_missed_and_kept_until_it_is_refused(
    write: Callable[[Bench], object], done: Step
) -> None:
    with Bench([MISSING, token("1"), done, done, INVALID, token("2"), done]) as bench:
        for _ in range(3):
            write(bench)
    assert csrf_of(bench) == [None, None, "1", "1", "1", None, "2"]
    [name] = {seen.headers.get("Prefect-Csrf-Client") for seen in bench.server.seen} - {None}
    fetched = [seen.path for seen in bench.server.seen if "csrf" in seen.path]
    assert fetched == [f"/api/csrf-token?client={name}"] * 2


@pytest.mark.parametrize(
    ("script", "said", "next_step", "requests"),
    [
        ([MISSING, token("1"), INVALID], "Invalid CSRF token", "CSRF protection", 3),
        ([MISSING, NOT_FOUND, MISSING], "Missing CSRF token", "CSRF protection", 3),
        ([MISSING, MISSING], "403 to GET /csrf-token", "CSRF protection", 2),
        ([MISSING, answer(200, ["?"]), MISSING], "Missing CSRF token", "CSRF protection", 3),
        ([answer(403, {"detail": "Forbidden"})], "Forbidden", "a service account's role", 1),
        ([MISSING, token("1"), answer(403)], "403", "a service account's role", 3),
        ([MISSING, reset], "unavailable", "if it passes", 1 + MOST_TRIES),
    ],
    ids=["persists", "no address", "for the token too", "no token", "other", "then other", "lost"],
)
def test_a_refusal_for_csrf_that_persists_names_it_and_any_other_the_credential(
    script: list[Step], said: str, next_step: str, requests: int
) -> None:
    """A token whose answer is lost leaves no outcome unknown: nothing was proposed."""
    bench = Bench(script)
    error = PrefectUnavailableError if reset in script else PrefectRefusedError
    with bench, pytest.raises(error, match=said) as raised:
        bench.prefect.propose_state(RUN_ID, CRASHED)
    assert not isinstance(raised.value, PrefectOutcomeUnknownError)
    assert next_step in raised.value.next_step
    assert len(bench.requests) == requests


def test_credential_and_csrf_token_may_both_be_renewed_for_one_request() -> None:
    """The second request fetches the token."""
    with Bench([INVALID, answer(401), token("1"), answer(401), ACCEPTED]) as bench:
        bench.prefect.propose_state(RUN_ID, CRASHED)
    assert csrf_of(bench) == [None, None, None, "1", "1"]
    stale, fresh = f"Bearer {KEY}", "Bearer pnu_fresh"
    sent = [seen.headers["Authorization"] for seen in bench.server.seen]
    assert sent == [stale, stale, fresh, stale, fresh]


def test_a_protection_that_is_switched_off_costs_one_more_request_and_then_none() -> None:
    with Bench([MISSING, token("1"), ACCEPTED, INVALID, OFF, ACCEPTED]) as bench:
        for _ in range(3):
            bench.prefect.propose_state(RUN_ID, CRASHED)
    assert csrf_of(bench) == [None, None, "1", "1", None, None, None]


def test_threads_and_later_invocations_share_one_token() -> None:
    """A second one would end the first: Prefect knows one per client."""
    current: list[str] = []

    def as_prefect(handler: BaseHTTPRequestHandler) -> None:
        if handler.path.startswith("/csrf-token"):
            current.append(str(len(current)))
            token(current[-1])(handler)
        else:
            sent = handler.headers.get("Prefect-Csrf-Token")
            step = MISSING if sent is None else ACCEPTED if sent == current[-1] else INVALID
            step(handler)

    with ScriptedServer([as_prefect]) as server, ThreadPoolExecutor(8) as threads:
        connections = Connections(server.url, 8)

        def invoke(_: int) -> object:
            http = JsonHttp(server.url, lambda _fresh: None, lambda: 30.0, connections=connections)
            return PrefectRest(http).propose_state(RUN_ID, CRASHED)

        assert len(list(threads.map(invoke, range(24)))) == 24
        current.append("of a server that was started anew")
        assert len(list(threads.map(invoke, range(24)))) == 24
    assert len([seen for seen in server.seen if seen.path.startswith("/csrf-token")]) == 2


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
