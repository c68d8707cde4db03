"""Planted mistakes: each must be noticed by a test, or the tests prove less than they say.

A mutant is the project, copied, with one text replaced; then the tests that ought to notice are run
on the copy, which pass on a copy without a mistake. `make test` runs all of these tests, in memory.
The mistakes are rows of `mutants.toml`. Run as a program: `python -m tests.faults.mutants`; writes
`build/mutants.json`.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.progress import note

ROOT = Path(__file__).resolve().parent.parent.parent
RESULT = ROOT / "build" / "mutants.json"
IN_MEMORY = ("tests/unit/", "tests/laws/", "tests/faults/")
NOT_COPIED = ("build", "docs")
SECONDS = 600


@dataclass(frozen=True)
class Mutant:
    """One mistake, where it is planted, and the tests that ought to notice."""

    name: str
    file: str
    right: str
    wrong: str
    tests: tuple[str, ...]

    def plant_in(self, folder: Path) -> None:
        """Make the mistake in a copy of the project. Raises SystemExit unless it fits once."""
        target = folder / self.file
        source = target.read_text()
        if source.count(self.right) != 1:
            raise SystemExit(f"mutant {self.name!r} fits nowhere in {self.file} any more")
        target.write_text(source.replace(self.right, self.wrong))


MUTANTS = tuple(
    Mutant(**{**row, "tests": tuple(row["tests"])})
    for row in tomllib.loads(Path(__file__).with_suffix(".toml").read_text())["mutant"]
)


def main() -> int:
    """Try all on all cores; return 1 unless all are noticed."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        without_a_mistake = pool.submit(first_failure, None)
        caught_by = list(pool.map(_try, MUTANTS))
    if failed := without_a_mistake.result():  # it would catch every mutant
        raise SystemExit(f"without any mistake planted, there fails {failed}")
    caught = sum(map(bool, caught_by))
    found = [
        {"name": mutant.name, "file": mutant.file, "caught_by": test or None}
        for mutant, test in zip(MUTANTS, caught_by, strict=True)
    ]
    figures = {"planted": len(found), "caught_by_test": caught, "caught_by_all": caught}
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps({**figures, "mutants": found}, indent=2) + "\n")
    print(f"{caught} of {len(found)} planted mistakes noticed")
    return 0 if caught == len(found) else 1


def _try(mutant: Mutant) -> str:
    began = time.monotonic()
    test = first_failure(mutant)
    said = "caught" if test else "NOT CAUGHT"
    print(f"{said:<10} {mutant.name:<45} {time.monotonic() - began:4.0f} s  {test}", flush=True)
    note(f"{said}: {mutant.name}")
    return test


def first_failure(mutant: Mutant | None) -> str:
    """Return the first test that fails on a copy with this mistake; empty when all pass in time.

    Without a mutant, all tests are run on a copy as it is. A test that errs proves nothing: raises
    SystemExit.
    """
    tests = mutant.tests if mutant else sorted({test for each in MUTANTS for test in each.tests})
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        _copy_project(copy)
        if mutant:
            mutant.plant_in(copy)
        options = ["-q", "-x", "-p", "no:cacheprovider", "--hypothesis-profile=first-failure"]
        try:
            finished = subprocess.run(
                [sys.executable, "-m", "pytest", *options, *tests],
                cwd=copy,
                capture_output=True,
                text=True,
                check=False,
                timeout=SECONDS,
            )
        except subprocess.TimeoutExpired:
            return ""
    failed = [line for line in finished.stdout.splitlines() if line.startswith("FAILED")]
    if finished.returncode != (1 if failed else 0):
        raise SystemExit(f"the tests could not be run:\n{finished.stdout[-2000:]}")
    return failed[0].split(" - ")[0].removeprefix("FAILED ") if failed else ""


def _copy_project(folder: Path) -> None:
    """Copy what the tests need; environments stay where they are."""
    ignore = shutil.ignore_patterns("__pycache__")
    for source in ROOT.iterdir():
        target = folder / source.name
        if source.name in (".venv", ".venvs"):
            target.symlink_to(source.resolve())
        elif source.is_file():
            shutil.copy2(source, target)
        elif not source.name.startswith(".") and source.name not in NOT_COPIED:
            shutil.copytree(source, target, symlinks=True, ignore=ignore)


if __name__ == "__main__":
    sys.exit(main())
