"""Bytecode for the zip: there while Chalice packs, compiled from its sources, gone afterwards."""

from importlib.util import source_from_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from localcloud.deployment import PROJECT, copy_project
from spotctl import bytecode
from spotctl.context import run_chalice
from spotctl.errors import RefusedError


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    copy_project(folder)
    return folder


def files_in(folder: Path) -> set[Path]:
    return {path.relative_to(folder) for path in folder.rglob("*")}


def test_what_the_lambdas_load_is_compiled_and_nothing_else(project: Path) -> None:
    """By the hashes of its sources: `tests/e2e/test_zip.py`."""
    vendor = project / "vendor"
    for folder in ("chalicelib", "infra", "vendor/jmespath"):
        old = project / folder / "__pycache__" / "wiring.cpython-27.pyc"
        old.parent.mkdir(parents=True)
        old.write_bytes(b"old")
    with bytecode.packed(project):
        made = {Path(source_from_cache(str(path))): path for path in project.rglob("*.pyc")}
        own = {source for name in bytecode.OWN for source in (project / name).rglob("*.py")}
        libraries = {source.relative_to(vendor) for source in set(made) - own}
        for path in made.values():
            content = path.read_bytes()
            assert b"Raises " not in content, "a docstring"
            assert not [at for at in (PROJECT, project) if str(at).encode() in content], path
    assert own <= set(made)
    assert {path.parts[0].removesuffix(".py") for path in libraries} == set(bytecode.BESIDE)
    powertools = Path("aws_lambda_powertools")
    assert {powertools / "__init__.py", powertools / "metrics" / "base.py"} <= libraries
    assert powertools / "event_handler" / "api_gateway.py" not in libraries


def test_vendor_is_restored_where_the_deploy_fails(project: Path) -> None:
    before = files_in(project / "vendor")
    with pytest.raises(RuntimeError, match="no"), bytecode.packed(project):
        raise RuntimeError("no")
    assert files_in(project / "vendor") == before


def test_an_app_that_cannot_be_imported_is_not_deployed(project: Path) -> None:
    (project / "app.py").write_text("import no_such_module")
    before = files_in(project)
    stage: Any = SimpleNamespace(folder=project, stage="dev")
    with pytest.raises(RefusedError, match=r"cannot be imported: .* named 'no_such_module'"):
        run_chalice(stage, "deploy", print)
    assert files_in(project) == before
