"""The long form of the faults, `make faults`: all that can go wrong, then the planted mistakes.

What mostly waits, for servers, workers and flows, is tried beside what computes. It ends with the
report, and fails when any of them did.
"""

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from tests.faults import report
from tests.faults.ledger import FOLDER

HERE: Final = Path(__file__).parent
WAITING: Final = ("test_interplay.py", "test_misbehaving_world.py", "test_observer.py")
"""And the storm over the deployed zip: last, when the other lane has come to its end or nearly."""

LAST: Final = "test_storm_deployed.py"
PYTEST: Final = ("-m", "pytest", "--quiet", "--timeout", "3600")


def lanes() -> tuple[list[list[str]], list[list[str]]]:
    """Return the commands of the lane that computes, and of the one that waits."""
    modules = sorted(path.name for path in HERE.glob("test_*.py"))
    computing = [name for name in modules if name not in (*WAITING, LAST)]
    return (
        [[*PYTEST, *_paths(computing)], ["-m", "tests.faults.mutants"]],
        [[*PYTEST, *_paths(WAITING)], [*PYTEST, *_paths([LAST])]],
    )


def main() -> int:
    """Run both lanes, then put together what they found."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    with ThreadPoolExecutor() as pool:
        failed = [code for codes in pool.map(_run_all, lanes()) for code in codes if code]
    return report.main() or (1 if failed else 0)


def _run_all(commands: list[list[str]]) -> list[int]:
    environment = {**os.environ, "FAULTS": "full"}
    return [subprocess.call([sys.executable, *command], env=environment) for command in commands]


def _paths(names: list[str] | tuple[str, ...]) -> list[str]:
    return [str(HERE / name) for name in names]


if __name__ == "__main__":
    sys.exit(main())
