"""How the embedded Prefect server and PostgreSQL fail and end; `tests/contract` uses them."""

import os
from pathlib import Path

import psutil
import pytest

from localcloud.postgres import Postgres
from localcloud.prefect_server import PrefectServer
from localcloud.processes import Supervisor


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
    environment = server.log.read_text()
    assert "the-host's-own" not in environment
    assert f"PREFECT_HOME={folder}" in environment


def test_a_postgres_leaves_no_process_and_no_file() -> None:
    with Supervisor.open() as supervisor:
        folder = supervisor.folder / "postgres"
        with Postgres(folder, supervisor.spawn) as postgres:
            assert postgres.create_database("prefect").endswith(f":{postgres.port}/prefect")
            found = psutil.process_iter(["cmdline"])
            servers = [x for x in found if str(folder) in " ".join(x.info["cmdline"] or ())]
            assert servers
            assert all(x.uids().real != 0 for x in servers if os.geteuid() == 0)
        assert not folder.exists()
        assert not any(x.is_running() for x in servers)
