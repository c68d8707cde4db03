"""The zip that `chalice deploy` made: complete, small, and nothing in it that is not needed."""

import io
import zipfile
from collections.abc import Iterator
from importlib.util import source_from_cache, source_hash
from pathlib import Path, PurePosixPath
from typing import Any

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
LOADED_WHEN_ASKED = frozenset(
    PurePosixPath("chalicelib") / name
    for name in (
        "adapters/metrics.py",
        "core/guards/economics.py",
    )
)
"""What an event may ask for that the one here does not: a guard that is on, a value measured."""

READ_BY_PROVISION_ALONE = (Path("infra/base-job-template.json"), Path("infra/stack.json"))
"""Their absence is tried in `tests/localcloud/test_provision_zip.py`."""

OTHERS = ("aws_lambda_powertools", "chalice")
HANDLERS = ("app.react", "app.meter", "app.sweep", "app.provision")


@pytest.fixture
def zipped(stage: Stage) -> bytes:
    code = stage.cloud.aws.lambdas.get_function(REACT).code_bytes
    assert isinstance(code, bytes)
    return code


@pytest.fixture
def scratch(stage: Stage) -> Iterator[str]:
    """A second function with the same environment, whose code a test may spoil."""
    functions = stage.cloud.aws.client("lambda")
    config = functions.get_function_configuration(FunctionName=REACT)
    functions.create_function(
        FunctionName="spoilt",
        Runtime=config["Runtime"],
        Role=config["Role"],
        Handler=config["Handler"],
        Timeout=config["Timeout"],
        Environment=config["Environment"],
        Code={"ZipFile": b"nothing"},
    )
    yield "spoilt"
    functions.delete_function(FunctionName="spoilt")


def without(code: bytes, gone: PurePosixPath) -> bytes:
    """Return the zip without a file, or without all that is in a folder."""
    rest = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(code)) as old, zipfile.ZipFile(rest, "w") as new:
        kept = [n for n in old.namelist() if not PurePosixPath(n).is_relative_to(gone)]
        assert len(kept) < len(old.namelist()), f"{gone} was not in the zip"
        for name in kept:
            new.writestr(old.getinfo(name), old.read(name))
    return rest.getvalue()


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
        "simulation",
        "spotctl",
        "tests",
        "bench",
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


def test_without_any_module_or_package_one_of_the_functions_fails(
    stage: Stage, zipped: bytes, scratch: str
) -> None:
    """Each is deleted in turn; whichever of the functions loads it has to fail.

    A package's `__init__` only says what the package is for: Python does without it, the test
    above does not.
    """
    needed = [path for path in OURS if path not in READ_BY_PROVISION_ALONE]
    modules = [PurePosixPath(path) for path in needed if path.name != "__init__.py"]
    modules += [PurePosixPath("infra/__init__.py"), *map(PurePosixPath, OTHERS)]
    functions = stage.cloud.aws.client("lambda")

    def ends_well(handler: str) -> bool:
        functions.update_function_configuration(FunctionName=scratch, Handler=handler)
        return stage.cloud.lambdas.invoke(scratch, about_a_run_that_is_not()).status == "ok"

    unharmed = []
    for gone in modules:
        functions.update_function_code(FunctionName=scratch, ZipFile=without(zipped, gone))
        if all(map(ends_well, HANDLERS)):
            unharmed.append(gone)
    assert set(unharmed) <= LOADED_WHEN_ASKED
    functions.update_function_code(FunctionName=scratch, ZipFile=zipped)
    assert [handler for handler in HANDLERS if not ends_well(handler)] == []
    functions.update_function_configuration(FunctionName=scratch, Handler="app.react")
    answer = stage.cloud.lambdas.invoke(scratch, about_a_run_that_is_not())
    assert answer.answer == {"decision": "ignore", "reason": "Prefect does not know the flow run"}


def about_a_run_that_is_not() -> dict[str, Any]:
    """An interruption that is followed as far as Prefect, which knows no such run."""
    ours = "arn:aws:ecs:us-east-1:123456789012:{}"
    return make_event(
        {
            "taskArn": ours.format("task/prefect-spot-dev/0123456789abcdef"),
            "clusterArn": ours.format("cluster/prefect-spot-dev"),
            "lastStatus": "STOPPED",
        }
    )


def test_a_wrong_setting_stops_the_cold_start_and_is_named(stage: Stage, scratch: str) -> None:
    functions = stage.cloud.aws.client("lambda")
    variables = functions.get_function_configuration(FunctionName=REACT)["Environment"]["Variables"]
    functions.update_function_code(
        FunctionName=scratch, ZipFile=stage.cloud.aws.lambdas.get_function(REACT).code_bytes
    )
    functions.update_function_configuration(
        FunctionName=scratch, Environment={"Variables": {**variables, "MODE": "perhaps"}}
    )
    answer = stage.cloud.lambdas.invoke(scratch, {})
    assert answer.status != "ok"
    assert answer.error is not None
    assert "MODE is 'perhaps': accepted are rescue, opt-in, observe" in str(answer.error)
