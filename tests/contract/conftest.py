"""The two twins, four real servers, and one that looks like Prefect Cloud.

The twins are asked directly; the servers are newest and oldest Prefect, on SQLite and PostgreSQL,
asked by our REST client. Those on PostgreSQL have CSRF protection; the newest is behind an access
proxy that a private authority certified.

The last is the newest server behind a proxy: it serves no version, no greeting and no CSRF token,
as Cloud, and words every 404 in its own way.

One server at a time: pytest runs all tests of one backend before it starts the next.
`--servers=newest` asks the twins and the newest Prefect on SQLite, `--servers=others` all others.
"""

import base64
import re
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from chalicelib.adapters.credentials import headers_of, trust_of
from chalicelib.adapters.prefect_api import PrefectRest
from chalicelib.adapters.prefect_client import Connections, JsonHttp
from chalicelib.adapters.prefect_work_pools import PrefectWorkPools
from chalicelib.errors import PrefectRefusedError
from localcloud.access_proxy import AccessProxy
from localcloud.fault_proxy import Answer, FaultProxy, ProxiedRequest
from localcloud.postgres import Postgres
from localcloud.prefect_server import PrefectServer
from localcloud.processes import Supervisor
from tests.contract.real import RealPrefect
from tests.contract.stage import Stage
from tests.twin.prefect import InMemoryPrefect
from tests.twin.work_pools import InMemoryWorkPools

OLDEST_PYTHON = Path(__file__).parents[2] / ".venvs" / "prefect-oldest" / "bin" / "python"
AUTH_STRING = "admin:pass-word"
SECONDS_LEFT = 60.0

SERVERS = {
    "newest": ("twin", "twin-oldest", "newest-sqlite"),
    "others": ("cloud-sqlite", "newest-postgres", "oldest-sqlite", "oldest-postgres"),
}
"""What `--servers` chooses: what `make test` asks, and what only `make test-all` asks."""

ONLY = {"crashes": "sqlite", "warned": "cloud-sqlite", "warned_of_old": "oldest-sqlite"}
"""Fixtures by which a test asks only backends whose name has that in it."""


class CloudLike(FaultProxy):
    """Passes on what Prefect Cloud serves as well, and words its 404s otherwise."""

    def ask_upstream(self, request: ProxiedRequest) -> Answer:
        is_served = not re.match(r"/api/(admin|hello|csrf-token|version)\b", request.path)
        answer = super().ask_upstream(request) if is_served else Answer(404)
        missing = b'{"error": {"code": "resource_missing"}}'
        return Answer(404, body=missing) if answer.status == 404 else answer


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--servers", choices=("all", *SERVERS), default="all")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "stage" in metafunc.fixturenames:
        chosen = metafunc.config.getoption("servers", "all")
        names = SERVERS["newest"] + SERVERS["others"] if chosen == "all" else SERVERS[chosen]
        metafunc.parametrize("stage", names, indirect=True, scope="session")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items[:] = filter(has_its_worker, items)


def has_its_worker(item: pytest.Item) -> bool:
    """A real worker is made to fail once per Prefect version: no twin has one. So are engines."""
    if not isinstance(item, pytest.Function):
        return True
    needed = [backend for name, backend in ONLY.items() if name in item.fixturenames]
    return all(backend in str(item.callspec.params["stage"]) for backend in needed)


@pytest.fixture(scope="session")
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    name: str = request.param
    is_oldest = "oldest" in name
    if name.startswith("twin"):
        yield twin_stage(is_oldest=is_oldest)
        return
    if is_oldest and not OLDEST_PYTHON.exists():
        pytest.fail(f"{OLDEST_PYTHON} is not there: `make test-all` installs it")
    auth_string = None if name == "newest-sqlite" else AUTH_STRING
    with ExitStack() as stack:
        supervisor = stack.enter_context(Supervisor.open())
        database, csrf = "sqlite", name.endswith("postgres")
        if csrf:
            folder = supervisor.folder / "postgres"
            postgres = stack.enter_context(Postgres(folder, supervisor.spawn))
            database = postgres.create_database("prefect")
        server = stack.enter_context(
            PrefectServer(
                supervisor.folder / name,
                supervisor.spawn,
                python=OLDEST_PYTHON if is_oldest else None,
                database=database,
                auth_string=auth_string,
                csrf=csrf,
            )
        )
        assert server.version.startswith("3.4.") == is_oldest
        direct = server.api_url
        cloud = stack.enter_context(CloudLike(direct)) if name.startswith("cloud") else None
        asked = cloud.url + urlsplit(direct).path if cloud else direct
        shared = Connections(asked)
        if name == "newest-postgres":
            proxy = stack.enter_context(AccessProxy(server.ui_url, supervisor.folder / "proxy"))
            asked, headers = f"{proxy.url}/api", headers_of(proxy.headers)
            trusted = trust_of(proxy.certificates)
            shared = Connections(asked, headers=lambda _: headers, trust=lambda _: trusted)
        yield real_stage(asked, direct, auth_string, shared, is_oldest=is_oldest, csrf=csrf)


def twin_stage(*, is_oldest: bool) -> Stage:
    twin, unauthorized = (
        InMemoryPrefect(lambda: datetime.now(UTC), oldest=is_oldest) for _ in range(2)
    )
    unauthorized.failure = PrefectRefusedError("401", next_step="none")
    pools = InMemoryWorkPools()
    return Stage(twin, twin, is_oldest, True, unauthorized, pools, pools)


def real_stage(
    api_url: str,
    direct: str,
    auth_string: str | None,
    shared: Connections,
    *,
    is_oldest: bool,
    csrf: bool,
) -> Stage:
    """The product's own REST client on one side, plain requests on the other."""

    def http(pair: str | None) -> JsonHttp:
        header = None if pair is None else f"Basic {base64.b64encode(pair.encode()).decode()}"
        return JsonHttp(api_url, lambda _fresh: header, lambda: SECONDS_LEFT, connections=shared)

    controls = RealPrefect(direct, auth_string, csrf=csrf)
    prefect, pools = PrefectRest(http(auth_string)), PrefectWorkPools(http(auth_string))
    unauthorized, protected = PrefectRest(http("admin:wrong")), shared if csrf else None
    is_shut = auth_string is not None
    return Stage(prefect, controls, is_oldest, is_shut, unauthorized, pools, controls, protected)
