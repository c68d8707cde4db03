"""The two twins, and four real servers.

The twins are asked directly; the servers are newest and oldest Prefect, on SQLite and PostgreSQL,
asked by our REST client.

One server at a time: pytest runs all tests of one backend before it starts the next.
`--servers=newest` asks the twins and the newest Prefect on SQLite, `--servers=others` all others.
"""

import base64
import os
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from chalicelib.adapters.prefect_api import PrefectRest
from chalicelib.adapters.prefect_client import JsonHttp
from chalicelib.adapters.work_pools import PrefectWorkPools
from chalicelib.errors import PrefectRefusedError
from localcloud.postgres import Postgres
from localcloud.prefect_server import PrefectServer
from localcloud.processes import Supervisor
from tests.contract.stage import Stage
from tests.twin.prefect import InMemoryPrefect
from tests.twin.work_pools import InMemoryWorkPools

if TYPE_CHECKING:
    from tests.contract.real import RealPrefect

OLDEST_PYTHON = Path(__file__).parents[2] / ".venvs" / "prefect-oldest" / "bin" / "python"
AUTH_STRING = "admin:pass-word"
SECONDS_LEFT = 60.0

SERVERS = {
    "newest": ("twin", "twin-oldest", "newest-sqlite"),
    "others": ("newest-postgres", "oldest-sqlite", "oldest-postgres"),
}
"""What `--servers` chooses: what `make test` asks, and what only `make test-all` asks."""

OpenStage = Callable[[], Stage]


@pytest.fixture(scope="session")
def supervisor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Supervisor]:
    with pytest.MonkeyPatch.context() as environment, Supervisor.open() as supervisor:
        for name in [name for name in os.environ if name.startswith("PREFECT")]:
            environment.delenv(name)  # Prefect's own client reads them as well
        environment.setenv("PREFECT_HOME", str(tmp_path_factory.mktemp("prefect-home")))
        environment.setenv("DO_NOT_TRACK", "1")
        yield supervisor


@pytest.fixture(scope="session")
def postgres(supervisor: Supervisor) -> Iterator[Postgres]:
    with Postgres(supervisor.folder / "postgres", supervisor.spawn) as postgres:
        yield postgres


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--servers", choices=("all", *SERVERS), default="all")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "open_stage" in metafunc.fixturenames:
        chosen = metafunc.config.getoption("servers", "all")
        names = SERVERS["newest"] + SERVERS["others"] if chosen == "all" else SERVERS[chosen]
        metafunc.parametrize("open_stage", names, indirect=True, scope="session")


@pytest.fixture(scope="session")
def open_stage(request: pytest.FixtureRequest) -> Iterator[OpenStage]:
    name: str = request.param
    is_oldest = "oldest" in name
    if name.startswith("twin"):
        yield lambda: _twin_stage(is_oldest=is_oldest)
        return
    if is_oldest and not OLDEST_PYTHON.exists():
        pytest.fail(f"{OLDEST_PYTHON} is not there: `make test-all` installs it")
    supervisor: Supervisor = request.getfixturevalue("supervisor")
    database = "sqlite"
    if name.endswith("postgres"):
        postgres: Postgres = request.getfixturevalue("postgres")
        database = postgres.create_database(name.replace("-", "_"))
    auth_string = None if name == "newest-sqlite" else AUTH_STRING
    with PrefectServer(
        supervisor.folder / name,
        supervisor.spawn,
        python=OLDEST_PYTHON if is_oldest else None,
        database=database,
        auth_string=auth_string,
    ) as server:
        assert server.version.startswith("3.4.") == is_oldest
        with closing(_real_prefect(server, auth_string)) as controls:
            stage = _real_stage(server.api_url, auth_string, controls, is_oldest=is_oldest)
            yield lambda: stage


@pytest.fixture
def stage(open_stage: OpenStage) -> Stage:
    return open_stage()


def _twin_stage(*, is_oldest: bool) -> Stage:
    twin = InMemoryPrefect(lambda: datetime.now(UTC), oldest=is_oldest)
    shut = InMemoryPrefect(lambda: datetime.now(UTC), oldest=is_oldest)
    shut.failure = PrefectRefusedError("401", next_step="none")
    pools = InMemoryWorkPools()
    return Stage(
        twin,
        twin,
        is_oldest,
        asks_for_credentials=True,
        stranger=lambda: shut,
        work_pools=pools,
        pool_controls=pools,
    )


def _real_prefect(server: PrefectServer, auth_string: str | None) -> "RealPrefect":
    from tests.contract.real import RealPrefect  # late: see its docstring

    return RealPrefect(server.api_url, auth_string)


def _real_stage(
    api_url: str, auth_string: str | None, controls: "RealPrefect", *, is_oldest: bool
) -> Stage:
    """The product's own REST client on one side, hands that do not need it on the other."""

    def access(
        pair: str | None,
    ) -> tuple[str, Callable[[bool], str | None], Callable[[], float]]:
        header = None if pair is None else f"Basic {base64.b64encode(pair.encode()).decode()}"
        return api_url, lambda _fresh: header, lambda: SECONDS_LEFT

    return Stage(
        prefect=PrefectRest(*access(auth_string)),
        controls=controls,
        is_oldest=is_oldest,
        asks_for_credentials=auth_string is not None,
        stranger=lambda: PrefectRest(*access("admin:wrong")),
        work_pools=PrefectWorkPools(JsonHttp(*access(auth_string))),
        pool_controls=controls,
    )
