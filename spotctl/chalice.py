"""Chalice's own command, run in the project's folder."""

import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

from spotctl import bytecode
from spotctl.errors import RefusedError
from spotctl.project import Project


def chalice(project: Project, command: str, tell: Callable[[str], None]) -> int:
    """Run `chalice deploy` or `chalice delete` for the stage; return its exit code.

    What it prints goes to `tell`, a line at a time. What is deployed brings its bytecode.

    Raises:
        RefusedError: Chalice is not installed beside this Python, or the app cannot be imported.
    """
    program = Path(sys.executable).parent / "chalice"
    if not program.exists():
        raise RefusedError(
            f"there is no {program}", next_step="run spotctl with the project's own Python"
        )
    try:
        with bytecode.packed(project.folder) if command == "deploy" else nullcontext():
            return _run([str(program), command, "--stage", project.stage], project.folder, tell)
    except bytecode.AppError as error:
        raise RefusedError(
            f"the app cannot be imported: {error}", next_step="run `make check`, which shows it"
        ) from None


def _run(command: list[str], folder: Path, tell: Callable[[str], None]) -> int:
    with subprocess.Popen(  # noqa: S603  # our own Chalice, with a stage of our config
        command,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        for line in process.stdout or ():
            tell(line.rstrip())
    return process.returncode
