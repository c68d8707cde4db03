"""Bytecode for the zip: Lambda cannot keep any, and would compile the code in every cold start.

It is loaded only where it was made of the very source beside it (PEP 552, checked hashes), so what
does not fit costs time and nothing else. Files' times, which Python goes by otherwise, need not
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
"""Folders of the project that Chalice packs with all that is in them."""

VENDOR: Final = "vendor"
"""Chalice packs what is in it at the zip's root."""

BESIDE: Final = ("app", "aws_lambda_powertools", "chalice", "jmespath", "typing_extensions")
"""What else is in the zip; all other libraries come with Lambda, compiled."""

ON_LAMBDA: Final = Path("/var/task")
"""Where Lambda unpacks the zip, for tracebacks: no path of this machine goes with it."""

_TELL_SOURCES: Final = """
import importlib, pkgutil, sys
sys.path.insert(0, ".")
import app, chalicelib
for module in pkgutil.walk_packages(chalicelib.__path__, "chalicelib."):
    importlib.import_module(module.name)
for name, module in sys.modules.items():
    if name.partition(".")[0] in sys.argv[1:] and (source := getattr(module, "__file__", None)):
        print(name, source, sep="\\t")
"""


class AppError(Exception):
    """The app cannot be imported; the message is Python's."""


@contextmanager
def packed(project: Path) -> Iterator[None]:
    """While this lasts, Chalice finds bytecode to pack in the project's folder.

    That of our own code stays there. That of the libraries, of no more than the Lambdas load of
    them, is put into `vendor/` and taken away in the end.

    Raises:
        AppError: the app cannot be imported.
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
    """Return what the Lambdas load besides our own: its source here by its path in the zip."""
    told = subprocess.run(  # noqa: S603  # this very Python
        [sys.executable, "-B", "-c", _TELL_SOURCES, *BESIDE],
        cwd=project,
        capture_output=True,
        text=True,
        check=False,
    )
    if told.returncode != 0:
        raise AppError(told.stderr.strip().rpartition("\n")[2])
    sources = {}
    for line in told.stdout.splitlines():
        name, source = line.split("\t")
        path = Path(*name.split("."))
        is_package = Path(source).name == "__init__.py"
        sources[path / "__init__.py" if is_package else path.with_suffix(".py")] = Path(source)
    return sources


def _compile(source: Path, path: Path, folder: Path) -> None:
    py_compile.compile(
        str(source),
        cfile=cache_from_source(str(folder / path)),
        dfile=str(ON_LAMBDA / path),
        doraise=True,
        invalidation_mode=py_compile.PycInvalidationMode.CHECKED_HASH,
    )
