"""The zip that `chalice deploy` made: small, complete, with its bytecode, and each function starts.

What has to be in it is read from the import graph, in `tests/unit/test_zip_contents.py`.
"""

import io
import zipfile
from collections.abc import Iterator
from importlib.util import source_from_cache, source_hash
from pathlib import PurePosixPath
from typing import Any

import pytest

from localcloud.deployment import PROJECT
from tests.e2e.scenario import Stage, event_of_no_run

LARGEST_BYTES = 2_000_000
OURS = sorted(
    path.relative_to(PROJECT)
    for folder in ("chalicelib", "infra")
    for path in (PROJECT / folder).rglob("*")
    if path.suffix in (".py", ".json")
)
ABOUT_NO_RUN = event_of_no_run(lastStatus="STOPPED")
COPY = "copy-of-react"


@pytest.fixture
def deployed_zip(stage: Stage) -> Iterator[zipfile.ZipFile]:
    with zipfile.ZipFile(io.BytesIO(stage.zip_file())) as deployed:
        yield deployed


@pytest.fixture
def own_pool(stage: Stage) -> Iterator[str]:
    """A work pool without runs, so that no function of this file touches another test's runs."""
    prefect, name = stage.cloud.prefect, "of-the-zip"
    prefect.send("POST", "/work_pools/", {"name": name, "type": "ecs"})
    yield name
    prefect.send("DELETE", f"/work_pools/{name}")


def test_the_zip_is_small_and_holds_every_file_of_ours_and_no_workshop(
    stage: Stage, deployed_zip: zipfile.ZipFile
) -> None:
    assert len(stage.zip_file()) <= LARGEST_BYTES
    names = {PurePosixPath(name) for name in deployed_zip.namelist()}
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


def test_its_bytecode_is_of_its_sources(deployed_zip: zipfile.ZipFile) -> None:
    """Else Lambda would compile them in each cold start: PEP 552, by hashes that are checked."""
    names = deployed_zip.namelist()
    assert len(names) == len(set(names))
    made = {source_from_cache(name): deployed_zip.read(name) for name in names if ".pyc" in name}
    for source, bytecode in made.items():
        assert bytecode[4:8] == (0b11).to_bytes(4, "little"), source
        assert bytecode[8:16] == source_hash(deployed_zip.read(source)), source
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
    stage: Stage, own_pool: str, handler: str, event: Any, answer: Any
) -> None:
    with stage.copy_of_react(COPY, handler, WORK_POOL=own_pool):
        invocation = stage.cloud.lambdas.invoke(COPY, event)
    assert invocation.error is None
    assert invocation.answer.items() >= answer.items()


def test_a_wrong_setting_stops_the_cold_start_and_is_named(stage: Stage) -> None:
    with stage.copy_of_react(COPY, MODE="perhaps"):
        invocation = stage.cloud.lambdas.invoke(COPY, {})
    assert "MODE is 'perhaps'; accepted: rescue, opt-in, observe" in str(invocation.error)
