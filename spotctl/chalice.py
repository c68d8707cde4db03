"""Chalice's own command, run in the project's folder."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from spotctl.errors import RefusedError
from spotctl.project import Project


def chalice(project: Project, command: str, tell: Callable[[str], None]) -> int:
    """Run `chalice deploy` or `chalice delete` for the stage; return its exit code.

    What it prints goes to `tell`, a line at a time.

    Raises:
        RefusedError: Chalice is not installed beside this Python.
    """
    program = Path(sys.executable).parent / "chalice"
    if not program.exists():
        raise RefusedError(f"there is no {program}: run spotctl with the project's own Python")
    # Chalice imports the app, and would ship the bytecode which that leaves behind.
    with subprocess.Popen(  # noqa: S603  # our own Chalice, with a stage of our config
        [program, command, "--stage", project.stage],
        cwd=project.folder,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        for line in process.stdout or ():
            tell(line.rstrip())
    return process.returncode
