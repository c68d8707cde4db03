"""What the Prefect server and the PostgreSQL of the embedded cloud do when they fail or end.

That they work is what the contract suite shows.
"""

import os
import stat
from pathlib import Path

import psutil
import pytest

from localcloud.postgres import Postgres
from localcloud.prefect_server import PrefectServer
from localcloud.processes import Household


def make_python(folder: Path, script: str) -> Path:
    """Something that is started in place of a Python."""
    program = folder / "python"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return program


def test_a_prefect_server_that_ends_shows_the_end_of_its_log(
    household: Household, tmp_path: Path
) -> None:
    python = make_python(tmp_path, "echo cannot import fastapi; exit 1")
    server = PrefectServer(household.folder / "prefect", household.spawn, python=python)
    with pytest.raises(RuntimeError, match="cannot import fastapi"), server:
        pass


def test_nothing_of_the_hosts_prefect_reaches_the_server(
    household: Household, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_KEY", "the-host's-own")
    python = make_python(tmp_path, "env; exit 1")
    folder = household.folder / "prefect"
    server = PrefectServer(folder, household.spawn, python=python, auth_string="a:b")
    with pytest.raises(RuntimeError), server:
        pass
    environment = server.log.read_text()
    assert "the-host's-own" not in environment
    assert "PREFECT_SERVER_API_AUTH_STRING=a:b" in environment
    assert f"PREFECT_HOME={folder}" in environment


def test_a_postgres_leaves_no_process_and_no_file() -> None:
    with Household.open() as household:
        folder = household.folder / "postgres"
        with Postgres(folder, household.spawn) as postgres:
            assert postgres.create_database("prefect").endswith(f":{postgres.port}/prefect")
            servers = [x for x in psutil.process_iter() if str(folder) in " ".join(_command(x))]
            assert servers
            assert all(x.uids().real != 0 for x in servers if os.geteuid() == 0)
        assert not folder.exists()
        assert not any(x.is_running() for x in servers)


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []
