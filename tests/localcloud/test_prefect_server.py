"""How the embedded Prefect server and PostgreSQL fail and end; `tests/contract` uses them."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil
import pytest
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

from localcloud.cloud import new_auth_string
from localcloud.postgres import Postgres
from localcloud.prefect_server import PrefectServer
from localcloud.processes import Supervisor
from tests.contract.conftest import OLDEST_PYTHON
from tests.unit.scripted_server import ScriptedServer, answer

STRANGER = "daemon"
"""A user of every system, as whom nothing of ours runs."""


def assert_closed_to_others(folder: Path) -> None:
    """By its mode; and where we may try, another user finds nothing in it."""
    assert folder.stat().st_mode & 0o777 == 0o700
    if os.geteuid() == 0:
        for path in (folder, *folder.rglob("*")):
            tried = subprocess.run(["ls", path], user=STRANGER, capture_output=True, check=False)
            assert (tried.returncode != 0, tried.stdout) == (True, b""), tried
            if len(path.parts) > len(folder.parts) + 1:
                break  # one of each depth: some 1000 files are PostgreSQL's


def test_a_prefect_server_that_ends_shows_its_log_and_nothing_of_the_hosts_prefect_reached_it(
    supervisor: Supervisor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_KEY", "the-host's-own")
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nenv\nexit 1\n")
    python.chmod(0o755)
    folder = supervisor.folder / "prefect"
    server = PrefectServer(folder, supervisor.spawn, python=python, auth_string="a:b")
    with pytest.raises(RuntimeError, match="PREFECT_SERVER_API_AUTH_STRING=a:b"), server:
        pass
    with pytest.raises(RuntimeError, match="has ended, with exit code 1"):
        server.check()
    environment = server.log.read_text()
    assert "the-host's-own" not in environment
    assert f"PREFECT_HOME={folder}" in environment


@pytest.mark.parametrize("what", ["Prefect", "PostgreSQL"])
def test_a_stranger_who_takes_the_port_first_is_neither_asked_nor_believed(
    monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """The port is in the command line, for all to read, seconds before the server listens."""

    def too_late(_: list[str], **options: Any) -> subprocess.Popen[bytes]:
        return supervisor.spawn(["/bin/sleep", "2"], **options)

    with Supervisor.open() as supervisor, ScriptedServer([answer(body="6.6.6")]) as stranger:
        port = urlsplit(stranger.url).port
        for module in ("prefect_server", "postgres"):
            monkeypatch.setattr(f"localcloud.{module}.free_port", lambda: port)
        monkeypatch.setattr(Postgres, "_is_ready", lambda _: True)
        ours = (
            PrefectServer(supervisor.folder / "prefect", too_late, auth_string=new_auth_string())
            if what == "Prefect"
            else Postgres(supervisor.folder / "postgres", too_late)
        )
        with pytest.raises(RuntimeError, match="does not start"), ours:
            pass
        assert stranger.seen == []


def test_a_postgres_leaves_no_process_and_no_file() -> None:
    with Supervisor.open() as supervisor:
        with Postgres(supervisor.folder / "postgres", supervisor.spawn) as postgres:
            folder = postgres.folder
            assert postgres.create_database("prefect").endswith(f":{postgres.port}/prefect")
            found = psutil.process_iter(["cmdline"])
            servers = [x for x in found if str(folder) in " ".join(x.info["cmdline"] or ())]
            assert servers
            assert all(x.uids().real != 0 for x in servers if os.geteuid() == 0)
            assert_closed_to_others(supervisor.folder)
            assert_closed_to_others(folder)
        assert not folder.exists()
        assert not any(x.is_running() for x in servers)


@pytest.fixture(scope="module", params=[None, OLDEST_PYTHON], ids=["newest", "oldest"])
def server(request: pytest.FixtureRequest) -> Iterator[PrefectServer]:
    with (
        Supervisor.open() as supervisor,
        PrefectServer(
            supervisor.folder / "prefect",
            supervisor.spawn,
            python=request.param,
            auth_string=new_auth_string(),
        ) as server,
    ):
        yield server


@pytest.mark.parametrize("path", ["/flow_runs/filter", "/admin/version", "/health"])
def test_of_all_pages_only_its_own_ui_may_read_what_prefect_answers(
    server: PrefectServer, path: str
) -> None:
    port = httpx.URL(server.ui_url).port
    asked = {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type",
    }

    def allowed(origin: str) -> set[str]:
        url, headers = f"{server.api_url}{path}", {"Origin": origin}
        answers = (
            httpx.options(url, headers={**headers, **asked}, trust_env=False),
            httpx.get(url, headers=headers, trust_env=False),
        )
        return {answer.headers.get("Access-Control-Allow-Origin", "") for answer in answers}

    assert allowed(server.ui_url) == {server.ui_url}
    foreign = ("http://evil.example", "null", "http://127.0.0.1:1", "https://127.0.0.1")
    near = (
        f"{server.ui_url}.evil.example",
        f"http://evil.example:{port}",
        f"https://127.0.0.1:{port}",
    )
    assert {origin: allowed(origin) for origin in (*foreign, *near)} == {
        origin: {""} for origin in (*foreign, *near)
    }


@pytest.mark.parametrize("auth", [None, ("admin", "only-on-this-machine"), ("admin", "")])
def test_without_the_password_of_this_run_nothing_is_read_or_sent(
    server: PrefectServer, auth: tuple[str, str] | None
) -> None:
    for method, path in (("GET", "/admin/settings"), ("POST", "/flow_runs/filter")):
        answer = httpx.request(method, f"{server.api_url}{path}", auth=auth, trust_env=False)
        assert answer.status_code == 401, path
    socket = f"{server.api_url.replace('http', 'ws', 1)}/events/out"
    with pytest.raises(WebSocketException), connect(socket, proxy=None) as events:
        events.recv(timeout=30)
