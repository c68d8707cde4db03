"""The fault proxy does what its plan says; `tests/system` shows that it passes on all else."""

import http.client
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from urllib.parse import urlsplit

import pytest

from localcloud.fault_proxy import (
    Answer,
    Cut,
    Exchange,
    Fault,
    FaultProxy,
    Hang,
    LoseAnswer,
    Plan,
    ProxiedRequest,
    Reset,
    always,
    either,
    first,
    fraction,
    matching,
    no_fault,
    nth,
)
from tests.localcloud.cloud import wait_until
from tests.unit.scripted_server import ScriptedServer, answer

SORRY = Answer(503)


@pytest.fixture
def upstream() -> Iterator[ScriptedServer]:
    with ScriptedServer([answer(201, {"said": "hello"}, X_Served_By="me")]) as server:
        yield server


@pytest.fixture
def proxy(upstream: ScriptedServer) -> Iterator[FaultProxy]:
    with FaultProxy(upstream.url) as proxy:
        yield proxy
        assert proxy.errors == []


def ask(
    proxy: FaultProxy, path: str = "/x", target: str = ""
) -> tuple[http.client.HTTPResponse, bytes]:
    connection = http.client.HTTPConnection(urlsplit(proxy.url).netloc, timeout=30)
    with closing(connection):
        connection.request("POST", path, b'{"n": 1}', {"X-Amz-Target": target})
        response = connection.getresponse()
        return response, response.read()


def faults_of(plan: Plan, paths: str) -> list[Fault | None]:
    return [plan(ProxiedRequest("GET", path, {}, b"")) for path in paths]


def test_an_answer_comes_in_place_of_the_upstreams_and_every_request_is_noted(
    proxy: FaultProxy, upstream: ScriptedServer
) -> None:
    busy = Answer(429, {"Retry-After": "2"}, b"slow down")
    proxy.plan = matching(r"GetItem\n.*\"n\": 1", always(busy))
    ask(proxy, "/good")
    response, body = ask(proxy, "/bad", target="DynamoDB_1.GetItem")
    assert (response.status, response.headers["Retry-After"], body) == (429, "2", b"slow down")
    assert [seen.path for seen in upstream.seen] == ["/good"]
    assert proxy.exchanges == [
        Exchange("POST", "/good", "", None, 201),
        Exchange("POST", "/bad", "DynamoDB_1.GetItem", busy, 429),
    ]


@pytest.mark.parametrize(
    ("fault", "seen_by_client", "arrived"),
    [
        (Hang(0.5), http.client.RemoteDisconnected, 0),
        (Reset(), ConnectionResetError, 0),
        (LoseAnswer(), ConnectionResetError, 1),
    ],
    ids=["hang", "reset", "lost answer"],
)
def test_without_an_answer_the_connection_ends_whether_the_request_took_effect_or_not(
    proxy: FaultProxy,
    upstream: ScriptedServer,
    fault: Fault,
    seen_by_client: type[Exception],
    arrived: int,
) -> None:
    proxy.plan = always(fault)
    began = time.monotonic()
    with pytest.raises(seen_by_client):
        ask(proxy)
    assert time.monotonic() - began >= (fault.seconds if isinstance(fault, Hang) else 0)
    assert len(upstream.seen) == arrived
    assert proxy.exchanges[0].status is None


@pytest.mark.parametrize("length", [5, 1000])
def test_a_cut_answer_promises_more_than_comes(
    proxy: FaultProxy, upstream: ScriptedServer, length: int
) -> None:
    proxy.plan = always(Cut(length))
    with pytest.raises(http.client.IncompleteRead) as caught:
        ask(proxy)
    assert caught.value.partial == b'{"said": "hello"}'[:length]
    assert len(upstream.seen) == 1


def test_an_upstream_that_is_gone_is_no_planned_fault() -> None:
    with ScriptedServer([answer()]) as gone:
        url = gone.url
    with FaultProxy(url) as proxy:
        assert ask(proxy)[0].status == 502
        assert len(proxy.errors) == 1


def test_closing_ends_what_hangs(upstream: ScriptedServer) -> None:
    hanging = FaultProxy(upstream.url)
    hanging.plan = always(Hang(3600))
    with ThreadPoolExecutor(1) as pool:
        with hanging:
            asked = pool.submit(ask, hanging)
            wait_until(lambda: hanging.exchanges)
        with pytest.raises(http.client.RemoteDisconnected):
            asked.result(5)


@pytest.mark.parametrize(
    ("plan", "paths", "faults"),
    [
        (no_fault, "a", [None]),
        (first(2, SORRY), "aaa", [SORRY, SORRY, None]),
        (matching("GET b", nth(2, SORRY)), "ababb", [None, None, None, SORRY, None]),
        (either(nth(1, SORRY), nth(1, Reset()), nth(2, Reset())), "aa", [SORRY, Reset()]),
    ],
    ids=["none", "first", "only what matches is counted", "of several all are asked"],
)
def test_a_plan_chooses_by_counting(plan: Plan, paths: str, faults: list[Fault | None]) -> None:
    assert faults_of(plan, paths) == faults


def test_a_fraction_depends_on_the_seed_alone() -> None:
    once, again, other = (faults_of(fraction(seed, 0.2, SORRY), "a" * 1000) for seed in (7, 7, 8))
    assert once == again != other
    assert 150 < once.count(SORRY) < 250
