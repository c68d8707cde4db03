"""Bytecode for the zip: Lambda cannot store any, and would compile the code in every cold start.

Python loads it only where the hash in it is that of the source beside it (PEP 552), so bytecode
that does not match costs time and nothing else. File times, Python's other way to check, need not
survive a zip.
"""

import py_compile
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import cache_from_source
from pathlib import Path
from typing import Final

OWN: Final = ("chalicelib", "infra")
"""Folders of the project that Chalice packs whole."""

VENDOR: Final = "vendor"
"""Chalice packs its content at the zip's root."""

BESIDE: Final = ("app", "aws_lambda_powertools", "chalice", "jmespath", "typing_extensions")
"""The other modules in the zip; all further libraries come with Lambda, compiled."""

ON_LAMBDA: Final = Path("/var/task")
"""Where Lambda unpacks the zip, for tracebacks: no path of this machine goes with it."""

_PRINT_SOURCES: Final = """
import importlib, pkgutil, sys
sys.path.insert(0, ".")
import app, chalicelib
for module in pkgutil.walk_packages(chalicelib.__path__, "chalicelib."):
    importlib.import_module(module.name)
for name, module in sys.modules.items():
    if name.partition(".")[0] in sys.argv[1:] and (source := getattr(module, "__file__", None)):
        end = "/__init__.py" if hasattr(module, "__path__") else ".py"
        print(name.replace(".", "/") + end, source, sep="\\t")
"""


class AppError(Exception):
    """The app cannot be imported; the message is Python's."""


@contextmanager
def packed(project: Path) -> Iterator[None]:
    """Keep bytecode in the project's folder, for Chalice to pack, until the context ends.

    That of our own code stays there. That of libraries, of the modules that the Lambdas load, is
    written to `vendor/` and removed at the end. Raises AppError: the app cannot be imported.
    """
    sources = _sources_beside(project)
    for folder in (*OWN, VENDOR):
        for old in list((project / folder).rglob("__pycache__")):
            shutil.rmtree(old)  # another Python's, one that goes by times, or of a deploy that died
    for folder in OWN:
        for source in (project / folder).rglob("*.py"):
            _compile(source, source.relative_to(project), project)
    vendor = project / VENDOR
    before = set(vendor.rglob("*"))
    try:
        for path, source in sources.items():
            _compile(source, path, vendor)
        yield
    finally:
        for made in sorted(set(vendor.rglob("*")) - before, reverse=True):
            if made.is_dir():
                made.rmdir()
            else:
                made.unlink()


def _sources_beside(project: Path) -> Mapping[Path, Path]:
    """Return the modules that the Lambdas load from libraries: path in the zip, source here."""
    finished = subprocess.run(  # noqa: S603  # this very Python
        [sys.executable, "-B", "-c", _PRINT_SOURCES, *BESIDE],
        cwd=project,
        capture_output=True,
        text=True,
        check=False,
    )
    if finished.returncode != 0:
        raise AppError(finished.stderr.strip().rpartition("\n")[2])
    pairs = (line.split("\t") for line in finished.stdout.splitlines())
    return {Path(path): Path(source) for path, source in pairs}


def _compile(source: Path, path: Path, folder: Path) -> None:
    """Compile as `python -OO` does: without docstrings, which are a seventh of the bytecode."""
    py_compile.compile(
        str(source),
        cfile=cache_from_source(str(folder / path)),
        dfile=str(ON_LAMBDA / path),
        doraise=True,
        optimize=2,
        invalidation_mode=py_compile.PycInvalidationMode.CHECKED_HASH,
    )
