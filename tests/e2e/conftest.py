"""One embedded cloud for all end-to-end tests, behind basic auth, with the test flows deployed."""

import json
from collections.abc import Iterator

import pytest

from localcloud.bootstrap import WORK_POOL
from localcloud.cloud import Options, embedded_cloud
from localcloud.events import deliver_once
from tests.e2e.scenario import Stage

AUTH_STRING = "admin:only-for-these-tests"


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    options = Options(auth_string=AUTH_STRING, settings={"SWEEP_GRACE_SECONDS": "5"})
    with embedded_cloud(options, tell=print) as cloud:
        output = cloud.run_python("-m", "tests.e2e.deploy_flows", WORK_POOL, cloud.account.bucket)
        deployments = json.loads(output.strip().splitlines()[-1])
        yield Stage(cloud, deployments, tmp_path_factory.mktemp("notes"))
        assert cloud.fargate.errors == []


@pytest.fixture(autouse=True)
def well_behaved_again(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "stage" in request.fixturenames:
        request.getfixturevalue("stage").cloud.router.mischief = deliver_once
