"""A real `chalice deploy` of a copy of this project, into the emulated AWS.

The copy keeps Chalice's own bookkeeping (`.chalice/deployed`) out of the user's tree.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from localcloud.aws import Aws
from spotctl import bytecode

PROJECT = Path(__file__).resolve().parent.parent
SHIPPED = ("app.py", "chalicelib", "infra", "vendor", ".chalice", "requirements.txt")
_NOT_SHIPPED = shutil.ignore_patterns("__pycache__", "*.pyc", "deployed", "deployments")


def deploy(
    aws: Aws, folder: Path, stage: str, settings: Mapping[str, str], timeout_seconds: int
) -> None:
    """Deploy stage `stage` from a copy in `folder`, its environment changed by `settings`.

    The copy is made when it is not there yet. The zip brings its bytecode, as `spotctl deploy` has
    it. Raises RuntimeError with Chalice's output when it fails.
    """
    if not folder.exists():
        copy_project(folder)
    with bytecode.packed(folder):
        deploy_folder(aws, folder, stage, settings, timeout_seconds)


def deploy_as_shipped(aws: Aws, folder: Path, stage: str, api_url: str, parameter: str) -> None:
    """Deploy a copy as a new user does: a plain `chalice deploy`, after two settings.

    `parameter` holds a basic auth string, so its setting takes the place of the API key's.
    """
    copy_project(folder)
    path = folder / ".chalice" / "config.json"
    config = json.loads(path.read_text())
    settings = config["stages"][stage]["environment_variables"]
    del settings["PREFECT_API_KEY_PARAMETER"]
    settings |= {"PREFECT_API_URL": api_url, "PREFECT_API_AUTH_STRING_PARAMETER": parameter}
    path.write_text(json.dumps(config, indent=2))
    chalice = Path(sys.executable).parent / "chalice"
    run_program([str(chalice), "deploy", "--stage", stage], aws.environment(), folder)


def deploy_folder(
    aws: Aws, folder: Path, stage: str, settings: Mapping[str, str], timeout_seconds: int
) -> None:
    """Deploy any Chalice project as it is: its zip brings no bytecode."""
    configure(folder, stage, settings, timeout_seconds)
    chalice = Path(sys.executable).parent / "chalice"
    run_program([str(chalice), "deploy", "--stage", stage], aws.environment(), folder)


def run_program(
    command: Sequence[str], environment: Mapping[str, str], folder: Path = PROJECT
) -> str:
    """Run a program with `environment` in place of the host's own settings of that kind.

    Returns its output; raises RuntimeError with it when the program fails.
    """
    foreign = ("AWS_", "PREFECT_", "PYTHON", "SPOTCTL_")
    host = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(foreign) and not name.lower().endswith("_proxy")
    }
    finished = subprocess.run(
        command,
        cwd=folder,
        env={**host, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if finished.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed:\n{finished.stdout}")
    return finished.stdout


def copy_project(folder: Path, project: Path = PROJECT) -> None:
    """Copy what `chalice deploy` needs of this project, or of another checkout of it."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in SHIPPED:
        source, target = project / name, folder / name
        if source.is_dir():
            shutil.copytree(source, target, symlinks=True, ignore=_NOT_SHIPPED)
        else:
            shutil.copy2(source, target)


def configure(folder: Path, stage: str, settings: Mapping[str, str], timeout_seconds: int) -> None:
    """Change the stage's environment in the copy's config, as a user would in their own."""
    path = folder / ".chalice" / "config.json"
    config = json.loads(path.read_text())
    config["stages"][stage]["environment_variables"] = {"STAGE": stage, **settings}
    config["stages"][stage]["lambda_timeout"] = timeout_seconds
    path.write_text(json.dumps(config, indent=2))
