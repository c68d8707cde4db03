"""The zip lacks nothing that the Lambdas import and carries nothing that they do not.

Read from the import graph, imports within functions included. That each function starts is shown by
a cold start in `tests/e2e/test_zip.py`.
"""

import re
import shutil
import sys
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import grimp
import pytest

from localcloud.deployment import PROJECT
from spotctl.bytecode import OWN

APP = "lambda_app"
"""What `app.py` is called here: grimp reads packages, not single modules."""

PACKED_BY_CHALICE = "chalice"
FUNCTIONS = ("react", "meter", "sweep", "provision")


installed = cache(packages_distributions)


@pytest.fixture
def graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> grimp.ImportGraph:
    (tmp_path / APP).mkdir()
    shutil.copy(PROJECT / "app.py", tmp_path / APP / "__init__.py")
    monkeypatch.syspath_prepend(tmp_path)
    return grimp.build_graph(
        APP,
        *OWN,
        include_external_packages=True,
        exclude_type_checking_imports=True,
        cache_dir=None,
    )


def loaded(graph: grimp.ImportGraph) -> set[str]:
    """The modules that an import of `app`, or a call of its functions, may load."""
    found = {APP} | graph.find_upstream_modules(APP)
    parents = {name.rsplit(".", depth)[0] for name in found for depth in range(1, 5)}
    return found | (parents & graph.modules)


def ours(graph: grimp.ImportGraph) -> set[str]:
    return {name for name in graph.modules if name.partition(".")[0] in (APP, *OWN)}


def pinned(lock: str) -> set[str]:
    text = (PROJECT / lock).read_text()
    return set(re.findall(r"^([a-z0-9-]+)==", text, re.MULTILINE))


def imported_packages(graph: grimp.ImportGraph) -> set[str]:
    """Third-party distributions that the Lambdas import."""
    used = loaded(graph) - ours(graph) - sys.stdlib_module_names
    providers = installed()
    return {providers.get(name, [name])[0].lower().replace("_", "-") for name in used}


def test_every_module_in_the_zip_is_loaded_by_one_of_the_functions(
    graph: grimp.ImportGraph,
) -> None:
    assert ours(graph) - loaded(graph) == set()


def test_every_template_in_the_zip_is_read_by_a_module(graph: grimp.ImportGraph) -> None:
    paths = [path for folder in OWN for path in (PROJECT / folder).rglob("*.py")]
    sources = "".join(path.read_text() for path in paths)
    files = {p.name for f in OWN for p in (PROJECT / f).rglob("*") if p.suffix == ".json"}
    assert files == set(re.findall(r"\"([a-z-]+\.json)\"", sources))


def test_every_package_that_is_imported_is_in_the_zip_or_in_lambdas_python_and_none_in_vain(
    graph: grimp.ImportGraph,
) -> None:
    there = pinned("requirements.txt") | pinned("requirements/runtime.txt") | {PACKED_BY_CHALICE}
    imported = imported_packages(graph)
    assert imported - there == set()
    asked = (PROJECT / "requirements" / "lambda.in").read_text()
    assert {line for line in asked.splitlines() if line and not line.startswith("#")} <= imported


def test_nothing_but_the_app_imports_by_a_name_that_is_made_up(graph: grimp.ImportGraph) -> None:
    """The graph does not show such imports; the app's are of modules that its functions import."""
    assert graph.find_modules_that_directly_import("importlib") == {APP}
    imported = graph.find_modules_directly_imported_by(APP)
    assert {f"chalicelib.functions.{name}" for name in FUNCTIONS} <= imported
