"""The work pools' adapter before a server by script: addresses, bodies, and useless answers."""

import pytest

from chalicelib.adapters.http import JsonHttp
from chalicelib.adapters.work_pools import PrefectWorkPools
from chalicelib.errors import PrefectConflictError, PrefectUnavailableError
from tests.unit.scripted_server import ScriptedServer, answer

TEMPLATE: dict[str, object] = {"job_configuration": {}, "variables": {}}


def pools(server: ScriptedServer) -> PrefectWorkPools:
    http = JsonHttp(f"{server.url}/api", lambda _fresh: None, lambda: 5.0, sleep=lambda _: None)
    return PrefectWorkPools(http)


def test_a_pool_is_sent_as_prefect_wants_it() -> None:
    with ScriptedServer([answer(201, {}), answer(204)]) as server:
        pools(server).create("a pool/1", TEMPLATE)
        pools(server).change("a pool/1", TEMPLATE)
        create, change = server.seen
    created = {"name": "a pool/1", "type": "ecs", "base_job_template": TEMPLATE}
    assert (create.method, create.path, create.body) == ("POST", "/api/work_pools/", created)
    assert (change.method, change.path) == ("PATCH", "/api/work_pools/a%20pool%2F1")
    assert change.body == {"base_job_template": TEMPLATE}


def test_a_conflict_says_what_prefect_said() -> None:
    detail = {"detail": "A work pool with this name already exists."}
    refused = pytest.raises(PrefectConflictError, match="already exists")
    with ScriptedServer([answer(409, detail)]) as server, refused:
        pools(server).create("etl", TEMPLATE)


@pytest.mark.parametrize(
    "body",
    [
        [],
        {"name": "etl"},
        {"type": None, "base_job_template": TEMPLATE},
        {"type": "ecs"},
        {"type": "ecs", "base_job_template": None},
    ],
)
def test_an_answer_that_is_no_pool_is_no_empty_template(body: object) -> None:
    refused = pytest.raises(PrefectUnavailableError, match="no readable work pool")
    with ScriptedServer([answer(200, body)]) as server, refused:
        pools(server).read("etl")
