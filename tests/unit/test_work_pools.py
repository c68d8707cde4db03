"""The work pools' adapter before useless answers; the contract has the useful ones."""

import pytest

from chalicelib.adapters.prefect_api import PrefectWorkPools
from chalicelib.adapters.prefect_client import JsonHttp
from chalicelib.errors import PrefectUnavailableError
from tests.unit.scripted_server import ScriptedServer, answer

TEMPLATE: dict[str, object] = {"job_configuration": {}, "variables": {}}


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
    refused = pytest.raises(PrefectUnavailableError, match="of a work pool")
    with ScriptedServer([answer(200, body)]) as server, refused:
        http = JsonHttp(f"{server.url}/api", lambda _fresh: None, lambda: 5.0)
        PrefectWorkPools(http).read("etl")
