"""The zip that `chalice deploy` made: small, complete, with its bytecode, and each function starts.

What has to be in it is read from the import graph, in `tests/unit/test_zip_contents.py`.
"""

import io
import zipfile
from collections.abc import Callable, Iterator
from importlib.util import source_from_cache, source_hash
from pathlib import PurePosixPath
from typing import Any

import httpx
import pytest

from localcloud.cloud import REACT
from localcloud.deployment import PROJECT
from tests.e2e.scenario import Stage
from tests.make import make_event

LARGEST_BYTES = 2_000_000
OURS = sorted(
    path.relative_to(PROJECT)
    for folder in ("chalicelib", "infra")
    for path in (PROJECT / folder).rglob("*")
    if path.suffix in (".py", ".json")
)
ABOUT_NO_RUN = make_event(
    {
        "taskArn": "arn:aws:ecs:us-east-1:123456789012:task/prefect-spot-dev/0123456789abcdef",
        "clusterArn": "arn:aws:ecs:us-east-1:123456789012:cluster/prefect-spot-dev",
        "lastStatus": "STOPPED",
    }
)
"""An interruption that is followed as far as Prefect, which knows no such run."""

Scratch = Callable[..., str]


@pytest.fixture
def zipped(stage: Stage) -> bytes:
    code = stage.cloud.aws.lambdas.get_function(REACT).code_bytes
    assert isinstance(code, bytes)
    return code


@pytest.fixture
def own_pool(stage: Stage) -> Iterator[str]:
    """A work pool without runs, so that no function of this file touches another test's runs."""
    environment = stage.cloud.environment
    user, _, password = environment["PREFECT_API_AUTH_STRING"].partition(":")
    url = environment["PREFECT_API_URL"]
    with httpx.Client(base_url=url, auth=(user, password), trust_env=False) as prefect:
        pool = {"name": "of-the-zip", "type": "ecs"}
        prefect.post("/work_pools/", json=pool).raise_for_status()
        yield pool["name"]
        prefect.delete(f"/work_pools/{pool['name']}").raise_for_status()


@pytest.fixture
def scratch(stage: Stage, zipped: bytes, own_pool: str) -> Iterator[Scratch]:
    """Create a function of the deployed zip and settings: (handler, settings changed) to its name.

    The deployed functions stay as they are.
    """
    functions = stage.cloud.aws.client("lambda")
    config = functions.get_function_configuration(FunctionName=REACT)
    variables = {**config["Environment"]["Variables"], "WORK_POOL": own_pool}
    names: list[str] = []

    def create(handler: str, **settings: str) -> str:
        names.append(f"scratch-{len(names)}")
        functions.create_function(
            FunctionName=names[-1],
            Runtime=config["Runtime"],
            Role=config["Role"],
            Handler=f"app.{handler}",
            Timeout=config["Timeout"],
            Environment={"Variables": {**variables, **settings}},
            Code={"ZipFile": zipped},
        )
        return names[-1]

    yield create
    for name in names:
        functions.delete_function(FunctionName=name)


def test_the_zip_is_small(zipped: bytes) -> None:
    assert len(zipped) <= LARGEST_BYTES


def test_the_zip_holds_every_file_of_ours_and_no_workshop(zipped: bytes) -> None:
    with zipfile.ZipFile(io.BytesIO(zipped)) as deployed:
        names = {PurePosixPath(name) for name in deployed.namelist()}
    ours = {name for name in names if name.parts[0] in ("chalicelib", "infra")}
    assert {n for n in ours if n.suffix != ".pyc"} == {PurePosixPath(path) for path in OURS}
    tops = {name.parts[0] for name in names}
    assert not tops & {
        "localcloud",
        "lab",
        "spotctl",
        "tests",
        "prefect",
        "boto3",
        "moto",
        "requirements-dev.txt",
    }


def test_its_bytecode_is_of_its_sources(zipped: bytes) -> None:
    """Else Lambda would compile them in each cold start: PEP 552, by hashes that are checked."""
    with zipfile.ZipFile(io.BytesIO(zipped)) as deployed:
        names = deployed.namelist()
        assert len(names) == len(set(names))
        made = {source_from_cache(name): deployed.read(name) for name in names if ".pyc" in name}
        for source, bytecode in made.items():
            assert bytecode[4:8] == (0b11).to_bytes(4, "little"), source
            assert bytecode[8:16] == source_hash(deployed.read(source)), source
    assert {str(path) for path in OURS if path.suffix == ".py"} < set(made)
    assert {"app.py", "chalice/app.py", "aws_lambda_powertools/logging/logger.py"} < set(made)


@pytest.mark.parametrize(
    ("handler", "event", "answer"),
    [
        ("react", ABOUT_NO_RUN, {"decision": "ignore"}),
        ("meter", ABOUT_NO_RUN, {}),
        ("sweep", {}, {}),
        ("provision", {"dry_run": True}, {"dry_run": True}),
    ],
)
def test_each_function_starts_cold_and_answers(
    stage: Stage, scratch: Scratch, handler: str, event: Any, answer: Any
) -> None:
    invocation = stage.cloud.lambdas.invoke(scratch(handler), event)
    assert invocation.error is None
    assert invocation.answer.items() >= answer.items()


def test_a_wrong_setting_stops_the_cold_start_and_is_named(stage: Stage, scratch: Scratch) -> None:
    invocation = stage.cloud.lambdas.invoke(scratch("react", MODE="perhaps"), {})
    assert "MODE is 'perhaps'; accepted: rescue, opt-in, observe" in str(invocation.error)
