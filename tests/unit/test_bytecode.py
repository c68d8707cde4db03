"""Bytecode for the zip: there while Chalice packs, made of the very sources, gone afterwards."""

from collections.abc import Iterator
from importlib.util import cache_from_source, source_from_cache, source_hash
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from localcloud.deployment import PROJECT, copy_project
from spotctl import bytecode
from spotctl.context import run_chalice
from spotctl.errors import RefusedError

MADE_BY_HASH = (0b11).to_bytes(4, "little")
"""PEP 552: by the source's hash, which is looked at when it is loaded."""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    copy_project(folder)
    return folder


def files_in(folder: Path) -> set[Path]:
    return {path.relative_to(folder) for path in folder.rglob("*")}


@pytest.fixture
def packed(project: Path) -> Iterator[Path]:
    with bytecode.packed(project):
        yield project


@pytest.mark.parametrize("folder", bytecode.OWN)
def test_all_of_our_own_is_compiled_by_its_hash(packed: Path, folder: str) -> None:
    sources = list((packed / folder).rglob("*.py"))
    assert sources
    for source in sources:
        made = Path(cache_from_source(str(source))).read_bytes()
        assert made[4:16] == MADE_BY_HASH + source_hash(source.read_bytes()), source
        assert str(packed).encode() not in made


@pytest.mark.parametrize(
    "module",
    ["app", "chalice/app", "typing_extensions", "jmespath/parser"]
    + [f"aws_lambda_powertools/{name}" for name in ("__init__", "logging/logger", "metrics/base")],
)
def test_what_the_lambdas_load_of_libraries_is_compiled(packed: Path, module: str) -> None:
    made = Path(cache_from_source(str(packed / "vendor" / f"{module}.py")))
    assert made.read_bytes()[4:8] == MADE_BY_HASH
    assert str(PROJECT).encode() not in made.read_bytes()


def test_what_no_lambda_loads_is_left_out(packed: Path) -> None:
    made = {
        Path(source_from_cache(str(path))).relative_to(packed / "vendor")
        for path in (packed / "vendor").rglob("*.pyc")
    }
    assert Path("aws_lambda_powertools/event_handler/api_gateway.py") not in made
    assert {path.parts[0].removesuffix(".py") for path in made} == set(bytecode.BESIDE)


def test_what_was_put_into_vendor_is_taken_away_where_the_deploy_fails(project: Path) -> None:
    before = files_in(project / "vendor")
    with pytest.raises(RuntimeError, match="no"), bytecode.packed(project):
        raise RuntimeError("no")
    assert files_in(project / "vendor") == before


@pytest.mark.parametrize("folder", ["chalicelib", "infra", "vendor/jmespath"])
def test_old_bytecode_is_not_packed(project: Path, folder: str) -> None:
    old = project / folder / "__pycache__" / "wiring.cpython-27.pyc"
    old.parent.mkdir(parents=True)
    old.write_bytes(b"old")
    with bytecode.packed(project):
        assert not old.exists()


def test_an_app_that_cannot_be_imported_is_not_deployed(project: Path) -> None:
    (project / "app.py").write_text("import no_such_module")
    before = files_in(project)
    stage: Any = SimpleNamespace(folder=project, stage="dev")
    with pytest.raises(RefusedError, match=r"cannot be imported: .* named 'no_such_module'"):
        run_chalice(stage, "deploy", print)
    assert files_in(project) == before
