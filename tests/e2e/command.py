"""Runs `spotctl` as an operator would: a command on their machine, its answer and exit code."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localcloud.cloud import Cloud
from localcloud.deployment import PROJECT

OPERATOR = "operator"
"""Whose access key the commands use: AWS knows the caller by it."""


@dataclass(frozen=True)
class CommandResult:
    """A finished command: exit code, stdout and stderr."""

    code: int
    out: str
    err: str

    @property
    def answer(self) -> Any:
        return json.loads(self.out)

    def __str__(self) -> str:
        return f"exit code {self.code}\n{self.out}\n{self.err}"


def spotctl(
    cloud: Cloud, *arguments: str, project: Path | None = None, **environment: str
) -> CommandResult:
    """Run a command on the stage that is deployed in the cloud, its output in a pipe.

    `project`: another folder with settings than the one that the cloud was deployed from.
    """
    caller = {**cloud.environment, "AWS_ACCESS_KEY_ID": OPERATOR, **environment}
    return spotctl_with(caller, project or project_of(cloud), *arguments)


def spotctl_with(environment: Mapping[str, str], project: Path, *arguments: str) -> CommandResult:
    """Run a command with these settings of AWS and Prefect in place of the host's."""
    host = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "PREFECT_"))}
    finished = subprocess.run(
        [sys.executable, "-m", "spotctl", *arguments, "--project-dir", project],
        cwd=PROJECT,
        env={**host, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    return CommandResult(finished.returncode, finished.stdout, finished.stderr)


def project_of(cloud: Cloud) -> Path:
    """The copy of the project that was deployed, with the stage's settings."""
    return cloud.folder / "project"


def states(result: CommandResult) -> Mapping[str, str]:
    """Each part's state, out of `status`."""
    return {row["part"]: row["state"] for row in result.answer["rows"]}
