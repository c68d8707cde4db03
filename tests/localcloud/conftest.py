"""A supervisor and a Fargate with its cluster per test; one emulated AWS per module, for speed."""

import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from localcloud.aws import EmulatedAws
from localcloud.fargate import Fargate, Timings
from localcloud.processes import Supervisor
from tests.localcloud.cloud import Cloud
from tests.localcloud.stacks import StackUnderTest, empty_account


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    with Supervisor.open(tmp_path) as supervisor:
        yield supervisor


@pytest.fixture(scope="module")
def aws() -> Iterator[EmulatedAws]:
    with EmulatedAws() as aws:
        yield aws


@pytest.fixture
def cloud(supervisor: Supervisor, aws: EmulatedAws) -> Iterator[Cloud]:
    subnet = aws.client("ec2").describe_subnets()["Subnets"][0]["SubnetId"]
    cluster = f"spot-{uuid.uuid4().hex[:8]}"
    aws.client("ecs").create_cluster(clusterName=cluster)
    events: list[dict[str, Any]] = []
    fargate = Fargate(
        supervisor,
        aws,
        events.append,
        path_prefix=Path(sys.executable).parent,
        extra_environment={"FROM_THE_IMAGE": "yes"},
        timings=Timings(0.1, 0.1, 0.2, service_seconds=0.1),
    )
    with fargate:
        yield Cloud(aws, fargate, cluster, {"awsvpcConfiguration": {"subnets": [subnet]}}, events)
    assert fargate.errors == []


@pytest.fixture(scope="module")
def account(aws: EmulatedAws) -> Iterator[EmulatedAws]:
    """The emulated AWS with what is there before a stack."""
    empty_account(aws)
    yield aws
    assert aws.cloudformation.errors == []


@pytest.fixture
def stack(account: EmulatedAws) -> Iterator[StackUnderTest]:
    """A stack that is not created yet, and is deleted with the test."""
    stack = StackUnderTest(account)
    yield stack
    if stack.id and stack.status() != "DELETE_COMPLETE":
        assert stack.delete() == "DELETE_COMPLETE"
