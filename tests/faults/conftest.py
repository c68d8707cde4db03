"""One embedded cloud for all fault tests, its Lambdas behind fault proxies, stories under way."""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import httpx
import pytest

from localcloud.bootstrap import WORK_POOL
from localcloud.cloud import Options, embedded_cloud
from localcloud.prefect_api import PrefectApi
from tests.e2e.scenario import Stage
from tests.faults.ledger import FOLDER
from tests.faults.stories import STORIES
from tests.faults.world import Story, World

AUTH_STRING = "admin:only-for-these-tests"
OPTIONS = Options(
    auth_string=AUTH_STRING,
    worker_query_seconds=1,
    lambda_timeout_seconds=10,
    retry_scale=0.3,  # 18 and 36 s: a lease lives for the 10 s and 5 more
    faults=True,
)


class PatientPrefectApi(PrefectApi):
    """Asks again, after a moment, when SQLite is busy or an idle connection has just been closed.

    httpx and the server both give an idle connection 5 s, and a busy server is late in saying so.
    """

    def _send(self, method: str, path: str, body: object = None) -> Any:
        for _ in range(20):
            try:
                return super()._send(method, path, body)
            except httpx.HTTPStatusError as error:
                if error.response.status_code != httpx.codes.SERVICE_UNAVAILABLE:
                    raise
            except (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError):
                pass
            time.sleep(0.25)
        return super()._send(method, path, body)


def chosen_stories(items: list[pytest.Item]) -> list[Story]:
    parameters = [
        i.callspec.params
        for i in items
        if isinstance(i, pytest.Function) and hasattr(i, "callspec")
    ]
    chosen = {value for given in parameters for value in given.values()}
    return [story for story in STORIES if chosen.intersection((story, *story.acts))]


@pytest.fixture(scope="session")
def world(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    """Stories are begun at once; those of which no test was chosen are not played."""
    stories = chosen_stories(request.session.items)
    with embedded_cloud(OPTIONS, tell=print) as built:
        cloud = replace(built, prefect=PatientPrefectApi(built.server.api_url, AUTH_STRING))
        output = cloud.run_python("-m", "tests.e2e.deploy_flows", WORK_POOL, cloud.account.bucket)
        deployments = json.loads(output.strip().splitlines()[-1])
        assert cloud.prefect_faults
        assert cloud.aws_faults
        stage = Stage(cloud, deployments, tmp_path_factory.mktemp("notes"))
        world = World(stage, cloud.prefect_faults, cloud.aws_faults)
        world.rule()
        with ThreadPoolExecutor(max(1, len(stories))) as pool:
            world.begin(stories, pool)
            yield world
        world.write(FOLDER.parent / "faults-world.json")
        assert cloud.fargate.errors == []
        assert world.prefect.errors == []
        assert world.aws.errors == []
